//! virtio-rng.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.4 "Entropy Device".
//!
//! The driver of `virtio-drivers`, `VirtIORng`, waits for ever. This one has a timeout.

#![forbid(unsafe_code)]

use alloc::vec;
use core::fmt;

use virtio_drivers::transport::Transport;

use super::KEY_BYTES;
use crate::runtime::dev::bus::lending::{LendingQueue, Writer};
use crate::runtime::dev::bus::virtio::{FEATURE_VERSION_1, StartError, accept, begin};
use crate::runtime::dev::mmio;
use crate::runtime::machine::Coherence;

/// Length of the queue.
const ENTRIES: usize = 4;

/// Time in µs that the device may take to give all bytes.
pub const TIMEOUT_US: u64 = 200_000;

/// A reason why a device gives no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The device cannot be started.
    Start(StartError),
    /// The device has missed its timeout of [`TIMEOUT_US`].
    Silent,
    /// The device has broken the rules of its queue.
    Broken,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Start(error) => error.fmt(f),
            ReadError::Silent => {
                write!(f, "no random bytes within {} ms", TIMEOUT_US / 1000)
            }
            ReadError::Broken => f.write_str("the device breaks the rules of its queue"),
        }
    }
}

impl From<StartError> for ReadError {
    fn from(error: StartError) -> Self {
        ReadError::Start(error)
    }
}

/// Starts the entropy device behind `transport`, and reads random bytes.
///
/// The device may give the bytes in parts. `coherence` is the device tree's word on the device.
///
/// # Errors
/// See [`ReadError`].
pub fn read<T: Transport + 'static>(
    mut transport: T,
    coherence: Coherence,
    now_us: impl Fn() -> u64,
) -> Result<[u8; KEY_BYTES], ReadError> {
    let offered = begin(&mut transport, coherence)?;
    accept(&mut transport, offered & FEATURE_VERSION_1)?;
    let queue: &mut LendingQueue<ENTRIES> =
        LendingQueue::new(&mut transport, 0, Writer::Device).map_err(StartError::from)?;
    transport.finish_init();
    let mut buffer = vec![0; KEY_BYTES].leak();
    let mut bytes = [0; KEY_BYTES];
    let mut done = 0;
    let deadline_us = now_us().saturating_add(TIMEOUT_US);
    while done < KEY_BYTES {
        queue.lend(buffer, KEY_BYTES - done).map_err(|_| ReadError::Broken)?;
        queue.notify(&mut transport);
        let left_us = deadline_us.saturating_sub(now_us());
        if !mmio::wait(left_us, &now_us, || queue.has_used()) {
            // The device keeps the buffer, and may still write to it.
            return Err(ReadError::Silent);
        }
        let (given, written) = queue.take_back().ok_or(ReadError::Broken)?;
        // A device gives one byte or more (5.4.6.2).
        let part = Some(written).filter(|written| (1..=KEY_BYTES - done).contains(written));
        let part = part.and_then(|written| given.get_mut(..written)).ok_or(ReadError::Broken)?;
        bytes[done..done + written].copy_from_slice(part);
        part.fill(0);
        done += written;
        buffer = given;
    }
    Ok(bytes)
}
