//! The text of an answer: whole characters, up to a stop string.

use alloc::string::String;
use alloc::vec::Vec;

use super::stop::StopWords;
use crate::llm::tokenizer::{Decoder, Tokenizer};
use crate::llm::{Error, with_capacity};

/// The name of the answer's memory in errors.
const WHAT: &str = "the answer";

/// The part of an answer that is not given out yet.
#[derive(Debug)]
pub struct Answer {
    decoder: Decoder,
    words: StopWords,
    /// Text that is not given out.
    held: String,
    /// Bytes of `held` that the stop strings have seen.
    n_seen: usize,
    /// Tokens whose text is not given out: the place in `held` of their text, and their number.
    tokens: Vec<(usize, usize)>,
    /// Control tokens whose names belong to the text.
    shown: Vec<(u32, String)>,
}

/// The answer's end by a stop string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The number of the stop string.
    pub word: usize,
    /// Tokens whose text begins within the match or behind it.
    pub n_dropped: usize,
}

impl Answer {
    /// An empty answer, which never allocates again.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_new(tokenizer: &Tokenizer, stop: Vec<String>, shown: &[u32]) -> Result<Self, Error> {
        let words = StopWords::try_new(stop.into_iter())?;
        // Each byte of a token, and of a character before it, may become a U+FFFD.
        let token = tokenizer.max_token_bytes().saturating_add(4);
        let asked = words.longest().saturating_add(token.saturating_mul(3));
        let mut held = String::new();
        let no_memory = |_| Error::OutOfMemory { what: WHAT, asked: asked as u64 };
        held.try_reserve_exact(asked).map_err(no_memory)?;
        // The tokens' places are all different, and at most the length of what is held.
        let tokens = with_capacity(words.longest().saturating_add(1), WHAT)?;
        let decoder = Decoder::try_new(tokenizer.max_token_bytes())?;
        let name = |&token: &u32| {
            let mut bytes = Vec::new();
            tokenizer.push_piece(token, &mut bytes);
            (token, String::from_utf8_lossy(&bytes).into_owned())
        };
        let shown = shown.iter().map(name).collect();
        Ok(Answer { decoder, words, held, n_seen: 0, tokens, shown })
    }

    /// Appends a token.
    ///
    /// Returns the bytes of [`Answer::text`] that may be given out. After a stop string, they are
    /// the last ones.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> (usize, Option<Stopped>) {
        match self.tokens.last_mut() {
            Some((place, n)) if *place == self.held.len() => *n += 1,
            _ => self.tokens.push((self.held.len(), 1)),
        }
        match self.shown.iter().find(|(shown, _)| *shown == token) {
            Some((_, name)) => {
                self.decoder.finish(&mut self.held);
                self.held.push_str(name);
            }
            None => self.decoder.push(tokenizer, token, &mut self.held),
        }
        self.search()
    }

    /// The text that is not given out.
    pub fn text(&self) -> &str {
        &self.held
    }

    /// Removes the first `n` bytes of [`Answer::text`], which were given out.
    pub fn give_out(&mut self, n: usize) {
        self.held.drain(..n);
        self.n_seen -= n;
        // A token without text counts with the token behind it. If there is none, it is over.
        let is_over = self.held.is_empty() && self.decoder.is_empty();
        self.tokens.retain_mut(|(place, _)| {
            let is_held = *place >= n && !is_over;
            *place = place.saturating_sub(n);
            is_held
        });
    }

    /// Ends the answer, and returns the rest of its text.
    ///
    /// A cut off character becomes U+FFFD, which may complete a stop string.
    pub fn finish(&mut self) -> (String, Option<Stopped>) {
        self.decoder.finish(&mut self.held);
        let (n, stopped) = self.search();
        if stopped.is_some() {
            self.held.truncate(n);
        }
        (core::mem::take(&mut self.held), stopped)
    }

    /// Searches new text for stop strings.
    fn search(&mut self) -> (usize, Option<Stopped>) {
        while let Some(&byte) = self.held.as_bytes().get(self.n_seen) {
            self.n_seen += 1;
            if let Some(found) = self.words.push(byte) {
                let start = self.n_seen - found.len;
                let dropped = self.tokens.iter().filter(|(place, _)| *place >= start);
                let n_dropped = dropped.map(|(_, n)| n).sum();
                return (start, Some(Stopped { word: found.word, n_dropped }));
            }
        }
        (self.held.len() - self.words.n_held(), None)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::llm::gguf::Gguf;
    use crate::llm::gguf::write::Builder;

    #[test]
    fn control_tokens_that_are_shown_are_text_in_their_place() {
        let texts = ["<unk>", "<s>", "</s>", "[CALL]", "<0xC3>", "a", "[HIDDEN]"];
        let file = Builder::new()
            .string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", &texts)
            .f32s("tokenizer.ggml.scores", &[0.0; 7])
            .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 3, 6, 1, 3])
            .build();
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
        let text = |shown: &[u32], stop: Vec<String>| {
            let mut answer = Answer::try_new(&tokenizer, stop, shown).unwrap();
            let mut text = String::new();
            for token in [5, 3, 6, 4, 3, 5] {
                let (n, stopped) = answer.push(&tokenizer, token);
                text.push_str(&answer.text()[..n]);
                if stopped.is_some() {
                    return text;
                }
                answer.give_out(n);
            }
            text + &answer.finish().0
        };
        assert_eq!(text(&[], vec![]), "a\u{fffd}a");
        // The byte before it is no character any more.
        assert_eq!(text(&[3], vec![]), "a[CALL]\u{fffd}[CALL]a");
        assert_eq!(text(&[3], vec!["ALL]\u{fffd}".into()]), "a[C");
    }
}
