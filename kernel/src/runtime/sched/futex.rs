//! Futexes: waiting for a word in memory to change, as `sys_futex_wait` and `sys_futex_wake` do.
//!
//! There is one thread a core, so a waiting thread is named by its core. How a core sleeps and is
//! woken is the caller's matter ([`crate::runtime::sched::idle`] on the machine, threads of the host in tests).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arrayvec::ArrayVec;

use crate::runtime::arch::lock::SpinLock;

/// Why a wait ended without being woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWoken {
    /// The word did not hold the value expected.
    Changed,
    /// The time was up.
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    address: usize,
    core: usize,
}

/// The cores that wait, `N` at most.
#[derive(Debug)]
pub struct Futexes<const N: usize> {
    /// In the order in which they came.
    waiters: SpinLock<ArrayVec<Waiter, N>>,
    woken: [AtomicBool; N],
}

impl<const N: usize> Futexes<N> {
    /// No core waits.
    #[expect(clippy::new_without_default, reason = "it lives in statics")]
    pub const fn new() -> Self {
        let woken = [const { AtomicBool::new(false) }; N];
        Futexes { waiters: SpinLock::new(ArrayVec::new_const()), woken }
    }

    /// Waits as `core` until it is woken through `word`, if that holds `expected`.
    ///
    /// `sleep` returns true once its argument holds, or false when the time is up.
    ///
    /// # Errors
    /// See [`NotWoken`].
    pub fn wait(
        &self,
        core: usize,
        word: &AtomicU32,
        expected: u32,
        sleep: impl FnOnce(&dyn Fn() -> bool) -> bool,
    ) -> Result<(), NotWoken> {
        let woken = &self.woken[core];
        {
            // A waker changes the word before it takes this lock: it either sees this waiter, or
            // the change is seen here.
            let mut waiters = self.waiters.lock();
            if word.load(Ordering::SeqCst) != expected {
                return Err(NotWoken::Changed);
            }
            woken.store(false, Ordering::SeqCst);
            waiters.push(Waiter { address: address_of(word), core });
        }
        if sleep(&|| woken.load(Ordering::SeqCst)) {
            return Ok(());
        }
        let mut waiters = self.waiters.lock();
        match waiters.iter().position(|waiter| waiter.core == core) {
            Some(index) => {
                waiters.remove(index);
                Err(NotWoken::TimedOut)
            }
            // Woken between the end of the time and this lock.
            None => Ok(()),
        }
    }

    /// Wakes up to `count` cores that wait for `word`, the first come first, each through `wake`.
    /// Returns how many.
    pub fn wake(&self, word: &AtomicU32, count: usize, mut wake: impl FnMut(usize)) -> usize {
        let address = address_of(word);
        let mut chosen = ArrayVec::<usize, N>::new();
        self.waiters.lock().retain(|waiter| {
            let is_chosen = waiter.address == address && chosen.len() < count;
            if is_chosen {
                chosen.push(waiter.core);
                self.woken[waiter.core].store(true, Ordering::SeqCst);
            }
            !is_chosen
        });
        for &core in &chosen {
            wake(core);
        }
        chosen.len()
    }
}

fn address_of(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    fn sleep_for(time: Duration) -> impl FnOnce(&dyn Fn() -> bool) -> bool {
        move |woken| {
            let end = Instant::now() + time;
            while !woken() && Instant::now() < end {
                thread::yield_now();
            }
            woken()
        }
    }

    /// How often each thread takes a lock; in Miri that takes long.
    const ROUNDS: usize = if cfg!(miri) { 17 } else { 2003 };

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let futexes = Futexes::<3>::new();
        let word = AtomicU32::new(7);
        let slept = |_: &dyn Fn() -> bool| panic!("it slept");
        assert_eq!(futexes.wait(1, &word, 8, slept), Err(NotWoken::Changed));
        assert_eq!(futexes.wake(&word, usize::MAX, |_| panic!("nobody waits")), 0);
    }

    #[test]
    fn a_wait_that_times_out_leaves_no_waiter() {
        let futexes = Futexes::<3>::new();
        let word = AtomicU32::new(7);
        for _ in 0..5 {
            let result = futexes.wait(2, &word, 7, |_| false);
            assert_eq!(result, Err(NotWoken::TimedOut));
        }
        assert_eq!(futexes.wake(&word, usize::MAX, |_| ()), 0);
    }

    #[test]
    fn woken_as_the_time_runs_out_is_woken() {
        let futexes = Futexes::<3>::new();
        let word = AtomicU32::new(7);
        let result = futexes.wait(2, &word, 7, |_| {
            assert_eq!(futexes.wake(&word, 1, |core| assert_eq!(core, 2)), 1);
            false
        });
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn the_first_come_are_woken_first_and_no_more_than_asked() {
        let futexes = Futexes::<5>::new();
        let (word, other) = (AtomicU32::new(7), AtomicU32::new(7));
        let order = SpinLock::new(Vec::new());
        thread::scope(|scope| {
            for core in [3, 1, 4, 0] {
                let waiting = futexes.waiters.lock().len();
                let word = if core == 4 { &other } else { &word };
                let (futexes, order) = (&futexes, &order);
                scope.spawn(move || {
                    assert_eq!(futexes.wait(core, word, 7, sleep_for(LONG)), Ok(()));
                    order.lock().push(core);
                });
                while futexes.waiters.lock().len() == waiting {
                    thread::yield_now();
                }
            }
            let woken = |word, count| {
                let mut cores = Vec::new();
                assert_eq!(futexes.wake(word, count, |core| cores.push(core)), cores.len());
                cores
            };
            assert_eq!(woken(&word, 2), [3, 1]);
            assert_eq!(woken(&word, usize::MAX), [0]);
            assert_eq!(woken(&word, usize::MAX), [0; 0]);
            assert_eq!(woken(&other, 0), [0; 0]);
            assert_eq!(woken(&other, 1), [4]);
        });
        assert_eq!(order.lock().len(), 4);
    }

    /// A lock of the usual three states, built on futexes, keeps four threads apart: a lost
    /// wake-up would leave it hanging, a spurious one would break the count.
    #[test]
    fn a_lock_built_on_it_loses_no_wake_up() {
        let futexes = Futexes::<4>::new();
        let state = AtomicU32::new(0);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for core in 0..4 {
                let (futexes, state, count) = (&futexes, &state, &count);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        if state.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err()
                        {
                            while state.swap(2, Ordering::SeqCst) != 0 {
                                let result = futexes.wait(core, state, 2, sleep_for(LONG));
                                assert_ne!(result, Err(NotWoken::TimedOut));
                            }
                        }
                        let seen = count.load(Ordering::Relaxed);
                        thread::yield_now();
                        count.store(seen + 1, Ordering::Relaxed);
                        if state.swap(0, Ordering::SeqCst) == 2 {
                            futexes.wake(state, 1, |_| ());
                        }
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * ROUNDS);
    }
}
