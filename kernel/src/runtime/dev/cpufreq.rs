//! The clock of a cluster of an Apple M1's cores.
//!
//! Source: Linux, drivers/cpufreq/apple-soc-cpufreq.c, whose numbers are those of the t8103; m1n1,
//! src/cpufreq.c, which leaves the fast cores at a point in the middle. The chip lowers the clock by itself
//! where heat or current ask for it: m1n1 has switched those limits on.
#![forbid(unsafe_code)]

use super::mmio::{self, Registers};

/// The point that is asked for.
const COMMAND: usize = 0x20;
const COMMAND_BUSY: u64 = 1 << 31;
const COMMAND_SET: u64 = 1 << 25;
/// The point stands in both.
const COMMAND_POINT: u64 = 0x1f;
const COMMAND_POINT_AGAIN: u64 = 0xf << 12;
/// The point that is in effect: bits 4 to 7.
const STATUS: usize = 0x50;
/// The highest number that fits.
const MAX_LEVEL: u32 = 15;
/// Longest time that a change may take, in µs: m1n1's number. Linux waits a quarter of that.
const TIMEOUT_US: u64 = 400;

/// Sets the clock to the operating point `level`, if it is set to a lower one. Returns the point before,
/// and that in effect afterwards. `None` if the cluster is busy for too long, or has no such point.
pub fn raise(
    registers: &impl Registers,
    level: u32,
    now_us: impl Fn() -> u64,
) -> Option<(u32, u32)> {
    let idle = || {
        let mut command = 0;
        let is_idle = mmio::wait(TIMEOUT_US, &now_us, || {
            command = registers.read64(COMMAND);
            command & COMMAND_BUSY == 0
        });
        is_idle.then_some(command)
    };
    if level > MAX_LEVEL {
        return None;
    }
    let command = idle()?;
    let before = (command & COMMAND_POINT) as u32;
    if before < level {
        let others = command & !(COMMAND_POINT | COMMAND_POINT_AGAIN);
        let point = u64::from(level) | u64::from(level) << 12;
        registers.write64(COMMAND, others | point | COMMAND_SET);
        idle()?;
    }
    Some((before, (registers.read64(STATUS) >> 4 & 0xf) as u32))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::runtime::dev::mmio::{Access, FakeRegisters};

    /// A cluster at the point 7 with bits set that mean something else, busy for so many looks before and
    /// after a change.
    fn cluster(busy: [u32; 2]) -> FakeRegisters {
        let mut command = 0x0000_0010_0050_7007_u64;
        let mut left = busy[0];
        FakeRegisters::new(move |access| match access {
            Access::Read { offset: 0x20, width: 8 } if left > 0 => {
                left -= 1;
                command | 1 << 31
            }
            Access::Read { offset: 0x20, width: 8 } => command,
            Access::Write { offset: 0x20, width: 8, value } => {
                assert_eq!(left, 0, "it is busy");
                left = busy[1];
                command = value & !(1 << 25);
                0
            }
            Access::Read { offset: 0x50, width: 8 } => command & 0xf | (command & 0xf) << 4,
            other => panic!("{other:?}"),
        })
    }

    /// What comes of it, and what was written.
    type Raised = (Option<(u32, u32)>, Vec<(usize, u64)>);

    /// Raises it on a clock that goes on by 10 µs each time it is read.
    fn raised(busy: [u32; 2], level: u32) -> Raised {
        let registers = cluster(busy);
        let now_us = Cell::new(0);
        let clock = || now_us.replace(now_us.get() + 10);
        let result = raise(&registers, level, clock);
        assert!(now_us.get() <= 2 * TIMEOUT_US, "{} µs", now_us.get());
        (result, registers.writes())
    }

    #[test]
    fn the_point_is_written_twice_once_the_cluster_is_idle() {
        let written = vec![(0x20, 0x0000_0010_0250_c00c)];
        assert_eq!(raised([3, 5], 12), (Some((7, 12)), written.clone()));
        // It is written but not taken.
        assert_eq!(raised([0, 1000], 12), (None, written));
    }

    #[test]
    fn a_clock_is_never_lowered() {
        for level in [5, 7] {
            assert_eq!(raised([3, 0], level), (Some((7, 7)), vec![]));
        }
    }

    #[test]
    fn a_cluster_that_stays_busy_and_a_point_that_does_not_fit_are_left_alone() {
        assert_eq!(raised([1000, 0], 12), (None, vec![]));
        assert_eq!(raised([0, 0], 16), (None, vec![]));
    }
}
