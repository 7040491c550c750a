//! Calls of tools in answers.

#[cfg(test)]
mod tests;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::probs::Form;
use super::shapes::{Delta, Function, ToolCall};
use super::{Answer, Choice};
use crate::llm::chat::calls::{CallForm, CallParser, Part};
use crate::llm::scheduler::Stop;

/// A call of an answer that is sent as a whole.
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
                choice.has_call = true;
                return;
            }
            Piece::Call(name) => {
                id = call_id(self.call_seed, number, choice.n_calls);
                choice.n_calls = choice.n_calls.saturating_add(1);
                ToolCall {
                    index: choice.n_calls.checked_sub(1),
                    id: Some(&id),
                    kind: Some("function"),
                    function: Function { name: Some(name), arguments: "" },
                }
            }
            Piece::Arguments(text) => ToolCall {
                index: choice.n_calls.checked_sub(1),
                id: None,
                kind: None,
                function: Function { name: None, arguments: text },
            },
        };
        self.write_delta(number, Delta::Calls { tool_calls: [call] }, form, out);
    }

    /// Cuts the calls out of the texts of answers that are sent as a whole.
    pub(super) fn cut_calls(&mut self) {
        let Some(call_form) = &self.call_form else { return };
        for (number, choice) in self.choices.iter_mut().enumerate() {
            choice.cut_calls(call_form, |index| call_id(self.call_seed, number, index));
        }
    }
}

impl Choice {
    fn cut_calls(&mut self, form: &CallForm, id: impl Fn(usize) -> String) {
        let Some(stop) = self.finished.as_ref().map(|finished| finished.stop) else { return };
        let mut content = String::new();
        let mut calls: Vec<WholeCall> = Vec::new();
        let mut sink = |part: Part<'_>| match part {
            Part::Text(text) => content.push_str(text),
            Part::Call { name, source } => {
                let (id, name, source) = (id(calls.len()), name.to_owned(), source.to_owned());
                calls.push(WholeCall { id, name, source, ..WholeCall::default() });
            }
            Part::Arguments(text) => {
                if let Some(call) = calls.last_mut() {
                    call.arguments.push_str(text);
                }
            }
            Part::End => self.has_call = true,
            // The call was text.
            Part::Broken => {
                if let Some(call) = calls.pop() {
                    content.extend([call.source, call.arguments]);
                }
            }
        };
        let mut parser = CallParser::default();
        parser.push(form, &self.text, &mut sink);
        parser.finish(is_cut(stop), &mut sink);
        self.content = Some(content).filter(|text| !text.is_empty() || calls.is_empty());
        self.calls = calls;
    }
}
