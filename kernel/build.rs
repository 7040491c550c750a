//! Tells the linker how the bare-metal image is laid out. Builds for a host need none of it.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=kernel.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let script = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let script = script.join("kernel.ld");
    let script = format!("--script={}", script.display());
    for arg in [
        &script,
        // Position independent; boot.s is its own dynamic linker. `notext` lets the pointers in
        // read-only sections be relocated: the pages become read-only after that.
        "-pie",
        "--no-dynamic-linker",
        "-z",
        "notext",
        "-z",
        "norelro",
        // One bit a pointer instead of 24 bytes.
        "--pack-dyn-relocs=relr",
        "-z",
        "max-page-size=4096",
        "--build-id=none",
        "--fatal-warnings",
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
