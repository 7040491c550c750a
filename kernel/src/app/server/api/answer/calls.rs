//! Calls of tools in answers.

#[cfg(test)]
mod tests;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::probs::Form;
use super::shapes::{Delta, Function, ToolCall};
use super::{Answer, Choice};
use crate::app::server::api::writer::Writer;
use crate::llm::chat::calls::Part;
use crate::llm::chat::json::{self, Style};
use crate::llm::scheduler::Stop;

/// A call that is sent as a whole.
#[derive(Debug, Default)]
pub struct WholeCall {
    id: String,
    name: String,
    arguments: String,
    /// The text of the answer before the arguments.
    source: String,
}

impl WholeCall {
    pub fn shape(&self) -> ToolCall<'_> {
        ToolCall {
            index: None,
            id: Some(&self.id),
            kind: Some("function"),
            function: Function { name: Some(&self.name), arguments: &self.arguments },
        }
    }

    /// The call in ollama's form, with its number in the answer.
    fn ollama(&self, index: usize) -> String {
        let mut function = Writer::new();
        function.number("index", index as u64).text("name", &self.name);
        let function = function.json("arguments", &self.arguments).end();
        Writer::new().text("id", &self.id).json("function", &function).end()
    }

    /// Writes the arguments in one line, if they are JSON without lone surrogates.
    fn compact(&mut self) -> Option<()> {
        let mut compact = String::new();
        json::reformat(&self.arguments, Style::Compact, &mut compact)?;
        self.arguments = compact;
        Some(())
    }
}

/// A part of an answer that outlives the search for calls.
enum Piece {
    Text(String),
    Call(String),
    Arguments(String),
    End,
}

/// The ID of a call: nine letters and digits, as Mistral's templates have them.
///
/// `seed` has random bits. The calls of all answers to a request have different IDs.
fn call_id(seed: u64, number: usize, index: usize) -> String {
    let place = (number as u64).wrapping_shl(24).wrapping_add(index as u64);
    let bits = seed.wrapping_add(place);
    let digit = |i: u32| char::from_digit((bits.wrapping_shr(i.wrapping_mul(5)) & 31) as u32, 32);
    (0..9).rev().filter_map(digit).collect()
}

/// Whether the length of an answer ended it, which may cut a call.
fn is_cut(stop: Stop) -> bool {
    matches!(stop, Stop::MaxTokens | Stop::ContextFull)
}

impl Answer {
    /// Writes what the next text of a stream adds: text and calls.
    ///
    /// `end`: the text is the last one, and this ends it.
    pub(super) fn write_parts(
        &mut self,
        number: usize,
        text: &str,
        end: Option<Stop>,
        form: &Form<'_>,
        out: &mut String,
    ) {
        let Some(call_form) = &self.call_form else {
            if !text.is_empty() {
                self.write_text(number, text, form, out);
            }
            return;
        };
        let Some(choice) = self.choices.get_mut(number) else { return };
        let mut pieces = Vec::new();
        let mut sink = |part: Part<'_>| match part {
            Part::Text(text) => pieces.push(Piece::Text(text.to_owned())),
            Part::Call { name, .. } => pieces.push(Piece::Call(name.to_owned())),
            Part::Arguments(text) => pieces.push(Piece::Arguments(text.to_owned())),
            Part::End => pieces.push(Piece::End),
            // What was sent stays. The text behind it is text.
            Part::Broken => {}
        };
        choice.parser.push(call_form, text, &mut sink);
        if let Some(stop) = end {
            choice.parser.finish(is_cut(stop), &mut sink);
        }
        for piece in pieces {
            self.write_piece(number, &piece, form, out);
        }
    }

    fn write_piece(&mut self, number: usize, piece: &Piece, form: &Form<'_>, out: &mut String) {
        let Some(choice) = self.choices.get_mut(number) else { return };
        let id;
        let call = match piece {
            Piece::Text(text) => return self.write_text(number, text, form, out),
            Piece::End => {
                choice.n_complete = choice.n_complete.saturating_add(1);
                return;
            }
            Piece::Call(name) => {
                id = call_id(self.call_seed, number, choice.n_sent);
                choice.n_sent = choice.n_sent.saturating_add(1);
                ToolCall {
                    index: choice.n_sent.checked_sub(1),
                    id: Some(&id),
                    kind: Some("function"),
                    function: Function { name: Some(name), arguments: "" },
                }
            }
            Piece::Arguments(text) => ToolCall {
                index: choice.n_sent.checked_sub(1),
                id: None,
                kind: None,
                function: Function { name: None, arguments: text },
            },
        };
        self.write_delta(number, Delta::Calls { tool_calls: [call] }, form, out);
    }

    /// Cuts the calls out of the texts of answers that are sent as a whole.
    pub(super) fn cut_calls(&mut self) {
        for number in 0..self.choices.len() {
            let Some(choice) = self.choices.get_mut(number) else { return };
            let stop = choice.finished.as_ref().map(|finished| finished.stop);
            let text = mem::take(&mut choice.text);
            self.gather(number, &text, stop);
            if let Some(choice) = self.choices.get_mut(number) {
                choice.text = text;
            }
        }
    }

    /// Takes the next text of an answer, for [`Choice::content`] and [`Choice::calls`].
    ///
    /// `end`: the text is the last one, and this ends it.
    pub(super) fn gather(&mut self, number: usize, text: &str, end: Option<Stop>) {
        let is_ollama = self.ollama.is_some();
        let Some(choice) = self.choices.get_mut(number) else { return };
        let Choice { content, calls, n_complete, parser, .. } = choice;
        let Some(call_form) = &self.call_form else { return content.push_str(text) };
        let mut sink = |part: Part<'_>| match part {
            Part::Text(text) => content.push_str(text),
            Part::Call { name, source } => {
                let id = call_id(self.call_seed, number, calls.len());
                let (name, source) = (name.to_owned(), source.to_owned());
                calls.push(WholeCall { id, name, source, ..WholeCall::default() });
            }
            Part::Arguments(text) => {
                if let Some(call) = calls.last_mut() {
                    call.arguments.push_str(text);
                }
            }
            // The arguments are a part of a line.
            Part::End if !is_ollama || calls.last_mut().and_then(WholeCall::compact).is_some() => {
                *n_complete = n_complete.saturating_add(1);
            }
            // The call was text.
            Part::End | Part::Broken => {
                if let Some(call) = calls.pop() {
                    content.extend([call.source, call.arguments]);
                }
            }
        };
        parser.push(call_form, text, &mut sink);
        if let Some(stop) = end {
            // Without their end, arguments are no object, which ollama's form has.
            parser.finish(is_cut(stop) && !is_ollama, &mut sink);
        }
    }
}

impl Choice {
    /// The complete calls that were not sent, as a list in ollama's form.
    pub(super) fn ollama_calls(&self) -> String {
        let calls = self.calls.iter().enumerate().take(self.n_complete).skip(self.n_sent);
        let calls: Vec<String> = calls.map(|(index, call)| call.ollama(index)).collect();
        format!("[{}]", calls.join(","))
    }
}
