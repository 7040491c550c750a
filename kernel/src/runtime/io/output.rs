//! Text to the consoles: the lock around them, and the way around the lock for a fault.
//!
//! The serial port and the screen get the same bytes, the port at once and the screen when the text is
//! over: then only what has changed in the end is drawn.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};

use lock_api::MutexGuard;

use super::line::Line;
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::{this_core, time};
use crate::runtime::dev::console::Console;
use crate::runtime::dev::console::screen::{Screen, Text};
use crate::runtime::dev::devices;
use crate::runtime::dev::mmio::Mmio;
use crate::runtime::sched::ending;

/// How long a fault waits for the text that another core is printing, in µs.
const PATIENCE_US: u64 = 20_000;

static OUTPUT: SpinLock<Output> = SpinLock::new(Output { line: Line::START, text: Text::START });

/// The core that draws on the screen, plus one; 0 while none does.
static DRAWING: AtomicUsize = AtomicUsize::new(0);

/// How far the text has come.
#[derive(Clone, Copy)]
struct Output {
    line: Line,
    /// As the screen reads it.
    text: Text,
}

impl Output {
    /// Hands `text` to both consoles; `go_on` is called before each byte.
    fn write(&mut self, text: &[u8], mut go_on: impl FnMut()) {
        let (port, screen) = (devices::console(), devices::screen());
        self.line.write(text, |byte| {
            go_on();
            if let Some(port) = port {
                port.write_byte(byte);
            }
            if let Some(screen) = screen {
                screen.feed(&mut self.text, byte);
            }
        });
    }

    /// Goes to the start of a line.
    fn begin(&mut self) {
        if !self.line.is_at_start() {
            self.write(b"\n", ending::stop_if_ending);
        }
    }
}

/// Draws what was written.
fn draw(flush: impl FnOnce(&Screen<'static, Mmio>)) {
    if let Some(screen) = devices::screen() {
        DRAWING.store(this_core::current() + 1, Ordering::Relaxed);
        flush(screen);
        DRAWING.store(0, Ordering::Relaxed);
    }
}

/// Prints `text`, and nothing of another core's within it.
pub fn write(text: &[u8]) {
    ending::stop_if_ending();
    let mut output = OUTPUT.lock();
    // Stops if another core has begun to end the run: then its text comes next.
    output.write(text, ending::stop_if_ending);
    draw(|screen| screen.flush(ending::stop_if_ending));
}

/// Prints `text` and a newline on a line of its own, and nothing of another core's within it.
pub fn print_line(text: fmt::Arguments<'_>) {
    ending::stop_if_ending();
    let mut output = OUTPUT.lock();
    output.begin();
    // The consoles take every byte.
    let _ = writeln!(Printer(&mut output), "{text}");
    draw(|screen| screen.flush(ending::stop_if_ending));
}

struct Printer<'a>(&'a mut Output);

impl Write for Printer<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.write(s.as_bytes(), ending::stop_if_ending);
        Ok(())
    }
}

/// The consoles for a core that ends the run: it does not wait for the lock for long, as who holds
/// it may be what broke. No other core prints from then on. A port that is stuck is not waited for
/// without end either ([`Console::write_byte`]).
pub struct Emergency {
    output: Output,
    /// The screen is not what broke.
    may_draw: bool,
}

impl Emergency {
    /// Takes the consoles over, after a short wait for the text that another core is printing.
    pub fn take_over() -> Self {
        let deadline = time::now_us() + PATIENCE_US;
        let output = loop {
            if let Some(guard) = OUTPUT.try_lock() {
                // The lock stays taken: the run ends with this text.
                break *MutexGuard::leak(guard);
            }
            if time::now_us() >= deadline {
                break Output { line: Line::UNKNOWN, text: Text::START };
            }
            core::hint::spin_loop();
        };
        let may_draw = DRAWING.load(Ordering::Relaxed) != this_core::current() + 1;
        Emergency { output, may_draw }
    }
}

impl Write for Emergency {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.output.write(s.as_bytes(), || ());
        if self.may_draw {
            draw(Screen::flush_all);
        }
        Ok(())
    }
}
