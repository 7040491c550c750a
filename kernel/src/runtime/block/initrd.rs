//! The forms of an initial RAM disk: a disk image, or the model's file itself, either as it is or in a
//! cpio archive; and each of these packed by gzip. What is not packed is used where it lies.
//!
//! m1n1 hands over what its `m1n1_initramfs` payload holds as it is, and unpacks a gzip payload itself,
//! which must hold a cpio archive then; older versions know the latter alone (m1n1, src/payload.c). Its
//! script `linux.py`, and other boot loaders, hand over a file as it is, packed or not.

#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::cpio::{self, CpioError, Kind, Member};
use super::gzip::{self, GzipError, Output};
use crate::model_files::{is_model, is_sum_of_model};
use crate::report::{Code, Fault};

/// What a model's file starts with.
const GGUF_MAGIC: &[u8] = b"GGUF";
/// What a model is called that comes without a name.
const NAMELESS: &str = "models/initrd.gguf";

/// Why an initrd cannot be used. Places are bytes of it, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdError {
    /// It is packed in this format, which we cannot unpack.
    Compressed(&'static str),
    /// It is packed by gzip and cannot be unpacked.
    Gzip(GzipError),
    /// Its archive is damaged.
    Archive(CpioError),
    /// The archive holds a link to a model, not its file.
    Link {
        /// Where the link's entry starts.
        at: usize,
    },
    /// The archive has a file whose name cannot be used, or is there twice.
    Name {
        /// Where the file's entry starts.
        at: usize,
    },
    /// The archive holds no file.
    Empty,
}

impl fmt::Display for InitrdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitrdError::Compressed(format) => write!(f, "the initrd is compressed with {format}"),
            InitrdError::Gzip(error) => write!(f, "the initrd, compressed with gzip, {error}"),
            InitrdError::Archive(error) => write!(f, "the initrd's cpio archive {error}"),
            InitrdError::Link { at } => {
                write!(f, "the initrd's cpio archive has a link in a model's place at byte {at}")
            }
            InitrdError::Name { at } => write!(
                f,
                "the initrd's cpio archive has a file at byte {at} whose name is no UTF-8, holds \
                 `..`, or is there twice"
            ),
            InitrdError::Empty => f.write_str("the initrd's cpio archive holds no file"),
        }
    }
}

impl core::error::Error for InitrdError {}

impl From<InitrdError> for Fault {
    fn from(error: InitrdError) -> Fault {
        let (code, hint) = match error {
            InitrdError::Compressed(_) => {
                (Code::DiskError, "give the boot loader the initrd uncompressed, or packed by gzip")
            }
            InitrdError::Gzip(GzipError::NoRoom { .. }) => (
                Code::OutOfMemory,
                "give the machine more memory, or the boot loader the initrd uncompressed",
            ),
            InitrdError::Gzip(_) | InitrdError::Archive(_) => {
                (Code::DiskError, "copy the initrd to the boot medium again, or make it anew")
            }
            InitrdError::Link { .. } => (Code::DiskError, "archive the file itself: cpio -L"),
            InitrdError::Name { .. } => (Code::DiskError, "give the file another name"),
            InitrdError::Empty => (
                Code::DiskError,
                "put a model's file in the archive, or a disk image: `image-builder disk` makes one",
            ),
        };
        Fault { code, message: alloc::format!("{error}"), hint: hint.into() }
    }
}

/// What an initrd holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents<'a> {
    /// A disk image.
    Disk(&'a [u8]),
    /// Files, a model among them.
    Files {
        /// The form that they come in: "cpio", or "GGUF" for a model alone.
        format: &'static str,
        /// The files.
        files: Vec<File>,
    },
}

/// A file in an initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, without a `/` at its start: see [`place`].
    pub path: String,
    /// Where its data lies in the initrd.
    pub data: Range<usize>,
}

/// Unpacks an initrd that is packed to the start of `out`, and returns how many bytes come out; `None` if it
/// is not packed.
///
/// # Errors
/// It cannot be unpacked.
pub fn unpack(initrd: &[u8], out: &mut impl Output) -> Result<Option<usize>, InitrdError> {
    for (magic, format) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"\x28\xb5\x2f\xfd", "zstd")] {
        if initrd.starts_with(magic) {
            return Err(InitrdError::Compressed(format));
        }
    }
    if !gzip::is_gzip(initrd) {
        return Ok(None);
    }
    gzip::unpack(initrd, out).map(Some).map_err(InitrdError::Gzip)
}

/// What an initrd holds that is not packed. A cpio archive with a model in it is taken for files; of
/// any other one, the first file that is not empty for a disk image.
///
/// # Errors
/// It is an archive that cannot be used.
pub fn contents(initrd: &[u8]) -> Result<Contents<'_>, InitrdError> {
    if initrd.starts_with(GGUF_MAGIC) {
        let file = File { path: NAMELESS.into(), data: 0..initrd.len() };
        return Ok(Contents::Files { format: "GGUF", files: vec![file] });
    }
    if !cpio::is_archive(initrd) {
        return Ok(Contents::Disk(initrd));
    }
    let members = cpio::members(initrd).map_err(InitrdError::Archive)?;
    let holds_model = |member: &Member<'_>| {
        is_model(member.name) || initrd[member.data.clone()].starts_with(GGUF_MAGIC)
    };
    let link = |member: &&Member<'_>| member.kind == Kind::Other && is_model(member.name);
    if let Some(&Member { at, .. }) = members.iter().find(link) {
        return Err(InitrdError::Link { at });
    }
    let files = || members.iter().filter(|member| member.kind == Kind::File);
    if !files().any(holds_model) {
        let image = files().find(|member| !member.data.is_empty()).ok_or(InitrdError::Empty)?;
        return Ok(Contents::Disk(&initrd[image.data.clone()]));
    }
    let mut placed: Vec<File> = Vec::new();
    for member in files() {
        let unusable = InitrdError::Name { at: member.at };
        let path = str::from_utf8(member.name).ok().and_then(place).ok_or(unusable)?;
        placed.push(File { path, data: member.data.clone() });
    }
    let mut order: Vec<usize> = (0..placed.len()).collect();
    order.sort_by(|&a, &b| placed[a].path.cmp(&placed[b].path).then(a.cmp(&b)));
    let twice = order.windows(2).find(|pair| placed[pair[0]].path == placed[pair[1]].path);
    if let Some(pair) = twice
        && let Some(second) = files().nth(pair[1])
    {
        return Err(InitrdError::Name { at: second.at });
    }
    Ok(Contents::Files { format: "cpio", files: placed })
}

/// Where the file `name` of an archive is to be found. What belongs to a model is looked for in
/// `models/`, and the configuration at the root; an archive may have either at either of these places.
/// `None` if the name leads out of the archive or to no file.
fn place(name: &str) -> Option<String> {
    const MODELS: &str = "models";
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let (file, folder) = parts.split_last().filter(|_| !parts.contains(&".."))?;
    let of_model = is_model(file) || is_sum_of_model(file);
    let configuration = file.eq_ignore_ascii_case("anchorite.toml");
    Some(match folder {
        [] if of_model => [MODELS, file].join("/"),
        [models] if models.eq_ignore_ascii_case(MODELS) && configuration => (*file).into(),
        _ => parts.join("/"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::archive;

    const FILE: usize = 0o100_644;
    const FOLDER: usize = 0o040_755;
    const SYMBOLIC_LINK: usize = 0o120_777;
    const MODEL: &[u8] = b"GGUF\x03\0\0\0";

    fn unpack(initrd: &[u8]) -> Result<Option<Vec<u8>>, InitrdError> {
        let mut out = Vec::new();
        let made = super::unpack(initrd, &mut out)?;
        Ok(made.map(|made| out[..made].to_vec()))
    }

    /// Paths and data of the files.
    fn files(initrd: &[u8]) -> Vec<(String, &[u8])> {
        let Ok(Contents::Files { files, format: "cpio" }) = contents(initrd) else {
            panic!("{:?}", contents(initrd))
        };
        files.into_iter().map(|file| (file.path, &initrd[file.data])).collect()
    }

    #[test]
    fn what_is_no_archive_and_no_model_is_an_image() {
        for image in [&b"\xeb\x3c\x90MSDOS5.0"[..], b"0707", b"070707", b"GGU", b""] {
            assert_eq!(unpack(image), Ok(None));
            assert_eq!(contents(image), Ok(Contents::Disk(image)));
        }
    }

    #[test]
    fn the_first_file_of_an_archive_without_a_model_is_the_image() {
        let data: Vec<u8> = (0..97).collect();
        let archive = archive(&[
            (".", FOLDER, 2, b""),
            ("a link", SYMBOLIC_LINK, 1, b"elsewhere"),
            ("empty", FILE, 1, b""),
            ("disk.img", FILE, 1, &data),
            ("notes", FILE, 1, b"text"),
        ]);
        assert_eq!(contents(&archive), Ok(Contents::Disk(&data)));
    }

    #[test]
    fn the_files_of_an_archive_with_a_model_go_where_they_are_looked_for() {
        let archive = archive(&[
            (".", FOLDER, 3, b""),
            ("./models", FOLDER, 2, b""),
            ("./models/a.gguf", FILE, 1, MODEL),
            ("Models/Anchorite.toml", FILE, 1, b"seed = 1"),
            ("/B.GGUF", FILE, 1, MODEL),
            ("B.GGUF.sha256", FILE, 1, b"00"),
            ("notes.txt", FILE, 1, b"text"),
            ("deeper/c.gguf", FILE, 1, b""),
        ]);
        let expected = [
            ("models/a.gguf", MODEL),
            ("Anchorite.toml", b"seed = 1"),
            ("models/B.GGUF", MODEL),
            ("models/B.GGUF.sha256", b"00"),
            ("notes.txt", b"text"),
            ("deeper/c.gguf", b""),
        ];
        assert_eq!(files(&archive), expected.map(|(path, data)| (String::from(path), data)));
    }

    #[test]
    fn a_model_is_known_by_its_name_or_its_bytes() {
        assert_eq!(files(&archive(&[("m.gguf", FILE, 1, b"")])).len(), 1);
        let nameless = archive(&[("notes", FILE, 1, b"text"), ("model", FILE, 1, MODEL)]);
        assert_eq!(files(&nameless)[1].0, "model");
        let alone = Contents::Files {
            format: "GGUF",
            files: vec![File { path: "models/initrd.gguf".into(), data: 0..MODEL.len() }],
        };
        assert_eq!(contents(MODEL), Ok(alone));
    }

    #[test]
    fn gzip_is_unpacked() {
        let archive = archive(&[("m.gguf", FILE, 1, MODEL)]);
        let packed = gzip::pack(&archive);
        assert_eq!(unpack(&packed), Ok(Some(archive)));
        let cut = &packed[..packed.len() - 1];
        assert_eq!(unpack(cut), Err(InitrdError::Gzip(GzipError::Truncated)));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (magic, format) in [(&b"\xfd7zXZ\0\0"[..], "xz"), (b"\x28\xb5\x2f\xfd\0", "zstd")] {
            assert_eq!(unpack(magic), Err(InitrdError::Compressed(format)));
        }
        let told = |members: &[(&str, usize, usize, &[u8])]| contents(&archive(members)).err();
        assert_eq!(told(&[(".", FOLDER, 2, b"")]), Some(InitrdError::Empty));
        assert_eq!(told(&[("m.gguf", FOLDER, 2, b"")]), Some(InitrdError::Empty));
        // A symbolic link, and a name of a file whose data lies elsewhere.
        for (mode, links) in [(SYMBOLIC_LINK, 1), (FILE, 2)] {
            let link: &[u8] = if links == 1 { b"elsewhere" } else { b"" };
            let members =
                [(".", FOLDER, 2, &b""[..]), ("m.gguf", mode, links, link), ("n", FILE, 2, MODEL)];
            assert_eq!(told(&members), Some(InitrdError::Link { at: 112 }));
        }
        for second in ["../n.gguf", "models/../m.gguf", "models/m.gguf", "/", "."] {
            let members = [("m.gguf", FILE, 1, MODEL), (second, FILE, 1, MODEL)];
            assert_eq!(told(&members), Some(InitrdError::Name { at: 128 }), "{second}");
        }
        let cut = &archive(&[("m.gguf", FILE, 1, MODEL)])[..100];
        let truncated = InitrdError::Archive(CpioError::Truncated { at: 0 });
        assert_eq!(contents(cut), Err(truncated));
    }

    #[test]
    fn errors_say_what_to_do() {
        let fault = Fault::from(InitrdError::Archive(CpioError::Truncated { at: 112 }));
        assert_eq!(fault.code, Code::DiskError);
        assert_eq!(
            fault.message,
            "the initrd's cpio archive is truncated: it ends in the entry at byte 112"
        );
        let fault = Fault::from(InitrdError::Gzip(GzipError::Checksum));
        assert_eq!(
            (fault.code, &*fault.message),
            (
                Code::DiskError,
                "the initrd, compressed with gzip, is damaged: its checksum is another"
            )
        );
        let fault = Fault::from(InitrdError::Gzip(GzipError::NoRoom { bytes: 97 << 20 }));
        assert_eq!(fault.code, Code::OutOfMemory);
        assert!(fault.message.ends_with("the 97 MiB that there is room for"), "{}", fault.message);
    }
}
