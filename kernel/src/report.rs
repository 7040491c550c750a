//! The machine-readable events on the serial line, one type each.
//!
//! An event is one JSON object in a JSON text sequence ([RFC 7464]): the byte 0x1E at a line's
//! start, the object, a newline. The object's `event` field names its type. Text for people stands
//! on the lines between, without the byte 0x1E: see [`printable`].
//!
//! The unikernel writes these types and the harness reads the same types, so neither can drift.
//!
//! [RFC 7464]: https://www.rfc-editor.org/rfc/rfc7464

#![forbid(unsafe_code)]

mod fault;
mod json;
mod text;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

pub use fault::{write_exit, write_fault};
pub use json::RECORD_SEPARATOR;
pub use text::{Printable, printable};

/// One event on the serial line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The runtime is up. Always the first event.
    Hello(Hello),
    /// The model disk is mounted.
    Disk(Disk),
    /// The model is loaded and ready.
    Model(Model),
    /// A model was unloaded.
    Unload(Unload),
    /// A chat waits for a line or has taken a message.
    Chat(Chat),
    /// The server is reached at these addresses.
    Serve(Serve),
    /// The server has answered a request.
    Request(Request),
    /// One prompt was answered.
    Result(Outcome),
    /// The perplexity of a text was measured.
    Perplexity(Perplexity),
    /// One self-test ended.
    Test(Test),
    /// Something went wrong.
    Error(Fault),
    /// The machine powers off. Always the last event.
    Exit(Exit),
}

/// The runtime is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the image.
    pub version: String,
    /// SHA-256 of the image in hexadecimal, as `image-builder inspect IMAGE` shows it. `None` if
    /// the kernel was started from its ELF file, which does not hold the number.
    pub image_sha256: Option<String>,
    /// The machine, as the device tree's `model` or first `compatible` names it.
    pub machine: String,
    /// The processor, by its `MIDR_EL1` ("Cortex-A72"). Different cores are counted by kind
    /// ("4 × Apple M1 Icestorm + 4 × Apple M1 Firestorm").
    pub cpu: String,
    /// Features of the processor that the kernels can use ("neon", "dotprod", "i8mm", "sha2", …).
    pub cpu_features: Vec<String>,
    /// The engine's kernels for this processor: "neon", "dotprod" or "i8mm"; "scalar" without
    /// vectors.
    pub kernels: String,
    /// Cores that are up.
    pub cores: usize,
    /// Exception level at entry: 1 or 2.
    pub exception_level: u8,
    /// Consoles: the kind of the serial port ("pl011", "ns16550", "s5l-uart"), and the screen's
    /// size in pixels and in glyphs ("framebuffer 2560x1600, text 128x40").
    pub consoles: Vec<String>,
    /// Facts about a board ("gpio14=alt5", …), as the runtime found them; empty on QEMU's `virt`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub board: Vec<String>,
    /// RAM that the device tree lists, in bytes.
    pub memory_bytes: u64,
    /// RAM free for the model, in bytes.
    pub memory_free_bytes: u64,
    /// Time from the image's first instruction to this event, by the guest's counter, in µs.
    pub boot_us: u64,
}

/// The model disk is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The device: "virtio-blk (mmio)", "virtio-blk (pci)", "initrd", …
    pub device: String,
    /// Size of the device in bytes.
    pub bytes: u64,
    /// "FAT12", "FAT16", "FAT32"; for an initrd of files "cpio", or "GGUF" for a model alone.
    pub filesystem: String,
    /// Label of the volume, empty if it has none.
    pub label: String,
    /// Bytes in a cluster; 0 if there are none.
    pub cluster_bytes: u32,
}

/// Result of the model's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// The checksum matched the `.sha256` file.
    Verified,
    /// There is no `.sha256` file to compare with.
    Missing,
    /// The configuration said `verify = false`.
    Skipped,
}

/// The model is loaded and ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// File name on the disk.
    pub file: String,
    /// `general.name`, or the file name.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Quantisation of most weights ("Q4_0").
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Number of layers.
    pub n_layer: usize,
    /// Width of the embedding.
    pub n_embd: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions in the KV cache of this run.
    pub n_ctx: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in hexadecimal; `None` if none was computed.
    pub sha256: Option<String>,
    /// Result of the checksum.
    pub checksum: Checksum,
    /// Time to read and hash the file, in µs.
    pub load_us: u64,
    /// Time that the reads of the file took, in µs.
    pub read_us: u64,
    /// Time that the hashing alone took, in µs.
    pub hash_us: u64,
    /// `bytes` over `load_us`, in 10^6 bytes a second.
    pub load_mb_per_s: f64,
    /// Size of the KV cache in bytes.
    pub kv_cache_bytes: u64,
}

/// A model was unloaded: its memory is free again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unload {
    /// File name on the disk.
    pub file: String,
    /// Memory of the machine that is in use now, in bytes.
    pub memory_in_use_bytes: u64,
}

/// State of a chat.
///
/// A chat sends one `waiting` for each line that the chat reads. Lines typed in between are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// The state.
    pub state: ChatState,
}

/// States of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatState {
    /// The chat waits for the next line.
    Waiting,
    /// The chat has taken a message: a `result` or an `error` follows.
    Answering,
}

/// The server is reached at these addresses. The event comes again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// The addresses, as URLs ("http://10.0.2.15:8080").
    pub urls: Vec<String>,
    /// The network card: "virtio-net (mmio)", "virtio-net (pci)".
    pub card: String,
    /// The name for clients of the model that is loaded; empty if none is.
    pub model: String,
    /// The names for clients of all models on the disk.
    #[serde(default)]
    pub models: Vec<String>,
    /// Requests of a model that run at once.
    pub parallel: usize,
    /// Positions of each request's context; 0 if no model is loaded.
    pub n_ctx: usize,
}

/// The server has answered a request. No text of a prompt or an answer is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The client's address.
    pub client: String,
    /// The method; "-" for a request without a readable head.
    pub method: String,
    /// The path, without its query; "-" for a request without a readable head.
    pub path: String,
    /// The HTTP status; 499 if the client went away before its answer was complete.
    pub status: u16,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens of the prompts that were cached.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub tokens_emitted: usize,
    /// Time to process the prompt, in µs.
    pub prompt_us: u64,
    /// Time to generate the tokens after the first one, in µs.
    pub generated_us: u64,
    /// From the request to the last byte of its answer, in µs.
    pub latency_us: u64,
}

/// Why the generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model gave an end-of-sequence token.
    EndOfSequence,
    /// The number of tokens asked for is reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The reader of the text asked to stop.
    Cancelled,
}

/// One prompt was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tokens in the prompt, those that start a sequence included.
    pub prompt_tokens: usize,
    /// Tokens generated, an end-of-sequence token not counted.
    pub tokens_emitted: usize,
    /// The text generated.
    pub output: String,
    /// The ids of the tokens generated.
    pub tokens: Vec<u32>,
    /// Why the generation stopped.
    pub stop: StopReason,
    /// Number of context shifts: each drops half of the text of a full context.
    pub context_shifts: usize,
    /// From the start of the prompt's processing to the last token, in µs.
    pub latency_us: u64,
    /// From the start of the prompt's processing to the first token, in µs.
    pub first_token_us: u64,
    /// Prompt tokens a second.
    pub prompt_tokens_per_s: f64,
    /// Generated tokens a second, the first one not counted.
    pub tokens_per_s: f64,
    /// Size of the scratch memory in bytes, used or not.
    pub arena_bytes: u64,
    /// Largest part of the scratch memory in use since the model was loaded, in bytes.
    pub arena_peak_bytes: u64,
    /// The board's present state ("temperature=45C", "throttled=0x0"), as in [`Hello::board`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub board: Vec<String>,
}

/// The perplexity of a text was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// e to the mean of the negative log-likelihoods.
    pub perplexity: f64,
    /// Its standard error.
    pub error: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Chunks of the context's length that the text was cut into.
    pub pieces: usize,
    /// Time of the measurement in µs.
    pub time_us: u64,
}

/// Number of tokens and their rate, for people. The rate leaves the first token out, so that one
/// token has none.
pub fn tokens_at(n: usize, per_s: f64) -> String {
    match n {
        0 => "0 tokens".into(),
        1 => "1 token".into(),
        n => alloc::format!("{n} tokens at {per_s:.1}/s"),
    }
}

/// One self-test or measurement ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Name of the test.
    pub name: String,
    /// Whether the test passed.
    pub pass: bool,
    /// The finding, or the reason of the failure.
    pub detail: String,
    /// The figure of a measurement, in the unit that `detail` gives.
    pub figure: Option<f64>,
}

/// Kind of an error. The name on the serial line is the variant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The model's file is not on the disk, or there is no disk.
    ModelNotFound,
    /// The model's file is damaged or not GGUF.
    ParseError,
    /// The model's bytes differ from those that were hashed.
    ChecksumMismatch,
    /// The model needs a feature that this image does not have.
    Unsupported,
    /// There is not enough memory.
    OutOfMemory,
    /// The disk failed, or its file system is damaged.
    DiskError,
    /// The console cannot be read.
    ConsoleError,
    /// There is no network card, or the network cannot be configured.
    NetworkError,
    /// The prompt does not fit in the context.
    ContextFull,
    /// A setting is unknown or has no sensible value.
    InvalidConfig,
    /// A self-test failed.
    TestFailed,
    /// The image panicked: a fault in Anchorite itself.
    Panic,
    /// The processor took an exception: a fault in Anchorite itself.
    Exception,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Kind of the error.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What to do about the error.
    pub hint: String,
}

/// The machine powers off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 if all went well.
    pub status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::Cow;
    use alloc::string::ToString;
    use alloc::vec;

    fn outcome(output: &str) -> Event {
        Event::Result(Outcome {
            prompt_tokens: 3,
            tokens_emitted: 2,
            output: output.to_string(),
            tokens: vec![5, 7],
            stop: StopReason::MaxTokens,
            context_shifts: 0,
            latency_us: 11,
            first_token_us: 7,
            prompt_tokens_per_s: 0.5,
            tokens_per_s: 2.5,
            arena_bytes: 17,
            arena_peak_bytes: 19,
            board: vec![],
        })
    }

    #[test]
    fn an_event_survives_the_line() {
        let event = outcome("a \"quoted\" \\ line\nand \x1e{\"event\":\"exit\",\"status\":0}\n");
        let record = event.to_record();
        assert_eq!(record.matches(RECORD_SEPARATOR).count(), 1);
        assert_eq!(record.matches('\n').count(), 1);
        assert_eq!(Event::from_line(&record).unwrap().unwrap(), event);
    }

    #[test]
    fn the_event_field_names_the_type() {
        let record = Event::Exit(Exit { status: 1 }).to_record();
        assert_eq!(record, "\x1e{\"event\":\"exit\",\"status\":1}\n");
        assert!(
            outcome("").to_record().starts_with("\x1e{\"event\":\"result\",\"prompt_tokens\":3,")
        );
        let record = Event::Chat(Chat { state: ChatState::Waiting }).to_record();
        assert_eq!(record, "\x1e{\"event\":\"chat\",\"state\":\"waiting\"}\n");
    }

    #[test]
    fn text_is_no_event_and_an_unknown_event_is_an_error() {
        assert!(Event::from_line("{\"event\":\"exit\",\"status\":1}").is_none());
        assert!(Event::from_line("\x1e{\"event\":\"exit\"").unwrap().is_err());
        assert!(Event::from_line("\x1e{\"event\":\"dance\"}").unwrap().is_err());
    }

    #[test]
    fn faults_written_without_a_heap_read_like_the_others() {
        let mut line = String::new();
        write_fault(&mut line, Code::Panic, format_args!("a \"b\"\n\\ {}\x1e\x07", 3), "try\tit")
            .unwrap();
        let expected = Event::Error(Fault {
            code: Code::Panic,
            message: "a \"b\"\n\\ 3\x1e\x07".to_string(),
            hint: "try\tit".to_string(),
        });
        assert_eq!(line.matches(RECORD_SEPARATOR).count(), 1);
        assert_eq!(Event::from_line(&line).unwrap().unwrap(), expected);

        line.clear();
        write_exit(&mut line, -3).unwrap();
        assert_eq!(Event::from_line(&line).unwrap().unwrap(), Event::Exit(Exit { status: -3 }));
    }

    #[test]
    fn one_token_has_no_rate() {
        assert_eq!(tokens_at(0, 0.0), "0 tokens");
        assert_eq!(tokens_at(1, 0.0), "1 token");
        assert_eq!(tokens_at(2, 2.25), "2 tokens at 2.2/s");
    }

    #[test]
    fn text_shown_to_people_holds_no_control_characters() {
        assert!(matches!(printable("Grüße,\n\t🙂"), Cow::Borrowed(_)));
        let (raw, shown) = ("a\x1e{\x1b[2J\r\u{9b}b", "a\\u{1e}{\\u{1b}[2J\\r\\u{9b}b");
        assert_eq!(printable(raw), shown);
        assert_eq!(Printable(format_args!("{raw}\n{raw}")).to_string(), [shown, shown].join("\n"));
    }

    #[test]
    fn numbers_survive_to_the_last_bit() {
        let record = |perplexity| {
            Event::Perplexity(Perplexity {
                perplexity,
                error: 0.1,
                tokens: 9,
                pieces: 1,
                time_us: 3,
            })
        };
        for perplexity in [5.222222222222222e49, 0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX] {
            let event = record(perplexity);
            assert_eq!(Event::from_line(&event.to_record()).unwrap().unwrap(), event);
        }
    }
}
