//! Chat templates: the texts around the messages of a conversation.
//!
//! A template is a program (Jinja) in the model's file. This engine does not run the program.
//! Nearly all templates only write fixed texts around the messages, and a [`Template`] holds these
//! texts. `image-builder` finds the texts by running the program once, on the host. Without
//! `image-builder`, [`recognise`] recognises the usual programs by their text.
//!
//! The template's texts and the messages stay apart as [`Segment`]s up to the tokenizer. Names of
//! control tokens count in a template's text only, so that no message can pose as another role.

#![forbid(unsafe_code)]
// No arithmetic wraps on a number of the file or of a message.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

pub mod calls;
pub mod conversation;
pub mod json;
mod known;
mod known_tools;
mod signature;
#[cfg(test)]
mod tests;
pub mod tools;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use known::{KNOWN, Known, by_name, recognise};
pub use known_tools::KnownTools;
use tools::ToolTexts;

use crate::llm::Error;
use crate::llm::gguf::{Gguf, Value, ValueType};
pub use crate::llm::tokenizer::Segment;

/// The texts around the messages of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Before each message.
    pub prefix: String,
    /// Behind each message.
    pub suffix: String,
}

/// The texts around the messages of a conversation.
///
/// A conversation is a system message, if any, then messages of the user and answers of the
/// assistant, alternating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Around the system message.
    pub system: Around,
    /// Around a message of the user.
    pub user: Around,
    /// Around an answer. The prefix asks for the answer.
    pub assistant: Around,
    /// Before the user's first message without a system message, if different.
    pub first_user_prefix: Option<String>,
    /// Before the user's first message after a system message, if different.
    pub after_system_prefix: Option<String>,
    /// The texts around tools, calls and results; `None`: the template has no such texts.
    pub tools: Option<Box<ToolTexts>>,
}

impl Template {
    /// A conversation up to the start of the first answer.
    ///
    /// An empty system message counts as no system message.
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

    /// The segments from the end of an answer to the start of the next answer.
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

/// A model's chat template and its tokens, as the file declares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Whether it holds a template.
    pub has_template: bool,
    /// The reason why the template is no text, if so.
    pub problem: Option<String>,
    /// The known template that the file's template was recognised as.
    pub known: Option<&'static Known>,
    /// The known texts around tools that the file's template was recognised to have.
    pub tools: Option<KnownTools>,
    /// The text of the token that begins a text; empty if there is none.
    pub bos: String,
    /// The text of the token that ends a text; empty if there is none.
    pub eos: String,
}

/// The key of the template.
pub const TEMPLATE: &str = "tokenizer.chat_template";

impl Declared {
    /// Reads the declaration from a model's header.
    ///
    /// A fault there costs the chat, not the model. A template that is not UTF-8 is recognised by
    /// its valid parts. An invalid token has no text.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Self {
        let value = gguf.get(TEMPLATE);
        let text = value.and_then(Value::as_bytes).map(String::from_utf8_lossy);
        // As in llama.cpp, where a SentencePiece model does not name them.
        let is_sentence_piece = gguf.string("tokenizer.ggml.model") == Ok(Some("llama"));
        let default = |id| is_sentence_piece.then_some(id);
        Declared {
            has_template: value.is_some(),
            problem: template(gguf).err().map(|error| error.to_string()),
            known: text.as_deref().and_then(recognise),
            tools: text.as_deref().and_then(KnownTools::recognise),
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
