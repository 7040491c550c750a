//! The `log` façade's way to the console: a line with its level.

use log::{LevelFilter, Log, Metadata, Record};

use super::output;
use crate::report::Printable;
use crate::runtime::arch::time;

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What other crates report is for whoever looks for a fault: fatfs warns of a volume that
        // is only unusual, and does so at each access.
        let ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let max = log::max_level();
        metadata.level() <= max && (ours || max >= LevelFilter::Debug)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = time::now_us();
            output::print_line(format_args!(
                "[{:3}.{:06}] {:5} {}",
                now / 1_000_000,
                now % 1_000_000,
                record.level(),
                Printable(record.args())
            ));
        }
    }

    fn flush(&self) {}
}

/// Starts logging, at level Info.
pub fn init() {
    // Fails only when a logger is set already.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
