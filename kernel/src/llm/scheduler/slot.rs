//! A slot: the session of one sequence, and the request that runs in it.

use alloc::string::String;
use alloc::vec::Vec;

use super::answer::Answer;
use super::probs::TokenProbs;
use super::request::{
    Constrained, Counters, Finished, Request, RequestId, RequestStatus, SlotStatus, Stop, Update,
};
use crate::llm::Error;
use crate::llm::engine::Engine;
use crate::llm::grammar::{Constraint, Halt};
use crate::llm::sampling::{Candidate, Sampler, SamplingConfig};
use crate::llm::session::Session;
use crate::llm::tokenizer::Tokenizer;
use crate::llm::workspace::Workspace;

/// A session, and the request that runs in it.
#[derive(Debug)]
pub struct Slot {
    /// The text. It stays after its request, for requests that begin with the same tokens.
    pub session: Session,
    /// The request, if there is one.
    pub run: Option<Run>,
    /// The number of the pass in which a request last ended here.
    pub last_used: u64,
    /// Context shifts of the session when its text began.
    pub n_shifts: usize,
}

impl Slot {
    /// A slot without a request.
    pub fn new(session: Session) -> Self {
        Slot { session, run: None, last_used: 0, n_shifts: 0 }
    }

    /// Starts a request, and returns the number of cached tokens of its prompt.
    ///
    /// # Errors
    /// As [`Session::append`]; the slot stays free.
    pub fn start(
        &mut self,
        workspace: &mut Workspace,
        waiting: Waiting,
        now_us: u64,
    ) -> Result<usize, Error> {
        let Waiting { mut run, tokens, sampler, constraint, cache_prompt } = waiting;
        run.counted_us = now_us;
        let n_own = self.n_common(&tokens, cache_prompt);
        // The index of shared pages may know more of the prompt than this slot's text.
        if cache_prompt && self.session.known_prefix(&tokens) > n_own {
            self.cut(0);
            self.session.begin(&tokens, sampler)?;
            run.n_cached = workspace.take_prefix(&mut self.session);
        } else {
            run.n_cached = self.cut(n_own);
            self.session.begin(&tokens, sampler)?;
        }
        self.session.set_constraint(constraint);
        let n_cached = run.n_cached;
        self.run = Some(run);
        Ok(n_cached)
    }

    /// Tokens of a prompt that the slot's KV cache holds.
    ///
    /// At least the prompt's last token is left, as its logits are needed.
    pub fn n_common(&self, prompt: &[u32], cache_prompt: bool) -> usize {
        // After a context shift, the keys are not those of a text that was processed from its start.
        if !cache_prompt || self.session.context_shifts() != self.n_shifts {
            return 0;
        }
        let processed = &self.session.tokens()[..self.session.n_past()];
        let most = prompt.len().saturating_sub(1);
        processed.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
    }

    /// Cuts the text to the first `n` tokens, the prefix that it has in common with a prompt.
    ///
    /// Returns the number of cached tokens, whose positions the KV cache holds.
    fn cut(&mut self, n: usize) -> usize {
        self.session.truncate(n);
        if self.session.n_past() < n || n == 0 {
            // A layer with a window has overwritten positions.
            self.session.clear();
            self.n_shifts = self.session.context_shifts();
        }
        self.session.n_past()
    }

    /// Ends the request, after so many passes. The text stays.
    pub fn end(&mut self, n_passes: u64) {
        self.run = None;
        self.session.set_constraint(None);
        self.last_used = n_passes;
    }

    /// Whether a prompt is being processed that can take more than one row.
    pub fn wants_rows(&self) -> bool {
        self.run.is_some() && self.session.n_unprocessed() > 1
    }

    /// The slot as `GET /slots` shows it.
    pub fn status(&self, slot: usize) -> SlotStatus {
        SlotStatus {
            slot,
            n_ctx: self.session.n_ctx(),
            n_tokens: self.session.tokens().len(),
            request: self.run.as_ref().map(Run::status),
        }
    }
}

/// A request in the course of its processing.
#[derive(Debug)]
pub struct Run {
    pub id: RequestId,
    pub n_prompt: usize,
    pub n_cached: usize,
    sampling: SamplingConfig,
    max_tokens: usize,
    answer: Answer,
    probs: Option<TokenProbs>,
    n_processed: usize,
    n_generated: usize,
    prompt_us: u64,
    generated_us: u64,
    /// The end of the time that was counted.
    counted_us: u64,
}

impl Run {
    /// A request that waits for a slot.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if a setting makes no sense, [`Error::OutOfMemory`].
    pub fn try_new(id: RequestId, request: Request, engine: &Engine) -> Result<Waiting, Error> {
        let tokenizer = engine.tokenizer();
        let Request { tokens, sampling, mut logit_bias, n_probs, post_sampling_probs, .. } =
            request;
        sampling.check()?;
        if request.ignore_end {
            let ends = tokenizer.ends();
            let asked = ((logit_bias.len() + ends.len()) * size_of::<(u32, f32)>()) as u64;
            let no_memory = |_| Error::OutOfMemory { what: "the logit biases", asked };
            logit_bias.try_reserve_exact(ends.len()).map_err(no_memory)?;
            logit_bias.extend(ends.iter().map(|&token| (token, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(sampling);
        sampler.set_biases(logit_bias)?;
        if let Some(breakers) = request.breakers {
            sampler.set_breakers(breakers);
        }
        let constraint = match request.constraint {
            None => None,
            Some(Constrained { grammar, trigger }) => {
                Some(Constraint::try_new(grammar, trigger, engine.token_index()?)?)
            }
        };
        let n_probs = n_probs.min(tokenizer.n_vocab());
        let probs = match n_probs {
            0 => None,
            n => Some(TokenProbs::try_new(n, post_sampling_probs)?),
        };
        let run = Run {
            id,
            n_prompt: tokens.len(),
            n_cached: 0,
            sampling,
            max_tokens: request.max_tokens,
            answer: Answer::try_new(tokenizer, request.stop, &request.shown)?,
            probs,
            n_processed: 0,
            n_generated: 0,
            prompt_us: 0,
            generated_us: 0,
            counted_us: 0,
        };
        Ok(Waiting { run, tokens, sampler, constraint, cache_prompt: request.cache_prompt })
    }

    fn status(&self) -> RequestStatus {
        RequestStatus {
            id: self.id,
            n_prompt: self.n_prompt,
            n_cached: self.n_cached,
            n_processed: self.n_processed,
            n_generated: self.n_generated,
            max_tokens: self.max_tokens,
            sampling: self.sampling,
        }
    }

    /// Samples the session's next token.
    ///
    /// # Errors
    /// As [`Session::sample`].
    pub fn sample(
        &mut self,
        session: &mut Session,
        logits: &[f32],
        scratch: &mut [Candidate],
    ) -> Result<u32, Halt> {
        let (token, drawn) = session.sample(logits, scratch)?;
        match &mut self.probs {
            Some(probs) if probs.is_post_sampling() => probs.set_by_candidates(token, drawn),
            Some(probs) => probs.set_by_logits(token, logits, scratch),
            None => {}
        }
        Ok(token)
    }

    /// Counts a pass, after which the session has a text of these tokens.
    pub fn count(&mut self, session: &Session, now_us: u64, counters: &mut Counters) {
        let us = now_us.saturating_sub(self.counted_us);
        self.counted_us = now_us;
        if self.n_generated == 0 {
            let n = session.n_past().min(self.n_prompt) - (self.n_cached + self.n_processed);
            self.n_processed += n;
            self.prompt_us += us;
            counters.prompt_tokens_total += n as u64;
            counters.prompt_us_total += us;
        } else {
            self.generated_us += us;
            counters.decode_steps_total += 1;
            counters.tokens_predicted_us_total += us;
        }
        counters.n_tokens_max = counters.n_tokens_max.max(session.tokens().len() as u64);
    }

    /// Whether the request asks for tokens, rather than for a cached prompt alone.
    pub fn wants_tokens(&self) -> bool {
        self.max_tokens > 0
    }

    /// The update for a chunk of the prompt.
    pub fn prefill(&self) -> Update<'static> {
        Update::Prefill { done: self.n_cached + self.n_processed, total: self.n_prompt }
    }

    /// Takes a sampled token into the answer.
    ///
    /// Gives its updates to `on_update`, and returns whether the answer is complete.
    pub fn push(
        &mut self,
        token: u32,
        is_full: bool,
        tokenizer: &Tokenizer,
        on_update: &mut dyn FnMut(Update<'_>),
    ) -> bool {
        if self.n_generated == 0 {
            on_update(self.prefill());
        }
        if !self.wants_tokens() {
            on_update(self.finished(Stop::MaxTokens));
            return true;
        }
        self.n_generated += 1;
        let (n, stopped) = self.answer.push(tokenizer, token);
        let text = &self.answer.text()[..n];
        on_update(Update::Token { token, text, probs: self.probs.as_ref() });
        let stop = match stopped {
            Some(stopped) => {
                on_update(Update::Finished(Finished {
                    n_dropped: stopped.n_dropped,
                    ..self.summary(Stop::Word(stopped.word))
                }));
                return true;
            }
            None if tokenizer.is_end(token) => Stop::End,
            None if self.n_generated >= self.max_tokens => Stop::MaxTokens,
            None if is_full => Stop::ContextFull,
            None => {
                self.answer.give_out(n);
                return false;
            }
        };
        self.answer.give_out(n);
        on_update(self.finished(stop));
        true
    }

    /// The update at the end of the answer, with the text that was held back.
    pub fn finished(&mut self, stop: Stop) -> Update<'static> {
        let (text, stopped) = self.answer.finish();
        let finished = match stopped {
            Some(stopped) => {
                Finished { n_dropped: stopped.n_dropped, ..self.summary(Stop::Word(stopped.word)) }
            }
            None => self.summary(stop),
        };
        Update::Finished(Finished { text, ..finished })
    }

    /// The end of the answer, without text.
    fn summary(&self, stop: Stop) -> Finished {
        Finished {
            text: String::new(),
            stop,
            n_prompt: self.n_prompt,
            n_cached: self.n_cached,
            n_generated: self.n_generated,
            n_dropped: 0,
            prompt_us: self.prompt_us,
            generated_us: self.generated_us,
        }
    }
}

/// A request that waits for a slot.
#[derive(Debug)]
pub struct Waiting {
    pub run: Run,
    pub tokens: Vec<u32>,
    pub sampler: Sampler,
    pub constraint: Option<Constraint>,
    pub cache_prompt: bool,
}
