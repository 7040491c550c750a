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
use crate::model_files::{
    LONGEST_SUM_FILE, MODEL_ENDING, SUM_ENDING, SumError, digest_of, is_model,
};
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

/// A model on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// The file's name.
    pub file: String,
    /// Size of the file.
    pub bytes: u64,
}

impl ModelFile {
    /// The model's name for people and clients: the file's name without `.gguf`.
    pub fn name(&self) -> &str {
        self.file.strip_suffix(MODEL_ENDING).unwrap_or(&self.file)
    }

    /// The path of the model's file.
    pub fn path(&self) -> String {
        path_of(&self.file)
    }

    /// Whether a name is the model's, or its file's.
    pub fn is_named(&self, name: &str) -> bool {
        name == self.file || name == self.name()
    }
}

/// The names in `models/`, apart from those that could pose as an event on the console.
fn names() -> Result<Vec<String>, Error> {
    let mut names = match File::open("/models").and_then(|directory| directory.entries()) {
        Ok(names) => names,
        Err(Errno(ENOENT)) => Vec::new(),
        Err(Errno(ENODEV)) => return Err(Error::NoModel { disk: os::disk_failure() }),
        Err(errno) => return Err(disk_error("/models", errno)),
    };
    names.retain(|name| !name.contains(char::is_control));
    Ok(names)
}

/// The path of the model to load: the file named `wanted`, or the only model.
///
/// Hidden files do not count as models: macOS puts such files beside others. A file that is not
/// GGUF does not count if another file is.
///
/// # Errors
/// The disk holds no model, or no model of that name, or several models and `wanted` is `None`.
pub fn choose_model(wanted: Option<&str>) -> Result<String, Error> {
    let mut present = names()?;
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
        match look_at(name)? {
            (model, true) => models.push(model.file),
            (_, false) => log::warn!("{name} does not count: it is no GGUF file"),
        }
    }
    match &models[..] {
        [only] => Ok(path_of(only)),
        [] => Err(Error::SeveralModels(present)),
        _ => Err(Error::SeveralModels(models)),
    }
}

/// All models of the disk, by their names. Files count as for [`choose_model`].
///
/// # Errors
/// The disk fails.
pub fn list_models(wanted: Option<&str>) -> Result<Vec<ModelFile>, Error> {
    let mut present = names()?;
    present.retain(|name| is_model(name) || wanted == Some(name));
    present.sort();
    let mut models = Vec::new();
    for name in &present {
        let (model, is_gguf) = look_at(name)?;
        if is_gguf || present.len() == 1 || wanted == Some(name) {
            models.push(model);
        }
    }
    Ok(models)
}

/// Opens the model's file at a path.
///
/// # Errors
/// There is no such file, or the disk fails.
pub fn open_model(path: &str) -> Result<File, Error> {
    File::open(path).or_else(|errno| match errno {
        Errno(ENOENT) => {
            let wanted = path.rsplit('/').next().unwrap_or(path).to_owned();
            let present = list_models(None)?.into_iter().map(|model| model.file).collect();
            Err(Error::ModelNotFound { wanted, present })
        }
        errno => Err(disk_error(path, errno)),
    })
}

/// The path of a model's file.
fn path_of(name: &str) -> String {
    format!("/models/{name}")
}

/// The file `name` in `models/`, and whether it starts with GGUF's magic number.
fn look_at(name: &str) -> Result<(ModelFile, bool), Error> {
    let path = path_of(name);
    let failed = |errno| disk_error(&path, errno);
    let file = File::open(&path).map_err(failed)?;
    let bytes = file.size().map_err(failed)?;
    let model = ModelFile { file: name.to_owned(), bytes };
    let mut start = [0; gguf::MAGIC.len()];
    if bytes < start.len() as u64 {
        return Ok((model, false));
    }
    file.read_full(&mut start).map_err(failed)?;
    Ok((model, start == gguf::MAGIC))
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
