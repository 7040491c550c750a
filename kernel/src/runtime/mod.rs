//! The runtime: a library OS in Hermit's manner, from the first instruction to power off.
//!
//! # Layers
//!
//! Each layer is a folder. A layer imports from the layers above it in this table, never from those
//! below it (`kernel/tests/layers.rs`).
//!
//! | layer | what lives there |
//! |---|---|
//! | [`machine`] | what the device tree says |
//! | [`arch`] | one core by itself: registers, clock, caches, spin locks |
//! | [`mem`] | free memory, page tables, stacks, heap, protected pages |
//! | [`dev`] | drivers and buses; the devices of this machine; what may wake an idle core |
//! | [`sched`] | cores that idle, start and end; threads, futexes, sleeping locks |
//! | [`io`] | text to the consoles and from them, the log |
//! | [`fs`] | disks, volumes, archives, open files |
//! | [`end`] | panics, exceptions, backtraces, power off |
//! | [`abi`] | the Hermit ABI, converted to and from the types of the layers above |
//! | [`entry`] | from the first instruction to the application |
//!
//! # Boot order
//!
//! 1. `entry/boot.s`: drop to EL1 where that is possible, an early identity map in which only the
//!    image and the device tree are memory and all else devices, MMU and caches on, relocate the
//!    image, clear `.bss`. The same for every other core, less what is done once.
//! 2. `entry/start.rs`: read the device tree ([`machine`]), then the consoles speak. On an Apple M1
//!    they show from here on how far the start has come (`io/sign_of_life.rs`).
//! 3. Plan the memory: what the tree lists, less the image, the tree, the initrd and what is
//!    reserved; of the rest, the cores' stacks ([`mem::stacks`]), the heap's page tables and then the
//!    heap.
//! 4. Build the final page tables ([`mem::mmu`]), switch to them, map the heap by tables that only
//!    they have, move to the boot core's stack.
//! 5. Heap, interrupt controller and timer, the other cores (`sched/smp.rs`).
//! 6. On the fastest core ([`sched::first_core`]): the banner and the `hello` event, the disk
//!    ([`dev::block`], [`fs`]) and the `disk` event.
//! 7. The application: `runtime_entry`. The application calls the runtime through the Hermit ABI
//!    ([`abi`]).
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
//! | on an Apple M1, what is below m1n1 and at the ends ([`mem::apple_memory`]) | | not |
//! | framebuffer | as the tree or a Raspberry Pi's firmware says; reserved | read, write, uncached |
//! | devices that the tree lists and a driver uses | | read, write, device memory |

pub mod abi;
pub mod arch;
pub mod dev;
pub mod end;
pub mod entry;
pub mod fs;
pub mod io;
pub mod machine;
pub mod mem;
pub mod sched;
