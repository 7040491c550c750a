//! The bare-metal binary. On a host it only says what it is.
#![cfg_attr(target_os = "none", no_std, no_main)]

// The entry, the application, the panic handler and the allocator are in the library.
#[cfg(target_os = "none")]
use kernel as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64: `make run` builds and starts it");
}
