//! Shows on an Apple M1 how far the kernel has come, before it says anything.
//!
//! Between m1n1's last line and the banner nothing else is to be seen, and m1n1 has cleared its text by
//! then. Each stage puts its digit on the serial line, which the next text overwrites, and a square into
//! the screen's corner, which the first text clears. Before the first stage nothing is known that
//! anything could be shown on: a fault there stops the core at `early_fault` (`vectors.s`).
#![forbid(unsafe_code)]

use crate::runtime::dev::console::Console;
use crate::runtime::dev::devices;
use crate::runtime::machine::{Chip, Machine};

/// What the boot core has done.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It has read the tree.
    Tree,
    /// It has gone to the final map.
    Map,
    /// It has started the other cores.
    Cores,
}

/// Shows that `stage` is reached. For the boot core, before another one prints.
pub fn show(machine: &Machine<'_>, stage: Stage) {
    if machine.chip != Chip::Apple {
        return;
    }
    if let Some(console) = devices::console() {
        console.write_byte(b'1' + stage as u8);
        console.write_byte(b'\r');
    }
    if let Some(screen) = devices::screen() {
        screen.mark(stage as usize);
    }
}
