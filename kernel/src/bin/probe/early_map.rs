//! The trial that reads the tables of the early map.

use core::ops::Range;

unsafe extern "C" {
    static early_tables: [u64; 512];
    static __image_start: u8;
    static __text_end: u8;
    static __image_end: u8;
}

/// The first byte of the image.
pub fn image_start() -> *mut u8 {
    (&raw const __image_start).cast_mut()
}

/// Reads the tables of the early map, which nothing has used since.
///
/// The image and what may be the device tree are memory. Only the code is executable. All else is
/// device memory.
pub fn early_map() -> bool {
    const BLOCK: u64 = 2 << 20;
    const NEVER_EXECUTE: u64 = 3 << 53;
    const MEMORY: u64 = 1 << 2;
    let place = |symbol: *const u8| symbol as u64;
    let start = place(image_start());
    let code = start..place(&raw const __text_end);
    let image = start..place(&raw const __image_end);
    let holds = |of: &Range<u64>, block: u64| block < of.end && of.start < block + BLOCK;
    // SAFETY: only `boot.s` and the processor have ever used the tables, each of which is whole.
    let table = |at: u64| unsafe { (at as *const [u64; 512]).read_volatile() };
    let below = |entry: u64| {
        (entry & 3 == 3).then(|| table(entry & 0xffff_ffff_f000)).into_iter().flatten()
    };
    let (mut right, mut of_image, mut of_tree) = (true, 0, 0);
    for large in table((&raw const early_tables) as u64).into_iter().flat_map(below) {
        // A block of 1 GiB is of devices.
        right &= large & 3 == 3 || large & (MEMORY | NEVER_EXECUTE) == NEVER_EXECUTE;
        for entry in below(large) {
            let block = entry & 0xffff_ffe0_0000;
            let executable = entry & NEVER_EXECUTE == 0;
            let is_memory = entry & MEMORY != 0;
            right &= entry & 3 == 1 && executable == holds(&code, block);
            right &= is_memory || entry & NEVER_EXECUTE == NEVER_EXECUTE;
            of_image += u64::from(is_memory && holds(&image, block));
            of_tree += u64::from(is_memory && !holds(&image, block));
        }
    }
    let blocks = image.end.div_ceil(BLOCK) - image.start / BLOCK;
    // QEMU's tree has 1 MiB; the names of functions behind the image may take a block more.
    right && of_image == blocks && of_tree <= 3
}
