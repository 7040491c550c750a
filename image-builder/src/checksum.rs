//! SHA-256 sums in the form of `sha256sum`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// A SHA-256 sum; shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sum([u8; 32]);

impl Sum {
    /// The sum of `bytes`.
    pub fn of(bytes: &[u8]) -> Sum {
        Sum::finish(Sha256::new_with_prefix(bytes))
    }

    /// The sum of several pieces, as if they were one.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Sum {
        let mut hasher = Sha256::new();
        parts.into_iter().for_each(|part| hasher.update(part));
        Sum::finish(hasher)
    }

    /// A sum that is there as bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Sum {
        Sum(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The sum of all that `hasher` was fed.
    pub fn finish(hasher: Sha256) -> Sum {
        Sum(hasher.finalize().into())
    }

    /// Its first four bytes.
    pub fn prefix(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The line of `sha256sum` for a file of this name.
    pub fn line(&self, name: &str) -> String {
        format!("{self}  {name}\n")
    }

    /// Reads the first word of a line of `sha256sum`.
    pub fn parse(text: &str) -> Option<Sum> {
        let word = text.split_ascii_whitespace().next()?;
        if word.len() != 64 || !word.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut sum = [0; 32];
        for (byte, i) in sum.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&word[i..i + 2], 16).ok()?;
        }
        Some(Sum(sum))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The file beside `model` that holds its sum.
pub fn beside(model: &Path) -> PathBuf {
    let mut path = model.as_os_str().to_owned();
    path.push(".sha256");
    path.into()
}

/// The sum in the file beside `model`, if there is one.
pub fn read_beside(model: &Path) -> Result<Option<Sum>> {
    let path = beside(model);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    match Sum::parse(&text) {
        Some(sum) => Ok(Some(sum)),
        None => bail!(
            "{} holds no SHA-256 sum; write it anew (sha256sum {} > {}) or take it away",
            path.display(),
            model.display(),
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back() {
        // FIPS 180-4, example 1.
        let sum = Sum::of(b"abc");
        let line = sum.line("a b.gguf");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(line, format!("{hex}  a b.gguf\n"));
        assert_eq!(Sum::parse(&line), Some(sum));
        assert_eq!(Sum::parse(&line.to_uppercase()), Some(sum));
        assert_eq!(sum.prefix(), 0xba78_16bf);
        for bad in ["", "  \n", &line[1..], "abc  x", &line.replacen('b', "g", 1)] {
            assert_eq!(Sum::parse(bad), None, "{bad:?}");
        }
    }
}
