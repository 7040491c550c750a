//! The parts of answers: choices, events, and answers as a whole.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::calls::WholeCall;
use super::probs::{ChatLogprobs, CompletionLogprobs, Form};
use super::shapes::{
    self, ChatChoice, ChatChunk, ChatMessage, Delta, Envelope, Native, NativeChunk, TextChoice,
};
use super::timings::{Timings, Usage};
use super::{Answer, Choice};
use crate::app::server::api::request::Endpoint;
use crate::app::server::api::{BUILD, to_json};
use crate::llm::scheduler::Stop;
use crate::llm::tokenizer::Tokenizer;

impl Answer {
    /// Writes all answers as one text.
    pub(super) fn write_whole(&mut self, tokenizer: &Tokenizer, out: &mut String) {
        for choice in &mut self.choices {
            if let Some(finished) = &choice.finished {
                choice.text.push_str(&finished.text);
            }
        }
        self.cut_calls();
        if let Some(clock) = self.ollama {
            return self.write_ollama_whole(clock, tokenizer, out);
        }
        let form = self.form(tokenizer);
        let natives = || {
            let all = self.choices.iter().enumerate();
            all.map(|(number, choice)| self.native(number, choice, tokenizer))
        };
        let usage = Some(self.usage());
        let timings = self.choices.first().map(|choice| Timings::from(choice.counts));
        let verbose = self.options.verbose.then(|| natives().next()).flatten();
        match self.endpoint {
            Endpoint::Chat => {
                let choices = self.each(|number, choice, reason| ChatChoice {
                    finish_reason: reason,
                    index: number,
                    message: ChatMessage {
                        role: "assistant",
                        content: Some(choice.content.as_str())
                            .filter(|text| !text.is_empty() || choice.calls.is_empty()),
                        refusal: None,
                        tool_calls: choice.calls.iter().map(WholeCall::shape).collect(),
                    },
                    logprobs: self.options.probs.map(|_| ChatLogprobs::new(&form, &choice.probs)),
                });
                let whole = self.envelope(choices, "chat.completion");
                out.push_str(&to_json(&Envelope { usage, timings, verbose, ..whole }));
            }
            Endpoint::Completions => {
                let choices = self.each(|number, choice, reason| TextChoice {
                    text: &choice.text,
                    index: number,
                    logprobs: self
                        .options
                        .probs
                        .map(|_| CompletionLogprobs::new(&form, &choice.probs, &mut 0)),
                    finish_reason: Some(reason),
                });
                let whole = self.envelope(choices, "text_completion");
                out.push_str(&to_json(&Envelope { usage, timings, verbose, ..whole }));
            }
            Endpoint::Completion => {
                let answers: Vec<String> =
                    natives().map(|native| self.native_text(&native)).collect();
                match &*answers {
                    [answer] => out.push_str(answer),
                    answers => out.push_str(&format!("[{}]", answers.join(","))),
                }
            }
        }
    }

    /// Something of each answer and of the reason for its end.
    pub(super) fn each<'a, T>(
        &'a self,
        make: impl Fn(usize, &'a Choice, &'static str) -> T,
    ) -> Vec<T> {
        let all = self.choices.iter().enumerate();
        let ended =
            all.filter_map(|(number, choice)| Some(make(number, choice, choice.finish_reason()?)));
        ended.collect()
    }

    /// The tokens of all answers.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (number, choice) in self.choices.iter().enumerate() {
            let is_first = number.checked_rem(self.options.n) == Some(0);
            usage.add(choice.n_prompt, choice.counts, is_first);
        }
        usage
    }

    pub(super) fn form<'t>(&self, tokenizer: &'t Tokenizer) -> Form<'t> {
        let n_top = self.options.probs.map_or(0, |probs| probs.n_top);
        Form { tokenizer, n_top, is_post_sampling: self.options.post_sampling_probs }
    }

    /// The times so far, for an event before the last one.
    pub(super) fn timings(&self, choice: &Choice) -> Option<Timings> {
        self.options.timings_per_token.then(|| choice.counts.into())
    }

    pub(super) fn chunk_object(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
        }
    }

    pub(super) fn envelope<C: Serialize>(
        &self,
        choices: Vec<C>,
        object: &'static str,
    ) -> Envelope<'_, C> {
        Envelope {
            choices,
            created: self.created,
            model: &self.model,
            system_fingerprint: BUILD,
            object,
            usage: None,
            id: &self.id,
            verbose: None,
            timings: None,
            prompt_progress: None,
        }
    }

    pub(super) fn chat_chunk<'a>(
        &'a self,
        index: usize,
        delta: Delta<'a>,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Envelope<'a, ChatChunk<'a>> {
        let choice = ChatChunk { finish_reason, index, delta, logprobs };
        self.envelope(Vec::from([choice]), self.chunk_object())
    }

    /// The first event of a chat's answer.
    pub(super) fn role(&self, index: usize) -> Envelope<'_, ChatChunk<'_>> {
        self.chat_chunk(index, Delta::Role { role: "assistant", content: None }, None, None)
    }

    pub(super) fn text_chunk<'a>(
        &'a self,
        index: usize,
        text: &'a str,
        logprobs: Option<CompletionLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Envelope<'a, TextChoice<'a>> {
        let choice = TextChoice { text, index, logprobs, finish_reason };
        self.envelope(Vec::from([choice]), self.chunk_object())
    }

    pub(super) fn native_chunk<'a>(
        &self,
        index: usize,
        choice: &Choice,
        content: &'a str,
        tokens: &'a [u32],
    ) -> NativeChunk<'a> {
        NativeChunk {
            index,
            content,
            tokens,
            stop: false,
            id_slot: choice.slot,
            tokens_predicted: choice.counts.n_generated,
            tokens_evaluated: choice.n_prompt,
            timings: self.timings(choice),
            prompt_progress: None,
            completion_probabilities: None,
        }
    }

    /// llama-server's own answer. In a stream, its text is what was not sent before.
    pub(super) fn native<'a>(
        &'a self,
        index: usize,
        choice: &'a Choice,
        tokenizer: &Tokenizer,
    ) -> Native<'a> {
        let Choice { counts, n_prompt, .. } = choice;
        let stop = choice.finished.as_ref().map(|finished| finished.stop);
        let rest = choice.finished.as_ref().map_or("", |finished| &finished.text);
        let n_text = n_prompt.saturating_add(counts.n_generated);
        let is_whole = !self.options.stream;
        let has_probs = is_whole && !choice.probs.is_empty();
        let entries = || self.form(tokenizer).entries(&choice.probs);
        Native {
            index,
            content: if is_whole { &choice.text } else { rest },
            tokens: &choice.tokens,
            id_slot: choice.slot,
            stop: true,
            model: &self.model,
            tokens_predicted: counts.n_generated,
            tokens_evaluated: *n_prompt,
            generation_settings: self.settings.with_seed(choice.seed),
            prompt: &choice.prompt,
            has_new_line: choice.has_new_line,
            // The context was full, or was shifted.
            truncated: stop == Some(Stop::ContextFull) || n_text > self.n_ctx,
            stop_type: stop.map_or("none", shapes::stop_type),
            stopping_word: match stop {
                Some(Stop::Word(number)) => self.settings.stop_string(number),
                _ => String::new(),
            },
            // The last token is not processed.
            tokens_cached: n_text.saturating_sub(1).min(self.n_ctx),
            timings: (*counts).into(),
            completion_probabilities: has_probs.then(entries),
        }
    }

    /// The text of llama-server's own answer, with the selected fields.
    pub(super) fn native_text(&self, native: &Native<'_>) -> String {
        match &*self.options.response_fields {
            [] => to_json(native),
            fields => to_json(&shapes::select(native, fields)),
        }
    }
}
