//! A Hermit application that tries out the runtime: the boot arguments name trials.
//!
//! `kernel::trials` lists the trials with what each must show. A trial that checks something prints
//! `NAME: ok` or `NAME: FAILED` and the run goes on. A trial that breaks something ends the run with
//! the error that it must show, so that each needs a boot of its own. `ci/boots.sh probe` boots all
//! of them; by hand:
//!
//! ```text
//! ci/toolchain.sh bare build --release -p kernel --bin probe
//! target/debug/image-builder kernel --elf target/bare/aarch64-unknown-none/release/probe \
//!     --out target/probe.img
//! qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 4 -m 256M -nic none -nographic \
//!     -kernel target/probe.img -append "threads futex sleep overflow"
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod early_map;
#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod files;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod loaders;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod os;
#[cfg(target_os = "none")]
mod stops;
#[cfg(target_os = "none")]
mod threads;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64");
}
