//! Decodes tokens to text.

use alloc::string::String;
use alloc::vec::Vec;

use super::Tokenizer;
use crate::llm::{Error, with_capacity};

/// The replacement for bytes that are not UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// Collects the bytes of tokens, and emits whole characters.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of an incomplete character: at most three between calls.
    held: Vec<u8>,
}

impl Decoder {
    /// An empty decoder that never allocates for tokens up to `max_token_bytes`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(max_token_bytes: usize) -> Result<Self, Error> {
        let held = with_capacity(max_token_bytes.saturating_add(3), "the text of a token")?;
        Ok(Decoder { held })
    }

    /// Whether no byte of an incomplete character is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Appends to `out` the text that is complete with this token.
    ///
    /// Bytes that no further byte can complete become U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32, out: &mut String) {
        tokenizer.push_bytes(token, &mut self.held);
        let mut held = &self.held[..];
        loop {
            match core::str::from_utf8(held) {
                Ok(text) => {
                    out.push_str(text);
                    self.held.clear();
                    return;
                }
                Err(error) => {
                    let (valid, rest) = held.split_at(error.valid_up_to());
                    // It was just found to be valid.
                    out.push_str(core::str::from_utf8(valid).unwrap_or_default());
                    let Some(len) = error.error_len() else {
                        let done = self.held.len().saturating_sub(rest.len());
                        self.held.drain(..done);
                        return;
                    };
                    out.push_str(REPLACEMENT);
                    held = &rest[len..];
                }
            }
        }
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            out.push_str(REPLACEMENT);
            self.held.clear();
        }
    }
}
