//! Looks for a FAT volume on any disk and reads all that is on it: partition tables, boot sectors,
//! directories and files.
#![no_main]

use std::ptr::NonNull;
use std::sync::LazyLock;

use fuzz::disk::{BASES, Patched, SECTOR, disk};
use fuzz::limits::Limits;
use kernel::runtime::dev::block::Buffer;
use kernel::runtime::fs::FileSystem;
use kernel::runtime::fs::files::Files;
use kernel::runtime::fs::volume::{Extent, Volume};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Which image is changed.
    base: u8,
    /// A sector that cannot be read.
    bad: Option<u16>,
    /// Where a file is read from, in 64ths of it.
    from: u8,
    /// Bytes behind one of the image's places.
    patches: Vec<(u8, u16, &'a [u8])>,
}

/// A directory's entries, of the longest directory there can be, are larger than its bytes.
const LIMITS: Limits = Limits { memory: (8, 2 << 20), ns_per_byte: 1000 };

/// Files that are read, so that an input with many takes no longer than one with few.
const FILES: usize = 16;

fuzz_target!(|input: Input| {
    LazyLock::force(&BASES);
    let base = &BASES[usize::from(input.base) % BASES.len()];
    let mut image = Patched::new(base);
    for &(place, offset, bytes) in &input.patches {
        image.put(place, offset, bytes);
    }
    if base.gpt {
        image.mend_gpt();
    }
    let bad = input.bad.map(u64::from);
    let find = || Volume::find(disk(image.clone(), bad));
    LIMITS.hold(base.bytes.len(), || match find() {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(volume) => {
            check_volume(volume, &image, input.from, bad.is_some());
            if let Ok(volume) = find() {
                check_files(volume);
            }
        }
    });
});

/// Reads a part of each file and compares it with the disk.
fn check_volume(mut volume: Volume, image: &Patched<'_>, from: u8, may_fail: bool) {
    let report = volume.report();
    assert!(report.cluster_bytes.is_power_of_two());
    for path in files(&mut volume) {
        let Ok(entry) = volume.entry(&path) else { continue };
        let Ok(extents) = volume.extents(&path) else { continue };
        let bytes = check_extents(&extents, report.bytes);
        assert_eq!(bytes, entry.bytes, "{path}");
        let offset = bytes * u64::from(from % 64) / 64;
        let n = (bytes - offset).min(64 << 10) as usize;
        let mut data = vec![0; n];
        match volume.read(&extents, offset, lend(&mut data)) {
            Ok(()) => assert_eq!(data, expected(image, &extents, offset, n), "{path}"),
            Err(error) => assert!(may_fail, "{path}: {error}"),
        }
        // There is nothing behind a file.
        let mut more = vec![0; (bytes - offset).min(1 << 20) as usize + 1];
        let reads_on = offset + more.len() as u64 > bytes;
        assert!(!reads_on || volume.read(&extents, offset, lend(&mut more)).is_err());
    }
}

/// The paths of the first files in the root directory and the one below it.
fn files(volume: &mut Volume) -> Vec<String> {
    let mut paths = Vec::new();
    for folder in ["", "models"] {
        for entry in volume.directory(folder).unwrap_or_default() {
            if !entry.is_dir && paths.len() < FILES {
                paths.push(format!("{folder}/{}", entry.name));
            }
        }
    }
    paths
}

/// They follow each other in the file, lie on the disk and do not overlap there. Gives their length.
fn check_extents(extents: &[Extent], device_bytes: u64) -> u64 {
    let mut end = 0;
    for extent in extents {
        assert!(extent.offset == end && extent.bytes > 0, "{extents:?}");
        end += extent.bytes;
        assert!(extent.position + extent.bytes <= device_bytes, "{extents:?}");
    }
    let mut places: Vec<_> = extents.iter().map(|e| (e.position, e.position + e.bytes)).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{extents:?}");
    end
}

/// What the disk holds at `offset` of a file.
fn expected(image: &Patched<'_>, extents: &[Extent], offset: u64, n: usize) -> Vec<u8> {
    let mut data = vec![0; n];
    for extent in extents {
        let (start, end) = (extent.offset.max(offset), extent.offset + extent.bytes);
        let end = end.min(offset + n as u64);
        if start < end {
            let at = extent.position + (start - extent.offset);
            let part = &mut data[(start - offset) as usize..(end - offset) as usize];
            image.read(at as usize, part);
        }
    }
    data
}

/// Lends the data to a disk for the next read.
fn lend(data: &mut [u8]) -> Buffer {
    // SAFETY: nothing touches the data before the read is over, and the disk here never goes silent.
    unsafe { Buffer::new(NonNull::from(data)) }
}

/// The same through open files.
fn check_files(volume: Volume) {
    let mut files = Files::new();
    files.mount(volume);
    let Ok(folder) = files.open_directory("/models") else { return };
    let mut last = 0;
    let listed = files.list(folder, &mut |_, next| {
        assert_eq!(next, last + 1);
        last = next;
        true
    });
    assert_eq!(listed, Ok(()));
    assert_eq!(files.close(folder), Ok(()));
    assert!(files.close(folder).is_err());
    let Ok(file) = files.open("/anchorite.toml") else { return };
    let size = files.metadata(file).expect("an open file").bytes as usize;
    let mut data = vec![0; SECTOR];
    if let Ok(n) = files.read(file, lend(&mut data)) {
        assert_eq!(n, SECTOR.min(size));
        if let Ok(more) = files.read(file, lend(&mut data)) {
            assert_eq!(more, SECTOR.min(size - n));
        }
    }
}
