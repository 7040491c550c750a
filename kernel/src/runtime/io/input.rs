//! Input from the console.

use core::cell::Cell;
use core::mem::MaybeUninit;

use log::warn;
use spin::Mutex;

use crate::runtime::arch::time;
use crate::runtime::dev::console::Console;
use crate::runtime::dev::{devices, wake};
use crate::runtime::sched::idle;

/// Poll interval of a receiver without an interrupt that ends a sleep, in µs.
const POLL_US: u64 = 10_000;
/// Poll interval of a receiver with such an interrupt, in µs.
///
/// A port that does not raise its interrupt all the same is only slow then.
const DOUBT_US: u64 = 100_000;

/// The oldest byte received, after a call of [`is_ready`] has taken it.
///
/// A port gives each byte only once.
static AHEAD: Mutex<Option<u8>> = Mutex::new(None);

/// Whether [`read`] would not wait.
pub fn is_ready() -> bool {
    let mut ahead = AHEAD.lock();
    if ahead.is_none() {
        *ahead = devices::console().and_then(Console::read_byte);
    }
    ahead.is_some()
}

/// Waits for input, then takes the bytes that are there, at most `buf.len()`.
///
/// The result is the number of bytes, which are initialised at the start of `buf`. The result is 0
/// only if `buf` is empty, and `None` without a port to receive by.
pub fn read(buf: &mut [MaybeUninit<u8>]) -> Option<usize> {
    let console = devices::console()?;
    let Some((first, rest)) = buf.split_first_mut() else { return Some(0) };
    let byte = match AHEAD.lock().take().or_else(|| console.read_byte()) {
        Some(byte) => byte,
        None => wait(console),
    };
    first.write(byte);
    let mut n = 1;
    for place in rest {
        let Some(byte) = console.read_byte() else { break };
        place.write(byte);
        n += 1;
    }
    Some(n)
}

/// Lets input end the calling core's sleep; `None` without a port to receive by.
///
/// The result is the longest time in µs to sleep without a look at the port.
pub fn enable_wake() -> Option<u64> {
    let console = devices::console()?;
    let wakes = wake::listen(&devices::RECEIVER).unwrap_or_else(|error| {
        warn!("the console's interrupt: {error}");
        false
    });
    console.set_receive_interrupt(true);
    Some(if wakes { DOUBT_US } else { POLL_US })
}

/// Lets input end no core's sleep any more.
pub fn disable_wake() {
    if let Some(console) = devices::console() {
        console.set_receive_interrupt(false);
    }
}

fn wait(console: &dyn Console) -> u8 {
    let period_us = enable_wake().unwrap_or(POLL_US);
    let received = Cell::new(None);
    // A byte that was taken is kept, because the condition may be checked again.
    let is_here = || {
        if received.get().is_none() {
            received.set(console.read_byte());
        }
        received.get().is_some()
    };
    while !idle::wait_until(&is_here, Some(time::now_us() + period_us)) {}
    disable_wake();
    // The wait has no deadline, so the wait ends with a byte.
    received.get().unwrap_or_default()
}
