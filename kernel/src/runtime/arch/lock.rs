//! The lock for microseconds: a waiting core spins.
//!
//! [`SpinLock`] is `lock_api`'s mutex over `hermit-sync`'s spin lock, as the heap uses. Interrupts
//! are never taken, so no lock needs to mask them.

pub use hermit_sync::RawSpinMutex;

/// A value that one core at a time holds, while others spin.
pub type SpinLock<T> = lock_api::Mutex<RawSpinMutex, T>;
