use super::super::fake::{self, random};
use super::super::ram::RamDisk;
use super::*;
use crate::memory::LIVE;
use alloc::vec;

fn image(bytes: usize) -> Vec<u8> {
    let mut state = 7;
    (0..bytes).map(|_| random(&mut state) as u8).collect()
}

/// Fills `into` from `sector` on, in requests of `request_sectors`.
fn read_all(
    disk: &mut Disk,
    sector: u64,
    into: &mut [u8],
    request_sectors: usize,
) -> Result<(), DiskError> {
    let bytes = disk.sector_bytes();
    let mut requests = into.chunks_mut(request_sectors * bytes).enumerate().map(|(i, chunk)| {
        // SAFETY: the chunk is borrowed for the whole call; no test reads it after `Silent`.
        let buffer = unsafe { Buffer::new(NonNull::from(chunk)) };
        Request::new(sector + (i * request_sectors) as u64, buffer)
    });
    disk.read_queued(&mut requests)
}

#[test]
fn many_requests_are_under_way_and_each_lands_in_its_place() {
    for (sector_bytes, depth) in [(512, 16), (512, 1), (4096, 5)] {
        let image = image(331 * sector_bytes);
        let (mut disk, script) = fake::disk(image.clone(), sector_bytes, depth);
        let mut data = vec![0; 307 * sector_bytes];
        read_all(&mut disk, 19, &mut data, 3).unwrap();
        assert!(data == image[19 * sector_bytes..326 * sector_bytes]);
        assert_eq!(script.lock().unwrap().most_in_flight, depth);
    }
}

#[test]
fn a_passing_fault_is_overcome() {
    let image = image(211 * 512);
    let (mut disk, script) = fake::disk(image.clone(), 512, 7);
    // 31 sectors halve 5 times at most; a single sector may then fail twice.
    script.lock().unwrap().bad.extend([(3, 1), (100, 4), (209, 6)]);
    let mut data = vec![0; 211 * 512];
    read_all(&mut disk, 0, &mut data, 31).unwrap();
    assert!(data == image);
}

#[test]
fn a_lasting_fault_names_its_sector_and_spares_the_neighbours() {
    let image = image(211 * 512);
    for bad in [0, 1, 97, 210] {
        let (mut disk, script) = fake::disk(image.clone(), 512, 5);
        script.lock().unwrap().bad.insert(bad, u32::MAX);
        let mut data = vec![0; 211 * 512];
        let error = read_all(&mut disk, 0, &mut data, 23).unwrap_err();
        assert_eq!(error, DiskError::Unreadable { sector: bad });
        // The disk can still read all other sectors.
        let mut one = vec![0; 512];
        read_all(&mut disk, 211 - bad - 1, &mut one, 1).unwrap();
        assert!(one == image[(210 - bad as usize) * 512..][..512]);
        let tries = |s: &&(u64, u64)| **s == (bad, 1);
        assert_eq!(script.lock().unwrap().log.iter().filter(tries).count(), ATTEMPTS as usize);
    }
}

#[test]
fn a_silent_device_is_given_up_and_never_asked_again() {
    let (mut disk, script) = fake::disk(image(101 * 512), 512, 4);
    script.lock().unwrap().never = Some(41);
    let mut data = vec![0; 101 * 512];
    let error = read_all(&mut disk, 0, &mut data, 1).unwrap_err();
    assert_eq!(error, DiskError::Silent { sector: 41 });

    let asked = script.lock().unwrap().log.len();
    let error = disk.read(3, vec![0; 512].into()).unwrap_err();
    assert_eq!(error, DiskError::Silent { sector: 41 });
    assert_eq!(script.lock().unwrap().log.len(), asked);
}

#[test]
fn memory_that_a_silent_device_may_still_write_to_is_nobodys() {
    const BYTES: usize = 256 * 512;
    let freed = |never| {
        let (mut disk, script) = fake::disk(image(300 * 512), 512, 4);
        script.lock().unwrap().never = never;
        let buffer = vec![0; BYTES].into();
        let before = LIVE.get();
        assert_eq!(disk.read(3, buffer).is_err(), never.is_some());
        // The fake device's log takes far less than half of the buffer.
        before.saturating_sub(LIVE.get()) > BYTES / 2
    };
    assert!(freed(None));
    assert!(!freed(Some(4)));
}

#[test]
fn nothing_is_asked_of_the_device_past_its_end() {
    let (mut disk, script) = fake::disk(image(11 * 512), 512, 4);
    for (sector, sectors, reported) in [(11, 1, 11), (10, 2, 11), (u64::MAX, 1, u64::MAX)] {
        let error = disk.read(sector, vec![0; sectors * 512].into()).unwrap_err();
        assert_eq!(error, DiskError::OutOfRange { sector: reported });
    }
    assert!(script.lock().unwrap().log.is_empty());
    disk.read(10, vec![0; 512].into()).unwrap();
}

#[test]
fn a_ram_disk_holds_its_image() {
    let image: &'static [u8] = Vec::leak(image(17 * 512 + 13));
    let mut disk = Disk::new(Box::new(RamDisk::new(image)), Box::new(fake::FakeClock::default()));
    assert_eq!((disk.sectors(), disk.bytes()), (17, 17 * 512));
    let mut data = vec![0; 13 * 512];
    read_all(&mut disk, 4, &mut data, 5).unwrap();
    assert!(data == image[4 * 512..17 * 512]);
    assert!(disk.read(17, vec![0; 512].into()).is_err());
}
