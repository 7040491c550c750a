//! SHA-256 checksums in the form of `sha256sum`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kernel::model_files::{LONGEST_SUM_FILE, SUM_ENDING, SumError, digest_of};
use sha2::{Digest, Sha256};

/// A SHA-256 checksum, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sum([u8; 32]);

impl Sum {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Sum {
        Sum::finish(Sha256::new_with_prefix(bytes))
    }

    /// The checksum of the concatenation of `parts`.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Sum {
        let mut hasher = Sha256::new();
        parts.into_iter().for_each(|part| hasher.update(part));
        Sum::finish(hasher)
    }

    /// A checksum from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Sum {
        Sum(bytes)
    }

    /// The bytes of the checksum.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The checksum of all input of `hasher`.
    pub fn finish(hasher: Sha256) -> Sum {
        Sum(hasher.finalize().into())
    }

    /// The first four bytes, as a big-endian number.
    pub fn prefix(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The line of `sha256sum` for a file of this name.
    pub fn line(&self, name: &str) -> String {
        format!("{self}  {name}\n")
    }

    /// The checksum of the model `name` in the text of a `.sha256` file.
    ///
    /// # Errors
    /// The text has no checksum of the model.
    pub fn of_model(name: &str, text: &[u8]) -> Result<Sum, SumError> {
        digest_of(name, text).map(Sum)
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

/// The path of the `.sha256` file beside `model`.
pub fn beside(model: &Path) -> PathBuf {
    let mut path = model.as_os_str().to_owned();
    path.push(SUM_ENDING);
    path.into()
}

/// Reads the checksum in the `.sha256` file beside `model`, if there is one.
pub fn read_beside(model: &Path) -> Result<Option<Sum>> {
    let path = beside(model);
    let shown = path.display();
    let cannot_read = || format!("cannot read {shown}");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(cannot_read),
    };
    let mut text = Vec::new();
    // One byte more than the limit shows that the file is too long, even if it never ends.
    file.take(LONGEST_SUM_FILE as u64 + 1).read_to_end(&mut text).with_context(cannot_read)?;
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let sum = Sum::of_model(&name, &text).map_err(|e| {
        let model = model.display();
        anyhow!("{shown} {e}: write it anew (sha256sum {model} > {shown}) or remove it")
    });
    sum.map(Some)
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
        assert_eq!(Sum::of_model("a b.gguf", line.as_bytes()), Ok(sum));
        assert_eq!(sum.prefix(), 0xba78_16bf);
    }
}
