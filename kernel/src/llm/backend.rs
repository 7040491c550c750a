//! The engine's front: loads a model and answers prompts.

#![forbid(unsafe_code)]

mod perplexity;
mod remedy;
mod uncached;
mod verbose;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

pub use perplexity::Perplexity;
pub use remedy::{remedy, settings_that_fit};

use crate::llm::arena::{Arena, ModelBytes};
pub use crate::llm::arena::{ModelBuffer, Pages};
use crate::llm::chat::Declared;
use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::kernels::wants_stripes;
use crate::llm::kv_cache::{CacheShape, CacheType, KvCache};
use crate::llm::model::scratch::Scratch;
use crate::llm::model::{Architecture, Arrangement, Context, Model, batch, quantization};
use crate::llm::sampling::{Breakers, DEFAULT_BREAKERS, Sampler, SamplingConfig};
use crate::llm::tokenizer::{Decoder, Piece, Tokenizer};
use crate::llm::workers::Workers;
use crate::llm::{Error, with_capacity};

/// What the memory for an answer is called in errors.
const ANSWER: &str = "the answer";
/// And that for finding the tokens of a prompt.
const PROMPT: &str = "encoding the prompt";
/// Positions in the KV cache if the caller asks for no number.
pub const DEFAULT_N_CTX: usize = 256;

/// How much of a text the model sees, and how that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextOptions {
    /// Positions in the KV cache: up to those that the model was trained for. `None` is
    /// [`DEFAULT_N_CTX`], or what the model has if that is less.
    pub n_ctx: Option<usize>,
    /// The format of keys and values.
    pub kv_cache: CacheType,
    /// Whether a text that outgrows the context goes on: its first tokens are kept, half of the
    /// rest is forgotten. As llama.cpp's `--context-shift`, it happens when one position is left.
    pub context_shift: bool,
    /// Tokens of the first prompt that are kept then, and where it is cut, besides the one that begins a
    /// text; at most all of them.
    pub keep: usize,
}

/// The least context that a text can outgrow without an end, and how much of it the first prompt
/// leaves at least; as in llama.cpp.
const LEAST_SHIFTED: usize = 8;
const LEAST_LEFT: usize = 4;

/// What a backend is made with.
#[derive(Clone, Copy)]
pub struct Options {
    /// The context.
    pub context: ContextOptions,
    /// The threads that share the work.
    pub workers: &'static dyn Workers,
    /// The time in µs since any fixed moment.
    pub now_us: fn() -> u64,
}

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
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
    /// Positions in the KV cache.
    pub n_ctx: usize,
    /// The format of its keys and values.
    pub kv_cache_type: CacheType,
    /// Size of the KV cache in bytes.
    pub kv_cache_bytes: usize,
    /// Size of the scratch arena in bytes.
    pub arena_bytes: usize,
    /// What the file says about conversations.
    pub chat: Declared,
}

/// What a model needs besides its file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeded {
    /// The KV cache; exact.
    pub kv_cache_bytes: usize,
    /// The scratch arena; exact.
    pub arena_bytes: usize,
    /// The vocabulary's tables, the header's while the model is loaded, and what a usual prompt
    /// and its answer take; an upper bound.
    pub table_bytes: usize,
}

impl MemoryNeeded {
    /// All of it.
    pub fn total(&self) -> usize {
        self.kv_cache_bytes.saturating_add(self.arena_bytes).saturating_add(self.table_bytes)
    }
}

/// Why the generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct InferenceResult {
    /// The text generated.
    pub output: String,
    /// The tokens generated, an end-of-sequence token not included.
    pub tokens: Vec<u32>,
    /// Tokens processed before the first one was generated.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were too many, and left out.
    pub prompt_tokens_cut: usize,
    /// Number of tokens generated.
    pub tokens_emitted: usize,
    /// Why it ended.
    pub stop: StopReason,
    /// How often the text outgrew the context and went on.
    pub context_shifts: usize,
    /// From the call to the last token, in µs.
    pub latency_us: u64,
    /// From the call to the first token, in µs.
    pub first_token_us: u64,
    /// Prompt tokens a second.
    pub prompt_tokens_per_s: f64,
    /// Generated tokens a second, the first one not counted; 0 if there is no second one.
    pub tokens_per_s: f64,
    /// Size of the scratch arena in bytes.
    pub arena_bytes: usize,
    /// The most bytes of it ever in use.
    pub arena_peak_bytes: usize,
}

/// A model, which any number of texts may share.
struct Shared {
    file: ModelBytes,
    model: Model,
    tokenizer: Tokenizer,
    metadata: ModelMetadata,
    /// The shape of the cache of each text.
    cache: CacheShape,
}

/// A model and all that one text needs besides.
struct Loaded {
    shared: Arc<Shared>,
    cache: KvCache,
    arena: Arena,
    /// The first positions of the text, which stay when it outgrows the context.
    n_keep: usize,
    /// The last token of the text, if it was generated (an end-of-sequence token included) and is
    /// not yet in the cache.
    pending: Option<u32>,
}

/// What a text is to go on with.
#[derive(Clone, Copy)]
enum Prompt<'a> {
    /// Text as it is.
    Text(&'a str),
    /// A turn of a conversation.
    Turn(&'a [Piece<'a>]),
}

impl Prompt<'_> {
    fn len(self) -> usize {
        match self {
            Prompt::Text(text) => text.len(),
            Prompt::Turn(pieces) => pieces.iter().map(|piece| piece.text().len()).sum(),
        }
    }

    /// Whether it brings along what ends the answer before it.
    fn ends_answers(self) -> bool {
        matches!(self, Prompt::Turn(_))
    }
}

/// Runs one transformer model at a time, on one text at a time.
pub struct TransformerBackend {
    options: Options,
    sampler: Sampler,
    /// What ends a repetition for the sampler.
    dry_breakers: Vec<String>,
    verbose: bool,
    ignore_end: bool,
    parse_special: bool,
    cut_prompt: bool,
    loaded: Option<Loaded>,
}

/// The parts of a model that its header decides.
struct Plan {
    model: Model,
    tokenizer: Tokenizer,
    cache: CacheShape,
    needed: MemoryNeeded,
}

impl Plan {
    fn from_gguf(gguf: &Gguf<'_>, context: ContextOptions) -> Result<Self, Error> {
        let architecture = Architecture::of(gguf)?;
        if gguf.unsigned("split.count")?.is_some_and(|n| n > 1) {
            return Err(Error::Unsupported { what: "several files (`split.count`)".into() });
        }
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let model = architecture.model(gguf, tokenizer.n_vocab())?;
        let shape = model.shape();
        let n_ctx = match context.n_ctx {
            None => DEFAULT_N_CTX.min(shape.n_ctx_train),
            Some(n) if (1..=shape.n_ctx_train).contains(&n) => n,
            Some(n) => {
                let trained = shape.n_ctx_train;
                let what = format!("`context` is {n}, not between 1 and the model's {trained}");
                return Err(Error::InvalidConfig { what });
            }
        };
        if context.context_shift && n_ctx < LEAST_SHIFTED {
            let what =
                format!("`context` is {n_ctx}, but `context_shift` takes at least {LEAST_SHIFTED}");
            return Err(Error::InvalidConfig { what });
        }
        let cache = model.cache_shape(context.kv_cache, n_ctx, context.context_shift)?;
        let needed = MemoryNeeded {
            kv_cache_bytes: cache.bytes().unwrap_or(usize::MAX),
            arena_bytes: Scratch::bytes(&model, &cache),
            table_bytes: table_bytes(gguf, &tokenizer, n_ctx),
        };
        Ok(Plan { model, tokenizer, cache, needed })
    }
}

/// At most what the tables of a model, of its header while it is read, and of an answer take.
fn table_bytes(gguf: &Gguf<'_>, tokenizer: &Tokenizer, n_ctx: usize) -> usize {
    // The entries of the header's vectors; one that grows may take three times what it holds, while
    // it moves.
    let entries = (gguf.metadata().len() + gguf.tensors().len()) * 512;
    let answer = answer_bytes(n_ctx, tokenizer).saturating_add(n_ctx * size_of::<u32>());
    let longest = tokenizer.max_token_bytes().min(USUAL_TOKEN_BYTES);
    let prompt = n_ctx.saturating_mul(longest).saturating_mul(ENCODER_BYTES);
    [tokenizer.memory_bytes(), entries, answer, prompt].into_iter().fold(0, usize::saturating_add)
}

/// At most what the text of `n` tokens takes in bytes. Where tokens are no UTF-8, each of their
/// bytes may become a U+FFFD, which takes three; a character that is cut off at the end likewise.
pub(crate) fn answer_bytes(n: usize, tokenizer: &Tokenizer) -> usize {
    let replacement = char::REPLACEMENT_CHARACTER.len_utf8();
    n.saturating_mul(tokenizer.max_token_bytes()).saturating_add(1).saturating_mul(replacement)
}

/// At most what the encoder takes for each byte of a prompt, while its vectors grow.
const ENCODER_BYTES: usize = 384;
/// The memory for encoding is counted for prompts whose tokens are no longer than this. Few texts
/// have more bytes for each token; those are checked when they come.
const USUAL_TOKEN_BYTES: usize = 16;

/// What is to be known of a model before it is read.
pub struct Outline {
    /// What it needs besides its file.
    pub needed: MemoryNeeded,
    /// How the kernels want the weights to lie.
    pub arrangement: Arrangement,
}

impl Outline {
    /// Reads it from the first bytes of a file (its header, at the least) and the file's size.
    ///
    /// # Errors
    /// [`Error::HeaderCutShort`] if `prefix` does not hold the header; those of
    /// [`TransformerBackend::load_model`] that the header shows.
    pub fn read(prefix: &[u8], file_bytes: u64, context: ContextOptions) -> Result<Self, Error> {
        let gguf = Gguf::parse_header(prefix, file_bytes)?;
        let mut plan = Plan::from_gguf(&gguf, context)?;
        Ok(Outline { needed: plan.needed, arrangement: plan.model.arrange(wants_stripes) })
    }
}

/// What a model needs besides its file, so that it can be refused before it is read.
///
/// # Errors
/// As [`Outline::read`].
pub fn memory_needed(
    prefix: &[u8],
    file_bytes: u64,
    context: ContextOptions,
) -> Result<MemoryNeeded, Error> {
    Ok(Outline::read(prefix, file_bytes, context)?.needed)
}

impl Loaded {
    fn new(shared: Arc<Shared>) -> Result<Loaded, Error> {
        let cache = KvCache::try_new(shared.cache.clone())?;
        let arena = Arena::try_new(shared.metadata.arena_bytes)?;
        Ok(Loaded { shared, cache, arena, n_keep: 0, pending: None })
    }
}

/// The model, which must have been loaded.
fn required(loaded: &mut Option<Loaded>) -> Result<&mut Loaded, Error> {
    loaded.as_mut().ok_or_else(|| Error::InvalidConfig { what: "no model is loaded".into() })
}

impl TransformerBackend {
    /// A backend without a model, which takes the best token each time.
    pub fn new(options: Options) -> Self {
        TransformerBackend {
            options,
            sampler: Sampler::new(SamplingConfig::greedy()),
            dry_breakers: DEFAULT_BREAKERS.map(String::from).into(),
            verbose: false,
            ignore_end: false,
            parse_special: false,
            cut_prompt: false,
            loaded: None,
        }
    }

    /// Takes a model: the bytes of its GGUF file, which stay where they are. One that was loaded
    /// before is given up first.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the file is malformed, [`Error::Unsupported`] if it needs what the
    /// engine does not have, [`Error::InvalidConfig`] if the model has not the context asked for,
    /// [`Error::OutOfMemory`].
    pub fn load_model(&mut self, file: ModelBuffer) -> Result<(), Error> {
        self.take(file, false)
    }

    /// As [`TransformerBackend::load_model`], for a file whose pieces were all rearranged by its
    /// [`Outline::arrangement`].
    ///
    /// # Errors
    /// As [`TransformerBackend::load_model`].
    pub fn load_arranged_model(&mut self, file: ModelBuffer) -> Result<(), Error> {
        self.take(file, true)
    }

    fn take(&mut self, mut file: ModelBuffer, arranged: bool) -> Result<(), Error> {
        self.loaded = None;
        // What it knows of tokens is of the model before.
        self.sampler = Sampler::new(self.sampler.config());
        let gguf = Gguf::parse(&file)?;
        let plan = Plan::from_gguf(&gguf, self.options.context)?;
        let Plan { mut model, tokenizer, cache, needed } = plan;
        let shape = model.shape();
        let parameters = gguf.tensors().iter().map(TensorInfo::elements);
        let metadata = ModelMetadata {
            name: gguf.string("general.name")?.unwrap_or_default().to_string(),
            architecture: model.architecture().to_string(),
            quantization: quantization(&gguf),
            parameters: parameters.fold(0, u64::saturating_add),
            n_layer: shape.n_layer,
            n_embd: shape.n_embd,
            n_head: shape.n_head,
            n_head_kv: shape.n_head_kv,
            n_ff: shape.n_ff,
            n_vocab: shape.n_vocab,
            n_ctx_train: shape.n_ctx_train,
            n_ctx: cache.n_ctx,
            kv_cache_type: cache.kind,
            kv_cache_bytes: needed.kv_cache_bytes,
            arena_bytes: needed.arena_bytes,
            chat: Declared::from_gguf(&gguf)?,
        };
        if self.verbose && !arranged {
            verbose::log_tensors(&gguf)?;
        }
        let arrangement = model.arrange(wants_stripes);
        if !arranged {
            arrangement.rearrange_all(&mut file, self.options.workers);
        }
        let shared = Shared { file: file.finish(), model, tokenizer, metadata, cache };
        self.loaded = Some(Loaded::new(Arc::new(shared))?);
        Ok(())
    }

    /// Another backend with the same model and settings, and a text of its own; `workers` share its
    /// work. The model is in memory once, until the last of them gives it up.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is none for another cache and arena.
    pub fn share(&self, workers: &'static dyn Workers) -> Result<TransformerBackend, Error> {
        let loaded = match &self.loaded {
            Some(loaded) => Some(Loaded::new(Arc::clone(&loaded.shared))?),
            None => None,
        };
        Ok(TransformerBackend {
            options: Options { workers, ..self.options },
            sampler: Sampler::new(self.sampler.config()),
            dry_breakers: self.dry_breakers.clone(),
            loaded,
            ..*self
        })
    }

    /// Whether there is a model.
    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// What the model is; `None` if there is none.
    pub fn model_metadata(&self) -> Option<&ModelMetadata> {
        self.loaded.as_ref().map(|loaded| &loaded.shared.metadata)
    }

    /// How tokens are chosen from now on; the generator starts anew.
    pub fn set_sampling_config(&mut self, config: SamplingConfig) {
        self.sampler = Sampler::new(config);
    }

    /// The texts that end a repetition for the sampler's DRY from now on; the generator starts anew.
    pub fn set_dry_breakers(&mut self, texts: &[String]) {
        self.dry_breakers = texts.into();
        self.sampler = Sampler::new(self.sampler.config());
    }

    /// Whether the values of the model's weights (when it is loaded as its file has them), the norms of the activations
    /// and the best tokens of each step are logged, at level debug.
    pub fn set_verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// Whether generation goes on after an end-of-sequence token, which then counts and is shown
    /// like any other: for measurements of a fixed length.
    pub fn set_ignore_end(&mut self, ignore_end: bool) {
        self.ignore_end = ignore_end;
    }

    /// Whether control tokens in prompts are found by their names ("</s>"); else such names are
    /// text. Off at first. It does not matter to [`TransformerBackend::converse`].
    pub fn set_parse_special(&mut self, parse_special: bool) {
        self.parse_special = parse_special;
    }

    /// Whether a text that begins anew and does not fit into the context loses what is too much, behind the
    /// tokens that are kept. Off at first. It does not matter to [`TransformerBackend::converse`].
    pub fn set_cut_prompt(&mut self, cut_prompt: bool) {
        self.cut_prompt = cut_prompt;
    }

    /// Forgets the text so far.
    pub fn reset(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.cache.clear();
            loaded.n_keep = 0;
            loaded.pending = None;
        }
        self.sampler.forget();
    }

    /// Answers a prompt, forgetting what was before. The same settings and prompt give the same
    /// answer each time. `on_text` gets the text as it comes, in whole characters.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the prompt leaves no position for an answer,
    /// [`Error::InvalidConfig`] if a setting makes no sense or there is no model or no prompt,
    /// [`Error::OutOfMemory`] if there is none for the prompt or the answer.
    pub fn infer(
        &mut self,
        prompt: &str,
        max_tokens: usize,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.reset();
        self.extend(prompt, max_tokens, on_text)
    }

    /// Goes on from the text so far with `prompt`, as in a chat; otherwise like
    /// [`TransformerBackend::infer`]. A token that ended the answer before stays part of the text.
    /// If the prompt does not fit, the text so far stays.
    ///
    /// # Errors
    /// As [`TransformerBackend::infer`].
    pub fn extend(
        &mut self,
        prompt: &str,
        max_tokens: usize,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.generate(Prompt::Text(prompt), max_tokens, on_text)
    }

    /// Goes on from the text so far with the next turn of a conversation; otherwise like
    /// [`TransformerBackend::extend`]. A token that ended the answer before is taken back: the turn
    /// brings the end of that answer along.
    ///
    /// # Errors
    /// As [`TransformerBackend::infer`].
    pub fn converse(
        &mut self,
        turn: &[Piece<'_>],
        max_tokens: usize,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.generate(Prompt::Turn(turn), max_tokens, on_text)
    }

    fn generate(
        &mut self,
        prompt: Prompt<'_>,
        max_tokens: usize,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.sampler.config().check()?;
        let Options { workers, now_us, context: ContextOptions { context_shift, keep, .. } } =
            self.options;
        let Loaded { shared, cache, arena, n_keep, pending } = required(&mut self.loaded)?;
        let Shared { file, model, tokenizer, .. } = &**shared;
        let start_us = now_us();

        let takes_back = |&token: &u32| prompt.ends_answers() && tokenizer.is_end(token);
        let kept = pending.filter(|token| !takes_back(token));
        let mut prompt_tokens: Vec<u32> = kept.into_iter().collect();
        let is_fresh = cache.is_empty() && pending.is_none();
        // A prompt that is too long, whatever its tokens, is refused before it takes the time and
        // the memory to find those.
        let (in_use, n_ctx) = match context_shift {
            // What is not kept makes room.
            true => (*n_keep, cache.n_ctx() - LEAST_LEFT),
            false => (cache.len(), cache.n_ctx()),
        };
        let cuts = self.cut_prompt && is_fresh && !prompt.ends_answers();
        let least = prompt.len().div_ceil(tokenizer.max_token_bytes().max(1));
        let needed = in_use + prompt_tokens.len() + least;
        if needed > n_ctx && !cuts {
            return Err(Error::ContextFull { prompt: needed, n_ctx });
        }
        with_capacity::<u8>(prompt.len().saturating_mul(ENCODER_BYTES), PROMPT)?;
        prompt_tokens.extend(match prompt {
            Prompt::Text(text) => tokenizer.encode(text, is_fresh, self.parse_special),
            Prompt::Turn(pieces) => tokenizer.encode_pieces(pieces, is_fresh),
        });
        let keep = keep.saturating_add(usize::from(tokenizer.begin().is_some()));
        let prompt_tokens_cut =
            if cuts { cut(&mut prompt_tokens, keep, n_ctx, max_tokens) } else { 0 };
        let needed = in_use + prompt_tokens.len();
        if needed > n_ctx {
            return Err(Error::ContextFull { prompt: needed, n_ctx });
        }
        if prompt_tokens.is_empty() {
            return Err(Error::InvalidConfig { what: "the prompt is empty".into() });
        }

        if self.sampler.wants_breakers() {
            self.sampler.set_breakers(Breakers::new(&self.dry_breakers, tokenizer)?);
        }
        // All that the answer needs is allocated here, before the first token.
        let room = if context_shift { max_tokens } else { max_tokens.min(n_ctx - needed + 1) };
        let mut tokens = with_capacity(room, ANSWER)?;
        let mut output = String::new();
        let output_bytes = answer_bytes(room, tokenizer);
        output
            .try_reserve_exact(output_bytes)
            .map_err(|_| Error::OutOfMemory { what: ANSWER, asked: output_bytes as u64 })?;
        let mut decoder = Decoder::try_new(tokenizer.max_token_bytes())?;
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, cache.shape())?;
        let context = Context { file, workers, verbose: self.verbose };

        if is_fresh {
            // The same settings and prompt give the same answer each time.
            self.sampler.restart();
        }
        // What was pending was told to the sampler when it was sampled.
        for &token in &prompt_tokens[usize::from(kept.is_some())..] {
            self.sampler.accept(token);
        }
        *pending = None;
        if is_fresh {
            *n_keep = prompt_tokens.len().min(keep);
        }
        let mut context_shifts = 0;
        // Ends with the logits of what follows the tokens, and says whether the context is full.
        let mut forward = |mut tokens: &[u32], scratch: &mut Scratch<'_>| {
            while !tokens.is_empty() {
                let mut room = cache.n_ctx() - cache.len();
                if context_shift {
                    if room == 1 {
                        model.slide(cache, *n_keep, scratch);
                        context_shifts += 1;
                        room = cache.n_ctx() - cache.len();
                    }
                    // The last position stays free.
                    room -= 1;
                }
                let n = tokens.len().min(room).min(batch(cache.n_ctx()));
                let now = tokens.split_off(..n).unwrap_or_default();
                let wanted = usize::from(tokens.is_empty());
                model.forward(context, now, wanted, cache, scratch);
            }
            model.logits(context, 0, scratch);
            cache.len() == cache.n_ctx()
        };
        let mut is_full = forward(&prompt_tokens, &mut scratch);
        let mut first_token_us = now_us() - start_us;
        let stop = loop {
            if tokens.len() == max_tokens {
                break StopReason::MaxTokens;
            }
            if self.verbose {
                verbose::log_best(scratch.logits, tokenizer);
            }
            let token = self.sampler.sample(scratch.logits, scratch.candidates);
            if tokens.is_empty() {
                first_token_us = now_us() - start_us;
            }
            self.sampler.accept(token);
            if tokenizer.is_end(token) && !self.ignore_end {
                // It is part of the text, should that go on.
                *pending = Some(token);
                break StopReason::EndOfSequence;
            }
            tokens.push(token);
            *pending = Some(token);
            let shown = output.len();
            decoder.push(tokenizer, token, &mut output);
            if output.len() > shown && on_text(&output[shown..]).is_break() {
                break StopReason::Cancelled;
            }
            if tokens.len() == max_tokens {
                break StopReason::MaxTokens;
            }
            if is_full {
                break StopReason::ContextFull;
            }
            is_full = forward(&[token], &mut scratch);
            *pending = None;
        };
        let latency_us = now_us() - start_us;
        let shown = output.len();
        decoder.finish(&mut output);
        if output.len() > shown && stop != StopReason::Cancelled {
            // The text is over, whatever the reader says.
            let _ = on_text(&output[shown..]);
        }
        Ok(InferenceResult {
            prompt_tokens: prompt_tokens.len(),
            prompt_tokens_cut,
            tokens_emitted: tokens.len(),
            stop,
            context_shifts,
            latency_us,
            first_token_us,
            prompt_tokens_per_s: per_second(prompt_tokens.len(), first_token_us),
            tokens_per_s: per_second(tokens.len().saturating_sub(1), latency_us - first_token_us),
            arena_bytes: arena.bytes(),
            arena_peak_bytes: arena.peak_bytes(),
            output,
            tokens,
        })
    }
}

/// Leaves out of a prompt of more than `n_ctx` tokens what follows the first `keep`, so that there is room
/// for `max_tokens` more, which takes at most half of what the kept ones leave. Returns how many that were:
/// none where the prompt fits, or all that fits is kept.
fn cut(tokens: &mut Vec<u32>, keep: usize, n_ctx: usize, max_tokens: usize) -> usize {
    if tokens.len() <= n_ctx || keep >= n_ctx {
        return 0;
    }
    let rest = n_ctx - keep;
    let last = rest - max_tokens.min(rest / 2);
    let n = tokens.len() - last - keep;
    tokens.drain(keep..keep + n);
    n
}

fn per_second(n: usize, us: u64) -> f64 {
    if us == 0 { 0.0 } else { n as f64 * 1e6 / us as f64 }
}
