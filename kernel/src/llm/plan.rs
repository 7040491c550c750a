//! The plan of a model: shape, tokenizer and memory, from the header alone.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::llm::Error;
use crate::llm::chat::Declared;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::{BATCH, wants_panels};
use crate::llm::kv_cache::CacheType;
use crate::llm::model::scratch::{Scratch, ScratchShape};
use crate::llm::model::{Architecture, Model, Repack, quantization};
use crate::llm::state::{CacheOptions, CacheShape, StateShape};
use crate::llm::tokenizer::Tokenizer;

/// Positions in the KV cache by default.
pub const DEFAULT_N_CTX: usize = 256;
/// The smallest context that can shift, as in llama.cpp.
const LEAST_SHIFTED: usize = 8;

/// The context of a session: size, format, and context shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextOptions {
    /// Positions in the KV cache, at most the model's `n_ctx_train`.
    ///
    /// `None` is [`DEFAULT_N_CTX`], or `n_ctx_train` if that is less.
    pub n_ctx: Option<usize>,
    /// The format of keys and values.
    pub kv_cache: CacheType,
    /// Context shift, as llama.cpp's `--context-shift`.
    ///
    /// A text that outgrows the context keeps its first tokens and forgets half of the rest. The
    /// shift happens when one position is left.
    pub context_shift: bool,
    /// Tokens of the first prompt that a context shift and a cut of the prompt keep.
    ///
    /// The token that begins a text is kept besides. At most all tokens of the prompt are kept.
    pub keep: usize,
}

/// The texts that a workspace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceOptions {
    /// The context of each session.
    pub context: ContextOptions,
    /// Sessions that share a pass, at most.
    pub n_sessions: usize,
    /// Positions in the KV cache for all sessions: at least a context.
    ///
    /// `None` is a whole context for each of `n_sessions`. Sessions that need more at a time get
    /// [`Error::OutOfPages`].
    pub n_positions: Option<usize>,
    /// Whether sessions share the pages of common prefixes.
    ///
    /// Pages of texts that ended are kept until their memory is needed:
    /// [`Workspace::take_prefix`](crate::llm::workspace::Workspace::take_prefix).
    pub shares_prefixes: bool,
}

impl WorkspaceOptions {
    /// `n_sessions` sessions with a whole context each, which share no prefixes.
    pub fn new(context: ContextOptions, n_sessions: usize) -> Self {
        WorkspaceOptions { context, n_sessions, n_positions: None, shares_prefixes: false }
    }
}

/// A model's name and sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelMetadata {
    /// `general.name`; empty if the file has none.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// The type of most weights ("Q4_0").
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Layers.
    pub n_layer: usize,
    /// Width of the embedding.
    pub n_embd: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions that the model was trained for.
    pub n_ctx_train: usize,
    /// The file's declarations for chats.
    pub chat: Declared,
}

/// The memory that a model needs beside its file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeded {
    /// The KV cache; exact.
    pub kv_cache_bytes: usize,
    /// The scratch arena; exact.
    pub arena_bytes: usize,
    /// Tables, a usual prompt and its answer: an upper bound.
    ///
    /// The tables are those of the vocabulary and of the header.
    ///
    /// The header's tables exist while the model is loaded.
    pub table_bytes: usize,
}

impl MemoryNeeded {
    /// The sum of all three.
    pub fn total(&self) -> usize {
        self.kv_cache_bytes.saturating_add(self.arena_bytes).saturating_add(self.table_bytes)
    }
}

/// The first bytes of a model's file, its header at the least, and the file's size.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The first bytes.
    pub prefix: &'a [u8],
    /// Size of the file.
    pub file_bytes: u64,
}

impl<'a> Header<'a> {
    /// The header of a file that is all there.
    pub fn of(file: &'a [u8]) -> Self {
        Header { prefix: file, file_bytes: file.len() as u64 }
    }
}

/// A model whose header was read and judged: ready for the bytes of its weights.
///
/// Reading a plan builds the tokenizer and finds all tensors. Then the memory for any context is
/// arithmetic, and [`crate::llm::engine::Engine::new`] builds nothing twice.
#[derive(Debug)]
pub struct Plan {
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
    pub(super) metadata: ModelMetadata,
    /// The size of each source.
    pub(super) source_bytes: Vec<u64>,
    /// Entries of the headers' tables.
    n_entries: usize,
}

impl Plan {
    /// Reads the plan of a model in one file.
    ///
    /// # Errors
    /// [`Error::HeaderCutShort`] if `prefix` does not hold the header, [`Error::ParseError`] if the
    /// file is malformed, [`Error::Unsupported`] if the model needs a missing feature.
    pub fn read(prefix: &[u8], file_bytes: u64) -> Result<Self, Error> {
        Plan::read_split(&[Header { prefix, file_bytes }])
    }

    /// Reads the plan of a model whose file was split by llama.cpp's `gguf-split`.
    ///
    /// `headers` are the headers of all parts, in order. The first part has the metadata.
    ///
    /// # Errors
    /// As [`Plan::read`]; [`Error::Unsupported`] if the parts are not all of one model.
    pub fn read_split(headers: &[Header<'_>]) -> Result<Self, Error> {
        let files = headers
            .iter()
            .map(|&Header { prefix, file_bytes }| Gguf::parse_header(prefix, file_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let [first, ..] = &files[..] else {
            return Err(Error::Unsupported { what: "a file".into() });
        };
        let architecture = Architecture::of(first)?;
        check_split(&files)?;
        let tokenizer = Tokenizer::from_gguf(first)?;
        let model = architecture.model(&files, tokenizer.n_vocab(), wants_panels)?;
        let tensors = || files.iter().flat_map(|gguf| gguf.tensors());
        let shape = model.shape();
        let metadata = ModelMetadata {
            name: first.shown("general.name"),
            architecture: model.architecture().to_string(),
            quantization: quantization(&files),
            parameters: tensors().map(TensorInfo::elements).fold(0, u64::saturating_add),
            n_layer: shape.n_layer,
            n_embd: shape.n_embd,
            n_head: shape.n_head,
            n_head_kv: shape.n_head_kv,
            n_ff: shape.n_ff,
            n_vocab: shape.n_vocab,
            n_ctx_train: shape.n_ctx_train,
            chat: Declared::from_gguf(first),
        };
        let n_entries = files.iter().map(|gguf| gguf.metadata().len() + gguf.tensors().len()).sum();
        let source_bytes = headers.iter().map(|header| header.file_bytes).collect();
        Ok(Plan { model, tokenizer, metadata, source_bytes, n_entries })
    }

    /// The model's name and sizes.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// The memory that the model needs beside its file, for one session.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model cannot have this context.
    pub fn needed(&self, context: ContextOptions) -> Result<MemoryNeeded, Error> {
        self.needed_for(WorkspaceOptions::new(context, 1))
    }

    /// The memory that the model needs beside its file, for the sessions of a workspace.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model cannot have this context.
    pub fn needed_for(&self, options: WorkspaceOptions) -> Result<MemoryNeeded, Error> {
        let cache = cache_shape(&self.model, options)?;
        let scratch = scratch_shape(&cache.text, options.n_sessions);
        let n_texts = options.n_sessions.max(1);
        let of_pages = cache.table_bytes(n_texts);
        let table_bytes = self.table_bytes(cache.text.n_ctx, n_texts);
        Ok(MemoryNeeded {
            kv_cache_bytes: cache.bytes().unwrap_or(usize::MAX),
            arena_bytes: Scratch::bytes(&self.model, scratch),
            table_bytes: table_bytes.saturating_add(of_pages),
        })
    }

    /// The repacking of one source's weights.
    ///
    /// Source 0 is the file, or the first part of a split file.
    pub fn repack(&self, source: usize) -> Repack {
        self.model.repack(source)
    }

    /// Upper bound for the tables of model and header, and a prompt and an answer of each session.
    fn table_bytes(&self, n_ctx: usize, n_sessions: usize) -> usize {
        // The entries of the header's vectors. A growing vector may take three times its contents
        // while it moves.
        let entries = self.n_entries * 512;
        // The tokens of the text, and the tokens of the answer.
        let tokens = 2 * (n_ctx + 1) * size_of::<u32>();
        let answer = answer_bytes(n_ctx, &self.tokenizer).saturating_add(tokens);
        let longest = self.tokenizer.max_token_bytes().min(USUAL_TOKEN_BYTES);
        let prompt = n_ctx.saturating_mul(longest).saturating_mul(ENCODER_BYTES);
        let texts = answer.saturating_add(prompt).saturating_mul(n_sessions);
        let tables = [self.tokenizer.memory_bytes(), entries, texts];
        tables.into_iter().fold(0, usize::saturating_add)
    }
}

/// Checks that `files` are all parts of a split model, in order, or one whole file.
fn check_split(files: &[Gguf<'_>]) -> Result<(), Error> {
    for (i, gguf) in files.iter().enumerate() {
        let count = gguf.unsigned("split.count")?.filter(|&count| count > 1).unwrap_or(1);
        let number = gguf.unsigned("split.no")?.unwrap_or(0);
        if count != files.len() as u64 {
            let what = format!(
                "{count} files (`split.count`) and not {}: join them by `llama-gguf-split --merge`",
                files.len()
            );
            return Err(Error::Unsupported { what });
        }
        if number != i as u64 {
            let what =
                format!("part {} of {count} (`split.no`) and not part {}", i + 1, number + 1);
            return Err(Error::Unsupported { what });
        }
    }
    Ok(())
}

/// The shape of a session's state.
///
/// # Errors
/// [`Error::InvalidConfig`] if the model cannot have this context.
pub(super) fn state_shape(model: &Model, context: ContextOptions) -> Result<StateShape, Error> {
    let trained = model.shape().n_ctx_train;
    let n_ctx = match context.n_ctx {
        None => DEFAULT_N_CTX.min(trained),
        Some(n) if (1..=trained).contains(&n) => n,
        Some(n) => {
            let what = format!("`context` is {n}, not between 1 and the model's {trained}");
            return Err(Error::InvalidConfig { what });
        }
    };
    if context.context_shift && n_ctx < LEAST_SHIFTED {
        let what =
            format!("`context` is {n_ctx}, but `context_shift` takes at least {LEAST_SHIFTED}");
        return Err(Error::InvalidConfig { what });
    }
    model.state_shape(context.kv_cache, n_ctx, context.context_shift)
}

/// The shape of the KV cache of all sessions of a workspace.
///
/// # Errors
/// [`Error::InvalidConfig`] if the model cannot have this context, or if no session can fill it.
pub(super) fn cache_shape(model: &Model, options: WorkspaceOptions) -> Result<CacheShape, Error> {
    let WorkspaceOptions { context, n_sessions, n_positions, shares_prefixes } = options;
    let text = state_shape(model, context)?;
    let n_texts = n_sessions.max(1);
    let n_positions = n_positions.unwrap_or(text.n_ctx.saturating_mul(n_texts));
    if n_positions < text.n_ctx {
        let what = format!(
            "the KV cache has {n_positions} positions, fewer than `context`, which is {}",
            text.n_ctx
        );
        return Err(Error::InvalidConfig { what });
    }
    Ok(CacheShape::new(text, CacheOptions { n_texts, n_positions, shares_prefixes }))
}

/// The scratch memory for passes of `n_sessions` sessions of this shape.
pub(super) fn scratch_shape(state: &StateShape, n_sessions: usize) -> ScratchShape {
    let n_sessions = n_sessions.clamp(1, BATCH);
    let StateShape { n_ctx, kv_cache, .. } = *state;
    let n_rows = BATCH.min(n_ctx.saturating_mul(n_sessions));
    ScratchShape { n_rows, n_outputs: n_sessions.min(n_rows), n_ctx, kv_cache }
}

/// Upper bound for the text of `n` tokens, in bytes.
///
/// Each byte of a token that is not UTF-8 may become a U+FFFD, which takes three bytes. So may a
/// character that is cut off at the end.
pub(crate) fn answer_bytes(n: usize, tokenizer: &Tokenizer) -> usize {
    let replacement = char::REPLACEMENT_CHARACTER.len_utf8();
    n.saturating_mul(tokenizer.max_token_bytes()).saturating_add(1).saturating_mul(replacement)
}

/// Upper bound for the encoder's memory per byte of a prompt, growth included.
pub(super) const ENCODER_BYTES: usize = 384;
/// Bytes of a token that the plan counts for the encoding of prompts.
///
/// Few texts have longer tokens. Their memory is checked when they come.
const USUAL_TOKEN_BYTES: usize = 16;
