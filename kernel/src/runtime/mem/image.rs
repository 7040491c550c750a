//! The addresses of the image, by the linker's symbols (`kernel.ld`).

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

/// The image's SHA-256 in hexadecimal; `None` if the ELF file was started.
///
/// `image-builder kernel` writes the digest behind the header. The digest covers the whole file,
/// with zeros in the digest's place.
pub fn sha256() -> Option<String> {
    // The read is volatile, since the bytes are not the compiled ones.
    // SAFETY: the digest is a static of the code, which is mapped for reading and never written.
    let sum = unsafe { (&raw const __image_sha256).read_volatile() };
    let is_there = sum.iter().any(|&byte| byte != 0);
    is_there.then(|| sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Address of the image's first byte.
pub fn start() -> u64 {
    (&raw const __image_start) as u64
}

/// The instructions, and the header before them.
pub fn text() -> Range<u64> {
    start()..(&raw const __text_end) as u64
}

/// The constants.
pub fn rodata() -> Range<u64> {
    text().end..(&raw const __rodata_end) as u64
}

/// The variables.
pub fn data() -> Range<u64> {
    rodata().end..(&raw const __image_end) as u64
}

/// The symbol table of `image-builder kernel`, which `boot.s` has moved here; empty without one.
///
/// The table ends where the image ends by its header, since the builder makes the header's
/// `image_size` larger.
pub fn symbols() -> Range<u64> {
    let start = start();
    let header = start as *const u8;
    // SAFETY: the header is at the start of the image, 64 bytes long, aligned and never written.
    let size = unsafe { header.add(IMAGE_SIZE_AT).cast::<u64>().read() };
    data().end..(start + size).max(data().end)
}

/// The whole image.
pub fn whole() -> Range<u64> {
    start()..symbols().end
}
