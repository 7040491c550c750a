//! The engine's front: one model, one text, in a few calls.
//!
//! ```
//! use kernel::backend::{SamplingConfig, TransformerBackend};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
//! let mut backend = TransformerBackend::new();
//! backend.load_model("test_models/tiny.gguf")?;
//! backend.set_sampling_config(SamplingConfig::greedy());
//! let result = backend.infer("The capital of France is", 10)?;
//! println!("{} tokens: {}", result.tokens_emitted, result.output);
//! # Ok(())
//! # }
//! ```
//!
//! Several texts at once, or one step at a time: [`crate::llm::workspace`].

#![deny(unsafe_code)]

#[cfg(not(target_os = "none"))]
pub mod host;
pub mod self_test;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use crate::llm::Error;
pub use crate::llm::arena::ModelBuffer;
use crate::llm::engine::{Engine, Weights};
use crate::llm::generate::{GenerateOptions, Prompt, generate};
pub use crate::llm::generate::{InferenceResult, Progress, StopReason};
use crate::llm::gguf::Gguf;
use crate::llm::grammar::{Constraint, Grammar, Trigger};
pub use crate::llm::perplexity::Perplexity;
use crate::llm::perplexity::perplexity;
pub use crate::llm::plan::{ContextOptions, ModelMetadata, Plan};
pub use crate::llm::sampling::SamplingConfig;
use crate::llm::sampling::{Breakers, DEFAULT_BREAKERS, Sampler};
use crate::llm::session::Session;
use crate::llm::tokenizer::Segment;
use crate::llm::uncached::generate_uncached;
use crate::llm::verbose;
use crate::llm::workers::Workers;
use crate::llm::workspace::Workspace;

/// Options of a backend.
#[derive(Clone, Copy)]
pub struct BackendOptions {
    /// The context.
    pub context: ContextOptions,
    /// The threads that share the work.
    pub workers: &'static dyn Workers,
    /// A monotonic clock, in µs.
    pub now_us: fn() -> u64,
}

/// A model that was found and read.
pub struct Loaded {
    /// Its plan.
    pub plan: Plan,
    /// Its bytes.
    pub weights: Weights,
}

/// Why a model could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read, or does not match its `.sha256`.
    File {
        /// Its path.
        path: String,
        /// The reason.
        why: String,
    },
    /// The engine refuses the model.
    Engine(Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::File { path, why } => write!(f, "cannot load {path}: {why}"),
            LoadError::Engine(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        LoadError::Engine(error)
    }
}

/// The machine as a backend needs it: threads, clock, model loader.
#[derive(Clone, Copy)]
pub struct Platform {
    /// The threads.
    pub workers: &'static dyn Workers,
    /// A monotonic clock, in µs.
    pub now_us: fn() -> u64,
    /// Reads the model at a path, for a context.
    pub load: fn(&str, ContextOptions, &'static dyn Workers) -> Result<Loaded, LoadError>,
}

/// The platform of the bare machine, which [`install`] sets.
#[cfg(target_os = "none")]
static PLATFORM: spin::Once<Platform> = spin::Once::new();

/// Sets the platform of [`TransformerBackend::new`]. The first call counts.
#[cfg(target_os = "none")]
pub fn install(platform: Platform) {
    PLATFORM.call_once(|| platform);
}

/// # Panics
/// On the bare machine, nothing was installed.
fn platform() -> Platform {
    #[cfg(not(target_os = "none"))]
    return host::platform();
    #[cfg(target_os = "none")]
    match PLATFORM.get() {
        Some(platform) => *platform,
        None => panic!("no platform is installed: `backend::install` comes first"),
    }
}

/// Runs one transformer model at a time, on one text at a time.
pub struct TransformerBackend {
    platform: Platform,
    context: ContextOptions,
    sampling: SamplingConfig,
    /// DRY's sequence breakers.
    dry_breakers: Vec<String>,
    /// The text of the grammar. Each model has tokens of its own, so it is read for each answer.
    grammar: Option<String>,
    /// Whether the session's sampler was made with older settings.
    is_sampler_stale: bool,
    verbose: bool,
    ignore_end: bool,
    parse_special: bool,
    cut_prompt: bool,
    loaded: Option<(Workspace, Session)>,
}

impl Default for TransformerBackend {
    fn default() -> Self {
        TransformerBackend::new()
    }
}

impl TransformerBackend {
    /// A backend without a model, on all threads of this machine.
    ///
    /// Sampling is greedy, and the context is the default one.
    pub fn new() -> Self {
        TransformerBackend::on(platform(), ContextOptions::default())
    }

    /// A backend with these options.
    pub fn with_options(options: BackendOptions) -> Self {
        let BackendOptions { context, workers, now_us } = options;
        TransformerBackend::on(Platform { workers, now_us, ..platform() }, context)
    }

    /// A backend on this platform.
    pub fn on(platform: Platform, context: ContextOptions) -> Self {
        TransformerBackend {
            platform,
            context,
            sampling: SamplingConfig::greedy(),
            dry_breakers: DEFAULT_BREAKERS.map(String::from).into(),
            grammar: None,
            is_sampler_stale: true,
            verbose: false,
            ignore_end: false,
            parse_special: false,
            cut_prompt: false,
            loaded: None,
        }
    }

    /// Loads the GGUF file at this path. A model that was loaded before is given up first.
    ///
    /// On a host, the path is in the file system. In the unikernel, the path is on the model disk
    /// ("models/tiny.gguf"), and the file is checked against its `.sha256`.
    ///
    /// # Errors
    /// The file cannot be read or is damaged, the model needs an unsupported feature, or the memory
    /// does not suffice.
    pub fn load_model(&mut self, path: &str) -> Result<(), LoadError> {
        self.loaded = None;
        let Platform { load, workers, .. } = self.platform;
        let Loaded { plan, weights } = load(path, self.context, workers)?;
        Ok(self.load(plan, weights)?)
    }

    /// Loads a model from the bytes of its GGUF file, which stay in place.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the file is malformed, [`Error::Unsupported`] if the model needs an
    /// unsupported feature, [`Error::InvalidConfig`] if the model cannot have the context,
    /// [`Error::OutOfMemory`].
    pub fn load_bytes(&mut self, file: ModelBuffer) -> Result<(), Error> {
        self.loaded = None;
        let plan = Plan::read(&file, file.len() as u64)?;
        self.load(plan, file.into())
    }

    /// Loads a model whose plan was read before its bytes.
    ///
    /// # Errors
    /// As [`TransformerBackend::load_bytes`].
    pub fn load(&mut self, plan: Plan, weights: Weights) -> Result<(), Error> {
        self.loaded = None;
        // An invalid context is found before the weights are repacked.
        plan.needed(self.context)?;
        if let (true, Weights::Raw(file)) = (self.verbose, &weights) {
            verbose::log_tensors(&Gguf::parse(file)?)?;
        }
        let engine = Engine::new(plan, [weights], self.platform.workers)?;
        self.start(Arc::new(engine))
    }

    fn start(&mut self, engine: Arc<Engine>) -> Result<(), Error> {
        let workspace = Workspace::try_new(engine, self.context, 1, self.platform.workers)?;
        let session = workspace.session()?;
        self.is_sampler_stale = true;
        self.loaded = Some((workspace, session));
        Ok(())
    }

    /// Another backend with the same model and settings, and a text of its own.
    ///
    /// `workers` share its work. The model is in memory once, until the last backend drops it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if another KV cache and arena do not fit.
    pub fn share(&self, workers: &'static dyn Workers) -> Result<TransformerBackend, Error> {
        let mut shared = TransformerBackend {
            platform: Platform { workers, ..self.platform },
            dry_breakers: self.dry_breakers.clone(),
            grammar: self.grammar.clone(),
            loaded: None,
            ..*self
        };
        if let Some((workspace, _)) = &self.loaded {
            shared.start(Arc::clone(workspace.engine()))?;
        }
        Ok(shared)
    }

    /// Gives the model up, and its memory back.
    pub fn unload(&mut self) {
        self.loaded = None;
    }

    /// Whether there is a model.
    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// The model's metadata; `None` without a model.
    pub fn model_metadata(&self) -> Option<&ModelMetadata> {
        self.workspace().map(|workspace| workspace.engine().metadata())
    }

    /// The workspace of the model; `None` without a model.
    pub fn workspace(&self) -> Option<&Workspace> {
        self.loaded.as_ref().map(|(workspace, _)| workspace)
    }

    /// The session with the text so far; `None` without a model.
    pub fn session(&self) -> Option<&Session> {
        self.loaded.as_ref().map(|(_, session)| session)
    }

    /// Sets the sampling settings. The random generator restarts.
    pub fn set_sampling_config(&mut self, config: SamplingConfig) {
        self.sampling = config;
        self.is_sampler_stale = true;
    }

    /// Sets DRY's sequence breakers. The random generator restarts.
    pub fn set_dry_breakers(&mut self, texts: &[String]) {
        self.dry_breakers = texts.into();
        self.is_sampler_stale = true;
    }

    /// Sets the grammar that each answer is held to, in GBNF; `None`: none.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the grammar is malformed or too large for the model, or without
    /// a model.
    pub fn set_grammar(&mut self, text: Option<&str>) -> Result<(), Error> {
        self.grammar = text.map(String::from);
        self.constraint().map(drop)
    }

    /// The constraint of an answer that begins.
    fn constraint(&self) -> Result<Option<Constraint>, Error> {
        let invalid = |what: String| Error::InvalidConfig { what };
        let Some(text) = &self.grammar else { return Ok(None) };
        let engine = match self.workspace() {
            Some(workspace) => workspace.engine(),
            None => return Err(invalid("no model is loaded".into())),
        };
        let grammar = Grammar::parse(text, engine.tokenizer())
            .map_err(|error| invalid(format!("the grammar: {error}")))?;
        Constraint::try_new(Arc::new(grammar), Trigger::Start, engine.token_index()?).map(Some)
    }

    /// Whether to log weights, norms of activations and best tokens, at level debug.
    ///
    /// Weights are logged if they are loaded in the file's layout.
    pub fn set_verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// Whether generation goes on after an end-of-sequence token.
    ///
    /// The end token then counts and is shown like any other, for measurements of a fixed length.
    pub fn set_ignore_end(&mut self, ignore_end: bool) {
        self.ignore_end = ignore_end;
    }

    /// Whether control tokens in prompts are parsed by name ("</s>"); off at first.
    ///
    /// Without it, the names are plain text. It counts for perplexity, too, but not for
    /// [`TransformerBackend::converse`].
    pub fn set_parse_special(&mut self, parse_special: bool) {
        self.parse_special = parse_special;
    }

    /// Whether to cut a new text that does not fit in the context; off at first.
    ///
    /// Tokens after the first `keep` ones are cut. It does not count for
    /// [`TransformerBackend::converse`].
    pub fn set_cut_prompt(&mut self, cut_prompt: bool) {
        self.cut_prompt = cut_prompt;
    }

    /// Forgets the text so far.
    pub fn reset(&mut self) {
        if let Some((_, session)) = &mut self.loaded {
            session.clear();
        }
    }

    /// Forgets the text so far and answers a prompt.
    ///
    /// The same settings and prompt give the same answer each time.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the prompt leaves no position for an answer.
    /// [`Error::InvalidConfig`] if a setting is invalid, or without a model or a prompt.
    /// [`Error::NotFinite`] if the model computes NaN or infinity. [`Error::OutOfMemory`] if the
    /// prompt or the answer do not fit.
    pub fn infer(&mut self, prompt: &str, max_tokens: usize) -> Result<InferenceResult, Error> {
        self.infer_streaming(prompt, max_tokens, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`TransformerBackend::infer`], with progress.
    ///
    /// `on_progress` gets the text as it comes, and may stop the generation.
    ///
    /// # Errors
    /// As [`TransformerBackend::infer`].
    pub fn infer_streaming(
        &mut self,
        prompt: &str,
        max_tokens: usize,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.reset();
        self.extend(prompt, max_tokens, on_progress)
    }

    /// Appends `prompt` to the text so far, and answers.
    ///
    /// Otherwise as [`TransformerBackend::infer_streaming`]. A token that ended the previous answer
    /// stays part of the text. If the prompt does not fit, the text so far stays.
    ///
    /// # Errors
    /// As [`TransformerBackend::infer`].
    pub fn extend(
        &mut self,
        prompt: &str,
        max_tokens: usize,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.generate(Prompt::Text(prompt), max_tokens, on_progress)
    }

    /// Appends the next turn of a conversation, and answers.
    ///
    /// Otherwise as [`TransformerBackend::extend`]. A token that ended the previous answer is
    /// removed, as the turn starts with the end of that answer.
    ///
    /// # Errors
    /// As [`TransformerBackend::infer`].
    pub fn converse(
        &mut self,
        turn: &[Segment<'_>],
        max_tokens: usize,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.generate(Prompt::Turn(turn), max_tokens, on_progress)
    }

    fn generate(
        &mut self,
        prompt: Prompt<'_>,
        max_tokens: usize,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<InferenceResult, Error> {
        self.sampling.check()?;
        let options = GenerateOptions {
            max_tokens,
            ignore_end: self.ignore_end,
            parse_special: self.parse_special,
            cut_prompt: self.cut_prompt,
            now_us: self.platform.now_us,
        };
        let constraint = self.constraint()?;
        let (workspace, session) = self.ready()?;
        session.set_constraint(constraint);
        generate(workspace, session, prompt, options, on_progress)
    }

    /// Measures the perplexity of a text: see [`perplexity`]. The text so far is forgotten.
    ///
    /// # Errors
    /// As [`perplexity`]; [`Error::InvalidConfig`] if there is no model.
    pub fn perplexity(
        &mut self,
        text: &str,
        on_chunk: &mut dyn FnMut(&Perplexity) -> ControlFlow<()>,
    ) -> Result<Perplexity, Error> {
        let parse_special = self.parse_special;
        let (workspace, session) = self.ready()?;
        perplexity(workspace, session, text, parse_special, on_chunk)
    }

    /// The best `n` tokens after a prompt, without the KV cache.
    ///
    /// The whole text is processed again for each token. The text so far is forgotten.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the text does not fit; otherwise as [`TransformerBackend::infer`].
    pub(crate) fn infer_uncached(&mut self, prompt: &str, n: usize) -> Result<Vec<u32>, Error> {
        let parse_special = self.parse_special;
        let (workspace, session) = self.ready()?;
        let prompt = workspace.engine().tokenizer().encode(prompt, true, parse_special);
        session.set_sampler(Sampler::new(SamplingConfig::greedy()));
        let tokens = generate_uncached(workspace, session, &prompt, n);
        self.is_sampler_stale = true;
        tokens
    }

    /// The workspace and the session, with a sampler of the present settings.
    fn ready(&mut self) -> Result<(&mut Workspace, &mut Session), Error> {
        let no_model = || Error::InvalidConfig { what: "no model is loaded".into() };
        let (workspace, session) = self.loaded.as_mut().ok_or_else(no_model)?;
        workspace.set_verbose(self.verbose);
        if self.is_sampler_stale {
            let mut sampler = Sampler::new(self.sampling);
            if sampler.wants_breakers() {
                let tokenizer = workspace.engine().tokenizer();
                sampler.set_breakers(Breakers::new(&self.dry_breakers, tokenizer)?);
            }
            session.set_sampler(sampler);
            self.is_sampler_stale = false;
        }
        Ok((workspace, session))
    }
}
