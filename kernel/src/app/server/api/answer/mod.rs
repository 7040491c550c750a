//! Answers: from the scheduler's updates to JSON or server-sent events.

mod calls;
mod ollama;
mod parts;
mod probs;
pub mod settings;
mod shapes;
#[cfg(test)]
mod tests;
mod timings;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use calls::WholeCall;
use probs::{ChatLogprobs, CompletionLogprobs, Form};
use settings::Settings;
use shapes::{Delta, Envelope, NativeChunk};
use timings::{Counts, Progress, Timings, Usage};

use super::error::ApiError;
use super::request::{Endpoint, Options};
use super::{EVENT_STREAM, Ids, JSON, NDJSON, Served, push_event, to_json};
use crate::llm::chat::calls::{CallForm, CallParser};
use crate::llm::scheduler::{Finished, Request, Stop, TokenProbs, Update};
use crate::llm::tokenizer::Tokenizer;

/// Writes the answers to a request, as one JSON text or as a stream.
#[derive(Debug)]
pub struct Answer {
    endpoint: Endpoint,
    options: Options,
    settings: Settings,
    id: String,
    created: u64,
    model: String,
    n_ctx: usize,
    /// The form of calls in the answers, if they may have any.
    call_form: Option<CallForm>,
    /// Random bits for the IDs of calls.
    call_seed: u64,
    /// The times, if the answer has ollama's form.
    ollama: Option<ollama::Clock>,
    choices: Vec<Choice>,
    /// Answers that are not complete.
    n_open: usize,
    /// Whether an event was written.
    has_begun: bool,
}

/// One of the answers.
#[derive(Debug, Default)]
struct Choice {
    /// The text of the prompt, for llama-server's own answer.
    prompt: String,
    n_prompt: usize,
    seed: u64,
    slot: usize,
    /// The text of an answer that is sent as a whole.
    text: String,
    /// The text beside [`Choice::calls`]; in a stream, what is not sent.
    content: String,
    /// The calls that are sent as a whole.
    calls: Vec<WholeCall>,
    /// The search for calls.
    parser: CallParser,
    /// Calls that were sent in a stream, or whose start was.
    n_sent: usize,
    /// Calls that are complete.
    n_complete: usize,
    /// The tokens of an answer that is sent as a whole.
    tokens: Vec<u32>,
    /// Probabilities that are not sent yet.
    probs: Vec<TokenProbs>,
    /// The place of the next token in the answer, in characters.
    offset: usize,
    has_new_line: bool,
    has_role: bool,
    started_us: u64,
    first_token_us: u64,
    counts: Counts,
    /// The last progress that was reported.
    progress: Option<usize>,
    finished: Option<Finished>,
}

impl Answer {
    pub(super) fn new(
        endpoint: Endpoint,
        options: Options,
        settings: Settings,
        call_form: Option<CallForm>,
        served: &Served<'_>,
        ids: &Ids,
    ) -> Self {
        let prefix = if endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        Answer {
            endpoint,
            options,
            settings,
            id: format!("{prefix}-{:032x}", ids.id),
            created: ids.created,
            model: served.model.into(),
            n_ctx: served.n_ctx,
            call_form,
            call_seed: ids.id as u64,
            ollama: None,
            choices: Vec::new(),
            n_open: 0,
            has_begun: false,
        }
    }

    /// Adds an answer that is to come.
    pub(super) fn expect(&mut self, request: &Request, prompt: String) {
        let (n_prompt, seed) = (request.tokens.len(), request.sampling.seed);
        self.choices.push(Choice { prompt, n_prompt, seed, ..Choice::default() });
        self.n_open = self.n_open.saturating_add(1);
    }

    /// The form of the answer.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The content type of what [`Answer::on_update`] writes.
    pub fn content_type(&self) -> &'static str {
        match (self.options.stream, self.ollama) {
            (true, Some(_)) => NDJSON,
            (true, None) => EVENT_STREAM,
            (false, _) => JSON,
        }
    }

    /// Whether everything was written. Requests that still run are of no use then.
    pub fn is_done(&self) -> bool {
        self.n_open == 0
    }

    /// The end of a stream whose server ends before its answer.
    ///
    /// Nothing is written for an answer that is done, or that is sent as a whole.
    pub fn abort(&mut self, error: &ApiError, out: &mut String) {
        if self.has_begun && !self.is_done() {
            self.push_error(error, out);
        }
        self.n_open = 0;
    }

    /// Writes an error into a stream, as its last event or line.
    pub fn push_error(&self, error: &ApiError, out: &mut String) {
        match self.ollama {
            Some(_) => {
                out.push_str(&error.ollama_body());
                out.push('\n');
            }
            None => push_event(&error.body(), out),
        }
    }

    /// Takes an update of the request with this place in [`super::Job::requests`].
    ///
    /// Appends to `out` what is to be sent: events of a stream, or all answers as one text after
    /// the last update. `now_us` is the scheduler's clock.
    ///
    /// # Errors
    /// A request failed before anything was written: the error is the answer. An error after that
    /// is an event. In both cases the answer is done.
    pub fn on_update(
        &mut self,
        number: usize,
        update: Update<'_>,
        tokenizer: &Tokenizer,
        now_us: u64,
        out: &mut String,
    ) -> Result<(), ApiError> {
        let is_open = |choice: &Choice| choice.finished.is_none();
        if self.is_done() || !self.choices.get(number).is_some_and(is_open) {
            return Ok(());
        }
        if let Some(clock) = &mut self.ollama {
            clock.now_us = now_us;
        }
        let Some(choice) = self.choices.get_mut(number) else { return Ok(()) };
        match update {
            Update::Started { slot, n_cached } => {
                choice.slot = slot;
                choice.started_us = now_us;
                choice.counts.n_cached = n_cached;
                self.on_progress(number, n_cached, now_us, out);
            }
            Update::Prefill { done, .. } => self.on_progress(number, done, now_us, out),
            Update::Token { token, text, probs } => {
                choice.on_token(now_us);
                choice.probs.extend(probs.cloned());
                choice.has_new_line |= text.contains('\n');
                if !self.options.stream {
                    choice.text.push_str(text);
                    if self.options.return_tokens {
                        choice.tokens.push(token);
                    }
                } else {
                    self.write_token(number, token, text, tokenizer, out);
                }
            }
            Update::Finished(finished) => {
                let n_kept = choice.probs.len().saturating_sub(finished.n_dropped);
                choice.probs.truncate(n_kept);
                // OpenAI does not count the token that ends an answer as a part of it.
                let is_end = |probs: &TokenProbs| tokenizer.is_end(probs.token);
                if finished.stop == Stop::End && self.endpoint != Endpoint::Completion {
                    drop(choice.probs.pop_if(|probs| is_end(probs)));
                }
                choice.counts = Counts::from(&finished);
                choice.has_new_line |= finished.text.contains('\n');
                choice.finished = Some(finished);
                self.n_open = self.n_open.saturating_sub(1);
                if self.options.stream {
                    self.write_end(number, tokenizer, out);
                } else if self.is_done() {
                    self.write_whole(tokenizer, out);
                }
            }
            Update::Failed(error) => {
                let error = ApiError::from(error);
                if !self.has_begun {
                    self.n_open = 0;
                    return Err(error);
                }
                self.abort(&error, out);
            }
        }
        Ok(())
    }

    /// Notes, and reports if asked, how much of a prompt is processed.
    fn on_progress(&mut self, number: usize, processed: usize, now_us: u64, out: &mut String) {
        let Some(choice) = self.choices.get_mut(number) else { return };
        choice.counts.n_processed = processed;
        choice.counts.prompt_us = now_us.saturating_sub(choice.started_us);
        let is_news = choice.progress.is_none_or(|last| processed > last);
        if !self.options.stream || !self.options.return_progress || !is_news {
            return;
        }
        choice.progress = Some(processed);
        choice.has_role = true;
        let progress = Progress {
            total: choice.n_prompt,
            cache: choice.counts.n_cached,
            processed,
            time_ms: choice.counts.prompt_us / 1000,
        };
        self.has_begun = true;
        let Some(choice) = self.choices.get(number) else { return };
        let timings = self.timings(choice);
        match self.endpoint {
            Endpoint::Chat => {
                let chunk = self.role(number);
                let event = Envelope { timings, prompt_progress: Some(progress), ..chunk };
                push_event(&to_json(&event), out);
            }
            Endpoint::Completions => {
                let chunk = self.text_chunk(number, "", None, None);
                let event = Envelope { timings, prompt_progress: Some(progress), ..chunk };
                push_event(&to_json(&event), out);
            }
            Endpoint::Completion => {
                let chunk = self.native_chunk(number, choice, "", &[]);
                let event = NativeChunk { prompt_progress: Some(progress), ..chunk };
                push_event(&to_json(&event), out);
            }
        }
    }

    /// Writes the event of a token.
    ///
    /// In OpenAI's streams, a token without text yet has no event: its probabilities come with the
    /// next text.
    fn write_token(
        &mut self,
        number: usize,
        token: u32,
        text: &str,
        tokenizer: &Tokenizer,
        out: &mut String,
    ) {
        if let Some(clock) = self.ollama {
            return self.write_ollama_lines(clock, number, text, None, tokenizer, out);
        }
        let form = self.form(tokenizer);
        if self.endpoint == Endpoint::Completion {
            let Some(choice) = self.choices.get(number) else { return };
            let entries = (!choice.probs.is_empty()).then(|| form.entries(&choice.probs));
            let tokens = [token];
            let chunk = self.native_chunk(number, choice, text, &tokens);
            let event = NativeChunk { completion_probabilities: entries, ..chunk };
            push_event(&to_json(&event), out);
            self.sent(number);
            return;
        }
        self.write_role(number, out);
        self.write_parts(number, text, None, &form, out);
    }

    /// Writes the author of a chat's answer, if that is not done yet.
    fn write_role(&mut self, number: usize, out: &mut String) {
        let Some(choice) = self.choices.get_mut(number) else { return };
        if self.endpoint == Endpoint::Chat && !choice.has_role {
            choice.has_role = true;
            push_event(&to_json(&self.role(number)), out);
            self.has_begun = true;
        }
    }

    /// Writes text with the probabilities of its tokens.
    fn write_text(&mut self, number: usize, text: &str, form: &Form<'_>, out: &mut String) {
        if self.endpoint == Endpoint::Chat {
            return self.write_delta(number, Delta::Content { content: text }, form, out);
        }
        let Some(choice) = self.choices.get(number) else { return };
        let timings = self.timings(choice);
        let mut offset = choice.offset;
        let has_probs = !choice.probs.is_empty();
        let logprobs = has_probs.then(|| CompletionLogprobs::new(form, &choice.probs, &mut offset));
        let chunk = self.text_chunk(number, text, logprobs, None);
        let event = to_json(&Envelope { timings, ..chunk });
        if let Some(choice) = self.choices.get_mut(number) {
            choice.offset = offset;
        }
        push_event(&event, out);
        self.sent(number);
    }

    /// Writes a part of a chat's answer with the probabilities of its tokens.
    fn write_delta(&mut self, number: usize, delta: Delta<'_>, form: &Form<'_>, out: &mut String) {
        let Some(choice) = self.choices.get(number) else { return };
        let timings = self.timings(choice);
        let has_probs = !choice.probs.is_empty();
        let logprobs = has_probs.then(|| ChatLogprobs::new(form, &choice.probs));
        let chunk = self.chat_chunk(number, delta, logprobs, None);
        push_event(&to_json(&Envelope { timings, ..chunk }), out);
        self.sent(number);
    }

    /// The probabilities and the complete calls of an answer so far are sent.
    fn sent(&mut self, number: usize) {
        self.has_begun = true;
        if let Some(choice) = self.choices.get_mut(number) {
            choice.probs.clear();
            choice.n_sent = choice.n_sent.max(choice.n_complete);
        }
    }

    /// Writes the end of an answer in a stream, and that of the stream.
    fn write_end(&mut self, number: usize, tokenizer: &Tokenizer, out: &mut String) {
        let Some(finished) = self.choices.get(number).and_then(|choice| choice.finished.clone())
        else {
            return;
        };
        if let Some(clock) = self.ollama {
            let (text, stop) = (&finished.text, Some(finished.stop));
            return self.write_ollama_lines(clock, number, text, stop, tokenizer, out);
        }
        self.write_role(number, out);
        let is_native = self.endpoint == Endpoint::Completion;
        if !is_native {
            let form = self.form(tokenizer);
            self.write_parts(number, &finished.text, Some(finished.stop), &form, out);
        }
        self.has_begun = true;
        let Some(choice) = self.choices.get(number) else { return };
        let timings = Some(Timings::from(choice.counts));
        let reason = choice.finish_reason();
        let verbose = || self.options.verbose.then(|| self.native(number, choice, tokenizer));
        let include_usage = self.options.include_usage;
        match self.endpoint {
            Endpoint::Chat => {
                let chunk = self.chat_chunk(number, Delta::End {}, None, reason);
                let timings = timings.filter(|_| !include_usage);
                push_event(&to_json(&Envelope { timings, verbose: verbose(), ..chunk }), out);
            }
            Endpoint::Completions => {
                let chunk = self.text_chunk(number, "", None, reason);
                // As in llama-server, where OpenAI has no usage.
                let usage = (!include_usage).then(|| choice.usage(true));
                let timings = timings.filter(|_| !include_usage);
                let event = Envelope { usage, timings, verbose: verbose(), ..chunk };
                push_event(&to_json(&event), out);
            }
            Endpoint::Completion => {
                // Text that was held back, if any.
                push_event(&self.native_text(&self.native(number, choice, tokenizer)), out);
            }
        }
        if is_native || !self.is_done() {
            return;
        }
        if include_usage {
            let usage = Some(self.usage());
            let chunk = self.envelope::<()>(Vec::new(), self.chunk_object());
            push_event(&to_json(&Envelope { usage, timings, ..chunk }), out);
        }
        push_event("[DONE]", out);
    }
}

impl Choice {
    /// Counts a token.
    fn on_token(&mut self, now_us: u64) {
        if self.counts.n_generated == 0 {
            self.first_token_us = now_us;
            self.counts.n_processed = self.n_prompt;
            self.counts.prompt_us = now_us.saturating_sub(self.started_us);
        }
        self.counts.n_generated = self.counts.n_generated.saturating_add(1);
        self.counts.generated_us = now_us.saturating_sub(self.first_token_us);
    }

    /// OpenAI's reason for the end, if the answer is complete.
    fn finish_reason(&self) -> Option<&'static str> {
        match self.finished.as_ref()?.stop {
            Stop::End | Stop::Word(_) if self.n_complete > 0 => Some("tool_calls"),
            stop => Some(shapes::finish_reason(stop)),
        }
    }

    /// The tokens of this answer.
    fn usage(&self, with_prompt: bool) -> Usage {
        let mut usage = Usage::default();
        usage.add(self.n_prompt, self.counts, with_prompt);
        usage
    }
}
