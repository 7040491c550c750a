//! Input from the console.

use core::cell::Cell;
use core::mem::MaybeUninit;

use log::warn;

use super::console::Console;
use super::{devices, idle, time};

/// How often the receiver is looked at where it has no interrupt that ends a sleep, in µs.
const POLL_US: u64 = 10_000;

/// Waits for input, then takes what is there, at most `buf.len()` bytes. 0 only if `buf` is empty
/// or there is no console.
///
/// As many bytes at the start of `buf` are initialised then.
pub fn read(buf: &mut [MaybeUninit<u8>]) -> usize {
    let Some(console) = devices::console() else { return 0 };
    let Some((first, rest)) = buf.split_first_mut() else { return 0 };
    let byte = match console.read_byte() {
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
    n
}

fn wait(console: &dyn Console) -> u8 {
    let wakes = devices::wake_on_input().unwrap_or_else(|error| {
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
    while !idle::wait_until(&is_here, (!wakes).then(|| time::now_us() + POLL_US)) {}
    console.set_receive_interrupt(false);
    // There is no deadline: the wait ends with a byte.
    received.get().unwrap_or_default()
}
