//! Input from the console.

use core::cell::Cell;

use log::warn;

use super::console::Console;
use super::{devices, idle};

/// Waits for input, then takes what is there, at most `buf.len()` bytes. 0 only if `buf` is empty
/// or there is no console.
pub fn read(buf: &mut [u8]) -> usize {
    let Some(console) = devices::console() else { return 0 };
    let Some((first, rest)) = buf.split_first_mut() else { return 0 };
    let byte = match console.read_byte() {
        Some(byte) => byte,
        None => wait(console),
    };
    *first = byte;
    let mut n = 1;
    for place in rest {
        let Some(byte) = console.read_byte() else { break };
        *place = byte;
        n += 1;
    }
    n
}

fn wait(console: &dyn Console) -> u8 {
    if let Err(error) = devices::wake_on_input() {
        warn!("the console's interrupt: {error}");
    }
    console.set_receive_interrupt(true);
    let received = Cell::new(None);
    idle::wait_until(
        &|| {
            received.set(console.read_byte());
            received.get().is_some()
        },
        None,
    );
    console.set_receive_interrupt(false);
    // There is no deadline: the wait ends with a byte.
    received.get().unwrap_or_default()
}
