//! Passes the layout of the bare-metal image to the linker.
//!
//! Builds for a host need no layout.

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
        // The image is position independent, and boot.s is its own dynamic linker. `notext` allows
        // relocation of pointers in read-only sections. The pages of these sections become
        // read-only after the relocation.
        "-pie",
        "--no-dynamic-linker",
        "-z",
        "notext",
        "-z",
        "norelro",
        // A relocation takes one bit a pointer instead of 24 bytes.
        "--pack-dyn-relocs=relr",
        "-z",
        "max-page-size=4096",
        "--build-id=none",
        "--fatal-warnings",
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
