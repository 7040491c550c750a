//! The lock for microseconds: whoever waits for it spins.
//!
//! [`SpinLock`] is `lock_api`'s mutex over `hermit-sync`'s spin lock, which the heap takes as well.
//! Interrupts are never taken, so that no lock needs to mask them.

pub use hermit_sync::RawSpinMutex;

/// A value that one core at a time has, while others spin.
pub type SpinLock<T> = lock_api::Mutex<RawSpinMutex, T>;
