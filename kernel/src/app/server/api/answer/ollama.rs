//! Answers in ollama's form: one JSON object, or one a line.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::probs::Entry;
use super::shapes;
use super::{Answer, Choice};
use crate::app::server::api::date::rfc3339;
use crate::app::server::api::request::Endpoint;
use crate::app::server::api::to_json;
use crate::llm::scheduler::TokenProbs;
use crate::llm::tokenizer::Tokenizer;

/// The times of an answer in ollama's form, by the scheduler's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The time of the request.
    began_us: u64,
    /// The time of the last update.
    pub(super) now_us: u64,
}

/// An answer, or a part of one.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    done: bool,
    #[serde(flatten)]
    end: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Entry>>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

/// The end of an answer. Times are in ns.
#[derive(Clone, Copy, Serialize)]
struct End {
    done_reason: &'static str,
    total_duration: u64,
    /// The time until the request ran.
    load_duration: u64,
    prompt_eval_count: usize,
    prompt_eval_duration: u64,
    eval_count: usize,
    eval_duration: u64,
}

impl Answer {
    /// Gives the answer in ollama's form, with this name of the model.
    ///
    /// `now_us` is the time of the request by the scheduler's clock.
    pub(in crate::app::server::api) fn speak_ollama(&mut self, model: String, now_us: u64) {
        self.model = model;
        self.ollama = Some(Clock { began_us: now_us, now_us });
    }

    /// The object of a text. `choice` ends with it if `is_end`.
    fn ollama_object(
        &self,
        clock: Clock,
        choice: &Choice,
        text: &str,
        probs: &[TokenProbs],
        is_end: bool,
        tokenizer: &Tokenizer,
    ) -> String {
        let Clock { began_us, now_us } = clock;
        let since = |from: u64, to: u64| to.saturating_sub(from).saturating_mul(1000);
        let ended = choice.finished.as_ref().filter(|_| is_end);
        let is_chat = self.endpoint == Endpoint::Chat;
        let date_us = self.created.saturating_mul(1_000_000);
        to_json(&Line {
            model: &self.model,
            created_at: rfc3339(date_us.saturating_add(now_us.saturating_sub(began_us))),
            message: is_chat.then_some(Message { role: "assistant", content: text }),
            response: (!is_chat).then_some(text),
            done: ended.is_some(),
            end: ended.map(|finished| End {
                done_reason: shapes::finish_reason(finished.stop),
                total_duration: since(began_us, now_us),
                load_duration: since(began_us, choice.started_us),
                prompt_eval_count: choice.n_prompt,
                prompt_eval_duration: since(0, choice.counts.prompt_us),
                eval_count: choice.counts.n_generated,
                eval_duration: since(0, choice.counts.generated_us),
            }),
            logprobs: (!probs.is_empty()).then(|| self.form(tokenizer).entries(probs)),
        })
    }

    /// Writes a part of an answer that is sent in parts. An empty part is written at the end alone.
    pub(super) fn write_ollama_line(
        &mut self,
        clock: Clock,
        number: usize,
        text: &str,
        is_end: bool,
        tokenizer: &Tokenizer,
        out: &mut String,
    ) {
        let Some(choice) = self.choices.get(number) else { return };
        if text.is_empty() && !is_end {
            return;
        }
        out.push_str(&self.ollama_object(clock, choice, text, &choice.probs, is_end, tokenizer));
        out.push('\n');
        self.sent(number);
    }

    /// Writes an answer that is sent as a whole.
    pub(super) fn write_ollama_whole(&self, clock: Clock, tokenizer: &Tokenizer, out: &mut String) {
        let Some(choice) = self.choices.first() else { return };
        let Choice { text, probs, .. } = choice;
        out.push_str(&self.ollama_object(clock, choice, text, probs, true, tokenizer));
    }
}
