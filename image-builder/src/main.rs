//! `image-builder`: makes the files that Anchorite boots from.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    image_builder::main()
}
