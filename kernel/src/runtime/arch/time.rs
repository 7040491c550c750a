//! The generic timer: the clock, and the alarm that ends a core's sleep.
//!
//! Source: Arm Architecture Reference Manual for A-profile, Arm DDI 0487, chapter D12 ("The Generic
//! Timer in AArch64 state").
//!
//! The clock is the virtual counter, the alarm the virtual timer of EL1, `CNTV`: both are there at EL1
//! with or without a hypervisor below. The timer raises a private interrupt of its core
//! ([`Timer::virtual_timer`](crate::runtime::machine::Timer)), by convention number 27; the core's part of the
//! interrupt controller must let it through for the alarm to end a `wfi`.

/// How fast a counter counts, and the arithmetic that follows from it. It neither overflows nor
/// drifts: whole seconds and the rest are converted apart, each exactly, and rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    hz: u32,
}

impl Rate {
    /// Counts `hz` times a second; `None` for 0.
    pub const fn new(hz: u32) -> Option<Rate> {
        if hz == 0 { None } else { Some(Rate { hz }) }
    }

    /// Ticks as time in units of which a second has `per_second`, at most 10^9, rounded down.
    const fn convert(self, ticks: u64, per_second: u64) -> u64 {
        let hz = self.hz as u64;
        // The rest is below 2^32 and 10^9 below 2^30, so the product fits. Seconds do for the next
        // 584 years even in nanoseconds.
        (ticks / hz).saturating_mul(per_second).saturating_add(ticks % hz * per_second / hz)
    }

    /// Ticks in µs, rounded down.
    pub const fn us(self, ticks: u64) -> u64 {
        self.convert(ticks, 1_000_000)
    }

    /// Ticks in ns, rounded down.
    pub const fn ns(self, ticks: u64) -> u64 {
        self.convert(ticks, 1_000_000_000)
    }

    /// The first tick at which `us` µs have passed; the last tick of all if that is too far off.
    pub const fn ticks(self, us: u64) -> u64 {
        let hz = self.hz as u64;
        let seconds = (us / 1_000_000).saturating_mul(hz);
        seconds.saturating_add((us % 1_000_000 * hz).div_ceil(1_000_000))
    }

    /// Of the counter's lowest 16 bits the highest that changes at least every `us` µs, which is how
    /// the rate of the event stream is chosen. Bit 0 if none does.
    pub const fn event_bit(self, us: u64) -> u32 {
        let period = self.ticks(us);
        let mut bit = 15;
        while bit > 0 && 1 << bit > period {
            bit -= 1;
        }
        bit
    }
}

#[cfg(target_os = "none")]
pub use core_timer::*;

#[cfg(target_os = "none")]
mod core_timer {
    use core::arch::asm;
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::Rate;
    use crate::runtime::arch::this_core::read_register;

    /// What the device tree says of the frequency; 0 if nothing.
    static FREQUENCY: AtomicU32 = AtomicU32::new(0);

    /// The rate assumed where neither the register nor the tree tells one.
    const ASSUMED: Rate = Rate { hz: 1_000_000 };

    /// No one has said how fast the counter counts: times are ticks, not µs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UnknownFrequency;

    impl core::fmt::Display for UnknownFrequency {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("neither CNTFRQ_EL0 nor the device tree tells the timer's frequency")
        }
    }

    /// Takes the frequency from the device tree, if it gives one.
    ///
    /// # Errors
    /// It gives none and the register does not either; the clock then shows ticks.
    pub fn init(frequency_hz: Option<u32>) -> Result<(), UnknownFrequency> {
        FREQUENCY.store(frequency_hz.unwrap_or(0), Ordering::Relaxed);
        known_rate().map(|_| ()).ok_or(UnknownFrequency)
    }

    fn known_rate() -> Option<Rate> {
        Rate::new(FREQUENCY.load(Ordering::Relaxed))
            .or_else(|| Rate::new(read_register!("cntfrq_el0") as u32))
    }

    /// How fast the counter counts.
    pub fn rate() -> Rate {
        known_rate().unwrap_or(ASSUMED)
    }

    /// The counter, read neither earlier nor later than the program says.
    pub fn counter() -> u64 {
        let ticks;
        // SAFETY: reads a register. Without the barrier it may be read before what comes first.
        unsafe {
            asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags));
        }
        ticks
    }

    /// The clock, in µs from an arbitrary start.
    pub fn now_us() -> u64 {
        rate().us(counter())
    }

    /// The clock, in ns from the same start.
    pub fn now_ns() -> u64 {
        rate().ns(counter())
    }

    /// Raises the calling core's timer interrupt from the time on at which the clock reads
    /// `deadline_us`, until [`cancel_alarm`].
    pub fn set_alarm(deadline_us: u64) {
        let ticks = rate().ticks(deadline_us);
        // SAFETY: sets the virtual timer, whose interrupt is never taken. Enabled, not masked.
        unsafe {
            asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) ticks,
                in(reg) 1_u64, options(nostack, preserves_flags));
        }
    }

    /// Ends the calling core's alarm.
    pub fn cancel_alarm() {
        // SAFETY: as above.
        unsafe {
            asm!("msr cntv_ctl_el0, xzr", "isb", options(nostack, preserves_flags));
        }
    }

    /// Ends the calling core's alarm and its event stream: neither wakes it again.
    pub fn stop() {
        cancel_alarm();
        // SAFETY: as in `start_event_stream`.
        unsafe { asm!("msr cntkctl_el1, xzr", "isb", options(nostack, preserves_flags)) };
    }

    /// Makes the calling core's `wfe` end after 1 ms at most, for machines without an interrupt
    /// controller that we know.
    pub fn start_event_stream() {
        // CNTKCTL_EL1: EVNTI, the counter's bit, and EVNTEN. At each change of the bit from 0 to 1.
        let setting = u64::from(rate().event_bit(500)) << 4 | 1 << 2;
        // SAFETY: sets how `wfe` ends; gives EL0, which is not used, nothing.
        unsafe {
            asm!("msr cntkctl_el1, {}", "isb", in(reg) setting, options(nostack, preserves_flags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU and an M1, a Pi 4, a Pi 3, a server with a counter of 1 GHz; the fastest; primes.
    const RATES: [u32; 8] =
        [62_500_000, 24_000_000, 54_000_000, 19_200_000, 1_000_000_000, u32::MAX, 31, 999_983];

    #[test]
    fn ticks_become_time_exactly() {
        for hz in RATES {
            let rate = Rate::new(hz).unwrap();
            let mut ticks = 1_u64;
            // Steps of a prime over the whole range of the counter, some 250 of them.
            while let Some(next) = ticks.checked_mul(13).and_then(|t| (t / 11).checked_add(1)) {
                ticks = next;
                let exact = |per_second| u128::from(ticks) * per_second / u128::from(hz);
                let capped = |time| u64::try_from(time).unwrap_or(u64::MAX);
                assert_eq!(rate.us(ticks), capped(exact(1_000_000)), "{ticks} at {hz} Hz");
                assert_eq!(rate.ns(ticks), capped(exact(1_000_000_000)), "{ticks} at {hz} Hz");
            }
        }
    }

    #[test]
    fn an_alarm_is_never_early_nor_a_tick_late() {
        for hz in RATES {
            let rate = Rate::new(hz).unwrap();
            let mut us = 1_u64;
            while let Some(next) = us.checked_mul(13).and_then(|t| (t / 11).checked_add(1)) {
                us = next;
                let exact = (u128::from(us) * u128::from(hz)).div_ceil(1_000_000);
                let ticks = rate.ticks(us);
                assert_eq!(ticks, u64::try_from(exact).unwrap_or(u64::MAX), "{us} at {hz} Hz");
                if ticks < u64::MAX {
                    assert!(rate.us(ticks) >= us && rate.us(ticks - 1) < us);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(Rate::new(0), None);
        let rate = Rate::new(62_500_000).unwrap();
        assert_eq!((rate.us(0), rate.ns(0), rate.ticks(0)), (0, 0, 0));
        assert_eq!((rate.us(62), rate.us(63), rate.ticks(1)), (0, 1, 63));
        assert_eq!(rate.ticks(u64::MAX), u64::MAX);
        assert_eq!(Rate::new(1).unwrap().ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn the_event_stream_is_neither_too_slow_nor_needlessly_fast() {
        for (hz, bit) in [(62_500_000, 14), (24_000_000, 13), (1_000_000_000, 15), (31, 0)] {
            let rate = Rate::new(hz).unwrap();
            assert_eq!(rate.event_bit(500), bit, "{hz} Hz");
        }
    }
}
