//! The end of a run that broke: the report, the `error` and `exit` events, power off.
//!
//! Nothing here allocates or waits for a lock for long, since whoever holds it may be what broke.
//! The first core that gets here reports; any other one stops.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::text::Text;
use super::{backtrace, power};
use crate::report::{self, Code};
use crate::runtime::arch::this_core;
use crate::runtime::io::output;
use crate::runtime::mem::heap;
use crate::runtime::sched::ending::{self, Claim};

/// What to do about a fault in Anchorite itself.
pub const HINT: &str = "a fault in Anchorite itself: please report it with the lines above";

/// Reports a fault, `details` on the lines before the events, and powers off.
pub fn end(
    code: Code,
    message: fmt::Arguments<'_>,
    hint: &str,
    details: &dyn Fn(&mut dyn Write) -> fmt::Result,
) -> ! {
    if ending::claim() == Claim::Again {
        end_in_fault(message);
    }
    let mut out = output::Emergency::take_over();
    // The serial line takes every byte: nothing below can fail.
    let _ = writeln!(out, "{code}: {message}");
    let _ = details(&mut out);
    let _ = report::write_fault(&mut out, code, message, hint);
    let _ = report::write_exit(&mut out, 1);
    power::off(&mut out)
}

/// Ends the run when its end broke: one line and the events, no more.
pub fn end_in_fault(message: fmt::Arguments<'_>) -> ! {
    static TRIED: AtomicUsize = AtomicUsize::new(0);
    // Another core may be the one that reports; this one stops then.
    ending::claim();
    let mut out = output::Emergency::take_over();
    if TRIED.fetch_add(1, Ordering::AcqRel) == 0 {
        let _ = report::write_fault(&mut out, Code::Exception, message, HINT);
        let _ = report::write_exit(&mut out, 1);
    }
    power::off(&mut out)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let trace = |out: &mut dyn Write| backtrace::write_here(out);
    // Once, and before this core claims the end: code of anyone's runs here, and may break itself.
    let mut message = Text::<MESSAGE_BYTES>::new();
    let _ = write!(message, "{}", info.message());
    let message = message.as_str();
    if let Some(asked) = failed_allocation(message) {
        let free = heap::memory().free_bytes;
        end(
            Code::OutOfMemory,
            format_args!("{asked} bytes were asked for, {free} bytes are free"),
            "give the machine more memory (MEM=, -m), or use a smaller context or model",
            &trace,
        );
    }
    let core = this_core::current();
    match info.location() {
        Some(at) => end(
            Code::Panic,
            format_args!("{message} ({}:{}), core {core}", at.file(), at.line()),
            HINT,
            &trace,
        ),
        None => end(Code::Panic, format_args!("{message}, core {core}"), HINT, &trace),
    }
}

/// The most bytes of a panic's message that are shown.
const MESSAGE_BYTES: usize = 1024;

/// The bytes that an allocation failed for, if that is what the panic says. Stable Rust has no
/// other hook: `alloc` panics with this sentence.
fn failed_allocation(message: &str) -> Option<usize> {
    let rest = message.strip_prefix("memory allocation of ")?;
    rest.strip_suffix(" bytes failed")?.parse().ok()
}
