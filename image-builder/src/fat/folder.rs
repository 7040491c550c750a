//! Folders: 32-byte entries, with long names in the entries before a file's own.

use std::collections::BTreeSet;

use super::FileSpec;

const ENTRY: usize = 32;
/// The number of UTF-16 units of a long name in an entry.
const LONG_NAME_PART: usize = 13;

const READ_ONLY_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LONG_NAME: u8 = 0x0f;

/// 1 January 1980, FAT's first day: equal input gives an equal volume.
const DATE: u16 = 1 << 5 | 1;

/// A short name: eight characters and an extension of three, padded with spaces.
type ShortName = [u8; 11];

enum Node {
    /// The index of a file.
    File(usize),
    /// The index of a folder.
    Folder(usize),
}

/// A folder with its entries.
pub struct Folder<'a> {
    is_root: bool,
    entries: Vec<(&'a str, ShortName, Node)>,
    short_names: BTreeSet<ShortName>,
}

impl<'a> Folder<'a> {
    /// The root folder, which starts with the volume's label.
    pub fn root() -> Folder<'a> {
        Folder { is_root: true, entries: Vec::new(), short_names: BTreeSet::new() }
    }

    /// A folder in the root, which starts with `.` and `..`.
    pub fn within_root() -> Folder<'a> {
        Folder { is_root: false, ..Folder::root() }
    }

    /// Adds file `number`.
    pub fn add_file(&mut self, name: &'a str, number: usize) {
        self.add(name, Node::File(number));
    }

    /// Adds folder `number`.
    pub fn add_folder(&mut self, name: &'a str, number: usize) {
        self.add(name, Node::Folder(number));
    }

    fn add(&mut self, name: &'a str, node: Node) {
        let short = (1..)
            .map(|number| short_name(name, number))
            .find(|short| !self.short_names.contains(short))
            .expect("a folder has fewer entries than there are numbers");
        self.short_names.insert(short);
        self.entries.push((name, short, node));
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        let first = if self.is_root { 1 } else { 2 };
        let entries = self.entries.iter().map(|(name, ..)| long_name_entries(name) + 1);
        (first + entries.sum::<usize>()) * ENTRY
    }

    /// The entries as bytes.
    ///
    /// `here` is the folder's first cluster. `folders` and `files` are the first clusters of all
    /// folders and files, by index.
    pub fn to_bytes(
        &self,
        label: ShortName,
        here: u32,
        folders: &[u32],
        files: &[u32],
        specs: &[FileSpec],
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        if self.is_root {
            put_entry(&mut out, label, READ_ONLY_LABEL, 0, 0);
        } else {
            put_entry(&mut out, *b".          ", FOLDER, here, 0);
            // `..` names the root as cluster 0, even where the root has another number.
            put_entry(&mut out, *b"..         ", FOLDER, 0, 0);
        }
        for (name, short, node) in &self.entries {
            put_long_name(&mut out, name, short);
            match *node {
                Node::Folder(i) => put_entry(&mut out, *short, FOLDER, folders[i], 0),
                Node::File(i) => put_entry(&mut out, *short, ARCHIVE, files[i], specs[i].bytes),
            }
        }
        out
    }
}

/// Appends a short entry. Section 6 of the specification.
fn put_entry(out: &mut Vec<u8>, name: ShortName, attributes: u8, cluster: u32, bytes: u32) {
    let [low_0, low_1, high_0, high_1] = cluster.to_le_bytes();
    let [date_0, date_1] = DATE.to_le_bytes();
    out.extend(name);
    out.extend([attributes, 0, 0, 0, 0, date_0, date_1, date_0, date_1, high_0, high_1]);
    out.extend([0, 0, date_0, date_1, low_0, low_1]);
    out.extend(bytes.to_le_bytes());
}

fn long_name_entries(name: &str) -> usize {
    name.encode_utf16().count().div_ceil(LONG_NAME_PART)
}

/// Appends the entries of a long name, the last part first. Section 7.
fn put_long_name(out: &mut Vec<u8>, name: &str, short: &ShortName) {
    let checksum = short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let count = long_name_entries(name);
    for number in (1..=count).rev() {
        let mut part: Vec<u16> = units
            .iter()
            .skip((number - 1) * LONG_NAME_PART)
            .take(LONG_NAME_PART)
            .copied()
            .collect();
        if part.len() < LONG_NAME_PART {
            part.push(0);
            part.resize(LONG_NAME_PART, 0xffff);
        }
        let mut part = part.into_iter().flat_map(u16::to_le_bytes);
        out.push(number as u8 | if number == count { 0x40 } else { 0 });
        out.extend(part.by_ref().take(10));
        out.extend([LONG_NAME, 0, checksum]);
        out.extend(part.by_ref().take(12));
        out.extend([0, 0]);
        out.extend(part);
    }
}

/// The short name of `name`, with the tail `~number`.
fn short_name(name: &str, number: usize) -> ShortName {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let plain = |text: &str| -> Vec<u8> {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().filter(|c| !" .".contains(*c)).map(|c| fold(c) as u8).collect()
    };
    let (stem, extension) = (plain(stem), plain(extension));
    let tail = format!("~{number}");
    let kept = stem.len().min(8 - tail.len());
    let mut short = [b' '; 11];
    short[..kept].copy_from_slice(&stem[..kept]);
    short[kept..kept + tail.len()].copy_from_slice(tail.as_bytes());
    let kept = extension.len().min(3);
    short[8..8 + kept].copy_from_slice(&extension[..kept]);
    short
}
