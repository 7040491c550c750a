//! The generic timer: the clock, and the alarm that ends a core's sleep.
//!
//! Source: Arm Architecture Reference Manual for A-profile, Arm DDI 0487, chapter D12 ("The Generic
//! Timer in AArch64 state").
//!
//! The clock is the virtual counter. The alarm is the virtual timer of EL1, `CNTV`. Both exist at
//! EL1 with or without a hypervisor.
//!
//! The timer raises a private interrupt of its core
//! ([`Timer::virtual_timer`](crate::runtime::machine::Timer)), by convention number 27. The alarm
//! ends a `wfi` only if the core's part of the interrupt controller lets this interrupt through.

/// The rate of a counter, and exact conversions to time.
///
/// The conversions neither overflow nor drift. Whole seconds and the rest are converted separately,
/// each exactly, and rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    hz: u32,
}

impl Rate {
    /// A rate of `hz` ticks a second; `None` for 0.
    pub const fn new(hz: u32) -> Option<Rate> {
        if hz == 0 { None } else { Some(Rate { hz }) }
    }

    /// Converts ticks to time, rounded down.
    ///
    /// A second has `per_second` units of time, at most 10^9.
    const fn convert(self, ticks: u64, per_second: u64) -> u64 {
        let hz = self.hz as u64;
        // The rest is below 2^32 and 10^9 is below 2^30, so the product fits. Seconds suffice for
        // the next 584 years, even in nanoseconds.
        (ticks / hz).saturating_mul(per_second).saturating_add(ticks % hz * per_second / hz)
    }

    /// Converts ticks to µs, rounded down.
    pub const fn us(self, ticks: u64) -> u64 {
        self.convert(ticks, 1_000_000)
    }

    /// Converts ticks to ns, rounded down.
    pub const fn ns(self, ticks: u64) -> u64 {
        self.convert(ticks, 1_000_000_000)
    }

    /// The first tick at which `us` µs have passed.
    /// If that is too far off, the result is the last tick of all.
    pub const fn ticks(self, us: u64) -> u64 {
        let hz = self.hz as u64;
        let seconds = (us / 1_000_000).saturating_mul(hz);
        seconds.saturating_add((us % 1_000_000 * hz).div_ceil(1_000_000))
    }

    /// The highest of the counter's 16 lowest bits that changes at least every `us` µs.
    /// This bit selects the rate of the event stream. Bit 0 if no bit changes as fast.
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
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::Rate;
    use crate::runtime::arch::this_core::read_register;

    /// The frequency from the device tree; 0 if there is none.
    static FREQUENCY: AtomicU32 = AtomicU32::new(0);

    /// The rate assumed if neither the register nor the tree has one.
    const ASSUMED: Rate = Rate { hz: 1_000_000 };

    /// The frequency of the counter is unknown: times are ticks, not µs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UnknownFrequency;

    impl core::fmt::Display for UnknownFrequency {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("neither CNTFRQ_EL0 nor the device tree tells the timer's frequency")
        }
    }

    /// Takes the frequency from the device tree, if there is one.
    ///
    /// # Errors
    /// Neither the tree nor the register has a frequency; the clock then shows ticks.
    pub fn init(frequency_hz: Option<u32>) -> Result<(), UnknownFrequency> {
        FREQUENCY.store(frequency_hz.unwrap_or(0), Ordering::Relaxed);
        known_rate().map(|_| ()).ok_or(UnknownFrequency)
    }

    fn known_rate() -> Option<Rate> {
        Rate::new(FREQUENCY.load(Ordering::Relaxed))
            .or_else(|| Rate::new(read_register!("cntfrq_el0") as u32))
    }

    /// The rate of the counter.
    pub fn rate() -> Rate {
        known_rate().unwrap_or(ASSUMED)
    }

    /// Reads the counter, in program order.
    pub fn counter() -> u64 {
        let ticks;
        // SAFETY: the instruction reads a register. Without the barrier, the read may come before
        // earlier instructions.
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

    /// The date at the clock's start, in ns since 1970; 0 if it is not known.
    static START_NS: AtomicU64 = AtomicU64::new(0);

    /// Sets the date, in seconds since 1970.
    pub fn set_date(seconds: u64) {
        let date_ns = seconds.saturating_mul(1_000_000_000);
        START_NS.store(date_ns.saturating_sub(now_ns()), Ordering::Relaxed);
    }

    /// The date in ns since 1970; the clock if nothing has set the date.
    pub fn date_ns() -> u64 {
        START_NS.load(Ordering::Relaxed).saturating_add(now_ns())
    }

    /// Sets the calling core's alarm.
    ///
    /// The timer interrupt of the core is raised from `deadline_us` on, until [`cancel_alarm`].
    pub fn set_alarm(deadline_us: u64) {
        let ticks = rate().ticks(deadline_us);
        // SAFETY: this sets the virtual timer, whose interrupt is never taken. Enabled, not masked.
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

    /// Ends the calling core's alarm and its event stream.
    ///
    /// Neither wakes the core again.
    pub fn stop() {
        cancel_alarm();
        // SAFETY: as in `start_event_stream`.
        unsafe { asm!("msr cntkctl_el1, xzr", "isb", options(nostack, preserves_flags)) };
    }

    /// Makes the calling core's `wfe` end after 1 ms at most.
    /// This is for machines without a supported interrupt controller.
    pub fn start_event_stream() {
        // CNTKCTL_EL1: EVNTI, the counter's bit, and EVNTEN. An event comes at each change of the
        // bit from 0 to 1.
        let setting = u64::from(rate().event_bit(500)) << 4 | 1 << 2;
        // SAFETY: this sets how `wfe` ends, and gives no access to EL0, which is not used.
        unsafe {
            asm!("msr cntkctl_el1, {}", "isb", in(reg) setting, options(nostack, preserves_flags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates of QEMU and an M1, a Pi 4, a Pi 3, a server with a counter of 1 GHz.
    /// Then the fastest rate, and primes.
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
