//! The vocabulary: the text, score and kind of each token, and the way from a text to its token.

use alloc::format;
use alloc::vec::Vec;

use super::TokenKind;
use crate::llm::gguf::{Gguf, ValueType};
use crate::llm::{Error, with_capacity};

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// All tokens.
#[derive(Debug)]
pub struct Vocab {
    /// The texts, one after the other.
    bytes: Vec<u8>,
    tokens: Vec<Token>,
    /// Tokens by their text, in order; those without a text are missing.
    by_text: Vec<u32>,
    /// The token of each byte.
    byte_tokens: [Option<u32>; 256],
}

#[derive(Clone, Copy, Debug)]
struct Token {
    start: usize,
    end: usize,
    score: f32,
    kind: TokenKind,
}

/// The byte that the name of a byte token (`<0xNN>`) gives.
pub fn byte_of(text: &[u8]) -> Option<u8> {
    let &[b'<', b'0', b'x', high, low, b'>'] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn kind_of(id: i32) -> Option<TokenKind> {
    match id {
        1 => Some(TokenKind::Normal),
        2 => Some(TokenKind::Unknown),
        3 => Some(TokenKind::Control),
        4 => Some(TokenKind::UserDefined),
        5 => Some(TokenKind::Unused),
        6 => Some(TokenKind::Byte),
        _ => None,
    }
}

impl Vocab {
    /// Reads the vocabulary of a model.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let Some(texts) = gguf.array(TOKENS, ValueType::String)? else {
            return Err(gguf.missing(TOKENS));
        };
        let n = texts.len();
        if n == 0 || i32::try_from(n).is_err() {
            return Err(gguf.invalid(TOKENS, "must have between 1 and 2^31 elements"));
        }
        let scores = gguf.array(SCORES, ValueType::F32)?;
        let kinds = gguf.array(TYPES, ValueType::I32)?;
        for (key, array) in [(SCORES, scores), (TYPES, kinds)] {
            if array.is_some_and(|array| array.len() != n) {
                return Err(gguf.invalid(key, "has not one element for each token"));
            }
        }
        let mut scores = scores.into_iter().flat_map(|array| array.f32s());
        let mut kinds = kinds.into_iter().flat_map(|array| array.i32s());

        let n_bytes = texts.strings().map(|(text, _)| text.len()).sum::<usize>();
        let what = "the vocabulary";
        let mut vocab = Vocab {
            bytes: with_capacity(n_bytes, what)?,
            tokens: with_capacity(n, what)?,
            by_text: with_capacity(n, what)?,
            byte_tokens: [None; 256],
        };
        for (id, (text, at)) in (0..).zip(texts.strings()) {
            let kind_id = kinds.next().unwrap_or(1);
            let Some(kind) = kind_of(kind_id) else {
                return Err(gguf.invalid(TYPES, &format!("has {kind_id} for token {id}")));
            };
            let score = scores.next().unwrap_or(0.0);
            if score.is_nan() {
                return Err(gguf.invalid(SCORES, &format!("has no number for token {id}")));
            }
            if kind == TokenKind::Byte {
                let Some(byte) = byte_of(text) else {
                    let what = format!("token {id} is a byte but is not named <0xNN>");
                    return Err(Error::ParseError { what, at });
                };
                vocab.byte_tokens[usize::from(byte)] = Some(id);
            }
            let start = vocab.bytes.len();
            vocab.bytes.extend_from_slice(text);
            vocab.tokens.push(Token { start, end: vocab.bytes.len(), score, kind });
            if !text.is_empty() {
                vocab.by_text.push(id);
            }
        }
        let mut by_text = core::mem::take(&mut vocab.by_text);
        by_text.sort_unstable_by(|&a, &b| vocab.text(a).cmp(vocab.text(b)).then(a.cmp(&b)));
        if let Some(twins) = by_text.windows(2).find(|w| vocab.text(w[0]) == vocab.text(w[1])) {
            let what = format!("tokens {} and {} have the same text", twins[0], twins[1]);
            let at = texts.strings().nth(twins[1] as usize).map_or(0, |(_, at)| at);
            return Err(Error::ParseError { what, at });
        }
        vocab.by_text = by_text;
        Ok(vocab)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is a token of this number.
    pub fn contains(&self, token: u32) -> bool {
        (token as usize) < self.tokens.len()
    }

    /// The text of a token, spaces written as U+2581.
    pub fn text(&self, token: u32) -> &[u8] {
        let Token { start, end, .. } = self.tokens[token as usize];
        &self.bytes[start..end]
    }

    /// The score of a token: of two merges, the one that gives the higher score comes first.
    pub fn score(&self, token: u32) -> f32 {
        self.tokens[token as usize].score
    }

    /// What a token is.
    pub fn kind(&self, token: u32) -> TokenKind {
        self.tokens[token as usize].kind
    }

    /// The token of this text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        let place = self.by_text.binary_search_by(|&token| self.text(token).cmp(text)).ok()?;
        Some(self.by_text[place])
    }

    /// The token of this byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        self.byte_tokens[usize::from(byte)].or_else(|| self.find(&[byte]))
    }

    /// All tokens of these kinds.
    pub fn of_kinds(&self, kinds: &[TokenKind]) -> Vec<u32> {
        let all = (0..).zip(&self.tokens);
        all.filter(|(_, token)| kinds.contains(&token.kind)).map(|(id, _)| id).collect()
    }

    /// Bytes of the longest text.
    pub fn max_text_bytes(&self) -> usize {
        self.tokens.iter().map(|token| token.end - token.start).max().unwrap_or(0)
    }
}
