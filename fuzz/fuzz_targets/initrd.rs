//! Looks for a disk, an archive of files or a model in an initrd, packed by gzip or not.
#![no_main]

use fuzz::limits::Limits;
use kernel::runtime::block::initrd::{self, Contents};
use libfuzzer_sys::fuzz_target;

/// What comes out of gzip is up to 1032 times as long, and moves as it grows; it grows by 4 MiB at least.
const LIMITS: Limits = Limits { memory: (4 * 1032, 16 << 20), ns_per_byte: 100_000 };

fuzz_target!(|initrd: &[u8]| LIMITS.hold(initrd.len(), || check(initrd)));

/// What is found in an initrd lies in it, also in one that comes out of another.
fn check(initrd: &[u8]) {
    let mut unpacked = Vec::new();
    match initrd::unpack(initrd, &mut unpacked) {
        Ok(None) => check_contents(initrd),
        Ok(Some(length)) => check_contents(&unpacked[..length]),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_contents(initrd: &[u8]) {
    match initrd::contents(initrd) {
        Ok(Contents::Disk(image)) => assert!(
            image.is_empty() || initrd.as_ptr_range().contains(&image.as_ptr()),
            "an image outside the initrd"
        ),
        Ok(Contents::Files { files, .. }) => {
            let mut paths: Vec<_> = files.iter().map(|file| &file.path).collect();
            paths.sort();
            assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "{paths:?}");
            assert!(files.iter().all(|file| initrd.get(file.data.clone()).is_some()), "{files:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
