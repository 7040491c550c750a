//! Input from the console.

use core::cell::Cell;
use core::mem::MaybeUninit;

use log::warn;
use spin::Mutex;

use crate::runtime::arch::time;
use crate::runtime::dev::console::Console;
use crate::runtime::dev::{devices, wake};
use crate::runtime::sched::idle;

/// How often the receiver is looked at where it has no interrupt that ends a sleep, in µs.
const POLL_US: u64 = 10_000;
/// How often where it has one: a port that raises none all the same is only slow then.
const DOUBT_US: u64 = 100_000;

/// The oldest byte received, after somebody has asked whether there is one.
///
/// A port gives it only once.
static AHEAD: Mutex<Option<u8>> = Mutex::new(None);

/// Whether [`read`] would not wait.
pub fn is_ready() -> bool {
    let mut ahead = AHEAD.lock();
    if ahead.is_none() {
        *ahead = devices::console().and_then(Console::read_byte);
    }
    ahead.is_some()
}

/// Waits for input, then takes what is there, at most `buf.len()` bytes. 0 only if `buf` is empty;
/// `None` if there is no port to receive by. As many bytes at the start of `buf` are initialised
/// then.
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

fn wait(console: &dyn Console) -> u8 {
    let wakes = wake::listen(&devices::RECEIVER).unwrap_or_else(|error| {
        warn!("the console's interrupt: {error}");
        false
    });
    console.set_receive_interrupt(true);
    let received = Cell::new(None);
    // A byte that was taken is kept: it may be asked for again.
    let is_here = || {
        if received.get().is_none() {
            received.set(console.read_byte());
        }
        received.get().is_some()
    };
    let period_us = if wakes { DOUBT_US } else { POLL_US };
    while !idle::wait_until(&is_here, Some(time::now_us() + period_us)) {}
    console.set_receive_interrupt(false);
    // There is no deadline: the wait ends with a byte.
    received.get().unwrap_or_default()
}
