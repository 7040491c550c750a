//! The forms of an initial RAM disk: a disk image, or the model's file itself, either as it is or in
//! cpio archives; and each of these packed by gzip. What is not packed is used where it lies.
//!
//! Boot loaders put several files one behind the other, with zeros between. As Linux does, this takes
//! any number of archives, packed or not, of which a later file replaces an earlier one of its path
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
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
use crate::formats::{self, Format};
use crate::model_files::{is_model, is_sum_of_model};
use crate::report::{Code, Fault};

/// What a model's file starts with.
const GGUF_MAGIC: &[u8] = b"GGUF";
/// What a model is called that comes without a name.
const NAMELESS: &str = "models/initrd.gguf";

/// Why an initrd cannot be used. Places are bytes of it, all that is packed unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdError {
    /// What starts here is of a format that is not read.
    Format {
        /// Where it starts.
        at: usize,
        /// What it is.
        format: Format,
    },
    /// It is packed by gzip and cannot be unpacked.
    Gzip(GzipError),
    /// An archive of it is damaged.
    Archive(CpioError),
    /// An archive of it is followed by something that is neither an archive nor packed.
    Behind {
        /// Where that starts.
        at: usize,
    },
    /// An archive holds a link to a model, not its file.
    Link {
        /// Where the link's entry starts.
        at: usize,
    },
    /// An archive has a file whose name cannot be used, or is there twice.
    Name {
        /// Where the file's entry starts.
        at: usize,
    },
    /// The archives hold no file.
    Empty,
}

impl fmt::Display for InitrdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitrdError::Format { at: 0, format } => write!(f, "the initrd is {format}"),
            InitrdError::Format { at, format } => {
                write!(f, "the initrd is, from byte {at} on, {format}")
            }
            InitrdError::Gzip(error) => write!(f, "the initrd, compressed with gzip, {error}"),
            InitrdError::Archive(error) => write!(f, "the initrd's cpio archive {error}"),
            InitrdError::Behind { at } => {
                write!(f, "the initrd's cpio archive has data behind its end, at byte {at}")
            }
            InitrdError::Link { at } => {
                write!(f, "the initrd's cpio archive has a link in a model's place at byte {at}")
            }
            InitrdError::Name { at } => write!(
                f,
                "the initrd's cpio archive has a file at byte {at} whose name holds `..`, or is \
                 there twice"
            ),
            InitrdError::Empty => f.write_str("the initrd's cpio archive holds no file"),
        }
    }
}

impl core::error::Error for InitrdError {}

impl From<InitrdError> for Fault {
    fn from(error: InitrdError) -> Fault {
        let (code, hint) = match error {
            InitrdError::Format { format: Format::Archive(_), .. } => (
                Code::DiskError,
                "make it a cpio archive of the format newc: `cpio -o -H newc`, packed by gzip or not",
            ),
            InitrdError::Format { .. } => {
                (Code::DiskError, "give the boot loader the initrd uncompressed, or packed by gzip")
            }
            InitrdError::Gzip(GzipError::NoRoom { .. }) => (
                Code::OutOfMemory,
                "give the machine more memory, or the boot loader the initrd uncompressed",
            ),
            InitrdError::Gzip(_) | InitrdError::Archive(_) | InitrdError::Behind { .. } => {
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
    /// Where its data lies in the initrd: in all its parts, one after the other.
    pub data: Range<usize>,
}

/// A part of an initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes of it as they lie there.
    AsIs(Range<usize>),
    /// These bytes of what was unpacked.
    Unpacked(Range<usize>),
}

/// The parts of an initrd, in order. What is packed is unpacked to `out`.
///
/// # Errors
/// It cannot be unpacked, or an archive is damaged or followed by what is none.
pub fn unpack(initrd: &[u8], out: &mut impl Output) -> Result<Vec<Part>, InitrdError> {
    let mut parts = Vec::new();
    // How far it is read, how much of it was packed and came out, and the bytes of all parts so far.
    let (mut done, mut made, mut total) = (0, 0, 0);
    loop {
        let rest = &initrd[done..];
        let zeros = behind_zeros(rest, 0);
        let next = &rest[zeros..];
        if next.is_empty() {
            break;
        }
        if gzip::is_gzip(next) {
            let run = gzip::unpack(next, out, made).map_err(InitrdError::Gzip)?;
            parts.push(Part::Unpacked(made..made + run.made));
            (done, made, total) = (done + zeros + run.taken, made + run.made, total + run.made);
        } else if cpio::is_archive(next) {
            let (_, end) = archive(rest, zeros, total)?;
            let end = behind_zeros(rest, end);
            parts.push(Part::AsIs(done..done + end));
            (done, total) = (done + end, total + end);
        } else if parts.is_empty() {
            break;
        } else {
            return Err(no_archive(next, total + zeros));
        }
    }
    if parts.is_empty() {
        parts.push(Part::AsIs(0..initrd.len()));
    }
    Ok(parts)
}

/// The bytes of these parts of `initrd`, of which `unpacked` holds what came out of [`unpack`].
pub fn bytes_of<'a>(initrd: &'a [u8], unpacked: &'a [u8], parts: &[Part]) -> Vec<&'a [u8]> {
    let bytes = |part: &Part| match part {
        Part::AsIs(range) => initrd.get(range.clone()).unwrap_or_default(),
        Part::Unpacked(range) => unpacked.get(range.clone()).unwrap_or_default(),
    };
    parts.iter().map(bytes).collect()
}

/// The first byte from `at` on that is not 0, or the end.
fn behind_zeros(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|&byte| byte != 0).map_or(bytes.len(), |zeros| at + zeros)
}

/// The members of the archive that starts at byte `at` of a part, and where in the part it ends. Before
/// the part lie `before` bytes.
fn archive(part: &[u8], at: usize, before: usize) -> Result<(Vec<Member<'_>>, usize), InitrdError> {
    cpio::members(part, at).map_err(|error| InitrdError::Archive(error.behind(before)))
}

/// The error for what starts at byte `at`, where an archive was looked for.
fn no_archive(bytes: &[u8], at: usize) -> InitrdError {
    match unread(bytes) {
        Some(format) => InitrdError::Format { at, format },
        None => InitrdError::Behind { at },
    }
}

/// The format of what starts with these bytes, if it is an archive or packed in a way that is not read.
fn unread(bytes: &[u8]) -> Option<Format> {
    let format = Format::of(bytes)?;
    matches!(format, Format::Archive(_) | Format::Compressed(_)).then_some(format)
}

/// A member of one of the archives.
struct Found<'a> {
    /// Which archive.
    archive: usize,
    /// Its places are bytes of the whole initrd.
    member: Member<'a>,
    /// Its data.
    data: &'a [u8],
}

/// What an initrd of these parts holds, none of which is packed. Archives with a model in them are taken
/// for files; of any others, a file that a PC could boot from, or else the first file that is not empty,
/// for a disk image.
///
/// # Errors
/// They are archives that cannot be used, or of a format that is not read.
pub fn contents<'a>(parts: &[&'a [u8]]) -> Result<Contents<'a>, InitrdError> {
    if let &[part] = parts
        && !cpio::is_archive(&part[behind_zeros(part, 0)..])
    {
        return alone(part);
    }
    let mut found = Vec::new();
    let (mut before, mut n_archives) = (0, 0);
    for part in parts {
        let mut at = behind_zeros(part, 0);
        while at < part.len() {
            if !cpio::is_archive(&part[at..]) {
                return Err(no_archive(&part[at..], before + at));
            }
            let (members, end) = archive(part, at, before)?;
            found.extend(members.into_iter().map(|member| {
                let data = &part[member.data.clone()];
                Found { archive: n_archives, member: member.behind(before), data }
            }));
            n_archives += 1;
            at = behind_zeros(part, end);
        }
        before += part.len();
    }
    files_of(&found)
}

/// What an initrd holds that is no archive.
fn alone(part: &[u8]) -> Result<Contents<'_>, InitrdError> {
    if part.starts_with(GGUF_MAGIC) {
        let file = File { path: NAMELESS.into(), data: 0..part.len() };
        return Ok(Contents::Files { format: "GGUF", files: vec![file] });
    }
    match unread(part) {
        Some(format) => Err(InitrdError::Format { at: 0, format }),
        None => Ok(Contents::Disk(part)),
    }
}

/// What these members of archives hold.
fn files_of<'a>(found: &[Found<'a>]) -> Result<Contents<'a>, InitrdError> {
    let named = |it: &Found<'_>| is_model(it.member.name);
    let is_link = |it: &&Found<'_>| it.member.kind == Kind::Other && named(it);
    if let Some(Found { member, .. }) = found.iter().find(is_link) {
        return Err(InitrdError::Link { at: member.at });
    }
    let files = || found.iter().filter(|it| it.member.kind == Kind::File);
    if !files().any(|it| named(it) || it.data.starts_with(GGUF_MAGIC)) {
        let image = files().find(|it| formats::has_boot_signature(it.data));
        let image = image.or_else(|| files().find(|it| !it.data.is_empty()));
        return Ok(Contents::Disk(image.ok_or(InitrdError::Empty)?.data));
    }
    let mut placed = Vec::new();
    for it in files() {
        let path = place(&String::from_utf8_lossy(it.member.name));
        let path = path.ok_or(InitrdError::Name { at: it.member.at })?;
        // As names are compared where files are looked for.
        let key: String = path.chars().flat_map(char::to_uppercase).collect();
        placed.push((key, it, File { path, data: it.member.data.clone() }));
    }
    let mut order: Vec<usize> = (0..placed.len()).collect();
    order.sort_by(|&a, &b| placed[a].0.cmp(&placed[b].0).then(a.cmp(&b)));
    let mut replaced = vec![false; placed.len()];
    for pair in order.windows(2) {
        let [(first_key, first, _), (second_key, second, _)] = [&placed[pair[0]], &placed[pair[1]]];
        if first_key == second_key {
            if first.archive == second.archive {
                return Err(InitrdError::Name { at: second.member.at });
            }
            replaced[pair[0]] = true;
        }
    }
    let kept = placed.into_iter().zip(replaced).filter(|(_, replaced)| !replaced);
    let files = kept.map(|((.., file), _)| file).collect();
    Ok(Contents::Files { format: "cpio", files })
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

    const FILE: u32 = 0o100_644;
    const FOLDER: u32 = 0o040_755;
    const SYMBOLIC_LINK: u32 = 0o120_777;
    const MODEL: &[u8] = b"GGUF\x03\0\0\0";

    /// What an initrd holds, in memory of its own: a disk image, or files by their paths.
    #[derive(Debug, PartialEq)]
    enum Held {
        Disk(Vec<u8>),
        Model(Vec<u8>),
        Files(Vec<(String, Vec<u8>)>),
    }

    fn held(initrd: &[u8]) -> Result<Held, InitrdError> {
        let mut out = Vec::new();
        let parts = unpack(initrd, &mut out)?;
        let parts = bytes_of(initrd, &out, &parts);
        let whole = parts.concat();
        Ok(match contents(&parts)? {
            Contents::Disk(image) => Held::Disk(image.to_vec()),
            Contents::Files { format: "cpio", files } => {
                let file = |file: File| (file.path, whole[file.data].to_vec());
                Held::Files(files.into_iter().map(file).collect())
            }
            Contents::Files { files, .. } => {
                assert_eq!(files.len(), 1);
                assert_eq!(files[0].path, "models/initrd.gguf");
                Held::Model(whole[files[0].data.clone()].to_vec())
            }
        })
    }

    /// Paths and data of the files.
    fn files(initrd: &[u8]) -> Vec<(String, Vec<u8>)> {
        match held(initrd) {
            Ok(Held::Files(files)) => files,
            other => panic!("{other:?}"),
        }
    }

    fn named(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        files.iter().map(|(path, data)| (String::from(*path), data.to_vec())).collect()
    }

    #[test]
    fn what_is_no_archive_and_no_model_is_an_image() {
        for image in [&b"\xeb\x3c\x90MSDOS5.0"[..], b"0707", b"GGU", b"", b"\0\0\0", b"\0x"] {
            assert_eq!(held(image), Ok(Held::Disk(image.to_vec())));
            assert_eq!(unpack(image, &mut Vec::new()), Ok(vec![Part::AsIs(0..image.len())]));
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
        assert_eq!(held(&archive), Ok(Held::Disk(data)));
    }

    #[test]
    fn a_file_that_is_a_disk_image_goes_before_others() {
        let mut image = vec![0; 1024];
        image[510..512].copy_from_slice(&[0x55, 0xAA]);
        let notes = archive(&[("anchorite.toml", FILE, 1, b"seed = 1")]);
        let disk = archive(&[("notes", FILE, 1, b"text"), ("disk.img", FILE, 1, &image)]);
        for initrd in [disk.clone(), [&notes[..], &disk].concat()] {
            assert_eq!(held(&initrd), Ok(Held::Disk(image.clone())));
        }
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
        let expected: [(&str, &[u8]); _] = [
            ("models/a.gguf", MODEL),
            ("Anchorite.toml", b"seed = 1"),
            ("models/B.GGUF", MODEL),
            ("models/B.GGUF.sha256", b"00"),
            ("notes.txt", b"text"),
            ("deeper/c.gguf", b""),
        ];
        assert_eq!(files(&archive), named(&expected));
    }

    #[test]
    fn archives_one_behind_the_other_are_one_as_linux_takes_them() {
        let model = archive(&[("a.gguf", FILE, 1, MODEL), ("notes", FILE, 1, b"first")]);
        let config = archive(&[("anchorite.toml", FILE, 1, b"seed = 1")]);
        let other = archive(&[("models/Anchorite.toml", FILE, 1, b"seed = 22")]);
        let padded = |archive: &[u8]| [archive, &[0; 512]].concat();
        let packed = |data: &[u8]| gzip::pack(data);
        let all = [&model[..], &config, &other].concat();
        // A later file takes the place of an earlier one.
        let expected = named(&[
            ("models/a.gguf", MODEL),
            ("notes", b"first"),
            ("Anchorite.toml", b"seed = 22"),
        ]);
        for initrd in [
            all.clone(),
            [padded(&model), padded(&config), padded(&other)].concat(),
            [b"\0\0\0\0", &all[..]].concat(),
            packed(&all),
            [packed(&model), packed(&config), packed(&other)].concat(),
            // An archive that is cut into members of gzip.
            [packed(&all[..101]), packed(&all[101..])].concat(),
            [padded(&packed(&model)), packed(&padded(&config)), padded(&packed(&other))].concat(),
            // Those that microcode comes in: one as it is, then one that is packed; and the reverse.
            [&padded(&model)[..], &packed(&config), &packed(&other)].concat(),
            [&packed(&model)[..], &config, &packed(&other)].concat(),
            [&packed(&padded(&model))[..], &[0; 3], &packed(&config), &other, &[0; 7]].concat(),
        ] {
            assert_eq!(files(&initrd), expected, "{:?}", unpack(&initrd, &mut Vec::new()));
        }
        // What is not packed stays where it lies.
        let initrd = [&model[..], &packed(&config)].concat();
        let parts = unpack(&initrd, &mut Vec::new()).unwrap();
        assert_eq!(parts, [Part::AsIs(0..model.len()), Part::Unpacked(0..config.len())]);
        // A disk or a model in members of gzip is what comes out of them.
        assert_eq!(
            held(&[packed(b"GGUF"), packed(b"\x03\0\0\0")].concat()),
            Ok(Held::Model(MODEL.to_vec()))
        );
    }

    #[test]
    fn what_stands_behind_an_archive_is_told_with_its_place() {
        let one = archive(&[("m.gguf", FILE, 1, MODEL)]);
        let (length, packed) = (one.len(), gzip::pack(&one));
        let behind = |at| Err(InitrdError::Behind { at });
        for tail in [&b"x"[..], b"\0\0x", b"\0\0\0\0\0x", b"070", b"GGUF\x03\0\0\0"] {
            let zeros = tail.iter().position(|&byte| byte != 0).unwrap();
            assert_eq!(held(&[&one[..], tail].concat()), behind(length + zeros));
            assert_eq!(held(&[&packed[..], &one, tail].concat()), behind(2 * length + zeros));
            assert_eq!(held(&gzip::pack(&[&one[..], tail].concat())), behind(length + zeros));
        }
        let zstd = [&one[..], b"\0\0\0\x28\xb5\x2f\xfd"].concat();
        let format = Format::Compressed("zstd");
        assert_eq!(held(&zstd), Err(InitrdError::Format { at: length + 3, format }));
        // The second archive's entry, counted from the start of the first.
        let cut = &[&one[..], &one[..100]].concat();
        let truncated = |at| Err(InitrdError::Archive(CpioError::Truncated { at }));
        assert_eq!(held(cut), truncated(length));
        assert_eq!(held(&[&packed[..], &one[..100]].concat()), truncated(length));
        assert_eq!(held(&[&packed[..], &gzip::pack(&one[..100])].concat()), truncated(length));
    }

    #[test]
    fn a_model_is_known_by_its_name_or_its_bytes() {
        assert_eq!(files(&archive(&[("m.gguf", FILE, 1, b"")])).len(), 1);
        let nameless = archive(&[("notes", FILE, 1, b"text"), ("model", FILE, 1, MODEL)]);
        assert_eq!(files(&nameless)[1].0, "model");
        assert_eq!(held(MODEL), Ok(Held::Model(MODEL.to_vec())));
        // What macOS puts beside a file is no model.
        let image = archive(&[("._a.gguf", FILE, 1, b"\0\x05\x16\x07"), ("b", FILE, 1, b"x")]);
        assert!(matches!(held(&image), Ok(Held::Disk(_))));
    }

    #[test]
    fn a_name_that_is_no_utf8_is_shown_as_one() {
        let mut latin_1 = archive(&[("cafX.gguf", FILE, 1, MODEL)]);
        let place = latin_1.iter().position(|&byte| byte == b'X').unwrap();
        latin_1[place] = 0xE9;
        assert_eq!(files(&latin_1), named(&[("models/caf\u{FFFD}.gguf", MODEL)]));
    }

    #[test]
    fn gzip_is_unpacked() {
        let archive = archive(&[("m.gguf", FILE, 1, MODEL)]);
        let packed = gzip::pack(&archive);
        assert_eq!(held(&packed), held(&archive));
        let cut = &packed[..packed.len() - 1];
        assert_eq!(held(cut), Err(InitrdError::Gzip(GzipError::Truncated)));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        for (start, format) in [
            (&b"\xfd7zXZ\0\0"[..], "compressed with xz"),
            (b"\x28\xb5\x2f\xfd\0", "compressed with zstd"),
            (b"\x02\x21\x4c\x18", "compressed with lz4 (legacy)"),
            (b"\x04\x22\x4d\x18", "compressed with lz4"),
            (b"BZh91AY", "compressed with bzip2"),
            (b"\x5d\0\0\x80\0", "compressed with lzma"),
            (b"\x89LZO\0\r\n\x1a\n", "compressed with lzo"),
            (b"070707000001", "a cpio archive of the format odc"),
            (b"\xc7\x71\0\0", "a cpio archive of the format bin"),
            (&tar, "a tar archive"),
        ] {
            for initrd in [start.to_vec(), gzip::pack(start)] {
                let fault = Fault::from(held(&initrd).unwrap_err());
                assert_eq!(
                    (fault.code, fault.message),
                    (Code::DiskError, alloc::format!("the initrd is {format}"))
                );
                let hint =
                    if format.starts_with("compressed") { "gzip" } else { "cpio -o -H newc" };
                assert!(fault.hint.contains(hint), "{}", fault.hint);
            }
        }
        let told = |members: &[(&str, u32, u32, &[u8])]| held(&archive(members)).err();
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
        assert_eq!(held(cut), Err(truncated));
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
