//! Joins the bytes of tokens to text.

use alloc::string::String;
use alloc::vec::Vec;

use super::Tokenizer;
use crate::llm::{Error, with_capacity};

/// What stands for bytes that are no UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// Collects the bytes of tokens and gives out whole characters.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of a character that is not yet whole: at most three between calls.
    held: Vec<u8>,
}

impl Decoder {
    /// An empty decoder that need not allocate for tokens of up to `max_token_bytes` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(max_token_bytes: usize) -> Result<Self, Error> {
        let held = with_capacity(max_token_bytes.saturating_add(3), "the text of a token")?;
        Ok(Decoder { held })
    }

    /// Appends to `out` the text that is whole with this token. Bytes that no further ones can
    /// make whole become U+FFFD.
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

    /// Ends the text: a character that is not whole becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            out.push_str(REPLACEMENT);
            self.held.clear();
        }
    }
}
