//! Timeouts of threads that wait for each other.

#![forbid(unsafe_code)]

use core::sync::atomic::AtomicU32;

use crate::app::os;

/// Seconds that threads wait for each other.
///
/// The work that they wait for takes some seconds, under emulation and on a busy host as well. The
/// harness waits longer than this for a sign of life, so that the panic names the thread.
pub const TIMEOUT_S: u32 = 60;
/// Unit of a timeout in µs. A jump of the clock (host suspended) counts as at most one unit.
const SECOND_US: u64 = 1_000_000;

/// Timeout of a thread that waits for a word to change, in seconds without a wake-up.
#[derive(Debug)]
pub struct Timeout {
    /// Seconds left; `None`: no end.
    left_s: Option<u32>,
}

impl Timeout {
    /// A timeout of so many seconds; `None`: no end.
    pub fn new(seconds: Option<u32>) -> Self {
        Timeout { left_s: seconds }
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        self.left_s == Some(0)
    }

    /// Sleeps while `word` is `value`, until a wake-up or for a second. May wake without reason.
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
    fn seconds_without_a_wake_up_count() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        let mut timeout = Timeout::new(Some(2));
        assert!(!timeout.is_over());
        timeout.sleep(&word, 7);
        assert!(!timeout.is_over());
        timeout.sleep(&word, 7);
        assert!(timeout.is_over());
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(Timeout::new(Some(0)).is_over());
    }

    #[test]
    fn changes_and_wake_ups_take_no_time() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        let mut timeout = Timeout::new(Some(1));
        // The word has changed before.
        for _ in 0..101 {
            timeout.sleep(&word, 8);
        }
        // The word changes during the sleep; with and without an end of the timeout.
        for mut timeout in [timeout, Timeout::new(None)] {
            word.store(7, Ordering::SeqCst);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    word.store(9, Ordering::SeqCst);
                    os::futex_wake_all(&word);
                });
                while word.load(Ordering::SeqCst) == 7 {
                    timeout.sleep(&word, 7);
                }
            });
            assert!(!timeout.is_over());
        }
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}
