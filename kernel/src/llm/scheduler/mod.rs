//! The scheduler: continuous batching of requests in shared forward passes.
//!
//! [`Scheduler::submit`] takes a request into the queue, [`Scheduler::step`] runs one pass. Each
//! running request has a slot: a session, which keeps its text for requests with the same prefix.
//!
//! A request's tokens depend on nothing but the request. A row's bits depend neither on the other
//! rows of its pass nor on the chunks of the prompt. Each request has its own sampler.

#![forbid(unsafe_code)]

mod answer;
mod prefix;
mod probs;
mod request;
mod slot;
mod stop;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

pub use probs::TokenProbs;
pub use request::{
    Constrained, Counters, Finished, Request, RequestId, RequestStatus, SlotStatus, Stop,
    SubmitError, Update,
};
use slot::{Run, Slot, Waiting};

use crate::llm::grammar::Halt;
use crate::llm::kernels::BATCH;
use crate::llm::sampling::Candidate;
use crate::llm::session::Session;
use crate::llm::workspace::{Step, Workspace};
use crate::llm::{Error, with_capacity};

/// The least rows for prompts, in one of two passes at least.
///
/// If more sequences decode than leave so many rows, they miss every other pass while prompts wait.
const LEAST_PROMPT_ROWS: usize = BATCH / 4;

/// Options of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Requests that run at once: 1 to the workspace's sessions.
    pub parallel: usize,
    /// Requests that wait for a slot, at most.
    pub queue: usize,
    /// A monotonic clock, in µs.
    pub now_us: fn() -> u64,
}

/// Runs requests in shared forward passes.
pub struct Scheduler {
    workspace: Workspace,
    slots: Vec<Slot>,
    waiting: VecDeque<Waiting>,
    /// Requests that wait for a slot, at most.
    queue: usize,
    now_us: fn() -> u64,
    last_id: u64,
    counters: Counters,
    /// The slot whose prompt is the first to get the spare rows of the next pass, if it has one.
    turn: usize,
    /// Whether the last pass had no rows for decode steps.
    was_prefill: bool,
    /// The first fault that was found in the model.
    fault: Option<String>,
}

impl Scheduler {
    /// A scheduler without requests. All of its memory is taken here and in [`Scheduler::submit`].
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the workspace has passes of fewer sessions,
    /// [`Error::OutOfMemory`].
    pub fn try_new(workspace: Workspace, options: SchedulerOptions) -> Result<Self, Error> {
        let SchedulerOptions { parallel, queue, now_us } = options;
        let most = workspace.n_sessions();
        if !(1..=most).contains(&parallel) {
            let what = format!("`parallel` is {parallel}, not between 1 and {most}");
            return Err(Error::InvalidConfig { what });
        }
        let mut slots = with_capacity(parallel, "the slots")?;
        for _ in 0..parallel {
            slots.push(Slot::new(workspace.session()?));
        }
        let mut waiting = VecDeque::new();
        let room = queue.saturating_add(parallel);
        let asked = room.saturating_mul(size_of::<Waiting>()) as u64;
        let no_memory = |_| Error::OutOfMemory { what: "the queue", asked };
        waiting.try_reserve_exact(room).map_err(no_memory)?;
        Ok(Scheduler {
            workspace,
            slots,
            waiting,
            queue,
            now_us,
            last_id: 0,
            counters: Counters::default(),
            turn: 0,
            was_prefill: false,
            fault: None,
        })
    }

    /// The scheduler with requests that are numbered from `last` + 1 on.
    ///
    /// So no two requests of several schedulers have one number.
    pub fn numbered_after(mut self, last: u64) -> Self {
        self.last_id = last;
        self
    }

    /// Takes a request into the queue.
    ///
    /// # Errors
    /// [`SubmitError`]: the request is refused.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        let tokenizer = self.workspace.engine().tokenizer();
        let n_prompt = request.tokens.len();
        // One position is left for an answer.
        let n_ctx = self.slots[0].session.n_usable().min(self.slots[0].session.n_ctx() - 1);
        if n_prompt > n_ctx {
            let n_ctx = self.slots[0].session.n_ctx();
            return Err(SubmitError::ContextFull { n_prompt, n_ctx });
        }
        let n_vocab = tokenizer.n_vocab();
        if let Some(token) = request.tokens.iter().find(|&&token| token as usize >= n_vocab) {
            let what = format!("token {token} of the prompt is not one of {n_vocab}");
            return Err(Error::InvalidConfig { what }.into());
        }
        if n_prompt == 0 {
            return Err(Error::InvalidConfig { what: "the prompt is empty".into() }.into());
        }
        let n_free = self.slots.len() - self.n_running();
        if self.waiting.len() >= self.queue.saturating_add(n_free) {
            return Err(SubmitError::QueueFull);
        }
        let id = RequestId(self.last_id + 1);
        let waiting = Run::try_new(id, request, self.workspace.engine())?;
        self.waiting.push_back(waiting);
        self.last_id = id.0;
        Ok(id)
    }

    /// Ends a request before the next pass, without an update.
    ///
    /// The part of its prompt that is processed stays cached.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| waiting.run.id != id);
        for slot in &mut self.slots {
            if slot.run.as_ref().is_some_and(|run| run.id == id) {
                slot.end(self.counters.n_decode_total);
            }
        }
    }

    /// Whether no request runs or waits.
    pub fn is_idle(&self) -> bool {
        self.n_running() == 0 && self.waiting.is_empty()
    }

    /// Number of running requests: llama-server's `requests_processing`.
    pub fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.run.is_some()).count()
    }

    /// Number of waiting requests: llama-server's `requests_deferred`.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The slots, for `GET /slots`.
    pub fn slots(&self) -> impl Iterator<Item = SlotStatus> {
        self.slots.iter().enumerate().map(|(i, slot)| slot.status(i))
    }

    /// The sums over all requests, for `GET /metrics`.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The workspace, with engine, tokenizer and metadata.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Starts waiting requests, and runs one forward pass over all running ones.
    ///
    /// Each running request gets at least one row. The spare rows of a pass go to the prompts, in
    /// turn: each pass begins with another prompt. If fewer than [`LEAST_PROMPT_ROWS`] are spare,
    /// prompts alone get every other pass.
    ///
    /// The calling thread calls `on_stage` between the stages of the pass, and within long stages
    /// between a thread's shares of the work. `on_stage` must be short, and must not use the
    /// workspace's threads.
    ///
    /// A request whose numbers are not finite fails alone ([`Update::Failed`]).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the pass has no scratch memory, which cannot happen: it was taken
    /// by [`Workspace::try_new`].
    pub fn step(
        &mut self,
        on_stage: &mut (dyn FnMut() + Send),
        on_update: &mut dyn FnMut(RequestId, Update<'_>),
    ) -> Result<(), Error> {
        self.start_waiting(on_update);
        if self.n_running() == 0 {
            return Ok(());
        }
        let is_prefill = self.is_prefill();
        self.was_prefill = is_prefill;
        let first = self.next_prompt();
        let Scheduler { workspace, slots, counters, now_us, fault, .. } = self;

        // The sequences of the pass, the one first that gets the spare rows.
        let mut sessions: ArrayVec<&mut Session, BATCH> = ArrayVec::new();
        let mut runs: ArrayVec<(usize, &mut Option<Run>), BATCH> = ArrayVec::new();
        let n_slots = slots.len();
        let (before, from_first) = slots.split_at_mut(first);
        for (i, slot) in from_first.iter_mut().chain(before).enumerate() {
            if slot.run.is_some() && (!is_prefill || slot.wants_rows()) {
                sessions.push(&mut slot.session);
                runs.push(((first + i) % n_slots, &mut slot.run));
            }
        }
        let sample = &mut |number: usize,
                           session: &mut Session,
                           logits: &[f32],
                           scratch: &mut [Candidate]| {
            // Each session of the pass has a request.
            let run = runs[number].1.as_mut().ok_or(Halt::Complete)?;
            run.sample(session, logits, scratch)
        };
        let steps = workspace.step_with(&mut sessions, on_stage, sample)?;

        let now_us = now_us();
        counters.n_decode_total += 1;
        counters.n_busy_slots_total += sessions.len() as u64;
        let mut ended: ArrayVec<usize, BATCH> = ArrayVec::new();
        for ((session, (number, run)), step) in sessions.into_iter().zip(runs).zip(steps) {
            let Some(run) = run else { continue };
            run.count(session, now_us, counters);
            let id = run.id;
            let on_update = &mut |update: Update<'_>| on_update(id, update);
            let is_over = match step {
                Step::Prefill => {
                    on_update(run.prefill());
                    false
                }
                Step::Token(token) => {
                    counters.tokens_predicted_total += u64::from(run.wants_tokens());
                    let is_full = !session.can_shift() && session.tokens().len() >= session.n_ctx();
                    run.push(token, is_full, workspace.engine().tokenizer(), on_update)
                }
                Step::OutOfPages => {
                    on_update(Update::Failed(Error::OutOfPages));
                    true
                }
                Step::Halted(Halt::Complete) => {
                    on_update(run.finished(Stop::End));
                    true
                }
                Step::Halted(Halt::NotFinite) => {
                    let error = find_fault(workspace, session, fault);
                    // No other request takes over what is not finite.
                    session.clear();
                    on_update(Update::Failed(error));
                    true
                }
                Step::Halted(halt) => {
                    on_update(Update::Failed(halt.error()));
                    true
                }
            };
            if is_over {
                ended.push(number);
            }
        }
        for number in ended {
            slots[number].end(counters.n_decode_total);
        }
        Ok(())
    }

    /// Starts waiting requests in free slots, in the order of their arrival.
    fn start_waiting(&mut self, on_update: &mut dyn FnMut(RequestId, Update<'_>)) {
        while let Some(Waiting { tokens, cache_prompt, .. }) = self.waiting.front() {
            let Some(number) = prefix::choose(&self.slots, tokens, *cache_prompt) else { return };
            let Some(waiting) = self.waiting.pop_front() else { return };
            let id = waiting.run.id;
            match self.slots[number].start(&mut self.workspace, waiting, (self.now_us)()) {
                Ok(n_cached) => {
                    self.counters.prompt_tokens_cached_total += n_cached as u64;
                    on_update(id, Update::Started { slot: number, n_cached });
                }
                Err(error) => on_update(id, Update::Failed(error)),
            }
        }
    }

    /// Whether the next pass is for prompts alone.
    fn is_prefill(&self) -> bool {
        let n_prompts = self.slots.iter().filter(|slot| slot.wants_rows()).count();
        let n_spare = self.workspace.n_rows() - self.n_running();
        n_prompts > 0 && n_spare < LEAST_PROMPT_ROWS && !self.was_prefill
    }

    /// The slot that is the first of the next pass: the next one with a prompt.
    fn next_prompt(&mut self) -> usize {
        let n = self.slots.len();
        let in_turn = (0..n).map(|i| (self.turn + i) % n);
        match in_turn.into_iter().find(|&i| self.slots[i].wants_rows()) {
            Some(first) => {
                self.turn = (first + 1) % n;
                first
            }
            None => 0,
        }
    }
}

/// The error of a session that computes NaN or infinity.
///
/// The model is searched for the fault once, as the search stops all requests for long.
fn find_fault(
    workspace: &mut Workspace,
    session: &mut Session,
    fault: &mut Option<String>,
) -> Error {
    if let Some(found) = fault {
        return Error::NotFinite { what: format!("as in an earlier request: {found}") };
    }
    match workspace.find_fault(session) {
        Ok(Error::NotFinite { what }) => {
            *fault = Some(what.clone());
            Error::NotFinite { what }
        }
        Ok(error) | Err(error) => error,
    }
}
