//! Shows the progress of the start on an Apple M1, before the first text.
//!
//! Between m1n1's last line and the banner nothing else is visible. By then m1n1 has cleared its
//! text.
//!
//! Each stage puts its digit on the serial line, and the next text overwrites the digit. Each stage
//! also puts a square into the screen's corner, and the first text clears the squares.
//!
//! Before the first stage no console is known. A fault there stops the core at `early_fault`
//! (`vectors.s`).
#![forbid(unsafe_code)]

use crate::runtime::dev::console::Console;
use crate::runtime::dev::devices;
use crate::runtime::machine::{Chip, Machine};

/// A stage of the start, as the boot core has completed it.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// The boot core has read the tree.
    Tree,
    /// The boot core has gone to the final map.
    Map,
    /// The boot core has started the other cores.
    Cores,
}

/// Shows that `stage` is reached.
///
/// The boot core calls this before another core prints.
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
