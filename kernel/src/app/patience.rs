//! How long a thread waits for another one.

#![forbid(unsafe_code)]

use core::sync::atomic::AtomicU32;

use crate::app::os;

/// How many seconds threads wait for each other, if nothing else is said. What they wait for takes some
/// seconds, under emulation and with a busy host as well; and the harness looks for signs of life for longer
/// than this, so that it hears who does not answer.
pub const PATIENCE_S: u32 = 60;
/// What is counted of that at a time, in µs. Time that passes all at once, as when the host sleeps, is no
/// more than one of these.
const SECOND_US: u64 = 1_000_000;

/// The patience of a thread that waits for a word to change: seconds in which nobody wakes it.
#[derive(Debug)]
pub struct Patience {
    /// `None` has no end.
    left_s: Option<u32>,
}

impl Patience {
    /// Patience for so many seconds, or without end.
    pub fn new(seconds: Option<u32>) -> Self {
        Patience { left_s: seconds }
    }

    /// Whether the seconds are over.
    pub fn is_over(&self) -> bool {
        self.left_s == Some(0)
    }

    /// Sleeps while `word` is `value`, until it is woken or a second is over; may wake for no reason.
    pub fn sleep(&mut self, word: &AtomicU32, value: u32) {
        match &mut self.left_s {
            None => {
                os::futex_wait(word, value, None);
            }
            Some(left_s) => {
                let woken = os::futex_wait(word, value, Some(SECOND_US));
                *left_s = left_s.saturating_sub(u32::from(!woken));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn seconds_count_in_which_nobody_wakes_it() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        let mut patience = Patience::new(Some(2));
        assert!(!patience.is_over());
        patience.sleep(&word, 7);
        assert!(!patience.is_over());
        patience.sleep(&word, 7);
        assert!(patience.is_over());
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(Patience::new(Some(0)).is_over());
    }

    #[test]
    fn what_changes_or_wakes_takes_no_patience() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        let mut patience = Patience::new(Some(1));
        // It has changed before.
        for _ in 0..101 {
            patience.sleep(&word, 8);
        }
        // It changes while it is waited for; without an end to the patience as well.
        for mut patience in [patience, Patience::new(None)] {
            word.store(7, Ordering::SeqCst);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    word.store(9, Ordering::SeqCst);
                    os::futex_wake_all(&word);
                });
                while word.load(Ordering::SeqCst) == 7 {
                    patience.sleep(&word, 7);
                }
            });
            assert!(!patience.is_over());
        }
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}
