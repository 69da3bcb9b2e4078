//! `zcache-client`: the shim's program, named in RUSTC_WRAPPER.

fn main() {
    zcache_client::shim::run()
}
