//! The steps of what must not take more of them than its input is long, counted in tests alone: a
//! count shows what a time on a busy machine does not.

#[cfg(test)]
std::thread_local! {
    static STEPS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Counts steps: what takes a bounded time, or so many bytes of a text.
#[inline(always)]
pub fn step(_n: usize) {
    #[cfg(test)]
    STEPS.set(STEPS.get() + _n);
}

/// What some work gives, and how many steps it takes.
#[cfg(test)]
pub fn of<R>(work: impl FnOnce() -> R) -> (R, usize) {
    STEPS.set(0);
    let result = work();
    (result, STEPS.get())
}
