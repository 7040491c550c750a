//! Chat templates: what a model was trained to see around the messages of a conversation.
//!
//! A template is a program (Jinja) in the model's file. This engine does not run it: nearly all of
//! them do nothing but write fixed texts around the messages, and a [`Template`] holds those.
//! `image-builder` finds them by running the program once, on the host; where that was not done,
//! [`recognise`] tells the usual programs by their text.
//!
//! What is written around messages and the messages themselves stay apart, as [`Segment`]s, up to the
//! tokenizer: names of control tokens count in the first and are text in the second, so that no
//! message can pose as another role.

#![forbid(unsafe_code)]
// No arithmetic wraps on a number of the file or of a message.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

mod known;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use known::{KNOWN, Known, by_name, recognise};

use crate::llm::Error;
use crate::llm::gguf::{Gguf, Value, ValueType};
pub use crate::llm::tokenizer::Segment;

/// What stands around the messages of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Before each message.
    pub prefix: String,
    /// Behind each message.
    pub suffix: String,
}

/// What stands around the messages of a conversation: a system message, if any, then messages of
/// the user and answers of the assistant in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Around the system message.
    pub system: Around,
    /// Around a message of the user.
    pub user: Around,
    /// Around an answer; what is before it asks for the answer.
    pub assistant: Around,
    /// Before the first message of the user where there is no system message, if that differs.
    pub first_user_prefix: Option<String>,
    /// Before the first message of the user where there is a system message, if that differs.
    pub after_system_prefix: Option<String>,
}

impl Template {
    /// A conversation from its start to where the first answer starts. An empty system message is
    /// none.
    pub fn open<'t>(&'t self, system: &'t str, message: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let prefix = if system.is_empty() {
            &self.first_user_prefix
        } else {
            segments.extend([
                Segment::Template(&self.system.prefix),
                Segment::Message(system),
                Segment::Template(&self.system.suffix),
            ]);
            &self.after_system_prefix
        };
        segments.push(Segment::Template(prefix.as_ref().unwrap_or(&self.user.prefix)));
        self.ask(message, &mut segments);
        segments
    }

    /// What follows an answer, to where the answer to the next message starts.
    pub fn go_on<'t>(&'t self, message: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        segments.push(Segment::Template(&self.assistant.suffix));
        segments.push(Segment::Template(&self.user.prefix));
        self.ask(message, &mut segments);
        segments
    }

    fn ask<'t>(&'t self, message: &'t str, segments: &mut Vec<Segment<'t>>) {
        segments.extend([
            Segment::Message(message),
            Segment::Template(&self.user.suffix),
            Segment::Template(&self.assistant.prefix),
        ]);
    }
}

/// What a model's file says about conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Whether it holds a template.
    pub has_template: bool,
    /// What is wrong with the template, if it is no text.
    pub problem: Option<String>,
    /// What its template was recognised as.
    pub known: Option<&'static Known>,
    /// The text of the token that begins a text; empty if there is none.
    pub bos: String,
    /// The text of the token that ends a text; empty if there is none.
    pub eos: String,
}

/// The key of the template.
pub const TEMPLATE: &str = "tokenizer.chat_template";

impl Declared {
    /// Reads it from a model's header. What is wrong there costs the chat, not the model: a template
    /// that is no UTF-8 is recognised by what of it is, and a token that is none has no text.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Self {
        let value = gguf.get(TEMPLATE);
        let text = value.and_then(Value::as_bytes).map(String::from_utf8_lossy);
        // As in llama.cpp, where a SentencePiece model does not name them.
        let is_sentence_piece = gguf.string("tokenizer.ggml.model") == Ok(Some("llama"));
        let default = |id| is_sentence_piece.then_some(id);
        Declared {
            has_template: value.is_some(),
            problem: template(gguf).err().map(|error| error.to_string()),
            known: text.and_then(|text| recognise(&text)),
            bos: token_text(gguf, "tokenizer.ggml.bos_token_id", default(1)),
            eos: token_text(gguf, "tokenizer.ggml.eos_token_id", default(2)),
        }
    }
}

/// The program of a model's template; `None` if there is none.
///
/// # Errors
/// [`Error::ParseError`] if it is no text, or no UTF-8.
pub fn template<'a>(gguf: &Gguf<'a>) -> Result<Option<&'a str>, Error> {
    gguf.string(TEMPLATE)
}

fn token_text(gguf: &Gguf<'_>, key: &str, default: Option<u64>) -> String {
    let id = gguf.unsigned(key).ok().flatten().or(default);
    let tokens = gguf.array("tokenizer.ggml.tokens", ValueType::String).ok().flatten();
    let id = id.and_then(|id| usize::try_from(id).ok());
    let text = id.zip(tokens).and_then(|(id, tokens)| tokens.strings().nth(id));
    text.map_or_else(String::new, |(text, _)| String::from_utf8_lossy(text).into_owned())
}
