//! DRY, "don't repeat yourself" (p-e-w, 2024), as in llama.cpp.
//!
//! DRY lowers the logits of tokens that would continue a repetition, more for a longer one.

use alloc::vec::Vec;

use super::history::History;
use super::{Candidate, SamplingConfig};
use crate::llm::tokenizer::Tokenizer;
use crate::llm::{Error, with_capacity};

/// Sequence breakers by default, as in llama.cpp.
pub const DEFAULT_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
/// The longest sequence breaker, in bytes.
pub const MAX_BREAKER_BYTES: usize = 40;
/// The most tokens of a breaker after the first one that are compared.
const MAX_TAIL: usize = 20;

/// Sequence breakers: texts that end a repetition, as tokens.
///
/// A repetition never goes across a breaker.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    /// Pairs of a token that starts or holds a breaker, and the tokens that follow it.
    ///
    /// Sorted, without duplicates.
    sequences: Vec<(u32, Vec<u32>)>,
}

impl Breakers {
    /// The tokens of these texts.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new<T: AsRef<str>>(texts: &[T], tokenizer: &Tokenizer) -> Result<Self, Error> {
        const WHAT: &str = "the sequence breakers";
        let mut sequences = Vec::new();
        let mut add = |token: u32, tail: Vec<u32>| {
            let asked = (sequences.len() + 1) * size_of::<(u32, Vec<u32>)>();
            let no_memory = Error::OutOfMemory { what: WHAT, asked: asked as u64 };
            sequences.try_reserve(1).map_err(|_| no_memory)?;
            sequences.push((token, tail));
            Ok(())
        };
        let mut piece = with_capacity(tokenizer.max_token_bytes(), WHAT)?;
        for token in 0..tokenizer.n_vocab() as u32 {
            piece.clear();
            tokenizer.push_piece(token, &mut piece);
            for text in texts.iter().map(|text| text.as_ref().as_bytes()) {
                if text.is_empty() {
                    continue;
                }
                if piece.windows(text.len()).any(|window| window == text) {
                    add(token, Vec::new())?;
                    continue;
                }
                // The token may end within the breaker. Then following tokens hold the rest.
                for n in (1..text.len()).filter(|&n| piece.ends_with(&text[..n])) {
                    let mut tail = tokenizer.encode(&text[n..], false, false);
                    tail.truncate(MAX_TAIL);
                    add(token, tail)?;
                }
            }
        }
        sequences.sort_unstable();
        sequences.dedup();
        Ok(Breakers { sequences })
    }

    /// The tokens that may follow `token` in a breaker.
    fn tails(&self, token: u32) -> impl Iterator<Item = &[u32]> {
        let start = self.sequences.partition_point(|&(head, _)| head < token);
        let same = self.sequences[start..].iter().take_while(move |&&(head, _)| head == token);
        same.map(|(_, tail)| &tail[..])
    }

    /// Number of tokens after the last breaker.
    fn since_last(&self, text: &History) -> usize {
        for n in 0..text.len() {
            let is_here = |tail: &[u32]| {
                tail.len() <= n && (1..).zip(tail).all(|(i, &token)| text.back(n - i) == token)
            };
            let longest = self.tails(text.back(n)).filter(|tail| is_here(tail)).map(<[u32]>::len);
            if let Some(longest) = longest.max() {
                return n - longest;
            }
        }
        text.len()
    }
}

/// The state of DRY: the text and its repetitions.
#[derive(Clone, Debug)]
pub struct Dry {
    text: History,
    breakers: Breakers,
    has_breakers: bool,
    /// For each distance from the end: the length of the repetition of the text's end.
    lengths: Vec<usize>,
    /// Tokens with the length of the repetition that each would continue.
    repeats: Vec<(u32, usize)>,
}

impl Dry {
    /// DRY of an empty text, which searches the last `last_n` tokens.
    ///
    /// It allocates nothing later.
    pub fn new(last_n: usize) -> Self {
        Dry {
            text: History::new(last_n),
            breakers: Breakers::default(),
            has_breakers: false,
            lengths: Vec::with_capacity(last_n),
            repeats: Vec::with_capacity(last_n),
        }
    }

    /// Sets the sequence breakers.
    pub fn set_breakers(&mut self, breakers: Breakers) {
        self.breakers = breakers;
        self.has_breakers = true;
    }

    /// Whether the sequence breakers were set.
    pub fn has_breakers(&self) -> bool {
        self.has_breakers
    }

    /// Appends a token of the text.
    pub fn push(&mut self, token: u32) {
        self.text.push(token);
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// Lowers the logits of tokens that would continue a repetition.
    ///
    /// `candidates` are in the order of the vocabulary.
    pub fn penalize(&mut self, config: &SamplingConfig, candidates: &mut [Candidate]) {
        let allowed = config.dry_allowed_length;
        let limit = self.breakers.since_last(&self.text);
        if self.text.len() <= allowed || limit < allowed {
            return;
        }
        self.find_repeats(limit, allowed);
        // A bound of the exponent, so that the power does not overflow.
        let most = match config.dry_base {
            base if base > 1.000_001 => (88.722_84 / libm::logf(base)) as usize,
            _ => usize::MAX,
        };
        for &(token, length) in &self.repeats {
            let Some(candidate) = super::find(candidates, token) else { continue };
            if self.breakers.tails(token).any(<[u32]>::is_empty) {
                continue;
            }
            let power = libm::pow(config.dry_base.into(), (length - allowed).min(most) as f64);
            candidate.logit -= (f64::from(config.dry_multiplier) * power) as f32;
        }
    }

    /// Finds the tokens that would continue a repetition of at least `allowed` tokens.
    ///
    /// A repetition counts as at most `limit` tokens.
    fn find_repeats(&mut self, limit: usize, allowed: usize) {
        let Dry { text, lengths, repeats, .. } = self;
        // The Z algorithm, from the end: the `lengths[n]` tokens before the last n equal the last
        // ones. `start..end` is the latest passage that repeats the end.
        lengths.clear();
        lengths.push(0);
        repeats.clear();
        let (mut start, mut end) = (0, 0);
        for n in 1..text.len() {
            let known = if n < end { lengths[n - start].min(end - n) } else { 0 };
            let mut length = known;
            while n + length < text.len() && text.back(length) == text.back(n + length) {
                length += 1;
            }
            if n + length > end {
                (start, end) = (n, n + length);
            }
            lengths.push(length);
            if length.min(limit) >= allowed {
                // The token after that passage.
                repeats.push((text.back(n - 1), length.min(limit)));
            }
        }
        // The longest repetition of each token.
        repeats.sort_unstable_by_key(|&(token, length)| (token, usize::MAX - length));
        repeats.dedup_by_key(|&mut (token, _)| token);
    }
}
