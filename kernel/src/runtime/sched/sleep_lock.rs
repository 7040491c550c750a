//! The lock for longer than microseconds: whoever waits for it sleeps.
//!
//! A spinning core would take the time of the one that works. [`SleepLock`] is `lock_api`'s mutex over a
//! word of three states and a futex: free, held, held with others waiting (U. Drepper, "Futexes Are
//! Tricky", mutex 2).

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};

use lock_api::{GuardSend, RawMutex};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// How threads sleep and are woken.
pub trait Park {
    /// Sleeps until it is woken through `word`, if that holds `expected`. May return early.
    fn wait(word: &AtomicU32, expected: u32);

    /// Wakes one that sleeps on `word`, if one does.
    fn wake_one(word: &AtomicU32);
}

/// The lock without what it guards.
#[derive(Debug)]
pub struct RawSleepLock<P> {
    state: AtomicU32,
    park: PhantomData<fn(P)>,
}

// SAFETY: whoever finds the word `FREE` makes it something else in one step, and only `unlock`, which
// the holder alone may call, makes it `FREE` again: there is one holder at a time. Acquire and
// release order what one holder did before what the next one does.
unsafe impl<P: Park> RawMutex for RawSleepLock<P> {
    const INIT: Self = RawSleepLock { state: AtomicU32::new(FREE), park: PhantomData };

    type GuardMarker = GuardSend;

    fn lock(&self) {
        if self.try_lock() {
            return;
        }
        while self.state.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            P::wait(&self.state, WAITED_FOR);
        }
    }

    fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        // The futex's own lock, and its word being read there in one order with this one, see to it
        // that who is about to sleep sees the change or is woken.
        if self.state.swap(FREE, Ordering::SeqCst) == WAITED_FOR {
            P::wake_one(&self.state);
        }
    }
}

/// A value that one thread at a time has, while others sleep.
pub type SleepLock<T> = lock_api::Mutex<RawSleepLock<Threads>, T>;

/// The runtime's threads.
#[derive(Debug)]
pub struct Threads;

#[cfg(target_os = "none")]
impl Park for Threads {
    fn wait(word: &AtomicU32, expected: u32) {
        // Woken or changed, the lock looks again.
        let _ = super::threads::wait(word, expected, None);
    }

    fn wake_one(word: &AtomicU32) {
        super::threads::wake(word, 1);
    }
}

/// A host's threads, in tests of what is guarded.
#[cfg(not(target_os = "none"))]
impl Park for Threads {
    fn wait(_: &AtomicU32, _: u32) {
        core::hint::spin_loop();
    }

    fn wake_one(_: &AtomicU32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sched::futex::Futexes;
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    /// How often each thread takes the lock; in Miri that takes long.
    const ROUNDS: usize = if cfg!(miri) { 17 } else { 2003 };

    static FUTEXES: Futexes<4> = Futexes::new();
    static SLEPT: AtomicUsize = AtomicUsize::new(0);

    std::thread_local! {
        static CORE: Cell<usize> = const { Cell::new(0) };
    }

    /// Threads that sleep on the runtime's futexes.
    struct Parked;

    impl Park for Parked {
        fn wait(word: &AtomicU32, expected: u32) {
            let sleep = |woken: &dyn Fn() -> bool| {
                SLEPT.fetch_add(1, Ordering::SeqCst);
                while !woken() {
                    thread::yield_now();
                }
                true
            };
            let _ = FUTEXES.wait(CORE.get(), word, expected, sleep);
        }

        fn wake_one(word: &AtomicU32) {
            FUTEXES.wake(word, 1, |_| ());
        }
    }

    type Lock<T> = lock_api::Mutex<RawSleepLock<Parked>, T>;

    #[test]
    fn one_at_a_time_has_it_and_the_others_sleep_till_then() {
        let lock = Lock::new(0);
        thread::scope(|scope| {
            let held = lock.lock();
            assert!(lock.try_lock().is_none());
            for core in 1..4 {
                let lock = &lock;
                scope.spawn(move || {
                    CORE.set(core);
                    for _ in 0..ROUNDS {
                        let mut count = lock.lock();
                        let seen = *count;
                        thread::yield_now();
                        *count = seen + 1;
                    }
                });
            }
            // All three sleep before the first of them counts.
            while SLEPT.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
            assert_eq!(*held, 0);
            drop(held);
        });
        assert_eq!(*lock.lock(), 3 * ROUNDS);
    }
}
