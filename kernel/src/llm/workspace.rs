//! The workspace: runs forward passes (prefill and decode) over sessions.
//!
//! A workspace owns the threads and the scratch memory that sessions share.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::{ControlFlow, Range};

use arrayvec::ArrayVec;
use spin::Mutex;

use crate::llm::Error;
use crate::llm::arena::Arena;
use crate::llm::engine::Engine;
use crate::llm::grammar::Halt;
use crate::llm::kernels::BATCH;
use crate::llm::model::scratch::{Scratch, ScratchShape};
use crate::llm::model::{Compute, Input, Row, Stage, StageHook};
use crate::llm::plan::{ContextOptions, WorkspaceOptions, cache_shape, scratch_shape};
use crate::llm::sampling::{Candidate, Sampler, SamplingConfig};
use crate::llm::session::Session;
use crate::llm::state::{KvMemory, StateShape, Texts};
use crate::llm::verbose;
use crate::llm::workers::Workers;

/// Runs the sessions of one engine, with their KV cache, scratch memory and threads.
pub struct Workspace {
    engine: Arc<Engine>,
    context: ContextOptions,
    /// The KV cache of all sessions.
    memory: KvMemory,
    scratch: ScratchShape,
    arena: Arena,
    workers: &'static dyn Workers,
    /// Whether norms and best tokens are logged.
    verbose: bool,
}

/// The result of a pass for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Some tokens of the session are still unprocessed.
    Prefill,
    /// All tokens were processed, and this token was sampled and appended.
    Token(u32),
    /// Nothing was processed: other sessions hold all pages of the KV cache.
    OutOfPages,
    /// All tokens were processed, and no token was sampled.
    ///
    /// For [`Halt::NotFinite`] see [`Workspace::find_fault`].
    Halted(Halt),
}

/// A step for each session of a pass.
pub type Steps = ArrayVec<Step, BATCH>;

/// Samples the next token of a session, as [`Session::sample`].
///
/// The arguments are the number of the session in the pass, the session, the logits, and the
/// sampler's scratch space.
pub(super) type Sample<'a> =
    dyn FnMut(usize, &mut Session, &[f32], &mut [Candidate]) -> Result<u32, Halt> + 'a;

/// A row of a pass whose logits were computed.
struct LogitsRow<'a> {
    /// The number of the row's session in the pass.
    number: usize,
    session: &'a mut Session,
    /// The place of the row's token in the text.
    place: usize,
    /// Whether the state after the last layer is finite.
    is_finite: bool,
    /// `[n_vocab]`.
    logits: &'a [f32],
    /// The sampler's scratch space: `[n_vocab]`.
    candidates: &'a mut [Candidate],
}

impl Workspace {
    /// A workspace for up to `n_sessions` sessions, each with a whole context.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model cannot have this context, [`Error::OutOfMemory`].
    pub fn try_new(
        engine: Arc<Engine>,
        context: ContextOptions,
        n_sessions: usize,
        workers: &'static dyn Workers,
    ) -> Result<Self, Error> {
        Workspace::with_options(engine, WorkspaceOptions::new(context, n_sessions), workers)
    }

    /// A workspace with these options.
    ///
    /// # Errors
    /// As [`Workspace::try_new`].
    pub fn with_options(
        engine: Arc<Engine>,
        options: WorkspaceOptions,
        workers: &'static dyn Workers,
    ) -> Result<Self, Error> {
        let WorkspaceOptions { context, n_sessions, .. } = options;
        let cache = cache_shape(&engine.model, options)?;
        let scratch = scratch_shape(&cache.text, n_sessions);
        let arena = Arena::try_new(Scratch::bytes(&engine.model, scratch))?;
        let memory = KvMemory::try_new(cache)?;
        Ok(Workspace { engine, context, memory, scratch, arena, workers, verbose: false })
    }

    /// A session with an empty text and greedy sampling.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn session(&self) -> Result<Session, Error> {
        let begins = usize::from(self.engine.tokenizer.begin().is_some());
        let keep = self.context.keep.saturating_add(begins);
        let sampler = Sampler::new(SamplingConfig::greedy());
        Session::try_new(self.memory.state()?, self.context, keep, sampler)
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The context of each session.
    pub fn context(&self) -> ContextOptions {
        self.context
    }

    /// The shape of each session's state.
    pub fn state_shape(&self) -> &StateShape {
        &self.memory.shape().text
    }

    /// The KV cache of all sessions.
    pub fn kv_cache(&self) -> &KvMemory {
        &self.memory
    }

    /// Processes the longest cached prefix of a session's tokens, and returns its length.
    ///
    /// For a session of which nothing is processed yet. The last token is left for its logits. The
    /// bits of all later logits are those without a cache. Returns 0 if the workspace shares no
    /// prefixes.
    ///
    /// # Panics
    /// The session is of another workspace.
    pub fn take_prefix(&mut self, session: &mut Session) -> usize {
        assert!(self.memory.is_of(&session.state), "a session of another workspace");
        session.state.take_prefix(&mut self.memory, &session.tokens)
    }

    /// Sessions of a pass, at most.
    pub fn n_sessions(&self) -> usize {
        self.scratch.n_outputs
    }

    /// Rows of a pass, at most.
    pub fn n_rows(&self) -> usize {
        self.scratch.n_rows
    }

    /// Size of the scratch arena in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The most bytes of the arena ever in use.
    pub fn arena_peak_bytes(&self) -> usize {
        self.arena.peak_bytes()
    }

    /// Whether to log the norms of activations and the best tokens, at level debug.
    pub fn set_verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// One forward pass over the unprocessed tokens of several sessions.
    ///
    /// Each session gives at least one row. The first sessions give more rows while there is room.
    /// A session whose tokens are all processed gets its next token appended. A session's tokens do
    /// not depend on the other sessions of its passes. Returns a step for each session. A session
    /// for which no page of the KV cache is free stays as it is, and the others go on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// A session is empty, full, or of another workspace, or there are more sessions than the
    /// workspace is for.
    pub fn step(&mut self, sessions: &mut [&mut Session]) -> Result<Steps, Error> {
        let sample = &mut |_, session: &mut Session, logits: &[f32], scratch: &mut [Candidate]| {
            session.sample(logits, scratch).map(|(token, _)| token)
        };
        self.step_and_sample(sessions, None, sample)
    }

    /// As [`Workspace::step`], with a sampling of the caller's.
    ///
    /// The calling thread calls `on_stage` between the stages of the pass, and within long ones.
    ///
    /// # Errors
    /// As [`Workspace::step`].
    pub(super) fn step_with(
        &mut self,
        sessions: &mut [&mut Session],
        on_stage: &mut (dyn FnMut() + Send),
        sample: &mut Sample<'_>,
    ) -> Result<Steps, Error> {
        // One thread calls it; the lock makes it known to the compiler.
        let on_stage = Mutex::new(on_stage);
        self.step_and_sample(sessions, Some(&|| (on_stage.lock())()), sample)
    }

    fn step_and_sample(
        &mut self,
        sessions: &mut [&mut Session],
        on_stage: Option<&StageHook<'_>>,
        sample: &mut Sample<'_>,
    ) -> Result<Steps, Error> {
        let mut steps: Steps = sessions.iter().map(|_| Step::Prefill).collect();
        let without_pages = self.pass(
            sessions,
            on_stage,
            |session, place, end| place + 1 == end && end == session.tokens.len(),
            |LogitsRow { number, session, is_finite, logits, candidates, .. }| {
                let token = match is_finite {
                    true => sample(number, session, logits, candidates),
                    false => Err(Halt::NotFinite),
                };
                steps[number] = token.map_or_else(Step::Halted, Step::Token);
            },
        )?;
        without_pages.into_iter().for_each(|number| steps[number] = Step::OutOfPages);
        Ok(steps)
    }

    /// Processes a chunk of a session's unprocessed tokens, without logits.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if no page of the KV cache is free, [`Error::OutOfMemory`].
    pub(super) fn process(&mut self, session: &mut Session) -> Result<(), Error> {
        self.pass_alone(session, |_, _, _| false, |_| ())
    }

    /// One pass over one session: see [`Workspace::pass`].
    fn pass_alone(
        &mut self,
        session: &mut Session,
        wants: impl Fn(&Session, usize, usize) -> bool,
        on_output: impl FnMut(LogitsRow<'_>),
    ) -> Result<(), Error> {
        match self.pass(&mut [session], None, wants, on_output)?.is_empty() {
            true => Ok(()),
            false => Err(Error::OutOfPages),
        }
    }

    /// Appends tokens to a session, and gives the logits after the `wanted` tokens.
    ///
    /// `on_logits` gets the number of a token among `tokens`, and the logits after it: `[n_vocab]`.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the tokens do not fit. [`Error::NotFinite`] if the model computes
    /// NaN or infinity. [`Error::OutOfPages`] if no page of the KV cache is free,
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// The session is of another workspace.
    pub fn evaluate(
        &mut self,
        session: &mut Session,
        tokens: &[u32],
        wanted: Range<usize>,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        session.append(tokens)?;
        let mut is_finite = true;
        while is_finite && session.n_unprocessed() > 0 {
            // Counted from the end, which no context shift moves.
            let number = |session: &Session, place: usize| {
                (place + tokens.len()).checked_sub(session.tokens.len())
            };
            self.pass_alone(
                session,
                |session, place, _| {
                    number(session, place).is_some_and(|number| wanted.contains(&number))
                },
                |output| {
                    is_finite &= output.is_finite;
                    let number = number(output.session, output.place).unwrap_or(0);
                    on_logits(number, output.logits);
                },
            )?;
        }
        if is_finite { Ok(()) } else { Err(self.find_fault(session)?) }
    }

    /// One pass. `wants` decides for each row whether its logits are computed. Its arguments are
    /// the session, the place of the row's token in the text, and the place after the last token of
    /// the pass. Returns the numbers of the sessions for which no page was free.
    fn pass(
        &mut self,
        sessions: &mut [&mut Session],
        on_stage: Option<&StageHook<'_>>,
        wants: impl Fn(&Session, usize, usize) -> bool,
        mut on_output: impl FnMut(LogitsRow<'_>),
    ) -> Result<ArrayVec<usize, BATCH>, Error> {
        let Workspace { engine, arena, memory, scratch, workers, verbose, .. } = self;
        let (model, n_vocab) = (&engine.model, engine.metadata().n_vocab);
        let n_embd = engine.metadata().n_embd;
        assert!(sessions.len() <= scratch.n_outputs, "{} sessions", sessions.len());
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, *scratch)?;

        // Each session has one row. The remaining rows go to the first sessions.
        let mut spare = scratch.shape.n_rows - sessions.len();
        let mut rows: ArrayVec<Row<'_>, BATCH> = ArrayVec::new();
        let mut without_pages = ArrayVec::new();
        for (number, session) in sessions.iter_mut().enumerate() {
            assert!(memory.is_of(&session.state), "a session of another workspace");
            let shift = |state: &mut _, memory: &mut _, n_keep| {
                model.shift(state, memory, n_keep, &mut scratch)
            };
            let n = match session.begin_pass(memory, 1 + spare, shift) {
                Ok(n) => n,
                Err(Error::OutOfPages) => {
                    without_pages.push(number);
                    0
                }
                Err(error) => return Err(error),
            };
            spare = spare + 1 - n;
            let places = session.n_past()..session.n_past() + n;
            rows.extend(places.clone().map(|place| Row {
                input: Input::Token(session.tokens[place]),
                position: place,
                session: number,
                wants_logits: wants(session, place, places.end),
            }));
        }
        let log_norms = |stage, states: &[f32]| verbose::log_norms(stage, states, n_embd);
        let compute = Compute {
            sources: &engine.sources,
            workers: *workers,
            observer: if *verbose { Some(&log_norms) } else { None },
            on_stage,
        };
        if rows.is_empty() {
            return Ok(without_pages);
        }
        let states = sessions.iter_mut().map(|session| &mut session.state).collect();
        model.forward(compute, &rows, &mut Texts { memory, states }, &mut scratch);
        for session in &mut *sessions {
            session.state.share(&session.tokens);
        }

        rows.retain(|row| row.wants_logits);
        let mut first = 0;
        for rows in rows.chunks(scratch.shape.n_outputs) {
            model.logits(compute, first..first + rows.len(), &mut scratch);
            let Scratch { x, logits, candidates, .. } = &mut scratch;
            let states = x[first * n_embd..].chunks_exact(n_embd);
            for (row, (state, logits)) in rows.iter().zip(states.zip(logits.chunks_exact(n_vocab)))
            {
                if *verbose {
                    verbose::log_best(logits, &engine.tokenizer);
                }
                on_output(LogitsRow {
                    number: row.session,
                    session: sessions[row.session],
                    place: row.position,
                    is_finite: state.iter().all(|value| value.is_finite()),
                    logits,
                    candidates,
                });
                compute.call_on_stage();
            }
            first += rows.len();
        }
        Ok(without_pages)
    }

    /// Finds where a session's states become NaN or infinite: stage and tensor.
    ///
    /// Processes the session's text again and dequantises all weights, which takes long.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if no page of the KV cache is free, [`Error::OutOfMemory`].
    pub fn find_fault(&mut self, session: &mut Session) -> Result<Error, Error> {
        let found = Mutex::new(None);
        let observer = |stage, states: &[f32]| {
            if !states.iter().all(|value| value.is_finite()) {
                found.lock().get_or_insert(stage);
            }
        };
        let Workspace { engine, arena, memory, scratch, workers, .. } = self;
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, &engine.model, *scratch)?;
        let compute = Compute {
            sources: &engine.sources,
            workers: *workers,
            observer: Some(&observer),
            on_stage: None,
        };
        session.state.clear();
        let tokens = &session.tokens[..session.tokens.len().min(session.state.n_ctx())];
        for (place, &token) in tokens.iter().enumerate() {
            let row =
                Row { input: Input::Token(token), position: place, session: 0, wants_logits: true };
            if session.state.reserve(memory, 1) == 0 {
                return Err(Error::OutOfPages);
            }
            let states = core::iter::once(&mut session.state).collect();
            engine.model.forward(compute, &[row], &mut Texts { memory, states }, &mut scratch);
            engine.model.logits(compute, 0..1, &mut scratch);
            if found.lock().is_some() {
                break;
            }
        }
        let stage = match found.into_inner() {
            Some(Stage::Embedding) => "the embedding".into(),
            Some(Stage::Layer(layer)) => format!("layer {layer}"),
            Some(Stage::OutputNorm) => "the output norm".into(),
            None => String::from("the output"),
        };
        let tensors = match &engine.non_finite_tensors()?[..] {
            [] => "all weights are finite".into(),
            [(name, n)] => format!("`{name}` holds {n} such weights"),
            [(name, n), rest @ ..] => {
                format!("`{name}` holds {n} such weights, {} more tensors hold some", rest.len())
            }
        };
        Ok(Error::NotFinite { what: format!("first in {stage}; {tensors}") })
    }
}

impl Session {
    /// Prefill: processes the unprocessed tokens chunk by chunk, except the last chunk.
    ///
    /// [`Session::step`] processes the last chunk, as it needs the logits. `on_chunk` gets the
    /// number of remaining tokens after each chunk, and may stop the prefill. Returns false if it
    /// did.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if no page of the KV cache is free, [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// The session is of another workspace.
    pub fn prefill(
        &mut self,
        workspace: &mut Workspace,
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        while self.n_unprocessed() > self.n_next() {
            workspace.process(self)?;
            if on_chunk(self.n_unprocessed()).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decode step: processes all unprocessed tokens, then samples and appends one.
    ///
    /// If all tokens are processed, the last one is processed again.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the model computes NaN or infinity, [`Error::OutOfPages`] if no page
    /// of the KV cache is free, [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// The session is empty, full, or of another workspace, or its answer is complete by its
    /// constraint.
    pub fn step(&mut self, workspace: &mut Workspace) -> Result<u32, Error> {
        Ok(self.try_step(workspace)?.expect("an answer that can go on"))
    }

    /// As [`Session::step`]; `None` if the constraint allows the end alone, and no token ends it.
    ///
    /// # Errors
    /// As [`Session::step`], and those of [`Halt::error`].
    ///
    /// # Panics
    /// The session is empty, full, or of another workspace.
    pub fn try_step(&mut self, workspace: &mut Workspace) -> Result<Option<u32>, Error> {
        loop {
            match workspace.step(&mut [self])?[0] {
                Step::Prefill => {}
                Step::Token(token) => return Ok(Some(token)),
                Step::OutOfPages => return Err(Error::OutOfPages),
                Step::Halted(Halt::Complete) => return Ok(None),
                Step::Halted(Halt::NotFinite) => return Err(workspace.find_fault(self)?),
                Step::Halted(halt) => return Err(halt.error()),
            }
        }
    }
}
