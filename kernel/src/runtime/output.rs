//! Text to the console: the lock around it, and the way around the lock for a fault.

use core::fmt::{self, Write};

use spin::{Mutex, MutexGuard};

use super::console::Console;
use super::line::Line;
use super::{devices, fault, time};

/// How long a fault waits for the text that another core is printing, in µs.
const PATIENCE_US: u64 = 20_000;

static LINE: Mutex<Line> = Mutex::new(Line::START);

/// Prints `text`, and nothing of another core's within it.
pub fn write(text: &[u8]) {
    fault::stop_if_ending();
    let Some(console) = devices::console() else { return };
    let mut line = LINE.lock();
    line.write(text, |byte| put(console, byte));
}

/// Sends one byte, unless another core has begun to end the run: then its text comes next.
fn put(console: &dyn Console, byte: u8) {
    fault::stop_if_ending();
    console.write_byte(byte);
}

/// Prints `text` and a newline on a line of its own, and nothing of another core's within it.
pub fn print_line(text: fmt::Arguments<'_>) {
    fault::stop_if_ending();
    let Some(console) = devices::console() else { return };
    let mut line = LINE.lock();
    line.begin(|byte| put(console, byte));
    // The console takes every byte.
    let _ = writeln!(Printer { line: &mut line, console }, "{text}");
}

struct Printer<'a> {
    line: &'a mut Line,
    console: &'static dyn Console,
}

impl Write for Printer<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.line.write(s.as_bytes(), |byte| put(self.console, byte));
        Ok(())
    }
}

/// The console for a core that ends the run: it does not wait for the lock for long, as who holds
/// it may be what broke. No other core prints from then on.
pub struct Emergency {
    line: Line,
}

impl Emergency {
    /// Waits a little for the text that another core is printing.
    pub fn new() -> Self {
        let deadline = time::now_us() + PATIENCE_US;
        let line = loop {
            if let Some(guard) = LINE.try_lock() {
                // The lock stays taken: the run ends with this text.
                break *MutexGuard::leak(guard);
            }
            if time::now_us() >= deadline {
                break Line::UNKNOWN;
            }
            core::hint::spin_loop();
        };
        Emergency { line }
    }
}

impl Write for Emergency {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if let Some(console) = devices::console() {
            self.line.write(s.as_bytes(), |byte| console.write_byte(byte));
        }
        Ok(())
    }
}
