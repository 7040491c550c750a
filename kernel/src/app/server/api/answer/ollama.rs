//! Answers in ollama's form: one JSON object, or one a line.

use alloc::string::String;
use core::mem;

use super::shapes;
use super::{Answer, Choice};
use crate::app::server::api::date::rfc3339;
use crate::app::server::api::request::Endpoint;
use crate::app::server::api::to_json;
use crate::app::server::api::writer::Writer;
use crate::llm::scheduler::Stop;
use crate::llm::tokenizer::Tokenizer;

/// The times of an answer in ollama's form, by the scheduler's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The time of the request.
    began_us: u64,
    /// The time of the last update.
    pub(super) now_us: u64,
}

impl Answer {
    /// Gives the answer in ollama's form, with this name of the model.
    ///
    /// `now_us` is the time of the request by the scheduler's clock.
    pub(in crate::app::server::api) fn speak_ollama(&mut self, model: String, now_us: u64) {
        self.model = model;
        self.ollama = Some(Clock { began_us: now_us, now_us });
    }

    /// Writes the object of a text, with the calls and probabilities that are not sent.
    ///
    /// Times are in ns.
    fn write_ollama_object(
        &self,
        clock: Clock,
        choice: &Choice,
        text: &str,
        is_end: bool,
        tokenizer: &Tokenizer,
        out: &mut String,
    ) {
        let Clock { began_us, now_us } = clock;
        let total_us = now_us.saturating_sub(began_us);
        let date_us = self.created.saturating_mul(1_000_000).saturating_add(total_us);
        let mut line = Writer::new();
        line.text("model", &self.model).text("created_at", &rfc3339(date_us));
        line.ollama_text(self.endpoint == Endpoint::Chat, text, &choice.ollama_calls());
        line.json("done", if is_end { "true" } else { "false" });
        if let Some(finished) = choice.finished.as_ref().filter(|_| is_end) {
            line.text("done_reason", shapes::finish_reason(finished.stop));
            let counts = &choice.counts;
            let ran_us = counts.prompt_us.saturating_add(counts.generated_us);
            for (name, us) in [
                ("total_duration", total_us),
                // The model is there: this is the time until the request ran.
                ("load_duration", total_us.saturating_sub(ran_us)),
                ("prompt_eval_duration", counts.prompt_us),
                ("eval_duration", counts.generated_us),
            ] {
                line.number(name, us.saturating_mul(1000));
            }
            line.number("prompt_eval_count", choice.n_prompt as u64);
            line.number("eval_count", counts.n_generated as u64);
        }
        if !choice.probs.is_empty() {
            line.json("logprobs", &to_json(&self.form(tokenizer).entries(&choice.probs)));
        }
        out.push_str(&line.end());
    }

    /// Writes what the next text of a stream adds.
    ///
    /// Without new text and whole calls, that is nothing. `end`: the text is the last one, and a
    /// line without a text ends the stream.
    pub(super) fn write_ollama_lines(
        &mut self,
        clock: Clock,
        number: usize,
        text: &str,
        end: Option<Stop>,
        tokenizer: &Tokenizer,
        out: &mut String,
    ) {
        self.gather(number, text, end);
        let Some(choice) = self.choices.get_mut(number) else { return };
        let text = mem::take(&mut choice.content);
        if !text.is_empty() || choice.n_sent < choice.n_complete {
            self.write_ollama_line(clock, number, &text, false, tokenizer, out);
        }
        if end.is_some() {
            self.write_ollama_line(clock, number, "", true, tokenizer, out);
        }
    }

    fn write_ollama_line(
        &mut self,
        clock: Clock,
        number: usize,
        text: &str,
        is_end: bool,
        tokenizer: &Tokenizer,
        out: &mut String,
    ) {
        let Some(choice) = self.choices.get(number) else { return };
        self.write_ollama_object(clock, choice, text, is_end, tokenizer, out);
        out.push('\n');
        self.sent(number);
    }

    /// Writes an answer that is sent as a whole.
    pub(super) fn write_ollama_whole(&self, clock: Clock, tokenizer: &Tokenizer, out: &mut String) {
        let Some(choice) = self.choices.first() else { return };
        self.write_ollama_object(clock, choice, &choice.content, true, tokenizer, out);
    }
}
