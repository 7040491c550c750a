//! Errors of the application, with a sentence for the user.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::app::line_editor::MAX_LINE;
use crate::app::os::{self, Errno};
use crate::app::sha256::Digest;
use crate::llm;
use crate::model_files::SumError;
use crate::report::{Code, Fault};
use crate::settings::{ConfigError, NotText};
use crate::system::DiskFailure;

/// An error of the application.
#[derive(Debug)]
pub enum Error {
    /// No disk has a `models` directory, or the directory holds no model.
    NoModel {
        /// The fault of the disk, if one is known.
        disk: Option<DiskFailure>,
    },
    /// The disk does not hold the model that is configured.
    ModelNotFound {
        /// The configured name.
        wanted: String,
        /// The models on the disk.
        present: Vec<String>,
    },
    /// The disk holds several models and the configuration names none.
    SeveralModels(Vec<String>),
    /// The configuration is wrong.
    Config(ConfigError),
    /// The configuration, or a file that the configuration names, is not UTF-8.
    NotText {
        /// Its path.
        path: String,
        /// The first byte that is not UTF-8.
        at: NotText,
    },
    /// The configuration, or a file that the configuration names, cannot be read.
    Unreadable {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk failed while this file was read.
    Disk {
        /// Path of the file.
        path: String,
        /// The ABI's error number.
        errno: Errno,
        /// The runtime's details of the failure.
        detail: String,
    },
    /// The console gives no input.
    Console(Errno),
    /// A line of a chat is longer than [`MAX_LINE`].
    LineTooLong,
    /// The `.sha256` file beside the model gives no digest of the model.
    BadChecksumFile {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: SumError,
    },
    /// The model's bytes differ from those that were hashed.
    ChecksumMismatch {
        /// The digest in the `.sha256` file.
        expected: Digest,
        /// The digest of the bytes read.
        actual: Digest,
    },
    /// The memory does not suffice.
    OutOfMemory {
        /// Use of the memory.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Settings with which the memory suffices; empty if no setting helps.
        instead: String,
    },
    /// The load of a model was given up: nobody waits for it any more.
    LoadGivenUp,
    /// The engine refused the model or the prompt.
    Engine(llm::Error),
    /// The network cannot be used.
    NoNetwork {
        /// The reason.
        why: String,
    },
    /// No self-test's name contains this text.
    NoSuchTest(String),
    /// This many self-tests failed.
    TestsFailed(usize),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Error::Config(error)
    }
}

impl From<llm::Error> for Error {
    fn from(error: llm::Error) -> Self {
        match error {
            llm::Error::OutOfMemory { what, asked: needed } => {
                let instead = llm::remedy(&error).unwrap_or_default().to_string();
                Error::OutOfMemory { what, needed, free: os::memory_available(), instead }
            }
            error => Error::Engine(error),
        }
    }
}

const MORE_MEMORY: &str =
    "give the machine more memory (`make run MEM=…`, QEMU's -m) or take a smaller model";

/// A number of bytes in MiB, for people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Error {
    /// The event for this error.
    pub fn fault(&self) -> Fault {
        let (code, message, hint) = match self {
            Error::NoModel { disk } => {
                let mut message =
                    "there is no model: no disk holds a file models/NAME.gguf".to_string();
                let mut hint = "make a disk with `image-builder disk` and attach it".to_string();
                if let Some(DiskFailure { message: what, hint: Some(to_do) }) = disk {
                    message += &format!(" ({what})");
                    hint = to_do.clone();
                }
                (Code::ModelNotFound, message, hint)
            }
            Error::ModelNotFound { wanted, present } => (
                Code::ModelNotFound,
                format!("there is no model `{wanted}` on the disk"),
                format!("set `model` to one of: {}", present.join(", ")),
            ),
            Error::SeveralModels(present) => (
                Code::InvalidConfig,
                "there are several models on the disk and none is chosen".to_string(),
                format!("set `model` to one of: {}", present.join(", ")),
            ),
            Error::Config(error) => (Code::InvalidConfig, error.to_string(), error.hint()),
            Error::NotText { path, at } => {
                (Code::InvalidConfig, format!("{path} {at}"), NotText::HINT.to_string())
            }
            Error::Unreadable { path, why } => (
                Code::InvalidConfig,
                format!("{path} {why}"),
                "mend the file on the model disk, or name another one".to_string(),
            ),
            Error::Disk { path, errno, detail } => (
                Code::DiskError,
                match detail.as_str() {
                    "" => format!("cannot read {path}: {errno}"),
                    detail => format!("cannot read {path}: {errno} ({detail})"),
                },
                "make the disk anew with `image-builder disk`; if it fails again, replace the \
                 device"
                    .to_string(),
            ),
            Error::Console(errno) => (
                Code::ConsoleError,
                format!("cannot read the console: {errno}"),
                "attach a serial console, or set `mode` to generate".to_string(),
            ),
            Error::LineTooLong => (
                Code::ContextFull,
                format!("the line is longer than the {MAX_LINE} bytes that a chat takes"),
                "shorten it, or give the text as `prompt_file`".to_string(),
            ),
            Error::BadChecksumFile { path, why } => (
                Code::ParseError,
                format!("{path} {why}"),
                "make it anew with `sha256sum`, or delete it to load without a check".to_string(),
            ),
            Error::ChecksumMismatch { expected, actual } => (
                Code::ChecksumMismatch,
                format!("the model's SHA-256 is {actual}, its .sha256 file says {expected}"),
                "the model is damaged or not the one that was hashed: get it again and make the \
                 disk anew"
                    .to_string(),
            ),
            Error::OutOfMemory { what, needed, free, instead } => (
                Code::OutOfMemory,
                format!(
                    "{what} needs {} ({needed} bytes), {} ({free} bytes) are free",
                    mib(*needed),
                    mib(*free)
                ),
                match instead.as_str() {
                    "" => MORE_MEMORY.to_string(),
                    instead => format!("{instead}; or {MORE_MEMORY}"),
                },
            ),
            Error::LoadGivenUp => (
                Code::ModelNotFound,
                "the load of the model was given up".to_string(),
                "ask for the model again".to_string(),
            ),
            Error::Engine(error) => return engine_fault(error),
            Error::NoNetwork { why } => (
                Code::NetworkError,
                format!("the network cannot be used: {why}"),
                "give the machine a virtio network card (`make serve` does), and look at `ip` and \
                 `gateway`"
                    .to_string(),
            ),
            Error::NoSuchTest(name) => (
                Code::InvalidConfig,
                format!("no test's name holds `{name}`"),
                "run all of them, without `tests`, to see their names".to_string(),
            ),
            Error::TestsFailed(count) => (
                Code::TestFailed,
                format!("{count} self-tests failed"),
                "the `test` events say which; please report it".to_string(),
            ),
        };
        Fault { code, message, hint }
    }
}

fn engine_fault(error: &llm::Error) -> Fault {
    let (code, hint) = match error {
        llm::Error::ParseError { .. } | llm::Error::HeaderCutShort { .. } => (
            Code::ParseError,
            "the file is damaged or no GGUF model: get it again, check it with `image-builder \
             inspect`",
        ),
        llm::Error::NotAModel { found } => (Code::ParseError, found.hint()),
        llm::Error::Unsupported { .. } => (
            Code::Unsupported,
            "take a model that this version runs, or another quantisation of it (Q4_0, Q8_0): the \
             README lists what works",
        ),
        llm::Error::OutOfMemory { .. } => (Code::OutOfMemory, MORE_MEMORY),
        llm::Error::OutOfPages => {
            (Code::OutOfMemory, "end other texts first, or give the KV cache more positions")
        }
        llm::Error::ContextFull { .. } => (
            Code::ContextFull,
            "shorten the prompt, raise `context` up to the model's own, or, outside of chats, have \
             the prompt cut (`cut_prompt`)",
        ),
        llm::Error::InvalidConfig { .. } => {
            (Code::InvalidConfig, "mend the setting in anchorite.toml or the boot arguments")
        }
        llm::Error::NotFinite { .. } => {
            (Code::ParseError, "the model's weights are damaged: get the file again")
        }
    };
    Fault { code, message: error.to_string(), hint: hint.to_string() }
}
