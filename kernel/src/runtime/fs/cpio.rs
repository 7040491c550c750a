//! cpio archives of the format "newc".
//!
//! An archive is a sequence of members up to a trailer. A member is a header in hexadecimal digits,
//! a name and a file.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. The bytes behind a
//! trailer are left to the caller: as with Linux, they may be another archive. [`archive`] writes an
//! archive, for tests and for the host commands.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Size of a member's header in bytes.
/// The header is the magic number and thirteen numbers of eight hexadecimal digits.
const HEADER_BYTES: usize = 6 + 13 * 8;
/// Indices of numbers in the header: mode, number of links, file size, name size.
const MODE: usize = 1;
const LINKS: usize = 4;
const FILE_SIZE: usize = 6;
const NAME_SIZE: usize = 11;
/// Mode bits of the file type, and their values for a regular file and a directory.
const TYPE: usize = 0o170_000;
const REGULAR: usize = 0o100_000;
const DIRECTORY: usize = 0o040_000;
/// The name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// The kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with its data.
    File,
    /// A directory.
    Directory,
    /// Any other kind, such as a symbolic link or a device.
    /// A further name of a file, whose data lies in another member, is of this kind as well.
    Other,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Position of the header, in the bytes around the archive.
    pub at: usize,
    /// The kind of the member.
    pub kind: Kind,
    /// The path, without the zero byte at its end.
    pub name: &'a [u8],
    /// Position of the data, in the same bytes.
    pub data: Range<usize>,
}

/// An error in an archive. Positions are in the bytes around the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpioError {
    /// The archive ends within the member at this position, or before its trailer.
    Truncated {
        /// Position of the member.
        at: usize,
    },
    /// The bytes here are no member.
    Damaged {
        /// Position where a member is expected.
        at: usize,
    },
}

impl Member<'_> {
    /// The member with its positions moved by `bytes`.
    pub fn behind(mut self, bytes: usize) -> Self {
        self.at += bytes;
        self.data = self.data.start + bytes..self.data.end + bytes;
        self
    }
}

impl CpioError {
    /// The error with its position moved by `bytes`.
    pub fn behind(self, bytes: usize) -> Self {
        match self {
            CpioError::Truncated { at } => CpioError::Truncated { at: at + bytes },
            CpioError::Damaged { at } => CpioError::Damaged { at: at + bytes },
        }
    }
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpioError::Truncated { at } => {
                write!(f, "is truncated: it ends in the entry at byte {at}")
            }
            CpioError::Damaged { at } => write!(f, "has no valid entry at byte {at}"),
        }
    }
}

/// Whether an archive starts here, with or without checksums.
///
/// Checksums are not checked.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// Reads the members of the archive that starts at byte `start`.
///
/// The members are in the archive's order, without the trailer. The second result is the end of the
/// archive.
///
/// # Errors
/// The archive is damaged.
pub fn members(bytes: &[u8], start: usize) -> Result<(Vec<Member<'_>>, usize), CpioError> {
    let mut members = Vec::new();
    let mut at = start;
    loop {
        let truncated = CpioError::Truncated { at };
        let damaged = CpioError::Damaged { at };
        let rest = bytes.get(at..).ok_or(truncated)?;
        let header = rest.get(..HEADER_BYTES).ok_or(truncated)?;
        if !is_archive(header) {
            return Err(damaged);
        }
        let number = |index: usize| {
            let digits = &header[6 + index * 8..][..8];
            // `from_str_radix` accepts a sign, too.
            let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or(damaged)
        };
        // No number is larger than 32 bits, so the sums do not overflow.
        let name_end = HEADER_BYTES + number(NAME_SIZE)?;
        let start = name_end.next_multiple_of(4);
        let end = start + number(FILE_SIZE)?;
        let name = rest.get(HEADER_BYTES..name_end).ok_or(truncated)?;
        let (&last, name) = name.split_last().ok_or(damaged)?;
        if last != 0 || name.contains(&0) {
            return Err(damaged);
        }
        if name == TRAILER.as_bytes() {
            return Ok((members, at + name_end));
        }
        if end > rest.len() {
            return Err(truncated);
        }
        let kind = match number(MODE)? & TYPE {
            // Of several names of a file, the last one has the data.
            REGULAR if number(LINKS)? > 1 && start == end => Kind::Other,
            REGULAR => Kind::File,
            DIRECTORY => Kind::Directory,
            _ => Kind::Other,
        };
        members.push(Member { at, kind, name, data: at + start..at + end });
        at += end.next_multiple_of(4);
    }
}

/// Formats the start of a member: its header and its name, padded.
///
/// The fields that no reader here takes (inode, time, device) are arbitrary.
pub fn header(name: &str, mode: u32, links: u32, bytes: u32) -> Vec<u8> {
    let name_bytes = name.len() + 1;
    let mut out = format!("070701{:08X}{mode:08X}{:08X}{:08X}", 7, 0, 0).into_bytes();
    out.extend(format!("{links:08X}{:08X}{bytes:08X}", 0x1234_5678).bytes());
    out.extend(format!("{:08X}{:08X}{:08X}{:08X}", 3, 1, 0, 0).bytes());
    out.extend(format!("{name_bytes:08X}{:08X}{name}\0", 0).bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Formats the member that ends an archive.
pub fn trailer() -> Vec<u8> {
    header(TRAILER, 0, 1, 0)
}

/// Formats an archive of members, each with name, mode, number of links and data.
///
/// The data of each member has less than 4 GiB.
pub fn archive(members: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, links, data) in members {
        out.extend(header(name, *mode, *links, data.len() as u32));
        out.extend(*data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out.extend(trailer());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u32 = 0o100_644;
    const FOLDER: u32 = 0o040_755;
    const SYMBOLIC_LINK: u32 = 0o120_777;

    #[test]
    fn members_come_in_order_with_their_data() {
        let data: Vec<u8> = (0..97).collect();
        let mut archive = archive(&[
            (".", FOLDER, 2, b""),
            ("link", SYMBOLIC_LINK, 1, b"elsewhere"),
            ("first name", FILE, 2, b""),
            ("empty", FILE, 1, b""),
            ("second name", FILE, 2, &data),
        ]);
        // With checksums, and padded to a block, as tools do.
        archive[..6].copy_from_slice(b"070702");
        archive.resize(1024, 0);
        let (members, _) = members(&archive, 0).unwrap();
        let seen: Vec<_> =
            members.iter().map(|member| (member.name, member.kind, member.data.len())).collect();
        assert_eq!(
            seen,
            [
                (&b"."[..], Kind::Directory, 0),
                (b"link", Kind::Other, 9),
                (b"first name", Kind::Other, 0),
                (b"empty", Kind::File, 0),
                (b"second name", Kind::File, 97),
            ]
        );
        assert_eq!(archive[members[4].data.clone()], data);
        assert!(archive[members[4].at..].starts_with(b"070701"));
    }

    #[test]
    fn every_truncation_is_told() {
        let members = |bytes| super::members(bytes, 0).map(|(members, _)| members);
        let whole = archive(&[("folder", FOLDER, 2, b""), ("file", FILE, 1, &[7; 97])]);
        // The padding behind the trailer may be missing.
        let end = whole.len() - 3;
        assert_eq!(whole[end - 1..], [0; 4]);
        for len in 6..end {
            let result = members(&whole[..len]);
            assert!(matches!(result, Err(CpioError::Truncated { .. })), "{len}: {result:?}");
        }
        assert_eq!(members(&whole[..end]).unwrap().len(), 2);
        assert_eq!(members(&whole[..0]), Err(CpioError::Truncated { at: 0 }));
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let whole = archive(&[(".", FOLDER, 2, b""), ("file", FILE, 1, b"data")]);
        let damaged = |place: usize, bytes: &[u8]| {
            let mut damaged = whole.clone();
            damaged[place..][..bytes.len()].copy_from_slice(bytes);
            members(&damaged, 0).unwrap_err()
        };
        let field = |index: usize| 112 + 6 + index * 8;
        for (place, bytes) in [
            (112, &b"x"[..]),
            (field(NAME_SIZE), b"+"),
            (field(MODE), b"x"),
            // No name; a name without its zero byte; a name with another zero byte.
            (field(NAME_SIZE), b"00000000"),
            (field(NAME_SIZE), b"00000003"),
            (112 + HEADER_BYTES + 1, b"\0"),
        ] {
            assert_eq!(damaged(place, bytes), CpioError::Damaged { at: 112 }, "{place}");
        }
        // A name and a file of the largest sizes.
        for place in [field(NAME_SIZE), field(FILE_SIZE)] {
            assert_eq!(damaged(place, b"FFFFFFFF"), CpioError::Truncated { at: 112 });
        }
    }

    #[test]
    fn an_archive_may_start_anywhere_and_ends_at_its_trailer() {
        let one = archive(&[("file", FILE, 1, b"data")]);
        // A start that is no multiple of four: padding is counted from the archive's own start.
        let three = [b"x", &one[..], &one[..], b"070701"].concat();
        let (first, end) = members(&three, 1).unwrap();
        assert_eq!((first[0].at, &three[first[0].data.clone()]), (1, &b"data"[..]));
        // The end is that of the trailer's name, without padding.
        assert_eq!(one.len(), (end - 1).next_multiple_of(4));
        let (second, end) = members(&three, 1 + one.len()).unwrap();
        assert_eq!((second[0].at, &three[second[0].data.clone()]), (1 + one.len(), &b"data"[..]));
        assert!(three.len() - 6 - end < 4);
        assert_eq!(
            members(&three, three.len() - 6),
            Err(CpioError::Truncated { at: three.len() - 6 })
        );
    }
}
