//! Text to the consoles, with a lock, and with a bypass of the lock for a fault.
//!
//! The serial port and the screen get the same bytes. The port gets each byte at once. The screen
//! is drawn at the end of the text, so only the final changes are drawn.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use lock_api::MutexGuard;

use super::line::Line;
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::{this_core, time};
use crate::runtime::dev::console::Console;
use crate::runtime::dev::console::screen::{Screen, Text};
use crate::runtime::dev::devices;
use crate::runtime::dev::mmio::Mmio;
use crate::runtime::sched::ending;

/// Timeout of a fault's wait for another core to stop writing, in µs.
///
/// A host may leave a core of its virtual machine alone for long.
const TIMEOUT_US: u64 = 1_000_000;

static OUTPUT: SpinLock<Output> = SpinLock::new(Output { line: Line::START, text: Text::START });

/// The number of the core that may be writing, plus one; 0 while none may.
///
/// A core that stops keeps the lock, but is not writing any more.
static WRITING: AtomicUsize = AtomicUsize::new(0);

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
            self.write(b"\n", go_on);
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

/// Lets the calling core write, and no other one.
fn in_turn(write: impl FnOnce(&mut Output)) {
    ending::stop_if_ending();
    let mut output = OUTPUT.lock();
    WRITING.store(this_core::current() + 1, Ordering::Relaxed);
    // Either `take_over` sees that this core writes, or `go_on` sees that the run ends.
    fence(Ordering::SeqCst);
    write(&mut output);
    draw(|screen| screen.flush(go_on));
    WRITING.store(0, Ordering::Release);
}

/// Stops the calling core, whose turn it is, if another core ends the run.
///
/// The text of that core comes next.
fn go_on() {
    if ending::must_stop() {
        WRITING.store(0, Ordering::Release);
        ending::stop_core();
    }
}

/// Prints `text`, without another core's text in between.
pub fn write(text: &[u8]) {
    in_turn(|output| output.write(text, go_on));
}

/// Prints `text` and a newline on a line of its own.
///
/// No text of another core comes in between.
pub fn print_line(text: fmt::Arguments<'_>) {
    in_turn(|output| {
        output.begin();
        // The consoles accept every byte.
        let _ = writeln!(Printer(output), "{text}");
    });
}

struct Printer<'a>(&'a mut Output);

impl Write for Printer<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.write(s.as_bytes(), go_on);
        Ok(())
    }
}

/// The consoles for a core that ends the run.
///
/// The core does not wait for another core for long, as that core may be what broke. No other core
/// prints from then on. The wait for a stuck port has a timeout, too
/// ([`Console::write_byte`]).
pub struct Emergency {
    output: Output,
    /// The screen is not what broke.
    may_draw: bool,
}

impl Emergency {
    /// Takes the consoles over, once no other core is writing.
    pub fn take_over() -> Self {
        let me = this_core::current() + 1;
        let deadline = time::now_us() + TIMEOUT_US;
        fence(Ordering::SeqCst);
        let output = loop {
            if let Some(guard) = OUTPUT.try_lock() {
                // The lock stays held: the run ends with this text.
                break *MutexGuard::leak(guard);
            }
            let writing = WRITING.load(Ordering::Acquire);
            if writing == 0 || writing == me || time::now_us() >= deadline {
                break Output { line: Line::UNKNOWN, text: Text::START };
            }
            core::hint::spin_loop();
        };
        let may_draw = DRAWING.load(Ordering::Relaxed) != me;
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
