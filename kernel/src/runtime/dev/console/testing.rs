//! A clock for the tests of the ports, and ports with that clock.

use std::cell::Cell;

use super::Port;
use crate::runtime::dev::mmio::FakeRegisters;
use crate::runtime::machine::Uart;

/// How far the clock goes on each time that it is read.
const STEP_US: u64 = 1000;

std::thread_local! {
    static NOW_US: Cell<u64> = const { Cell::new(0) };
}

/// A clock of the test's own thread.
pub fn clock() -> u64 {
    NOW_US.set(NOW_US.get() + STEP_US);
    NOW_US.get()
}

/// Time that passes on that clock in `work`, in µs.
pub fn elapsed_us(work: impl FnOnce()) -> u64 {
    let start_us = NOW_US.get();
    work();
    NOW_US.get() - start_us
}

/// The port that `uart` describes, set up.
pub fn port(uart: &Uart, registers: FakeRegisters) -> Port<FakeRegisters> {
    Port::new(uart, registers, clock)
}
