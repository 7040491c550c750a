//! Progress of work that takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use host_io::console;

use crate::size;

/// Shows the progress of some bytes on standard error.
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Starts the progress of `total` bytes of `what`, such as "hashing tiny.gguf".
    pub fn new(what: String, total: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress { what, total, done: 0, started: Instant::now(), shown: None, terminal }
    }

    /// Adds `bytes` finished bytes.
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        // A line on a terminal is overwritten, but each line in a log stays.
        let pause = Duration::from_millis(if self.terminal { 250 } else { 5000 });
        let due = match self.shown {
            Some(shown) => shown.elapsed() >= pause,
            None => self.started.elapsed() >= Duration::from_secs(1),
        };
        if due {
            self.shown = Some(Instant::now());
            self.show();
        }
    }

    fn show(&self) {
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let per_second = self.done as f64 / self.started.elapsed().as_secs_f64();
        let line = format!("{}: {percent} %, {}/s", self.what, size::human(per_second as u64));
        match self.terminal {
            true => console::show(format!("\r\x1b[K{line}")),
            false => console::say(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            console::show("\r\x1b[K");
        }
    }
}
