//! What holds for any tokenizer and any text.

use kernel::llm::tokenizer::{Decoder, Segment, Tokenizer};

/// Encodes the text in all ways and decodes the tokens in two.
///
/// # Panics
/// A token does not exist, or the ways differ where they must not.
pub fn check_tokens(tokenizer: &Tokenizer, text: &[u8], special: bool) {
    let tokens = tokenizer.encode(text, special, special);
    assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.n_vocab()), "{tokens:?}");
    assert_eq!(tokens, tokenizer.encode(text, special, special), "the same text, other tokens");

    let decoded = tokenizer.decode(&tokens).expect("memory");
    let mut bytes = Vec::new();
    let mut longest = 0;
    for &token in &tokens {
        let before = bytes.len();
        tokenizer.push_bytes(token, &mut bytes);
        longest = longest.max(bytes.len() - before);
    }
    // The text is that of all bytes together, wherever tokens end.
    assert_eq!(decoded, String::from_utf8_lossy(&bytes));
    assert!(longest <= tokenizer.max_token_bytes());
    // A token that does not exist has no text.
    let mut decoder = Decoder::try_new(tokenizer.max_token_bytes()).expect("memory");
    let mut nothing = String::new();
    decoder.push(tokenizer, u32::MAX, &mut nothing);
    decoder.finish(&mut nothing);
    assert_eq!(nothing, "");

    // A text of one piece is the same as a text.
    if let Ok(text) = str::from_utf8(text) {
        let pieces = tokenizer.encode_segments(&[Segment::Template(text)], true);
        let mut whole = tokenizer.encode(text, false, true);
        if let Some(begin) = tokenizer.begin().filter(|begin| whole.first() != Some(begin)) {
            whole.insert(0, begin);
        }
        assert_eq!(pieces, whole);
    }
}

/// Whether no token of the vocabulary is one that stands for no text, as control tokens do.
pub fn tokens_have_text(tokenizer: &Tokenizer) -> bool {
    let mut bytes = Vec::new();
    (0..tokenizer.n_vocab() as u32).all(|token| {
        let before = bytes.len();
        tokenizer.push_bytes(token, &mut bytes);
        bytes.len() > before
    })
}

/// The texts of the tokens that SentencePiece's vocabularies have for the 256 bytes.
pub fn byte_tokens() -> impl Iterator<Item = String> {
    (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"))
}
