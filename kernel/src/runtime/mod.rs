//! The runtime: a library OS in Hermit's manner, from the first instruction to power off.
//!
//! # Boot order
//!
//! 1. `boot.s`: drop to EL1 where that is possible, an early identity map in which only the image
//!    and the device tree are memory and all else devices, MMU and caches on, relocate the image,
//!    clear `.bss`. The same for every other core, less what is done once.
//! 2. [`start`]: read the device tree ([`machine`]), then the consoles speak. On an Apple M1 they show
//!    from here on how far the start has come ([`sign_of_life`]).
//! 3. Plan the memory: what the tree lists, less the image, the tree, the initrd and what is
//!    reserved; of the rest, the cores' stacks ([`stacks`]), the heap's page tables and then the heap.
//! 4. Build the final page tables ([`mmu`]), switch to them, map the heap by tables that only they have,
//!    move to the boot core's stack.
//! 5. Heap, interrupt controller and timer, the other cores ([`cores`]).
//! 6. On the fastest core ([`first_core`]): the banner and the `hello` event, the disk ([`block`], [`fs`])
//!    and the `disk` event.
//! 7. The application: `runtime_entry`. It calls the runtime through the Hermit ABI ([`abi`]).
//!
//! # Memory
//!
//! Everything is mapped where it lies physically. Nothing is both writable and executable, and nothing
//! is there for user mode, which PAN enforces where the processor has it.
//!
//! | what | where | mapped |
//! |---|---|---|
//! | page 0 | 0 | not |
//! | image: text | where the loader put it, on 2 MiB | read, execute |
//! | image: constants | behind it | read |
//! | image: variables, page tables for all but the heap | behind it | read, write |
//! | image: names of functions | behind it, where the header's `image_size` ends | read |
//! | device tree, initrd | where the loader put them | read |
//! | stacks | start of the first free range with room | read, write; guard pages not |
//! | page tables for the heap | behind them, if there is room | read, write |
//! | heap | all the rest of the RAM | read, write |
//! | model | in the heap | read, once it is loaded |
//! | reserved memory | as the tree says | not |
//! | on an Apple M1, what is below m1n1 and at the ends ([`apple_memory`]) | | not |
//! | framebuffer | as the tree or a Raspberry Pi's firmware says; reserved | read, write, uncached |
//! | devices that the tree lists and a driver uses | | read, write, device memory |

pub mod apple_memory;
pub mod apple_watchdog;
pub mod args;
pub mod block;
pub mod console;
pub mod cpufreq;
pub mod esr;
pub mod facts;
pub mod first_core;
pub mod fs;
pub mod futex;
pub mod header;
pub mod irq;
pub mod lent;
pub mod line;
pub mod lock;
pub mod machine;
pub mod mailbox;
pub mod memory;
pub mod mmio;
pub mod mmu;
pub mod power_manager;
pub mod psci;
pub mod stacks;
pub mod symbols;
pub mod text;
pub mod time;

#[cfg(target_os = "none")]
mod abi;
#[cfg(target_os = "none")]
mod backtrace;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod cache;
#[cfg(target_os = "none")]
mod cores;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod exceptions;
#[cfg(target_os = "none")]
mod fault;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod hermit;
#[cfg(target_os = "none")]
mod idle;
#[cfg(target_os = "none")]
mod image;
#[cfg(target_os = "none")]
mod input;
#[cfg(target_os = "none")]
mod logger;
#[cfg(target_os = "none")]
mod output;
#[cfg(target_os = "none")]
mod pages;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod sign_of_life;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod threads;
#[cfg(target_os = "none")]
mod videocore;
