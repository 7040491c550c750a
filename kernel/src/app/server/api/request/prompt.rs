//! `prompt`: texts, tokens, and lists of them.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};

use super::super::error::ApiError;
use crate::llm::tokenizer::Tokenizer;

/// The most prompts, or texts between tokens, of a request.
const MAX_PARTS: usize = 1024;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Text to tokenize.
    Text(String),
    /// Tokens in a row.
    Tokens(Vec<u32>),
}

/// A prompt: a text, tokens, or both in turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt(Vec<Part>);

impl Prompt {
    /// The tokens of the prompt.
    ///
    /// With `add_special`, the model's begin and end tokens are added to a text that starts the
    /// prompt. With `parse_special`, names of control tokens in texts are those tokens.
    ///
    /// # Errors
    /// A token is not in the vocabulary.
    pub fn tokens(
        self,
        name: &str,
        tokenizer: &Tokenizer,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, ApiError> {
        let mut tokens = Vec::new();
        for (i, part) in self.0.into_iter().enumerate() {
            match part {
                Part::Text(text) => {
                    tokens.extend(tokenizer.encode(&text, add_special && i == 0, parse_special));
                }
                Part::Tokens(part) => {
                    check_tokens(name, &part, tokenizer)?;
                    tokens.extend(part);
                }
            }
        }
        Ok(tokens)
    }
}

/// Checks that tokens are in the vocabulary.
///
/// # Errors
/// One is not.
pub fn check_tokens(name: &str, tokens: &[u32], tokenizer: &Tokenizer) -> Result<(), ApiError> {
    match tokens.iter().find(|&&token| token as usize >= tokenizer.n_vocab()) {
        Some(token) => Err(ApiError::field(name, format!("there is no token {token}"))),
        None => Ok(()),
    }
}

/// The prompts of a request: one, or a list without tokens of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts(pub Vec<Prompt>);

/// An element of a list.
enum Element {
    Text(String),
    Token(u32),
    Prompt(Prompt),
}

const EXPECTED: &str = "a text, a token, or a list of them";

struct ElementReader;

impl<'de> Visitor<'de> for ElementReader {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, token: u64) -> Result<Element, E> {
        let wrong = || E::invalid_value(Unexpected::Unsigned(token), &self);
        token.try_into().map(Element::Token).map_err(|_| wrong())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
        match read_list(list)? {
            Elements::Parts(parts) => Ok(Element::Prompt(Prompt(parts))),
            Elements::Prompts(prompts) => match <[Prompt; 1]>::try_from(prompts) {
                Ok([prompt]) => Ok(Element::Prompt(prompt)),
                Err(_) => Err(A::Error::custom("a list in a list holds one prompt")),
            },
        }
    }

    /// An object with the field `prompt_string`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        let mut prompt = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "prompt_string" => prompt = Some(map.next_value::<Prompt>()?),
                _ => return Err(A::Error::custom(format!("`{name}` is not supported"))),
            }
        }
        prompt.map(Element::Prompt).ok_or_else(|| A::Error::missing_field("prompt_string"))
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementReader)
    }
}

/// The contents of a list.
enum Elements {
    /// Tokens, and texts between: one prompt.
    Parts(Vec<Part>),
    /// A prompt each.
    Prompts(Vec<Prompt>),
}

/// Reads a list. Tokens in a row become one part, so that the list takes little memory.
fn read_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Elements, A::Error> {
    let mut parts: Vec<Part> = Vec::new();
    let mut prompts: Vec<(usize, Prompt)> = Vec::new();
    while let Some(element) = list.next_element()? {
        match (element, parts.last_mut()) {
            (Element::Token(token), Some(Part::Tokens(tokens))) => tokens.push(token),
            (Element::Token(token), _) => parts.push(Part::Tokens(vec![token])),
            (Element::Text(text), _) => parts.push(Part::Text(text)),
            (Element::Prompt(prompt), _) => prompts.push((parts.len(), prompt)),
        }
        if parts.len().saturating_add(prompts.len()) > MAX_PARTS {
            return Err(A::Error::custom(format!("more than {MAX_PARTS} texts and lists")));
        }
    }
    let has_tokens = parts.iter().any(|part| matches!(part, Part::Tokens(_)));
    match (has_tokens, prompts.is_empty()) {
        (true, true) => Ok(Elements::Parts(parts)),
        (true, false) => Err(A::Error::custom("a list holds either tokens or prompts")),
        (false, _) => {
            // Each prompt goes where it stood among the texts.
            let mut all = Vec::with_capacity(parts.len().saturating_add(prompts.len()));
            let mut prompts = prompts.into_iter().peekable();
            for (i, part) in parts.into_iter().enumerate() {
                while let Some((_, prompt)) = prompts.next_if(|(place, _)| *place <= i) {
                    all.push(prompt);
                }
                all.push(Prompt(vec![part]));
            }
            all.extend(prompts.map(|(_, prompt)| prompt));
            Ok(Elements::Prompts(all))
        }
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts or tokens")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Prompt(vec![Part::Text(text.into())])]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Prompts, A::Error> {
                Ok(match read_list(list)? {
                    Elements::Parts(parts) => Prompts(vec![Prompt(parts)]),
                    Elements::Prompts(prompts) => Prompts(prompts),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Prompts, A::Error> {
                match ElementReader.visit_map(map)? {
                    Element::Prompt(prompt) => Ok(Prompts(vec![prompt])),
                    _ => Err(A::Error::custom(EXPECTED)),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts and tokens")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt(vec![Part::Text(text.into())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Prompt, A::Error> {
                match read_list(list)? {
                    Elements::Parts(parts) => Ok(Prompt(parts)),
                    // Texts in a row are one prompt here.
                    Elements::Prompts(prompts) => {
                        Ok(Prompt(prompts.into_iter().flat_map(|prompt| prompt.0).collect()))
                    }
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
