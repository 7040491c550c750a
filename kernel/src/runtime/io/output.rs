//! Text to the consoles, with a lock, and with a bypass of the lock for a fault.
//!
//! The serial port and the screen get the same bytes. The port gets each byte at once. The screen
//! is drawn at the end of the text, so only the final changes are drawn.

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

/// Timeout of a fault's wait for the text of another core, in µs.
const TIMEOUT_US: u64 = 20_000;

static OUTPUT: SpinLock<Output> = SpinLock::new(Output { line: Line::START, text: Text::START });

/// The number of the core that draws on the screen, plus one; 0 while none does.
static DRAWING: AtomicUsize = AtomicUsize::new(0);

/// The state of the text so far.
#[derive(Clone, Copy)]
struct Output {
    line: Line,
    /// The state of the screen's decoder.
    text: Text,
}

impl Output {
    /// Sends `text` to both consoles; calls `go_on` before each byte.
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

    /// Starts a new line, unless the text is at the start of a line.
    fn begin(&mut self) {
        if !self.line.is_at_start() {
            self.write(b"\n", ending::stop_if_ending);
        }
    }
}

/// Draws the text so far on the screen.
fn draw(flush: impl FnOnce(&Screen<'static, Mmio>)) {
    if let Some(screen) = devices::screen() {
        DRAWING.store(this_core::current() + 1, Ordering::Relaxed);
        flush(screen);
        DRAWING.store(0, Ordering::Relaxed);
    }
}

/// Prints `text`, without another core's text in between.
pub fn write(text: &[u8]) {
    ending::stop_if_ending();
    let mut output = OUTPUT.lock();
    // The core stops if another core has begun to end the run: the text of that core comes next.
    output.write(text, ending::stop_if_ending);
    draw(|screen| screen.flush(ending::stop_if_ending));
}

/// Prints `text` and a newline on a line of its own.
///
/// No text of another core comes in between.
pub fn print_line(text: fmt::Arguments<'_>) {
    ending::stop_if_ending();
    let mut output = OUTPUT.lock();
    output.begin();
    // The consoles accept every byte.
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

/// The consoles for a core that ends the run.
///
/// The core does not wait for the lock for long, as the lock's holder may be what broke. No other
/// core prints from then on. The wait for a stuck port has a timeout, too
/// ([`Console::write_byte`]).
pub struct Emergency {
    output: Output,
    /// The screen is not what broke.
    may_draw: bool,
}

impl Emergency {
    /// Takes the consoles over, after a short wait for the text of another core.
    pub fn take_over() -> Self {
        let deadline = time::now_us() + TIMEOUT_US;
        let output = loop {
            if let Some(guard) = OUTPUT.try_lock() {
                // The lock stays held: the run ends with this text.
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
