//! Plays m1n1 under QEMU: starts the image as m1n1 does on an Apple M1.
//!
//! The image starts at EL2 with the host extensions on and the MMU off. The other cores wait in a
//! spin table.
//!
//! The image, the device tree and the initrd are put in memory by QEMU. `ci/boots` writes the tree, and
//! takes the addresses from the symbols of `stub.s`. Source: m1n1, src/smp.c and src/main.c.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64");
}

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("stub.s"));

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
