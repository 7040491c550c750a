//! The vocabulary: text, score and kind of each token, and look-up by text.

use alloc::format;
use alloc::vec::Vec;

use super::automaton::Automaton;
use super::texts::{NotAdded, Texts};
use super::{SCORES, TOKENS, TYPES};
use crate::llm::gguf::{Gguf, ValueType};
use crate::llm::{Error, with_capacity};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Plain text (SentencePiece's "piece").
    Normal,
    /// Stands for text outside of the vocabulary.
    Unknown,
    /// Steers the model and has no text.
    Control,
    /// Added to the model by hand, found in any text.
    UserDefined,
    /// Of no use.
    Unused,
    /// One byte.
    Byte,
}

impl TokenKind {
    /// By its number in the file. As in llama.cpp, a token with an unknown number (0 is one) is no
    /// special token and has no text. Its bytes are found in texts all the same.
    fn numbered(number: u32) -> Self {
        match number {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            6 => TokenKind::Byte,
            _ => TokenKind::Unused,
        }
    }
}

/// All tokens.
#[derive(Debug)]
pub struct Vocab {
    /// The texts of the tokens, then other texts that merges go through.
    texts: Texts,
    kinds: Vec<TokenKind>,
    /// The merge that gives the token of the higher score comes first. Empty if the tokenizer ranks
    /// merges otherwise.
    scores: Vec<f32>,
    max_text_bytes: usize,
}

/// The name of a byte's token: `<0xNN>`.
pub fn byte_name(byte: u8) -> [u8; 6] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS[usize::from(value)];
    [b'<', b'0', b'x', digit(byte >> 4), digit(byte & 15), b'>']
}

/// The byte whose token has this name, in letters of either case.
pub fn byte_of(name: &[u8]) -> Option<u8> {
    let &[b'<', b'0', b'x', high, low, b'>'] = name else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

impl Vocab {
    /// Reads the vocabulary of a model, its scores only if asked.
    ///
    /// # Errors
    /// [`Error::ParseError`] if it is malformed or has a text twice, [`Error::OutOfMemory`].
    pub fn from_gguf(gguf: &Gguf<'_>, with_scores: bool) -> Result<Self, Error> {
        let Some(texts) = gguf.array(TOKENS, ValueType::String)? else {
            return Err(gguf.missing(TOKENS));
        };
        let n = texts.len();
        if n == 0 || i32::try_from(n).is_err() {
            return Err(gguf.invalid(TOKENS, "must have between 1 and 2^31 elements"));
        }
        let scores = gguf.array_of(SCORES, &[ValueType::F32, ValueType::I32])?;
        let kinds = gguf.array_of(TYPES, &[ValueType::I32, ValueType::U32])?;
        for (key, array) in [(SCORES, scores), (TYPES, kinds)] {
            // Elements behind the last token are ignored.
            if array.is_some_and(|array| array.len() < n) {
                return Err(gguf.invalid(key, "has not one element for each token"));
            }
        }
        let mut scores = scores.into_iter().flat_map(|array| array.numbers());
        let mut kinds = kinds.into_iter().flat_map(|array| array.words());

        let n_bytes = texts.strings().map(|(text, _)| text.len()).sum();
        let mut vocab = Vocab {
            texts: Texts::with_capacity(n, n_bytes)?,
            kinds: with_capacity(n, "the vocabulary")?,
            scores: with_capacity(if with_scores { n } else { 0 }, "the vocabulary")?,
            max_text_bytes: 0,
        };
        for (id, (text, at)) in texts.strings().enumerate() {
            let kind = TokenKind::numbered(kinds.next().unwrap_or(1));
            if kind == TokenKind::Byte && byte_of(text).is_none() {
                let what = format!("token {id} is a byte but is not named <0xNN>");
                return Err(Error::ParseError { what, at });
            }
            if with_scores {
                let score = scores.next().unwrap_or(0.0);
                if score.is_nan() {
                    return Err(gguf.invalid(SCORES, &format!("has no number for token {id}")));
                }
                vocab.scores.push(score);
            }
            vocab.texts.push(text).map_err(|not_added| match not_added {
                NotAdded::Twin(twin) => {
                    let what = format!("tokens {twin} and {id} have the same text");
                    Error::ParseError { what, at }
                }
                NotAdded::Crowded(crowded) => crowded.at(at),
                NotAdded::Error(error) => error,
            })?;
            vocab.kinds.push(kind);
            vocab.max_text_bytes = vocab.max_text_bytes.max(text.len());
        }
        Ok(vocab)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether there is a token of this number.
    pub fn contains(&self, token: u32) -> bool {
        (token as usize) < self.len()
    }

    /// The text of a token, as the file writes it, or of another numbered text.
    pub fn text(&self, number: u32) -> &[u8] {
        self.texts.get(number)
    }

    /// The score of a token.
    pub fn score(&self, token: u32) -> f32 {
        self.scores[token as usize]
    }

    /// The kind of a token.
    pub fn kind(&self, token: u32) -> TokenKind {
        self.kinds[token as usize]
    }

    /// Makes a token another kind.
    pub fn set_kind(&mut self, token: u32, kind: TokenKind) {
        self.kinds[token as usize] = kind;
    }

    /// All tokens with their kinds.
    pub fn kinds(&self) -> impl Iterator<Item = (u32, TokenKind)> {
        (0..).zip(self.kinds.iter().copied())
    }

    /// The token of this text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.texts.find(text).filter(|&number| self.contains(number))
    }

    /// The number of a text: a token's, or a number after all tokens. See [`Texts::number`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::ParseError`].
    pub fn number(&mut self, text: &[u8], at: u64) -> Result<u32, Error> {
        self.texts.number(text, at)
    }

    /// Bytes of the longest token's text.
    pub fn max_text_bytes(&self) -> usize {
        self.max_text_bytes
    }

    /// An automaton of the tokens for which `is_wanted` holds, except empty ones.
    ///
    /// `what` names the tokens in the error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn automaton(
        &self,
        is_wanted: impl Fn(TokenKind, &[u8]) -> bool,
        what: &'static str,
    ) -> Result<Automaton, Error> {
        let wanted = || {
            let all = self.kinds().map(|(token, kind)| (token, kind, self.text(token)));
            all.filter(|(_, kind, text)| !text.is_empty() && is_wanted(*kind, text))
        };
        let mut texts = with_capacity(wanted().count(), what)?;
        texts.extend(wanted().map(|(token, _, text)| (text, token)));
        Automaton::new(texts, what)
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let scores = self.scores.capacity().saturating_mul(size_of::<f32>());
        self.texts.memory_bytes().saturating_add(self.kinds.capacity()).saturating_add(scores)
    }
}
