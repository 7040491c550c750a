//! The runtime: a Hermit-style library OS, from the first instruction to power off.
//!
//! # Layers
//!
//! Each layer is a folder, the lowest first in this table. A layer imports from lower layers alone.
//! The test `kernel/tests/layers.rs` reads this table and all imports.
//!
//! | layer | contents |
//! |---|---|
//! | [`machine`] | what the device tree says |
//! | [`arch`] | one core by itself: registers, clock, caches, spin locks |
//! | [`mem`] | free memory, page tables, stacks, heap, protected pages |
//! | [`dev`] | drivers and buses; the devices of this machine; wake-up sources of idle cores |
//! | [`sched`] | cores that idle, start and end; threads, futexes, sleeping locks |
//! | [`io`] | text to the consoles and from them, the log |
//! | [`net`] | TCP/IP: addresses, sockets |
//! | [`fs`] | disks, volumes, archives, open files |
//! | [`end`] | panics, exceptions, backtraces, power off |
//! | [`abi`] | the Hermit ABI, converted to and from the types of the lower layers |
//! | [`entry`] | from the first instruction to the application |
//!
//! # Boot order
//!
//! 1. `entry/boot.s` drops to EL1 where that is possible. The early map is an identity map in which
//!    only the image and the device tree are memory, and everything else is device memory. With the
//!    MMU and the caches on, `boot.s` relocates the image and clears `.bss`. The other cores take
//!    the same path, without the steps that are done once.
//! 2. `entry/start.rs` reads the device tree ([`machine`]) and sets up the consoles. On an Apple M1
//!    the consoles show from here on how far the start has come (`io/sign_of_life.rs`).
//! 3. The memory is planned. Free memory is what the tree lists, without the image, the tree, the
//!    initrd and the reserved regions. The free memory holds the cores' stacks ([`mem::stacks`]),
//!    then the heap's page tables, then the heap.
//! 4. The final page tables are built ([`mem::mmu`]) and switched to. Tables that only the final
//!    map has then map the heap. The boot core moves to its own stack.
//! 5. The heap, the interrupt controller and the timer, and the other cores (`sched/smp.rs`) are
//!    started.
//! 6. The rest runs on the fastest core ([`sched::first_core`]). The banner and the `hello` event
//!    are printed, the disk is mounted ([`dev::block`], [`fs`]), and the `disk` event is printed.
//! 7. `runtime_entry` is the application. The application calls the runtime through the Hermit ABI
//!    ([`abi`]).
//!
//! # Memory
//!
//! Everything is mapped at its physical address. Nothing is both writable and executable. Nothing
//! is accessible to user mode, which PAN enforces where the processor has it.
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
//! | framebuffer | by the tree or a Raspberry Pi's firmware; reserved | read, write, uncached |
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
pub mod net;
pub mod sched;
