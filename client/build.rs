//! Builds the observer and the guide, libraries without std or libc of their own, for the machine that the client is
//! built for.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=observer");
    println!("cargo:rerun-if-changed=../proto/src/driver.rs");
    println!("cargo:rerun-if-changed=../proto/src/trace.rs");
    build("observer");
    build("guide");
}

fn build(name: &str) {
    let var = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = PathBuf::from(var("OUT_DIR")).join(format!("{name}.so"));
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name"]);
    rustc.arg(format!("zcache_{name}"));
    rustc.arg("--target").arg(var("TARGET"));
    rustc.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1", "-C", "strip=symbols"]);
    // Without lto, core's own code would ask for the unwinder, which no library here has.
    rustc.args(["-C", "lto=fat", "-C", "force-unwind-tables=yes", "-C", "relocation-model=pic"]);
    rustc.args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-Wl,-z,now", "-C", "link-arg=-Wl,-z,norelro"]);
    rustc.args(["-C", "link-arg=-Wl,-z,noseparate-code"]);
    if var("CARGO_CFG_TARGET_ARCH") == "aarch64" {
        // The helpers for them live in a library that is not linked.
        rustc.args(["-C", "target-feature=-outline-atomics"]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("linker=");
        flag.push(linker);
        rustc.arg("-C").arg(flag);
    }
    rustc.arg("-o").arg(&out).arg(format!("observer/{name}.rs"));
    let status = rustc.status().unwrap_or_else(|error| panic!("rustc does not start: {error}"));
    assert!(status.success(), "the {name} does not build: {rustc:?}");
}
