//! Where the image lies, by the linker's symbols (`kernel.ld`).

use alloc::format;
use alloc::string::String;
use core::ops::Range;

unsafe extern "C" {
    static __image_sha256: [u8; 32];
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

/// Offset of `image_size` in the arm64 `Image` header.
const IMAGE_SIZE_AT: usize = 16;

/// The image's SHA-256 in hexadecimal, as `image-builder kernel` wrote it down behind the header:
/// over all of the file, with zeros in this place. `None` if it is the ELF file that was started.
pub fn sha256() -> Option<String> {
    // Volatile, since these are not the bytes that were compiled.
    // SAFETY: a static of the code, which is mapped for reading and never written.
    let sum = unsafe { (&raw const __image_sha256).read_volatile() };
    let is_there = sum.iter().any(|&byte| byte != 0);
    is_there.then(|| sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Address of the image's first byte.
pub fn start() -> u64 {
    (&raw const __image_start) as u64
}

/// Instructions, and the header before them.
pub fn text() -> Range<u64> {
    start()..(&raw const __text_end) as u64
}

/// Constants.
pub fn rodata() -> Range<u64> {
    text().end..(&raw const __rodata_end) as u64
}

/// Variables.
pub fn data() -> Range<u64> {
    rodata().end..(&raw const __image_end) as u64
}

/// The symbol table that `image-builder kernel` appends; empty where there is none. Its end is
/// that of the image as the header has it, since the builder makes that larger.
pub fn symbols() -> Range<u64> {
    let start = start();
    let header = start as *const u8;
    // SAFETY: the header is at the start of the image, 64 bytes long, aligned, never written.
    let size = unsafe { header.add(IMAGE_SIZE_AT).cast::<u64>().read() };
    data().end..(start + size).max(data().end)
}

/// All of it.
pub fn whole() -> Range<u64> {
    start()..symbols().end
}
