//! Unpacks gzip, in one piece of memory.
//!
//! A file may be made of several members, and between them may be zeros. What they hold follows each
//! other without a gap then, as gzip itself and Linux's initramfs have it.
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

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes that were read: all members, and the zeros behind each.
    pub taken: usize,
    /// Bytes that came out.
    pub made: usize,
}

/// Unpacks the members of gzip at the start of `gzip` to byte `start` of `out`. What is there before
/// that byte stays.
///
/// # Errors
/// A member is damaged, or the memory does not suffice.
pub fn unpack(gzip: &[u8], out: &mut impl Output, start: usize) -> Result<Unpacked, GzipError> {
    if start == 0 {
        // The size, modulo 2^32, if there is one member and nothing behind its trailer. Should it be
        // wrong, memory is asked for as it is needed.
        let size = gzip.last_chunk().map_or(0, |size| u32::from_le_bytes(*size)) as usize;
        let most = gzip.len().saturating_mul(MOST_PER_BYTE);
        out.grow(size.min(most).saturating_add(SLACK));
    }
    let mut inflate = Box::<DecompressorOxide>::default();
    let mut all = Unpacked { taken: 0, made: 0 };
    while is_gzip(&gzip[all.taken..]) {
        inflate.init();
        let member = unpack_member(&gzip[all.taken..], &mut inflate, out, start + all.made)?;
        all = Unpacked { taken: all.taken + member.taken, made: all.made + member.made };
        let rest = &gzip[all.taken..];
        all.taken += rest.iter().position(|&byte| byte != 0).unwrap_or(rest.len());
    }
    Ok(all)
}

fn unpack_member(
    gzip: &[u8],
    inflate: &mut DecompressorOxide,
    out: &mut impl Output,
    start: usize,
) -> Result<Unpacked, GzipError> {
    let packed = behind_header(gzip)?;
    let (mut taken, mut made) = (0, start);
    loop {
        // Twice as much each time, so that what is moved is no more than what is made.
        if made == out.bytes().len() && !out.grow(made.saturating_mul(2).max(STEP)) {
            return Err(GzipError::NoRoom { bytes: made });
        }
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, n_in, n_out) =
            decompress(inflate, &packed[taken..], &mut out.bytes()[start..], made - start, flags);
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

    let (trailer, rest) =
        packed[taken..].split_at_checked(TRAILER_BYTES).ok_or(GzipError::Truncated)?;
    let [crc, size] = [&trailer[..4], &trailer[4..]]
        .map(|field| field.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)));
    if size != (made - start) as u32 {
        return Err(GzipError::Damaged("its size is another"));
    }
    if crc != crc32fast::hash(&out.bytes()[start..made]) {
        return Err(GzipError::Checksum);
    }
    Ok(Unpacked { taken: gzip.len() - rest.len(), made: made - start })
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

    /// What comes out, if all of it is gzip.
    fn unpack(gzip: &[u8]) -> Result<Vec<u8>, GzipError> {
        let mut out = b"before".to_vec();
        let all = super::unpack(gzip, &mut out, 6)?;
        assert!(all.taken == gzip.len() && out.starts_with(b"before"), "{all:?}");
        Ok(out[6..6 + all.made].to_vec())
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
    fn members_and_zeros_may_follow() {
        let data = data();
        let mut packed = pack(&data);
        let length = packed.len();
        packed.resize(length + 4099, 0);
        assert_eq!(unpack(&packed).unwrap(), data);
        // What else follows is not looked at.
        let mut other = packed.clone();
        other[length + 97] = 1;
        let all = super::unpack(&other, &mut Vec::new(), 0).unwrap();
        assert_eq!(all, Unpacked { taken: length + 97, made: data.len() });
        let three = [&packed[..], &pack(b""), &pack(&vec![7; 2 * STEP]), &pack(b"end")].concat();
        assert_eq!(unpack(&three).unwrap(), [&data[..], &vec![7; 2 * STEP], b"end"].concat());
        // Each member is checked, also the second one.
        let mut damaged = three.clone();
        *damaged.last_mut().unwrap() = 1;
        assert_eq!(unpack(&damaged), Err(GzipError::Damaged("its size is another")));
        assert_eq!(unpack(&three[..three.len() - 1]), Err(GzipError::Truncated));
    }

    #[test]
    fn small_members_take_no_more_memory_than_one_large_one() {
        // The size that the last one tells is that of no other.
        let members: Vec<u8> = (0..997).flat_map(|i| pack(&[i as u8; 1009])).collect();
        let mut out = Vec::new();
        let all = super::unpack(&members, &mut out, 0).unwrap();
        assert_eq!(all, Unpacked { taken: members.len(), made: 997 * 1009 });
        assert_eq!(out.len(), STEP);
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
        assert_eq!(super::unpack(&packed, &mut out, 0), wrong);
        assert!(out.0[..data.len()] == data);
        let mut out = Scarce(Vec::new(), 2 * STEP);
        let no_room = super::unpack(&packed, &mut out, 0);
        assert_eq!(no_room, Err(GzipError::NoRoom { bytes: out.0.len() }));
        assert!(out.0.len() >= STEP, "{}", out.0.len());
        // With the size told right, it is asked for at once.
        let mut out = Scarce(Vec::new(), data.len() + SLACK);
        let packed = pack(&data);
        let all = Unpacked { taken: packed.len(), made: data.len() };
        assert_eq!(super::unpack(&packed, &mut out, 0), Ok(all));
    }
}
