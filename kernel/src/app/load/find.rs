//! The small files of the disk, and the choice of the model.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hermit_abi::{EFBIG, ENODEV, ENOENT};

use crate::app::error::Error;
use crate::app::os::{self, Errno, File};
use crate::app::sha256::Digest;
use crate::llm::gguf;
use crate::model_files::{LONGEST_SUM_FILE, SUM_ENDING, SumError, digest_of, is_model};
use crate::settings::NotText;

/// The error for a file that the disk does not deliver.
pub fn disk_error(path: &str, errno: Errno) -> Error {
    Error::Disk { path: path.to_owned(), errno, detail: os::disk_error() }
}

/// Reads a small file as text; `None` if the file does not exist.
///
/// # Errors
/// The disk fails, or the file is larger than `limit` bytes or not UTF-8.
pub fn read_text(path: &str, limit: usize) -> Result<Option<String>, Error> {
    let Some(bytes) = read_file(path, limit)? else { return Ok(None) };
    let bytes = bytes
        .map_err(|TooLarge| Error::Unreadable { path: path.to_owned(), why: "is too large" })?;
    match NotText::check(&bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(at) => Err(Error::NotText { path: path.to_owned(), at }),
    }
}

/// The file is larger than the limit.
struct TooLarge;

/// Reads a small file; `None` if the file does not exist.
///
/// # Errors
/// The disk fails.
fn read_file(path: &str, limit: usize) -> Result<Option<Result<Vec<u8>, TooLarge>>, Error> {
    match File::open(path).and_then(|file| file.read_all(limit)) {
        Ok(bytes) => Ok(Some(Ok(bytes))),
        Err(Errno(EFBIG)) => Ok(Some(Err(TooLarge))),
        Err(Errno(ENOENT | ENODEV)) => Ok(None),
        Err(errno) => Err(disk_error(path, errno)),
    }
}

/// The path of the model to load: the file named `wanted`, or the only model.
///
/// Hidden files do not count as models: macOS puts such files beside others. A file that is not
/// GGUF does not count if another file is.
///
/// # Errors
/// The disk holds no model, or no model of that name, or several models and `wanted` is `None`.
pub fn choose_model(wanted: Option<&str>) -> Result<String, Error> {
    let mut present = match File::open("/models").and_then(|directory| directory.entries()) {
        Ok(names) => names,
        Err(Errno(ENOENT)) => Vec::new(),
        Err(Errno(ENODEV)) => return Err(Error::NoModel { disk: os::disk_failure() }),
        Err(errno) => return Err(disk_error("/models", errno)),
    };
    // A name with control characters could pose as an event on the console.
    present.retain(|name| !name.contains(char::is_control));
    if let Some(name) = wanted
        && present.iter().any(|other| other == name)
    {
        return Ok(path_of(name));
    }
    present.retain(|name| is_model(name));
    present.sort();
    if present.is_empty() {
        return Err(Error::NoModel { disk: None });
    }
    if let Some(name) = wanted {
        return Err(Error::ModelNotFound { wanted: name.to_owned(), present });
    }
    if let [only] = &present[..] {
        return Ok(path_of(only));
    }
    let mut models = Vec::new();
    for name in &present {
        if starts_as_gguf(name)? {
            models.push(name);
        } else {
            log::warn!("{name} does not count: it is no GGUF file");
        }
    }
    match &models[..] {
        [only] => Ok(path_of(only)),
        [] => Err(Error::SeveralModels(present)),
        _ => Err(Error::SeveralModels(models.into_iter().cloned().collect())),
    }
}

/// The path of a model's file.
fn path_of(name: &str) -> String {
    format!("/models/{name}")
}

/// Whether the file `name` in `models/` starts with GGUF's magic number.
fn starts_as_gguf(name: &str) -> Result<bool, Error> {
    let path = path_of(name);
    let failed = |errno| disk_error(&path, errno);
    let file = File::open(&path).map_err(failed)?;
    let mut start = [0; gguf::MAGIC.len()];
    if file.size().map_err(failed)? < start.len() as u64 {
        return Ok(false);
    }
    file.read_full(&mut start).map_err(failed)?;
    Ok(start == gguf::MAGIC)
}

/// The digest in the `.sha256` file beside the model `name` at `path`, if there is one.
pub fn expected_digest(name: &str, path: &str) -> Result<Option<Digest>, Error> {
    let path = format!("{path}{SUM_ENDING}");
    let digest = match read_file(&path, LONGEST_SUM_FILE)? {
        None => return Ok(None),
        Some(Ok(text)) => digest_of(name, &text),
        Some(Err(TooLarge)) => Err(SumError::TooLong),
    };
    match digest {
        Ok(digest) => Ok(Some(Digest(digest))),
        Err(why) => Err(Error::BadChecksumFile { path, why }),
    }
}
