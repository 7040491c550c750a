//! The forms of an initial RAM disk: a disk image itself, or a cpio archive that holds one. The image
//! is used where it lies.
//!
//! Older versions of m1n1 take nothing but cpio archives. Source of that format ("newc"): Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst.

#![forbid(unsafe_code)]

use core::fmt;

use crate::report::{Code, Fault};

/// Bytes of a member's header: the magic number and thirteen numbers of eight hexadecimal digits.
const HEADER_BYTES: usize = 6 + 13 * 8;
/// Which of the numbers is the mode, the size of the file, the size of its name.
const MODE: usize = 1;
const FILE_SIZE: usize = 6;
const NAME_SIZE: usize = 11;
/// The mode's bits for the type of a file, and those of a regular one.
const TYPE: usize = 0o170_000;
const REGULAR: usize = 0o100_000;
/// The name of the member that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!\0";

/// Why an initrd cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdError {
    /// It is compressed, in this format.
    Compressed(&'static str),
    /// The archive ends within the member at this byte, or before its trailer.
    Truncated {
        /// Where the member starts.
        at: usize,
    },
    /// What lies at this byte of the archive is no member.
    Damaged {
        /// Where the member should start.
        at: usize,
    },
    /// The archive holds a model where a disk image should be.
    BareModel,
    /// The archive holds no file.
    Empty,
}

impl fmt::Display for InitrdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitrdError::Compressed(format) => write!(f, "the initrd is compressed with {format}"),
            InitrdError::Truncated { at } => {
                write!(
                    f,
                    "the initrd is truncated: its cpio archive ends in the entry at byte {at}"
                )
            }
            InitrdError::Damaged { at } => {
                write!(f, "the initrd's cpio archive has no valid entry at byte {at}")
            }
            InitrdError::BareModel => {
                f.write_str("the initrd's cpio archive holds a GGUF file, not a disk image")
            }
            InitrdError::Empty => f.write_str("the initrd's cpio archive holds no file"),
        }
    }
}

impl core::error::Error for InitrdError {}

impl From<InitrdError> for Fault {
    fn from(error: InitrdError) -> Fault {
        let hint = match error {
            InitrdError::Compressed(_) => "give the boot loader the initrd uncompressed",
            InitrdError::Truncated { .. } | InitrdError::Damaged { .. } => {
                "copy the initrd to the boot medium again, or make it anew"
            }
            InitrdError::BareModel | InitrdError::Empty => {
                "put a disk image in the archive: `image-builder disk` makes one from a model"
            }
        };
        Fault { code: Code::DiskError, message: alloc::format!("{error}"), hint: hint.into() }
    }
}

/// The disk image of an initrd: of a cpio archive the first file that is not empty, otherwise all.
///
/// # Errors
/// There is none, see [`InitrdError`].
pub fn disk_image(initrd: &[u8]) -> Result<&[u8], InitrdError> {
    for (magic, format) in
        [(&b"\x1f\x8b"[..], "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")]
    {
        if initrd.starts_with(magic) {
            return Err(InitrdError::Compressed(format));
        }
    }
    if !is_member(initrd) {
        return Ok(initrd);
    }
    let mut at = 0;
    loop {
        let truncated = InitrdError::Truncated { at };
        let damaged = InitrdError::Damaged { at };
        let rest = initrd.get(at..).ok_or(truncated)?;
        let header = rest.get(..HEADER_BYTES).ok_or(truncated)?;
        if !is_member(header) {
            return Err(damaged);
        }
        let number = |index: usize| {
            let digits = &header[6 + index * 8..][..8];
            // `from_str_radix` takes a sign, too.
            let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or(damaged)
        };
        // None of the numbers is larger than 32 bits, so that the sums do not overflow.
        let name_end = HEADER_BYTES + number(NAME_SIZE)?;
        let start = name_end.next_multiple_of(4);
        let end = start + number(FILE_SIZE)?;
        if rest.get(HEADER_BYTES..name_end).ok_or(truncated)? == TRAILER {
            return Err(InitrdError::Empty);
        }
        let file = rest.get(start..end).ok_or(truncated)?;
        if number(MODE)? & TYPE == REGULAR && !file.is_empty() {
            return if file.starts_with(b"GGUF") { Err(InitrdError::BareModel) } else { Ok(file) };
        }
        at += end.next_multiple_of(4);
    }
}

/// A member of an archive starts here, without or with a checksum, which is not checked.
fn is_member(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::*;

    const FILE: usize = 0o100_644;
    const FOLDER: usize = 0o040_755;

    fn archive(members: &[(&str, usize, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, mode, data) in members.iter().chain(&[("TRAILER!!!", 0, &b""[..])]) {
            let (size, name_size) = (data.len(), name.len() + 1);
            out.extend(format!("070701{:08X}{mode:08X}{:08X}{:08X}", 7, 0, 0).bytes());
            out.extend(format!("{:08X}{:08X}{size:08X}", 1, 0x1234_5678).bytes());
            out.extend(format!("{:08X}{:08X}{:08X}{:08X}", 3, 1, 0, 0).bytes());
            out.extend(format!("{name_size:08X}{:08X}{name}\0", 0).bytes());
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(*data);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn what_is_no_archive_is_an_image() {
        for image in [&b"\xeb\x3c\x90MSDOS5.0"[..], b"0707", b"070707", b""] {
            assert_eq!(disk_image(image), Ok(image));
        }
    }

    #[test]
    fn the_first_file_of_an_archive_is_the_image() {
        let data: Vec<u8> = (0..97).collect();
        let members = [
            (".", FOLDER, &b""[..]),
            ("a link", 0o120_777, b"elsewhere"),
            ("empty", FILE, b""),
            ("disk.img", FILE, &data),
            ("notes", FILE, b"text"),
        ];
        assert_eq!(disk_image(&archive(&members)), Ok(&data[..]));
        let checked = archive(&[("disk.img", FILE, &data)]);
        let checked = [b"070702", &checked[6..]].concat();
        assert_eq!(disk_image(&checked), Ok(&data[..]));
    }

    #[test]
    fn every_truncation_up_to_the_image_s_end_is_told() {
        let data = [7; 97];
        let whole = archive(&[("folder", FOLDER, b""), ("disk.img", FILE, &data)]);
        let start = whole.windows(97).position(|window| window == data).unwrap();
        for len in 6..start + 97 {
            let result = disk_image(&whole[..len]);
            assert!(matches!(result, Err(InitrdError::Truncated { .. })), "{len}: {result:?}");
        }
        assert_eq!(disk_image(&whole[..start + 97]), Ok(&data[..]));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (magic, format) in [
            (&b"\x1f\x8b\x08"[..], "gzip"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"\x28\xb5\x2f\xfd\0", "zstd"),
        ] {
            assert_eq!(disk_image(magic), Err(InitrdError::Compressed(format)));
        }
        let model = archive(&[("m.gguf", FILE, b"GGUF\x03\0\0\0")]);
        assert_eq!(disk_image(&model), Err(InitrdError::BareModel));
        assert_eq!(disk_image(&archive(&[(".", FOLDER, b"")])), Err(InitrdError::Empty));
        let second = archive(&[(".", FOLDER, b"")]);
        // The size of the name in the second header, and its magic number.
        for place in [112 + 6 + NAME_SIZE * 8, 112] {
            let mut damaged = second.clone();
            damaged[place] = b'+';
            assert_eq!(disk_image(&damaged), Err(InitrdError::Damaged { at: 112 }));
        }
        // A file larger than any.
        let mut huge = archive(&[("disk.img", FILE, b"data")]);
        huge[6 + FILE_SIZE * 8..][..8].copy_from_slice(b"FFFFFFFF");
        assert_eq!(disk_image(&huge), Err(InitrdError::Truncated { at: 0 }));
    }
}
