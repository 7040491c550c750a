//! A model's file: name, size, and checked GGUF header.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kernel::llm;
use kernel::llm::gguf::{Gguf, MAGIC};
use kernel::llm::plan::{ContextOptions, MemoryNeeded, Plan};
use kernel::model_files::{MODEL_ENDING, SUM_ENDING, is_model};
use sha2::{Digest, Sha256};

use crate::checksum::Sum;
use crate::progress::Progress;
use crate::size;

/// The largest file on a FAT volume, in bytes.
const FAT_LIMIT: u64 = u32::MAX as u64;
/// The longest name in bytes. FAT allows as many UTF-16 units.
///
/// The kernel's list of files has names of at most as many bytes.
pub const MAX_NAME: usize = 255;
/// The steps in which a header is read. Tokenizers take a few MiB.
const HEADER_STEPS: [u64; 3] = [1 << 20, 32 << 20, 512 << 20];

/// A file that holds a whole GGUF model, open for reading from its start.
pub struct ModelFile {
    /// The path.
    pub path: PathBuf,
    /// The size.
    pub bytes: u64,
    /// The first bytes, with the whole header.
    pub header: Vec<u8>,
    /// The file, open at its start.
    pub file: File,
}

impl ModelFile {
    /// Opens and checks the model at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not a GGUF file, or ends before its last tensor.
    pub fn open(path: &Path) -> Result<ModelFile> {
        let shown = path.display();
        let cannot_read = || format!("cannot read {shown}");
        let mut file = File::open(path).with_context(cannot_read)?;
        let metadata = file.metadata().with_context(cannot_read)?;
        ensure!(metadata.is_file(), "{shown} is no file");
        let bytes = metadata.len();

        let mut header = Vec::new();
        for step in HEADER_STEPS {
            let missing = step - header.len() as u64;
            (&file).take(missing).read_to_end(&mut header).with_context(cannot_read)?;
            let whole_file = header.len() as u64 >= bytes;
            let error = match Gguf::parse_header(&header, bytes) {
                Err(llm::Error::NotAModel { found }) => {
                    bail!("{shown} is no GGUF file, but {found}: {}", found.hint())
                }
                Ok(_) => {
                    file.rewind().with_context(cannot_read)?;
                    return Ok(ModelFile { path: path.into(), bytes, header, file });
                }
                Err(error) => error,
            };
            if !header.starts_with(&MAGIC) {
                bail!("{shown} is no GGUF file: it does not start with \"GGUF\"");
            }
            if whole_file || step == HEADER_STEPS[HEADER_STEPS.len() - 1] {
                return Err(error).with_context(|| {
                    format!("{shown} is damaged or not all there; fetch it again and compare its checksum")
                });
            }
        }
        unreachable!("the last step returns")
    }

    /// The header, which [`ModelFile::open`] has checked.
    pub fn gguf(&self) -> Gguf<'_> {
        Gguf::parse_header(&self.header, self.bytes).expect("checked when it was opened")
    }

    /// The SHA-256 of the file, which is read from its start and rewound.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sum(&self) -> Result<Sum> {
        let mut progress = Progress::new(format!("hashing {}", self.path.display()), self.bytes);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut file = &self.file;
        file.rewind()?;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            progress.add(n);
        }
        file.rewind()?;
        Ok(Sum::finish(hasher))
    }

    /// The memory that the engine needs with this context, besides the model's file.
    ///
    /// # Errors
    /// The engine cannot run the model.
    pub fn memory_needed(&self, context: ContextOptions) -> Result<MemoryNeeded, llm::Error> {
        Plan::read(&self.header, self.bytes)?.needed(context)
    }

    /// The file's name, checked for a FAT volume.
    ///
    /// # Errors
    /// FAT cannot hold the name or the size.
    pub fn fat_name(&self) -> Result<&str> {
        let shown = self.path.display();
        if self.bytes > FAT_LIMIT {
            bail!(
                "{shown} has {}, but a file on a FAT volume has at most 4 GiB less one byte: take \
                 a smaller quantisation of the model (Q4_0)",
                size::human(self.bytes)
            );
        }
        // The name of the `.sha256` file is longer.
        let name = fat_name(&self.path, MAX_NAME - SUM_ENDING.len())?;
        ensure!(is_model(name), "the name of {shown} must end in {MODEL_ENDING}: rename it");
        Ok(name)
    }
}

/// Why the kernel will not run a model, with a hint if there is one.
pub fn why(error: &llm::Error) -> String {
    match error {
        llm::Error::NotAModel { found } => format!("{error}: {}", found.hint()),
        _ => error.to_string(),
    }
}

/// The name of the file at `path`, checked for a FAT volume.
///
/// # Errors
/// FAT cannot hold the name, or the name has more than `limit` bytes.
pub fn fat_name(path: &Path, limit: usize) -> Result<&str> {
    let shown = path.display();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        bail!("the name of {shown} is no UTF-8 text: rename it");
    };
    if let Some(c) = name.chars().find(|&c| !fat_can_hold(c)) {
        bail!("the name of {shown} has the character {c:?}, which FAT cannot hold: rename it");
    }
    ensure!(name.len() <= limit, "the name of {shown} is longer than {limit} bytes: rename it");
    Ok(name)
}

/// Whether a long name may have this character.
///
/// Microsoft's FAT specification, section 7. Characters beyond U+FFFF take two UTF-16 units.
/// Control characters are excluded, as the kernel ignores such names. U+FFFF is excluded, as it
/// pads a name.
fn fat_can_hold(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "$%'-_@~`!(){}^#&+,;=[]. ".contains(c)
        || (!c.is_ascii() && !c.is_control() && c != '\u{ffff}')
}
