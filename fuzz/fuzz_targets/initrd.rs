//! Looks for a disk, archives of files or a model in an initrd, each packed by gzip or not.
#![no_main]

use fuzz::limits::Limits;
use kernel::runtime::fs::initrd::{self, Contents, Part};
use libfuzzer_sys::fuzz_target;

/// What comes out of gzip is up to 1032 times as long, and moves as it grows; it grows by 4 MiB at least.
const LIMITS: Limits = Limits { memory: (4 * 1032, 16 << 20), ns_per_byte: 100_000 };

fuzz_target!(|initrd: &[u8]| LIMITS.hold(initrd.len(), || check(initrd)));

/// What is found in an initrd lies in one part of it.
fn check(initrd: &[u8]) {
    let mut unpacked = Vec::new();
    let parts = match initrd::unpack(initrd, &mut unpacked) {
        Ok(parts) => parts,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // The parts as they lie do not overlap, and those that are unpacked leave nothing out.
    let (mut done, mut made) = (0, 0);
    for part in &parts {
        match part {
            Part::AsIs(range) => {
                assert!(done <= range.start && range.end <= initrd.len(), "{parts:?}");
                done = range.end;
            }
            Part::Unpacked(range) => {
                assert!(made == range.start && range.end <= unpacked.len(), "{parts:?}");
                made = range.end;
            }
        }
    }
    let parts = initrd::bytes_of(initrd, &unpacked, &parts);
    check_contents(&parts);
}

fn check_contents(parts: &[&[u8]]) {
    match initrd::contents(parts) {
        Ok(Contents::Disk(image)) => assert!(
            image.is_empty()
                || parts.iter().any(|part| part.as_ptr_range().contains(&image.as_ptr())),
            "an image outside the initrd"
        ),
        Ok(Contents::Files { files, .. }) => {
            let mut paths: Vec<_> = files.iter().map(|file| file.path.to_uppercase()).collect();
            paths.sort();
            assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "{paths:?}");
            for file in files {
                let mut start = 0;
                let lies_in_one = parts.iter().any(|part| {
                    let here = start..start + part.len();
                    start = here.end;
                    here.start <= file.data.start && file.data.end <= here.end
                });
                assert!(lies_in_one && file.data.start <= file.data.end, "{file:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
