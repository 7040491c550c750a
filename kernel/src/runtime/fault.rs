//! The end of a run that broke: the report, the `error` and `exit` events, power off.
//!
//! Nothing here allocates or waits for a lock for long, since whoever holds it may be what broke.
//! The first core that gets here reports; any other one stops.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::text::Text;
use super::{backtrace, cores, heap, output, power};
use crate::report::{self, Code};

/// What to do about a fault in Anchorite itself.
pub const HINT: &str = "a fault in Anchorite itself: please report it with the lines above";

/// The core that ends the run, plus one; 0 while none does.
static ENDING: AtomicUsize = AtomicUsize::new(0);

/// Makes the calling core the one that ends the run. Returns if it is, or already was; stops the
/// core otherwise.
pub fn claim_end() -> Claim {
    let me = cores::current() + 1;
    match ENDING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Claim::First,
        Err(other) if other == me => Claim::Again,
        Err(_) => power::stop_core(),
    }
}

/// Stops the calling core if another one ends the run.
pub fn stop_if_ending() {
    let ending = ENDING.load(Ordering::Acquire);
    if ending != 0 && ending != cores::current() + 1 {
        power::stop_core();
    }
}

/// Whether this core is the first to end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is.
    First,
    /// It was ending the run already: the end itself broke.
    Again,
}

/// Reports a fault, `details` on the lines before the events, and powers off.
pub fn end(
    code: Code,
    message: fmt::Arguments<'_>,
    hint: &str,
    details: &dyn Fn(&mut dyn Write) -> fmt::Result,
) -> ! {
    if claim_end() == Claim::Again {
        end_in_fault(message);
    }
    let mut out = output::Emergency::new();
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
    claim_end();
    let mut out = output::Emergency::new();
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
        let free = heap::stats().free_bytes;
        end(
            Code::OutOfMemory,
            format_args!("{asked} bytes were asked for, {free} bytes are free"),
            "give the machine more memory (MEM=, -m), or use a smaller context or model",
            &trace,
        );
    }
    let core = cores::current();
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
