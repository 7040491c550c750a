//! Byte-pair encoding in SentencePiece's manner (GGUF's tokenizer model `llama`): the pair comes
//! first whose token has the highest score.

use alloc::vec::Vec;

use super::SPACE;
use super::merge::Merger;
use super::vocab::Vocab;

/// Appends the tokens of `prefix` and `text` together; spaces in `text` are written as U+2581
/// first. Characters that no token has become their bytes' tokens, or `unk`.
pub fn encode(vocab: &Vocab, unk: Option<u32>, prefix: &str, text: &str, out: &mut Vec<u32>) {
    let escaped = [prefix, &text.replace(' ', SPACE)].concat();
    let mut merger =
        Merger::new(|_: &[u8], _: &[u8], both: &[u8]| Some(vocab.score(vocab.find(both)?)));
    merger.merge(&escaped, |text| match vocab.find(text) {
        Some(token) => out.push(token),
        None => out.extend(text.iter().filter_map(|&byte| vocab.byte(byte).or(unk))),
    });
}
