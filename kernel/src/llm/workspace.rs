//! Forward passes over sessions: the threads and the scratch memory that they share.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use arrayvec::ArrayVec;
use spin::Mutex;

use crate::llm::Error;
use crate::llm::arena::Arena;
use crate::llm::engine::Engine;
use crate::llm::kernels::BATCH;
use crate::llm::model::scratch::{Scratch, ScratchShape};
use crate::llm::model::{Compute, Input, Row, Stage};
use crate::llm::plan::{ContextOptions, scratch_shape, state_shape};
use crate::llm::sampling::{Candidate, Sampler, SamplingConfig};
use crate::llm::session::Session;
use crate::llm::state::{State, StateShape};
use crate::llm::verbose;
use crate::llm::workers::Workers;

/// What runs the sessions of one engine: scratch memory and threads.
pub struct Workspace {
    engine: Arc<Engine>,
    context: ContextOptions,
    state: StateShape,
    scratch: ScratchShape,
    arena: Arena,
    workers: &'static dyn Workers,
    /// Whether norms and best tokens are logged.
    verbose: bool,
}

/// The next token of each session of a pass, if it has one.
pub type Tokens = ArrayVec<Option<u32>, BATCH>;

impl Workspace {
    /// A workspace for passes of up to `n_sessions` sessions, each in such a context.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model cannot have this context, [`Error::OutOfMemory`].
    pub fn try_new(
        engine: Arc<Engine>,
        context: ContextOptions,
        n_sessions: usize,
        workers: &'static dyn Workers,
    ) -> Result<Self, Error> {
        let state = state_shape(&engine.model, context)?;
        let scratch = scratch_shape(&state, n_sessions.clamp(1, BATCH));
        let arena = Arena::try_new(Scratch::bytes(&engine.model, scratch))?;
        Ok(Workspace { engine, context, state, scratch, arena, workers, verbose: false })
    }

    /// An empty text, which takes the best token each time.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn session(&self) -> Result<Session, Error> {
        let begins = usize::from(self.engine.tokenizer.begin().is_some());
        let keep = self.context.keep.saturating_add(begins);
        let sampler = Sampler::new(SamplingConfig::greedy());
        Session::try_new(self.state.clone(), self.context, keep, sampler)
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The context of its sessions.
    pub fn context(&self) -> ContextOptions {
        self.context
    }

    /// The state of each of its sessions.
    pub fn state_shape(&self) -> &StateShape {
        &self.state
    }

    /// The threads.
    pub fn workers(&self) -> &'static dyn Workers {
        self.workers
    }

    /// Size of the scratch arena in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The most bytes of the arena ever in use.
    pub fn arena_peak_bytes(&self) -> usize {
        self.arena.peak_bytes()
    }

    /// Whether the norms of the activations and the best tokens of each step are logged, at level
    /// debug.
    pub fn set_verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// One forward pass over the unprocessed tokens of several sessions.
    ///
    /// Each session gives at least one row, and the first ones as many as there is room for. A
    /// session whose tokens are all processed gets its next token: it is appended, and returned in
    /// the session's place. The others get `None`, and go on with the next pass.
    ///
    /// A session's tokens are the same whatever sessions it shares its passes with.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the model gives a session no finite numbers.
    ///
    /// # Panics
    /// A session is empty, full or not one of the workspace's; there are more than the workspace is
    /// for.
    pub fn step(&mut self, sessions: &mut [&mut Session]) -> Result<Tokens, Error> {
        let mut tokens: Tokens = sessions.iter().map(|_| None).collect();
        let mut faulty = None;
        let not_finite = self.pass(
            sessions,
            |session, place, end| place + 1 == end && end == session.tokens.len(),
            |number, session, _, logits, candidates| {
                tokens[number] = session.sample(logits, candidates);
                faulty = faulty.or(tokens[number].is_none().then_some(number));
            },
        )?;
        match not_finite.or(faulty) {
            None => Ok(tokens),
            Some(number) => Err(self.find_fault(sessions[number])?),
        }
    }

    /// Processes a chunk of a session's unprocessed tokens, without logits.
    pub(super) fn process(&mut self, session: &mut Session) -> Result<(), Error> {
        self.pass(&mut [session], |_, _, _| false, |_, _, _, _, _| ()).map(drop)
    }

    /// Appends tokens to a session, and gives the logits behind each from `wanted` on.
    ///
    /// `on_logits` gets the number of a token among `tokens` and the logits behind it: `[n_vocab]`.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the tokens do not fit, [`Error::NotFinite`] if the model gives no
    /// finite numbers, [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// The session is not one of the workspace's.
    pub fn evaluate(
        &mut self,
        session: &mut Session,
        tokens: &[u32],
        wanted: usize,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        session.append(tokens)?;
        while session.n_unprocessed() > 0 {
            // Counted from the end, which no context shift moves.
            let number = |session: &Session, place: usize| {
                (place + tokens.len()).checked_sub(session.tokens.len())
            };
            let not_finite = self.pass(
                &mut [session],
                |session, place, _| number(session, place).is_some_and(|number| number >= wanted),
                |_, session, place, logits, _| {
                    on_logits(number(session, place).unwrap_or(0), logits);
                },
            )?;
            if not_finite.is_some() {
                return Err(self.find_fault(session)?);
            }
        }
        Ok(())
    }

    /// One pass. `wants` says of each row whether its logits are wanted: it gets the session, the
    /// place of the row's token in the text, and the place behind the pass's last token.
    /// `on_logits` gets those logits and the sampler's scratch space, with the session's number, the
    /// session and the place. Returns the first session whose states are no finite numbers.
    fn pass(
        &mut self,
        sessions: &mut [&mut Session],
        wants: impl Fn(&Session, usize, usize) -> bool,
        mut on_logits: impl FnMut(usize, &mut Session, usize, &[f32], &mut [Candidate]),
    ) -> Result<Option<usize>, Error> {
        let Workspace { engine, arena, state, scratch, workers, verbose, .. } = self;
        let (model, n_vocab) = (&engine.model, engine.metadata().n_vocab);
        let n_embd = engine.metadata().n_embd;
        assert!(sessions.len() <= scratch.n_outputs, "{} sessions", sessions.len());
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, *scratch)?;

        // Each session has a row; what is left of the pass goes to the first ones.
        let mut spare = scratch.shape.n_rows - sessions.len();
        let mut rows: ArrayVec<Row<'_>, BATCH> = ArrayVec::new();
        for (number, session) in sessions.iter_mut().enumerate() {
            assert_eq!(session.state.shape(), state, "a session of another workspace");
            let n = session
                .begin_pass(1 + spare, |state, n_keep| model.shift(state, n_keep, &mut scratch));
            spare -= n - 1;
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
        };
        let mut states: ArrayVec<&mut State, BATCH> =
            sessions.iter_mut().map(|session| &mut session.state).collect();
        model.forward(compute, &rows, &mut states, &mut scratch);
        drop(states);

        rows.retain(|row| row.wants_logits);
        let mut states = rows.iter().zip(scratch.x.chunks_exact(n_embd));
        let is_finite = |state: &[f32]| state.iter().all(|value| value.is_finite());
        let not_finite = states.find(|(_, state)| !is_finite(state)).map(|(row, _)| row.session);
        let mut first = 0;
        for rows in rows.chunks(scratch.shape.n_outputs) {
            model.logits(compute, first..first + rows.len(), &mut scratch);
            first += rows.len();
            let Scratch { logits, candidates, .. } = &mut scratch;
            for (row, logits) in rows.iter().zip(logits.chunks_exact(n_vocab)) {
                if *verbose {
                    verbose::log_best(logits, &engine.tokenizer);
                }
                on_logits(row.session, sessions[row.session], row.position, logits, candidates);
            }
        }
        Ok(not_finite)
    }

    /// Where a session's text first gives values that are no finite numbers, and which weights are
    /// none. The text is processed anew, and all weights are looked at.
    pub(super) fn find_fault(&mut self, session: &mut Session) -> Result<Error, Error> {
        let found = Mutex::new(None);
        let observer = |stage, states: &[f32]| {
            if !states.iter().all(|value| value.is_finite()) {
                found.lock().get_or_insert(stage);
            }
        };
        let Workspace { engine, arena, scratch, workers, .. } = self;
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, &engine.model, *scratch)?;
        let compute =
            Compute { sources: &engine.sources, workers: *workers, observer: Some(&observer) };
        session.state.clear();
        let tokens = &session.tokens[..session.tokens.len().min(session.state.n_ctx())];
        for (place, &token) in tokens.iter().enumerate() {
            let row =
                Row { input: Input::Token(token), position: place, session: 0, wants_logits: true };
            engine.model.forward(compute, &[row], &mut [&mut session.state], &mut scratch);
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
            [] => "all weights are finite numbers".into(),
            [(name, n), rest @ ..] => match rest.len() {
                0 => format!("{n} weights in `{name}` are none"),
                more => {
                    format!("{n} weights in `{name}` are none, and some in {more} more tensors")
                }
            },
        };
        Ok(Error::NotFinite { what: format!("{stage} gives the first; {tensors}") })
    }
}
