//! A clock for timeouts, which leaves out the time in which the machine stood still.
//!
//! A virtual machine may be paused for a while. The counter of its processor goes on, and so all
//! timeouts are over when the machine goes on, though no peer is late. This clock knows a standstill
//! by its user, who comes long after the moment that the user had asked for.

#![forbid(unsafe_code)]

/// Lateness by which a standstill is known, in µs.
const LATE_US: u64 = 5_000_000;
/// The longest standstill that is left out, in µs.
///
/// After a longer one, peers are gone, and addresses may be another machine's.
const LONGEST_US: u64 = 600_000_000;

/// The clock. Its times are those of the machine's clock, less all standstills.
#[derive(Clone, Copy, Debug, Default)]
pub struct SteadyClock {
    missed_us: u64,
}

impl SteadyClock {
    /// Reads the clock when the machine's clock reads `machine_us`.
    pub fn at(&self, machine_us: u64) -> u64 {
        machine_us.saturating_sub(self.missed_us)
    }

    /// The machine's clock when this one reads `us`.
    pub fn machine_us(&self, us: u64) -> u64 {
        us.saturating_add(self.missed_us)
    }

    /// Reads the clock, for a user who had asked to come at `due_us` of this clock.
    pub fn read(&mut self, machine_us: u64, due_us: Option<u64>) -> u64 {
        let now_us = self.at(machine_us);
        let late_us = due_us.map_or(0, |due_us| now_us.saturating_sub(due_us));
        if (LATE_US..=LONGEST_US).contains(&late_us) {
            self.missed_us += late_us;
        }
        self.at(machine_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_left_out() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.read(1_000_000, Some(900_000)), 1_000_000, "a little late");
        assert_eq!(clock.read(131_000_000, Some(1_500_000)), 1_500_000, "two minutes late");
        assert_eq!(clock.read(131_200_000, Some(1_600_000)), 1_700_000, "it goes on from there");
        assert_eq!(clock.machine_us(1_700_000), 131_200_000);
        assert_eq!(clock.read(731_000_000, None), 601_500_000, "nobody was to come earlier");
    }

    #[test]
    fn a_long_standstill_counts() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.read(LONGEST_US + 1_000_001, Some(1_000_000)), LONGEST_US + 1_000_001);
    }
}
