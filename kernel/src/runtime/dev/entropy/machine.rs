//! The random bytes of this machine.

#![forbid(unsafe_code)]

use core::mem::MaybeUninit;

use arrayvec::ArrayVec;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::Rng;
use spin::Once;
use virtio_drivers::transport::DeviceType;

use super::{Generator, Seeder, Source, rndr, virtio};
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::time;
use crate::runtime::dev::bus::scan::Bus;
use crate::runtime::machine::Machine;

/// Minimum number of bytes of `/chosen/rng-seed`.
const MIN_SEED_BYTES: usize = 16;

/// The generator; `None` without a source, or before [`start`].
static GENERATOR: SpinLock<Option<Generator>> = SpinLock::new(None);

/// The sources that have seeded the generator.
static SOURCES: Once<ArrayVec<Source, 3>> = Once::new();

/// Seeds the generator from all sources of the machine; the first call counts.
pub fn start(machine: &Machine<'_>, bus: &mut Bus) {
    SOURCES.call_once(|| {
        let mut seeder = Seeder::default();
        let mut sources = ArrayVec::new();
        let mut add = |source, bytes: &[u8]| {
            seeder.add(source, bytes);
            sources.push(source);
        };
        if let Some(bytes) = rndr::read() {
            add(Source::Rndr, &bytes);
        }
        let devices = bus.take(DeviceType::EntropySource).into_iter();
        let read =
            devices.map(|found| virtio::read(found.transport, found.coherence, time::now_us));
        // Each device that fails is logged; the first one that works suffices.
        let log = |error: &virtio::ReadError| log::warn!("virtio-rng: {error}");
        if let Some(bytes) = read.filter_map(|bytes| bytes.inspect_err(log).ok()).next() {
            add(Source::Virtio, &bytes);
        }
        if machine.rng_seed.len() >= MIN_SEED_BYTES {
            add(Source::RngSeed, machine.rng_seed);
        }
        if !sources.is_empty() {
            *GENERATOR.lock() = Some(seeder.generator());
        }
        sources
    });
}

/// The sources of the random bytes; none if [`fill`] has no bytes to give.
pub fn sources() -> &'static [Source] {
    SOURCES.get().map_or(&[], |sources| sources)
}

/// Fills `bytes` with random bytes; false, and nothing filled, without a source.
pub fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut request) = request() else { return false };
    request.fill_bytes(bytes);
    true
}

/// As [`fill`], for memory that need not be initialised.
pub fn fill_uninit(places: &mut [MaybeUninit<u8>]) -> bool {
    let Some(mut request) = request() else { return false };
    let mut bytes = [0; 64];
    for places in places.chunks_mut(bytes.len()) {
        request.fill_bytes(&mut bytes);
        for (place, byte) in places.iter_mut().zip(bytes) {
            place.write(byte);
        }
    }
    true
}

/// The generator of one request. The lock is not held while the request's bytes are made.
fn request() -> Option<ChaCha20Rng> {
    GENERATOR.lock().as_mut().map(Generator::request)
}
