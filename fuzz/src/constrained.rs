//! Answers of a model of noise, held to a grammar.

use std::sync::Arc;

use kernel::llm::grammar::{Constraint, Grammar, TokenIndex, Trigger};
use kernel::llm::sampling::{Candidate, Sampler, SamplingConfig, SplitMix64};

use crate::served;

/// An answer.
pub enum Answer {
    /// It ended; the grammar, and the bytes of the tokens.
    Whole(Arc<Grammar>, Vec<u8>),
    /// It did not end, or the grammar was too large for it.
    Cut,
}

/// An answer of at most `n` tokens. The same seed gives the same answer.
pub fn answer(grammar: Grammar, seed: u8, n: usize) -> Answer {
    let grammar = Arc::new(grammar);
    let tokenizer = served::served().tokenizer;
    let index = Arc::new(TokenIndex::try_new(tokenizer).unwrap());
    let Ok(mut constraint) = Constraint::try_new(grammar.clone(), Trigger::Start, index) else {
        return Answer::Cut;
    };
    let mut sampler = Sampler::new(SamplingConfig::greedy());
    let mut scratch = vec![Candidate::default(); tokenizer.n_vocab()];
    let mut noise = SplitMix64::new(seed.into());
    let mut bytes = Vec::new();
    for _ in 0..n {
        let mut logits: Vec<f32> =
            (0..tokenizer.n_vocab()).map(|_| noise.next_unit() as f32).collect();
        for &end in tokenizer.ends() {
            logits[end as usize] += 1.0;
        }
        let Ok((token, _)) = constraint.sample(&mut sampler, &logits, &mut scratch) else {
            return Answer::Cut;
        };
        if tokenizer.is_end(token) {
            return Answer::Whole(grammar, bytes);
        }
        tokenizer.push_bytes(token, &mut bytes);
    }
    Answer::Cut
}
