//! Unpacks gzip, in one piece of memory.
//!
//! Source: RFC 1952, for the frame; what lies within is DEFLATE, RFC 1951, and left to `miniz_oxide`.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

const MAGIC: &[u8] = b"\x1f\x8b";
const DEFLATE: u8 = 8;
/// Bytes of the header that are always there, and of the trailer.
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;
/// Flags of the header: which fields follow it.
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// No byte of DEFLATE's makes more than so many.
const MOST_PER_BYTE: usize = 1032;
/// Bytes that are made in one go.
const STEP: usize = 4 << 20;
/// Room behind the size that is expected, so that the end is found without asking for more.
const SLACK: usize = 512;

/// Why something cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipError {
    /// It ends before its end.
    Truncated,
    /// Something in it makes no sense.
    Damaged(&'static str),
    /// What comes out is not what was packed.
    Checksum,
    /// There is no memory for more than so many bytes of what comes out.
    NoRoom {
        /// How many there is memory for.
        bytes: usize,
    },
}

impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GzipError::Truncated => f.write_str("is truncated"),
            GzipError::Damaged(what) => write!(f, "is damaged: {what}"),
            GzipError::Checksum => f.write_str("is damaged: its checksum is another"),
            GzipError::NoRoom { bytes } => {
                write!(f, "unpacks to more than the {} MiB that there is room for", bytes >> 20)
            }
        }
    }
}

/// Whether gzip starts here.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Memory for what comes out.
pub trait Output {
    /// Makes it at least `bytes` bytes long; what is there stays. False if there is no memory for that.
    fn grow(&mut self, bytes: usize) -> bool;

    /// All of it.
    fn bytes(&mut self) -> &mut [u8];
}

impl Output for Vec<u8> {
    fn grow(&mut self, bytes: usize) -> bool {
        let there = self.try_reserve_exact(bytes.saturating_sub(self.len())).is_ok();
        if there && bytes > self.len() {
            self.resize(bytes, 0);
        }
        there
    }

    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

/// Unpacks `gzip`, which may be padded with zeros, to the start of `out`; returns how many bytes come out.
///
/// # Errors
/// It is damaged, or the memory does not suffice.
pub fn unpack(gzip: &[u8], out: &mut impl Output) -> Result<usize, GzipError> {
    let packed = behind_header(gzip)?;
    // The size, modulo 2^32, if nothing is behind the trailer. Should it be wrong, memory is asked for
    // as it is needed.
    let size = gzip.last_chunk().map_or(0, |size| u32::from_le_bytes(*size)) as usize;
    let most = packed.len().saturating_mul(MOST_PER_BYTE);
    out.grow(size.min(most).saturating_add(SLACK));

    let mut inflate = Box::<DecompressorOxide>::default();
    let (mut taken, mut made) = (0, 0);
    loop {
        // Twice as much each time, so that what is moved is no more than what is made.
        if made == out.bytes().len() && !out.grow(made.saturating_mul(2).max(STEP)) {
            return Err(GzipError::NoRoom { bytes: made });
        }
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, n_in, n_out) =
            decompress(&mut inflate, &packed[taken..], out.bytes(), made, flags);
        taken += n_in;
        made += n_out;
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(GzipError::Truncated);
            }
            _ => return Err(GzipError::Damaged("its data is not DEFLATE's")),
        }
    }

    let (trailer, padding) =
        packed[taken..].split_at_checked(TRAILER_BYTES).ok_or(GzipError::Truncated)?;
    let [crc, size] = [&trailer[..4], &trailer[4..]]
        .map(|field| field.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)));
    if size != made as u32 {
        return Err(GzipError::Damaged("its size is another"));
    }
    if crc != crc32fast::hash(&out.bytes()[..made]) {
        return Err(GzipError::Checksum);
    }
    if padding.iter().any(|&byte| byte != 0) {
        return Err(GzipError::Damaged("there is data behind its end"));
    }
    Ok(made)
}

/// What follows the header.
fn behind_header(gzip: &[u8]) -> Result<&[u8], GzipError> {
    let (header, mut rest) = gzip.split_at_checked(HEADER_BYTES).ok_or(GzipError::Truncated)?;
    let (method, flags) = (header[2], header[3]);
    if method != DEFLATE || flags & RESERVED != 0 {
        return Err(GzipError::Damaged("its header is none that we know"));
    }
    let skip = |rest: &mut &[u8], bytes: usize| {
        *rest = rest.get(bytes..).ok_or(GzipError::Truncated)?;
        Ok(())
    };
    if flags & FEXTRA != 0 {
        let length = rest.first_chunk().ok_or(GzipError::Truncated)?;
        skip(&mut rest, 2 + usize::from(u16::from_le_bytes(*length)))?;
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0).ok_or(GzipError::Truncated)?;
            skip(&mut rest, end + 1)?;
        }
    }
    if flags & FHCRC != 0 {
        skip(&mut rest, 2)?;
    }
    Ok(rest)
}

#[cfg(test)]
pub use tests::pack;

#[cfg(test)]
mod tests {
    use alloc::vec;
    use std::io::Write;

    use super::*;

    /// `data`, packed by another implementation of the frame.
    pub fn pack(data: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(data).unwrap();
        packer.finish().unwrap()
    }

    fn unpack(gzip: &[u8]) -> Result<Vec<u8>, GzipError> {
        let mut out = Vec::new();
        let made = super::unpack(gzip, &mut out)?;
        out.truncate(made);
        Ok(out)
    }

    /// Text that packs well, and noise that does not.
    fn data() -> Vec<u8> {
        let mut data = b"Once upon a time. ".repeat(10_007);
        let mut state = 1_u32;
        data.extend((0..100_003).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
        data
    }

    #[test]
    fn what_was_packed_comes_out() {
        for data in [data(), vec![], vec![0], vec![7; 3 * STEP + 101]] {
            assert!(unpack(&pack(&data)).unwrap() == data, "{} bytes", data.len());
        }
    }

    #[test]
    fn all_fields_of_the_header_are_skipped() {
        let data = data();
        let mut packer = flate2::GzBuilder::new()
            .filename("initrd.cpio")
            .comment("a comment")
            .extra(vec![0; 101])
            .write(Vec::new(), flate2::Compression::best());
        packer.write_all(&data).unwrap();
        let mut packed = packer.finish().unwrap();
        assert_eq!(unpack(&packed).unwrap(), data);
        // The header's checksum, behind the other fields.
        let end = packed.len() - behind_header(&packed).unwrap().len();
        packed[3] |= FHCRC;
        packed.splice(end..end, [1, 2]);
        assert_eq!(unpack(&packed).unwrap(), data);
    }

    #[test]
    fn zeros_may_follow_and_nothing_else() {
        let data = data();
        let mut packed = pack(&data);
        let length = packed.len();
        packed.resize(length + 4099, 0);
        assert_eq!(unpack(&packed).unwrap(), data);
        packed[length + 97] = 1;
        assert_eq!(unpack(&packed), Err(GzipError::Damaged("there is data behind its end")));
        let two = [pack(&data), pack(&data)].concat();
        assert_eq!(unpack(&two), Err(GzipError::Damaged("there is data behind its end")));
    }

    #[test]
    fn every_truncation_is_told() {
        let packed = pack(&data()[180_000..181_009]);
        for length in (2..packed.len()).rev().take(101).chain((2..packed.len()).step_by(13)) {
            assert_eq!(unpack(&packed[..length]), Err(GzipError::Truncated), "{length} bytes");
        }
    }

    #[test]
    fn damage_is_told() {
        let packed = pack(&data());
        let damaged = |place: usize| {
            let mut damaged = packed.clone();
            damaged[place] ^= 0x41;
            unpack(&damaged).unwrap_err()
        };
        let length = packed.len();
        assert_eq!(damaged(2), GzipError::Damaged("its header is none that we know"));
        assert_eq!(damaged(3), GzipError::Damaged("its header is none that we know"));
        assert_eq!(damaged(length - 8), GzipError::Checksum);
        assert_eq!(damaged(length - 4), GzipError::Damaged("its size is another"));
        // A bit of the data: DEFLATE may or may not notice, but the checksum does.
        for place in (HEADER_BYTES..length - TRAILER_BYTES).step_by(997) {
            damaged(place);
        }
        // A block of a type that does not exist.
        let mut damaged = packed.clone();
        damaged[HEADER_BYTES] = 0b111;
        assert_eq!(unpack(&damaged), Err(GzipError::Damaged("its data is not DEFLATE's")));
    }

    #[test]
    fn a_size_that_is_told_wrong_takes_more_memory_until_there_is_none() {
        /// So much memory and no more.
        struct Scarce(Vec<u8>, usize);

        impl Output for Scarce {
            fn grow(&mut self, bytes: usize) -> bool {
                bytes <= self.1 && self.0.grow(bytes)
            }

            fn bytes(&mut self) -> &mut [u8] {
                &mut self.0
            }
        }

        let data = vec![7; 3 * STEP + 101];
        let mut packed = pack(&data);
        let size = packed.len() - 4;
        packed[size..].copy_from_slice(&17_u32.to_le_bytes());
        let mut out = Scarce(Vec::new(), 4 * STEP + 4 * SLACK);
        let wrong = Err(GzipError::Damaged("its size is another"));
        assert_eq!(super::unpack(&packed, &mut out), wrong);
        assert!(out.0[..data.len()] == data);
        let mut out = Scarce(Vec::new(), 2 * STEP);
        let no_room = super::unpack(&packed, &mut out);
        assert_eq!(no_room, Err(GzipError::NoRoom { bytes: out.0.len() }));
        assert!(out.0.len() >= STEP, "{}", out.0.len());
        // With the size told right, it is asked for at once.
        let mut out = Scarce(Vec::new(), data.len() + SLACK);
        assert_eq!(super::unpack(&pack(&data), &mut out), Ok(data.len()));
    }
}
