//! Generates the message types from `zcache.proto`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=zcache.proto");
    let mut config = tonic_prost_build::configure();
    for message in ["StatusReport", "Daemon", "Store", "Totals", "Build", "Running"] {
        config = config.type_attribute(message, "#[derive(serde::Serialize, serde::Deserialize)]");
    }
    config.btree_map(".").compile_fds(protox::compile(["zcache.proto"], ["."])?)?;
    Ok(())
}
