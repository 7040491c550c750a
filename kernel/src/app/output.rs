//! What goes to the console: text for people, and the events.

#![forbid(unsafe_code)]

use core::fmt;

use crate::app::os;
use crate::report::{Event, printable};

/// Prints a line for people.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::app::output::write_line(format_args!($($arg)*))
    };
}
pub(crate) use say;

/// Prints a line in one piece, so that nothing else gets between.
pub fn write_line(line: fmt::Arguments<'_>) {
    os::write_console(alloc::format!("{line}\n").as_bytes());
}

/// Prints text of the model or the user, made harmless.
pub fn write_text(text: &str) {
    os::write_console(printable(text).as_bytes());
}

/// Prints an event.
pub fn emit(event: &Event) {
    os::write_console(event.to_record().as_bytes());
}

/// How often the bar is drawn anew, in µs: often enough to see that it moves.
const REDRAW_US: u64 = 100_000;
/// Width of the bar in characters.
const WIDTH: u64 = 32;

/// A bar that shows how much of a load is done. It appears once the load takes long enough to be
/// noticed, and ends its line when dropped.
pub struct Progress<'a> {
    label: &'a str,
    total: u64,
    drawn_us: u64,
    visible: bool,
}

impl<'a> Progress<'a> {
    /// A bar for `total` bytes.
    pub fn new(label: &'a str, total: u64) -> Self {
        Progress { label, total, drawn_us: os::now_us(), visible: false }
    }

    /// Shows that `done` bytes are done.
    pub fn update(&mut self, done: u64) {
        let now_us = os::now_us();
        if now_us.saturating_sub(self.drawn_us) >= REDRAW_US {
            self.drawn_us = now_us;
            self.visible = true;
            self.draw(done);
        }
    }

    fn draw(&self, done: u64) {
        let total = self.total.max(1);
        let filled = done.saturating_mul(WIDTH) / total;
        let bar: alloc::string::String =
            (0..WIDTH).map(|i| if i < filled { '#' } else { '.' }).collect();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let line = alloc::format!(
            "\r{} [{bar}] {:3} % of {:.1} MB",
            self.label,
            done.saturating_mul(100) / total,
            mb(self.total)
        );
        os::write_console(line.as_bytes());
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.visible {
            os::write_console(b"\n");
        }
    }
}
