//! Flattens the kernel's ELF file to the arm64 `Image` that boot loaders start.
//!
//! The header follows Linux, Documentation/arch/arm64/booting.rst. The load segments lie as in
//! memory, without the zeros at their end. A symbol table follows (see [`symbols`]).
//!
//! Behind the header is a slot for the SHA-256 of the whole image, computed with zeros in the slot.
//! The kernel reports this checksum in `hello`, so that a log identifies its image.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use host_io::console::print_line;
use host_io::files::Target;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::checksum::Sum;
use crate::symbols;

/// The place of the magic number in the header, and the magic number.
const MAGIC: (usize, &[u8; 4]) = (0x38, b"ARM\x64");
/// The place of `image_size` in the header: the bytes in memory, 64-bit.
const IMAGE_SIZE: usize = 0x10;
const HEADER_BYTES: usize = 0x40;
/// The mark between the header and the slot for the checksum.
const SLOT_MARK: &[u8; 8] = b"SHA-256=";
const SLOT: Range<usize> = 0x48..0x68;
/// The image ends at a multiple of this, as the kernel maps whole pages.
const PAGE: usize = 4096;

/// Writes the image of the ELF file `elf` to `out` and prints its size.
pub fn build(elf: &Path, out: &Path) -> Result<()> {
    let target = Target::new(out, &[elf.to_owned()])?;
    let bytes = fs::read(elf).with_context(|| {
        format!("cannot read {} (build the kernel first: make build)", elf.display())
    })?;
    let image = flatten(&bytes).with_context(|| format!("{} cannot be booted", elf.display()))?;
    target.write(|file| Ok(file.write_all(&image.bytes)?))?;
    print_line(format_args!(
        "{}: {} bytes ({} of code and data, {} of symbols), {} in memory",
        out.display(),
        image.bytes.len(),
        image.loaded,
        image.symbols,
        image.memory
    ))?;
    Ok(print_line(format_args!("    SHA-256 {}", image.sum))?)
}

/// Whether `bytes` start with the header of an arm64 `Image`.
pub fn has_header(bytes: &[u8]) -> bool {
    bytes.get(MAGIC.0..HEADER_BYTES).is_some_and(|tail| tail.starts_with(MAGIC.1))
}

/// The image's size in memory by its header, in bytes.
pub fn memory_bytes(image: &[u8]) -> Option<u64> {
    let field = image.get(IMAGE_SIZE..)?.first_chunk()?;
    has_header(image).then_some(u64::from_le_bytes(*field))
}

/// Reads and checks the image at `path` for a card or a boot loader.
///
/// # Errors
/// The file cannot be read, is not an image of this kernel, or is damaged.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let image = fs::read(path)
        .with_context(|| format!("cannot read {shown} (build the kernel first: make build)"))?;
    ensure!(
        has_header(&image),
        "{shown} is no kernel image: it lacks the header of an arm64 Image (make build makes \
         target/anchorite.img)"
    );
    let sum = sum_in(&image)
        .with_context(|| format!("{shown} was not made by `image-builder kernel`: no SHA-256"))?;
    ensure!(sum == sum_of(&image), "ChecksumMismatch: {shown} is damaged: build it anew");
    Ok(image)
}

/// The checksum in an image's slot; `None` if there is no slot, or an empty one.
pub fn sum_in(image: &[u8]) -> Option<Sum> {
    let marked = image.get(HEADER_BYTES..SLOT.start)? == SLOT_MARK;
    let sum = image.get(SLOT)?.first_chunk()?;
    (marked && sum.iter().any(|&byte| byte != 0)).then_some(Sum::from_bytes(*sum))
}

/// The checksum of an image that has a slot, computed with zeros there.
pub fn sum_of(image: &[u8]) -> Sum {
    let (before, after) = (&image[..SLOT.start], &image[SLOT.end..]);
    Sum::of_parts([before, &[0; SLOT.end - SLOT.start], after])
}

/// A flat image, with the sizes of its parts in bytes.
struct Image {
    bytes: Vec<u8>,
    /// From the ELF file.
    loaded: usize,
    /// The image in memory.
    memory: usize,
    /// The symbol table.
    symbols: usize,
    /// The checksum in the slot.
    sum: Sum,
}

fn flatten(bytes: &[u8]) -> Result<Image> {
    let file = ElfFile64::<Endianness>::parse(bytes).context("not a 64-bit ELF file")?;
    let endian = file.endian();
    let header = file.elf_header();
    ensure!(
        header.e_machine(endian) == elf::EM_AARCH64 && endian == Endianness::Little,
        "not for little-endian aarch64: build it with --target aarch64-unknown-none"
    );

    let segments: Vec<_> = file
        .elf_program_headers()
        .iter()
        .filter(|s| s.p_type(endian) == elf::PT_LOAD && s.p_memsz(endian) > 0)
        .collect();
    let Some(base) = segments.iter().map(|s| s.p_vaddr(endian)).min() else {
        bail!("it has no segment to load");
    };
    let mut image = Vec::new();
    let mut memory = 0;
    for segment in segments {
        let data = segment.data(endian, bytes).ok().context("a segment lies outside the file")?;
        let start = usize::try_from(segment.p_vaddr(endian) - base)?;
        let end = start.checked_add(usize::try_from(segment.p_memsz(endian))?);
        let end = end.filter(|end| *end < u32::MAX as usize && start + data.len() <= *end);
        memory = memory.max(end.context("a segment has an impossible size")?);
        image.resize(image.len().max(start + data.len()), 0);
        image[start..][..data.len()].copy_from_slice(data);
    }

    ensure!(
        has_header(&image),
        "it does not start with an arm64 Image header (\"ARM\\x64\" at 0x38)"
    );
    ensure!(
        image.get(HEADER_BYTES..SLOT.start) == Some(SLOT_MARK) && image.len() >= SLOT.end,
        "there is no slot for the SHA-256 behind its header (\"SHA-256=\" at 0x40)"
    );
    let image_size = u64::from_le_bytes(image[IMAGE_SIZE..][..8].try_into()?);
    let image_size = usize::try_from(image_size)?;
    ensure!(
        image_size >= memory && image_size < u32::MAX as usize,
        "its header asks for {image_size} bytes of memory (image_size), but it needs {memory}"
    );

    let loaded = image.len();
    let mut memory = image_size;
    let mut symbols = 0;
    if let Some(table) = symbols::table(&file, base) {
        let place = symbols::place(&file, base)
            .context("it lacks the symbols `__bss_start` and `early_tables`")?;
        ensure!(
            place.start >= loaded && place.start % 16 == 0,
            "its data ends behind `__bss_start`"
        );
        symbols = table.len();
        let bytes = symbols.next_multiple_of(PAGE);
        ensure!(
            place.start + bytes <= place.end,
            "its symbol table of {symbols} bytes is too large to be moved at boot: `.bss` has room for \
             {} bytes",
            place.len()
        );
        image.resize(place.start, 0);
        image.extend(table);
        image.resize(place.start + bytes, 0);
        memory += bytes;
        image[IMAGE_SIZE..][..8].copy_from_slice(&(memory as u64).to_le_bytes());
    }
    let sum = sum_of(&image);
    image[SLOT].copy_from_slice(sum.as_bytes());
    Ok(Image { bytes: image, loaded, memory, symbols, sum })
}
