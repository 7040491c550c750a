use alloc::collections::BTreeSet;
use core::cell::Cell;

use virtio_drivers::transport::DeviceType;

use super::virtio::{ReadError, TIMEOUT_US, read};
use super::*;
use crate::runtime::dev::bus::fake::{FakeDevice, Step, fake};
use crate::runtime::dev::bus::virtio::{FEATURE_VERSION_1, StartError};
use crate::runtime::machine::Coherence;

fn generator(sources: &[(Source, &[u8])]) -> Generator {
    let mut seeder = Seeder::default();
    sources.iter().for_each(|&(source, bytes)| seeder.add(source, bytes));
    seeder.generator()
}

/// The first bytes of a request.
fn bytes(generator: &mut Generator) -> [u8; 37] {
    let mut bytes = [0; 37];
    generator.request().fill_bytes(&mut bytes);
    bytes
}

#[test]
fn each_byte_of_each_source_counts() {
    use Source::{Rndr, RngSeed, Virtio};

    let (a, b) = ([7; 32], [9; 32]);
    let mut changed = a;
    changed[31] ^= 1;
    let all: &[&[(Source, &[u8])]] = &[
        &[(Rndr, &a)],
        &[(Virtio, &a)],
        &[(RngSeed, &a)],
        &[(Rndr, &changed)],
        &[(Rndr, &a[..31])],
        &[(Rndr, &a), (RngSeed, &b)],
        &[(Rndr, &b), (RngSeed, &a)],
        // Where one source ends and the next begins counts too.
        &[(RngSeed, &a[..16]), (RngSeed, &a[16..])],
        &[(RngSeed, &a[..17]), (RngSeed, &a[17..])],
    ];
    let seen: BTreeSet<_> = all.iter().map(|sources| bytes(&mut generator(sources))).collect();
    assert_eq!(seen.len(), all.len());
    assert_eq!(bytes(&mut generator(all[5])), bytes(&mut generator(all[5])));
}

#[test]
fn no_request_gets_what_another_got() {
    let mut generator = generator(&[(Source::Rndr, &[1; 32])]);
    let first_key = generator.key;
    let mut seen = BTreeSet::new();
    for _ in 0..1009 {
        let key = generator.key;
        let mut request = generator.request();
        let mut bytes = [0; 96];
        request.fill_bytes(&mut bytes);
        assert!(seen.insert(bytes));
        // Neither the old nor the new key is in what the request gets.
        for key in [key, generator.key] {
            assert!(!bytes.windows(32).any(|window| window == key));
        }
        assert_ne!(generator.key, key);
    }
    assert_ne!(generator.key, first_key);
}

#[test]
fn the_bits_are_balanced() {
    let mut generator = generator(&[(Source::Rndr, &[1; 32])]);
    let mut bytes = std::vec![0; 10_007];
    generator.request().fill_bytes(&mut bytes);
    let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    // The mean is 40028, and the standard deviation 141.
    assert!((39_300..40_700).contains(&ones), "{ones}");
}

/// Reads from a device that `play` plays at each look at the clock, which goes on by 10 ms.
fn read_from(play: impl Fn(&FakeDevice)) -> (Result<[u8; KEY_BYTES], ReadError>, FakeDevice) {
    let features = FEATURE_VERSION_1 | 1 << 28 | 1 << 29;
    let (transport, device) = fake(DeviceType::EntropySource, features, &[]);
    let now_us = Cell::new(0);
    let result = read(transport, Coherence::Coherent, || {
        play(&device);
        now_us.set(now_us.get() + 10_000);
        now_us.get()
    });
    assert!(now_us.get() <= TIMEOUT_US + 100_000, "{} µs", now_us.get());
    (result, device)
}

/// The device gives the next buffer so many bytes of this value.
fn give(device: &FakeDevice, value: u8, bytes: usize) {
    if let Some(number) = device.take(0) {
        device.write(0, number, &[value; KEY_BYTES][..bytes]);
        device.give_back(0, number.into(), bytes as u32);
    }
}

#[test]
fn a_device_gives_its_bytes_at_once_or_in_parts() {
    let (whole, device) = read_from(|device| give(device, 0xab, KEY_BYTES));
    assert_eq!(whole, Ok([0xab; KEY_BYTES]));
    assert_eq!(device.accepted(), FEATURE_VERSION_1);
    assert_eq!(device.steps(), [Step::Notify(0)]);
    let next = Cell::new(0_u8);
    let (parts, _) = read_from(|device| {
        if device.lent(0) > 0 {
            next.set(next.get() + 1);
            give(device, next.get(), [13, 7, 11, 1][usize::from(next.get()) - 1]);
        }
    });
    let expected = [&[1; 13][..], &[2; 7], &[3; 11], &[4; 1]].concat();
    assert_eq!(parts.unwrap()[..], expected);
}

#[test]
fn a_device_that_fails_ends_the_wait() {
    assert_eq!(read_from(|_| {}).0, Err(ReadError::Silent));
    // Half of the bytes, and no more.
    let is_done = Cell::new(false);
    let once = |device: &FakeDevice| {
        if device.lent(0) > 0 && !is_done.replace(true) {
            give(device, 1, KEY_BYTES / 2);
        }
    };
    assert_eq!(read_from(once).0, Err(ReadError::Silent));
    // No byte, and more than was asked for.
    assert_eq!(read_from(|device| give(device, 0, 0)).0, Err(ReadError::Broken));
    let too_long = |device: &FakeDevice| {
        if let Some(number) = device.take(0) {
            device.give_back(0, number.into(), KEY_BYTES as u32 + 1);
        }
    };
    assert_eq!(read_from(too_long).0, Err(ReadError::Broken));
    let wrong_number = |device: &FakeDevice| {
        if device.take(0).is_some() {
            device.give_back(0, 3, 1);
        }
    };
    assert_eq!(read_from(wrong_number).0, Err(ReadError::Broken));
    let (transport, _) = fake(DeviceType::EntropySource, FEATURE_VERSION_1, &[]);
    let refused = read(transport, Coherence::NonCoherent, || 0);
    assert_eq!(refused, Err(ReadError::Start(StartError::NotCoherent)));
}
