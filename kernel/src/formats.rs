//! Foreign formats of files and disks, by their first bytes.
//!
//! A file that is given by mistake as a model, an initrd or a disk is named, with what to do. The
//! kernel and `image-builder` share these tables, so that both judge alike.
//!
//! Sources: the magic numbers are those of the formats' own specifications. The one of tar is in
//! POSIX (pax, "ustar Interchange Format"). Those of file systems are in the Linux kernel's
//! `include/uapi/linux/magic.h` and in the headers of its file systems.

#![forbid(unsafe_code)]

use core::fmt;

/// Number of first bytes of a file that [`Format::of`] looks at.
pub const START: usize = 512;

/// Format of a file that is not a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A file packed in this format.
    Compressed(&'static str),
    /// This archive of files.
    Archive(&'static str),
    /// Another file.
    Other {
        /// Name, with its article.
        name: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

use Format::{Archive, Compressed, Other};

const CONVERT: &str = "get a GGUF file of the model, or convert it with llama.cpp's \
                       convert_hf_to_gguf.py";
const OLD: &str = "get a newer GGUF file of the model: the formats before GGUF are not read";
const DOWNLOAD: &str = "if it was downloaded, the download failed and left a message in the model's place: look into the \
                        file, and get the model again (on Hugging Face the address of a file has \
                        `resolve` in it, not `blob`)";

/// Offset and bytes of magic numbers of files, with the format.
const FILES: &[(usize, &[u8], Format)] = &[
    (0, b"\x1f\x8b", Compressed("gzip")),
    (0, b"\xfd7zXZ\0", Compressed("xz")),
    (0, b"\x28\xb5\x2f\xfd", Compressed("zstd")),
    (0, b"\x04\x22\x4d\x18", Compressed("lz4")),
    (0, b"\x02\x21\x4c\x18", Compressed("lz4 (legacy)")),
    (0, b"BZh", Compressed("bzip2")),
    (0, b"\x5d\0\0", Compressed("lzma")),
    (0, b"\x89LZO\0\r\n\x1a\n", Compressed("lzo")),
    (0, b"LZIP", Compressed("lzip")),
    (0, b"\x1f\x9d", Compressed("compress")),
    (257, b"ustar", Archive("a tar archive")),
    (0, b"070701", Archive("a cpio archive")),
    (0, b"070702", Archive("a cpio archive")),
    (0, b"070707", Archive("a cpio archive of the format odc")),
    (0, b"\xc7\x71", Archive("a cpio archive of the format bin")),
    (0, b"\x71\xc7", Archive("a cpio archive of the format bin, big-endian")),
    (0, b"PK\x03\x04", Archive("a ZIP archive or a PyTorch checkpoint")),
    (0, b"7z\xbc\xaf\x27\x1c", Archive("a 7z archive")),
    (0, b"Rar!\x1a\x07", Archive("a RAR archive")),
    (
        0,
        b"version https://git-lfs",
        Other {
            name: "a Git LFS pointer",
            hint: "the model itself was not fetched: `git lfs pull` in the repository fetches it",
        },
    ),
    (
        0,
        b"\0\x05\x16\x07",
        Other {
            name: "what macOS keeps beside a file (AppleDouble)",
            hint: "take the file whose name does not start with `._`",
        },
    ),
    (0, b"lmgg", Other { name: "a GGML file, older than GGUF", hint: OLD }),
    (0, b"fmgg", Other { name: "a GGML file (ggmf), older than GGUF", hint: OLD }),
    (0, b"tjgg", Other { name: "a GGML file (ggjt), older than GGUF", hint: OLD }),
    (0, b"algg", Other { name: "a LoRA adapter (ggla), older than GGUF", hint: OLD }),
    (0, b"\x80\x02", Other { name: "a PyTorch checkpoint", hint: CONVERT }),
    (8, b"{\"", Other { name: "a safetensors file", hint: CONVERT }),
    (
        0,
        b"MZqFpD",
        Other {
            name: "a llamafile",
            hint: "take the GGUF file out of it: `unzip` lists and unpacks what it holds",
        },
    ),
];

impl Format {
    /// The format of a file by its first [`START`] bytes, or all bytes of a shorter file; `None` if
    /// unknown.
    pub fn of(start: &[u8]) -> Option<Format> {
        let start = start.get(..START).unwrap_or(start);
        if has_boot_signature(start) {
            let hint = "attach it as a disk; a model is a file in its folder models/";
            return Some(Other { name: "a disk image", hint });
        }
        let starts = |&&(at, magic, _): &&(usize, &[u8], Format)| {
            start.get(at..).is_some_and(|rest| rest.starts_with(magic))
        };
        if let Some(&(.., format)) = FILES.iter().find(starts) {
            return Some(format);
        }
        let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        match text.trim_ascii_start() {
            _ if start.is_empty() => {
                Some(Other { name: "empty", hint: "get the model again: nothing was written" })
            }
            _ if start.iter().all(|&byte| byte == 0) => Some(Other {
                name: "zeros where it should start",
                hint: "get the model again: the download was not finished",
            }),
            text if starts_like(text, b"<!doctype html") || starts_like(text, b"<html") => {
                Some(Other { name: "an HTML page", hint: DOWNLOAD })
            }
            _ if start.iter().all(is_text) => Some(Other { name: "a text", hint: DOWNLOAD }),
            _ => None,
        }
    }

    /// What to do with the file if a model is wanted.
    pub fn hint(self) -> &'static str {
        match self {
            Compressed(_) => "unpack it first",
            Archive(_) => "unpack it first; what comes out must be a GGUF file",
            Other { hint, .. } => hint,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compressed(format) => write!(f, "compressed with {format}"),
            Archive(name) | Other { name, .. } => f.write_str(name),
        }
    }
}

/// Whether the first bytes are those of a disk that a PC can boot from.
///
/// Every disk with an MBR and every FAT volume has this signature.
pub fn has_boot_signature(start: &[u8]) -> bool {
    start.get(510..512) == Some(&[0x55, 0xAA])
}

fn starts_like(text: &[u8], lower_case: &[u8]) -> bool {
    text.get(..lower_case.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower_case))
}

const FORMAT: &str = "format it as FAT32 and copy the model to models/NAME.gguf on it, or have \
                      `image-builder` make the disk or card";
const IMAGE: &str = "QEMU was told that the file is a raw image: name its format (`format=qcow2`), or \
                     convert it with `qemu-img convert -O raw`";
const FILE: &str = "have `image-builder disk` put the file on a disk";

/// Offset and bytes of magic numbers of disks and partitions, with the format.
const DISKS: &[(u64, &[u8], &str, &str)] = &[
    (3, b"EXFAT   ", "an exFAT volume", FORMAT),
    (3, b"NTFS    ", "an NTFS volume", FORMAT),
    (3, b"ReFS", "a ReFS volume", FORMAT),
    (3, b"-FVE-FS-", "a BitLocker volume", FORMAT),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 volume", FORMAT),
    (1024, b"H+", "an HFS+ volume", FORMAT),
    (1024, b"HX", "an HFS+ volume", FORMAT),
    (1024, b"BD", "an HFS volume", FORMAT),
    (32, b"NXSB", "an APFS volume", FORMAT),
    (0, b"XFSB", "an XFS volume", FORMAT),
    (65_600, b"_BHRfS_M", "a Btrfs volume", FORMAT),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS volume", FORMAT),
    (0, b"hsqs", "a squashfs volume", FORMAT),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS volume", FORMAT),
    (32_769, b"CD001", "a CD or DVD (ISO 9660)", FORMAT),
    (32_769, b"BEA01", "a UDF volume", FORMAT),
    (4086, b"SWAPSPACE2", "swap space of Linux", FORMAT),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)", FORMAT),
    (536, b"LVM2", "a physical volume of LVM", FORMAT),
    (0, b"QFI\xfb", "an image in the format qcow2", IMAGE),
    (0, b"KDMV", "an image in the format VMDK", IMAGE),
    (0, b"vhdxfile", "an image in the format VHDX", IMAGE),
    (0, b"GGUF", "a model's file, not a disk that holds one", FILE),
];

impl Format {
    /// The format of a disk or partition that is not a FAT volume; `None` if unknown.
    ///
    /// `has` says whether the disk has these bytes at this offset.
    ///
    /// # Errors
    /// Those of `has`.
    pub fn of_disk<E>(
        mut has: impl FnMut(u64, &[u8]) -> Result<bool, E>,
    ) -> Result<Option<Format>, E> {
        for &(at, magic, name, hint) in DISKS {
            if has(at, magic)? {
                return Ok(Some(Other { name, hint }));
            }
        }
        for &(at, magic, format) in FILES {
            if matches!(format, Compressed(_)) && has(at as u64, magic)? {
                return Ok(Some(format));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn name(start: &[u8]) -> String {
        Format::of(start).map_or_else(String::new, |format| {
            assert!(!format.hint().is_empty());
            format.to_string()
        })
    }

    #[test]
    fn what_is_given_as_a_model_is_named() {
        let mut tar = vec![0; 512];
        tar[..10].copy_from_slice(b"model.gguf");
        tar[257..262].copy_from_slice(b"ustar");
        let mut disk = vec![0; 512];
        disk[510..].copy_from_slice(&[0x55, 0xAA]);
        let noise: Vec<u8> = (0..=255).rev().collect();
        for (start, expected) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a"[..],
                "a Git LFS pointer",
            ),
            (b"<!DOCTYPE html><html>", "an HTML page"),
            (b"\n\n <HTML lang=de>", "an HTML page"),
            (b"\xef\xbb\xbf<html>", "an HTML page"),
            (b"{\"error\":\"Invalid username or password.\"}", "a text"),
            (b"Entry not found", "a text"),
            (b"", "empty"),
            (&[0; 600], "zeros where it should start"),
            (b"PK\x03\x04\x14\0", "a ZIP archive or a PyTorch checkpoint"),
            (b"\x38\x01\0\0\0\0\0\0{\"__metadata__\":{}", "a safetensors file"),
            (b"tjgg\x03\0\0\0", "a GGML file (ggjt), older than GGUF"),
            (b"\x1f\x8b\x08", "compressed with gzip"),
            (b"BZh91AY", "compressed with bzip2"),
            (&tar, "a tar archive"),
            (&disk, "a disk image"),
            (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "what macOS keeps beside a file (AppleDouble)"),
            (b"GGUF\x03\0\0\0", ""),
            (&noise, ""),
        ] {
            assert_eq!(name(start), expected, "{:?}", String::from_utf8_lossy(start));
        }
    }

    #[test]
    fn what_is_on_a_disk_is_named() {
        for &(at, magic, expected, _) in DISKS {
            let mut disk = vec![0; 70_000];
            disk[at as usize..][..magic.len()].copy_from_slice(magic);
            let has = |at: u64, magic: &[u8]| Ok::<_, ()>(disk[at as usize..].starts_with(magic));
            assert_eq!(
                Format::of_disk(has).unwrap().map(|it| it.to_string()).as_deref(),
                Some(expected)
            );
        }
        assert_eq!(Format::of_disk(|_, _| Ok::<_, ()>(false)), Ok(None));
        assert_eq!(Format::of_disk(|at, _| Err(format!("no byte {at}"))), Err("no byte 3".into()));
    }
}
