//! Reads payloads as m1n1 does: m1n1, src/payload.c, `load_one_payload`.
//!
//! The tests come in m1n1's order. The reader shares no code with the writer, so that each checks
//! the other. m1n1 knows more kinds (xz, cpio, logos, signatures). Here these are errors, as the
//! writer does not make them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::GzDecoder;

/// A payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// A kernel, unpacked.
    Kernel(Vec<u8>),
    /// A device tree.
    Tree(Vec<u8>),
    /// A line `NAME=VALUE`, without its newline.
    Variable(String),
    /// An initial memory disk. The payload's place is the disk's first byte.
    Initramfs {
        /// The length.
        bytes: u64,
    },
}

/// The bytes of a payload that are read at once. Only a memory disk is larger.
const LARGEST: u64 = 64 << 20;
/// The maximum lengths of a variable's name and value.
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;

/// The payloads from byte `start` of the file on, each with its place.
pub fn read(file: &mut File, start: u64) -> Result<Vec<(u64, Payload)>> {
    let mut at = start;
    let mut payloads = Vec::new();
    loop {
        let mut window = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.take(LARGEST).read_to_end(&mut window)?;
        let (payload, place, next) = match one(&window).with_context(|| format!("at byte {at}"))? {
            None => return Ok(payloads),
            Some(found) => found,
        };
        payloads.push((at + place as u64, payload));
        at += next;
    }
}

/// The first payload in `p`, its place, and the next one's; `None` at the end.
fn one(p: &[u8]) -> Result<Option<(Payload, usize, u64)>> {
    if p.starts_with(&[0x1f, 0x8b]) {
        let mut packed = p;
        let mut kernel = Vec::new();
        GzDecoder::new(&mut packed).read_to_end(&mut kernel)?;
        // m1n1 tests the unpacked bytes in the same way.
        ensure!(kernel.get(0x38..0x3c) == Some(b"ARM\x64"), "no kernel is in the gzip stream");
        let image_size = kernel[0x10..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let fits = image_size.is_some_and(|size| kernel.len() as u64 <= size);
        ensure!(fits, "the kernel is larger than the image_size of its header");
        return Ok(Some((Payload::Kernel(kernel), 0, (p.len() - packed.len()) as u64)));
    }
    if p.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) {
        let size = p.get(4..).and_then(|p| p.first_chunk()).context("half a device tree")?;
        let size = u32::from_be_bytes(*size) as usize;
        let tree = p.get(..size).context("a device tree is cut short")?;
        return Ok(Some((Payload::Tree(tree.to_vec()), 0, size as u64)));
    }
    if p.get(0x38..0x3c) == Some(b"ARM\x64") {
        bail!("m1n1 would take this for a kernel that is not compressed, and for the last payload");
    }
    if let Some(rest) = p.strip_prefix(b"m1n1_initramfs") {
        let size = rest.first_chunk().context("a memory disk without its length")?;
        let bytes = u64::from(u32::from_le_bytes(*size));
        return Ok(Some((Payload::Initramfs { bytes }, 18, 18 + bytes)));
    }
    if let Some(line) = variable(p) {
        let text = std::str::from_utf8(line).context("a variable is no text")?;
        let next = line.len() as u64 + 1;
        return Ok(Some((Payload::Variable(text.to_owned()), 0, next)));
    }
    if p.starts_with(&[0; 4]) {
        return Ok(None);
    }
    bail!("there is no payload that m1n1 knows, and no end");
}

/// The line at the start of `p`, if m1n1 takes it for a variable.
///
/// A zero byte ends the search for the name and the value.
fn variable(p: &[u8]) -> Option<&[u8]> {
    let text = p.split(|&byte| byte == 0).next()?;
    let name = text.iter().take(MAX_NAME + 1).position(|&byte| byte == b'=')?;
    let value = text[name + 1..].iter().take(MAX_VALUE + 1).position(|&byte| byte == b'\n')?;
    Some(&text[..name + 1 + value])
}
