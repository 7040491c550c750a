//! Counts steps of algorithms that must be linear, in tests only.
//!
//! A count is exact, unlike a time on a busy machine.

#[cfg(test)]
std::thread_local! {
    static STEPS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Counts a step of bounded time, or `_n` steps for bytes of a text.
#[inline(always)]
pub fn step(_n: usize) {
    #[cfg(test)]
    STEPS.set(STEPS.get() + _n);
}

/// The result of some work, and its number of steps.
#[cfg(test)]
pub fn of<R>(work: impl FnOnce() -> R) -> (R, usize) {
    STEPS.set(0);
    let result = work();
    (result, STEPS.get())
}
