//! `/tokenize`, `/detokenize`, `/apply-template` and the count of a chat's tokens.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::super::error::ApiError;
use super::super::{Served, to_json};
use super::chat::{Chat, Content};
use super::object::Object;
use super::prompt::{Prompt, check_tokens};
use super::{Endpoint, chat, fields};
use crate::llm::tokenizer::Tokenizer;

/// Appends the bytes of a token, as llama-server writes it: control tokens have their names.
pub fn push_piece(tokenizer: &Tokenizer, token: u32, out: &mut Vec<u8>) {
    let start = out.len();
    tokenizer.push_bytes(token, out);
    if out.len() == start {
        tokenizer.push_piece(token, out);
    }
}

/// The text of tokens, with the names of control tokens.
pub fn text(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let mut bytes = Vec::new();
    tokens.iter().for_each(|&token| push_piece(tokenizer, token, &mut bytes));
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Answers `POST /tokenize`.
///
/// # Errors
/// The body is malformed.
pub fn tokenize(body: &[u8], served: &Served<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Piece {
        Text(String),
        Bytes(Vec<u8>),
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Token {
        Number(u32),
        WithPiece { id: u32, piece: Piece },
    }
    #[derive(Serialize)]
    struct Tokens {
        tokens: Vec<Token>,
    }

    const CONTENT: &str = "content";
    let object = Object::from_body(body)?;
    let tokenizer = served.tokenizer;
    let add_special = object.switch("add_special", false)?;
    let parse_special = object.switch("parse_special", true)?;
    let with_pieces = object.switch("with_pieces", false)?;
    let tokens = match object.read::<Prompt>(CONTENT)? {
        Some(content) => {
            content.tokens(&object.name(CONTENT), tokenizer, add_special, parse_special)?
        }
        None => Vec::new(),
    };
    let token = |id| {
        if !with_pieces {
            return Token::Number(id);
        }
        let mut bytes = Vec::new();
        push_piece(tokenizer, id, &mut bytes);
        let piece = match String::from_utf8(bytes) {
            Ok(text) => Piece::Text(text),
            Err(error) => Piece::Bytes(error.into_bytes()),
        };
        Token::WithPiece { id, piece }
    };
    Ok(to_json(&Tokens { tokens: tokens.into_iter().map(token).collect() }))
}

/// Answers `POST /detokenize`.
///
/// # Errors
/// The body is malformed, or a token is not in the vocabulary.
pub fn detokenize(body: &[u8], served: &Served<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Content {
        content: String,
    }

    let object = Object::from_body(body)?;
    let tokens = object.read::<Vec<u32>>("tokens")?.unwrap_or_default();
    check_tokens(&object.name("tokens"), &tokens, served.tokenizer)?;
    Ok(to_json(&Content { content: text(served.tokenizer, &tokens) }))
}

/// Answers `POST /apply-template`: the text of a chat's prompt.
///
/// # Errors
/// As for a chat.
pub fn apply_template(body: &[u8], served: &Served<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Prompt {
        prompt: String,
    }

    let object = Object::from_body(body)?;
    fields::check(&object, Endpoint::Chat)?;
    let chat = Chat::read(&object, served, Content::Required)?;
    Ok(to_json(&Prompt { prompt: chat::text(&chat.segments(served)) }))
}

/// Answers `POST /v1/chat/completions/input_tokens`: the number of a chat's tokens.
///
/// # Errors
/// As for a chat.
pub fn count_tokens(body: &[u8], served: &Served<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Count {
        input_tokens: usize,
        object: &'static str,
    }

    let object = Object::from_body(body)?;
    fields::check(&object, Endpoint::Chat)?;
    let chat = Chat::read(&object, served, Content::Required)?;
    let input_tokens = served.tokenizer.encode_segments(&chat.segments(served), true).len();
    Ok(to_json(&Count { input_tokens, object: "response.input_tokens" }))
}
