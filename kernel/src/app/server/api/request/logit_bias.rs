//! `logit_bias`: biases of tokens, named by number or by text.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{
    Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::super::error::ApiError;
use super::object::Object;
use crate::llm::tokenizer::Tokenizer;

const NAME: &str = "logit_bias";

/// Reads the biases: a map from tokens to biases, or a list of pairs.
///
/// A token is a number, or a text whose tokens all get the bias. In a map, a name of digits is a
/// number. A bias is a number, or `false`, which bans the token. `None`: the field is not there.
///
/// # Errors
/// The value has another form, or a token is not in the vocabulary.
pub fn read(
    object: &Object<'_>,
    tokenizer: &Tokenizer,
) -> Result<Option<Vec<(u32, f32)>>, ApiError> {
    let Some(Biases(named)) = object.read(NAME)? else { return Ok(None) };
    let mut biases = Vec::new();
    for (name, Bias(bias)) in named {
        match name {
            Named::Number(token) if (token as usize) < tokenizer.n_vocab() => {
                biases.push((token, bias));
            }
            Named::Number(token) => {
                return Err(object.error(NAME, format!("there is no token {token}")));
            }
            Named::Text(text) => {
                let tokens = tokenizer.encode(&text, false, false);
                biases.extend(tokens.into_iter().map(|token| (token, bias)));
            }
        }
    }
    Ok(Some(biases))
}

/// A token of a request.
enum Named {
    Number(u32),
    Text(String),
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token by its number or text")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Named, E> {
                let wrong = || E::invalid_value(Unexpected::Unsigned(number), &self);
                number.try_into().map(Named::Number).map_err(|_| wrong())
            }

            fn visit_str<E>(self, text: &str) -> Result<Named, E> {
                Ok(Named::Text(text.into()))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// A bias of a request.
struct Bias(f32);

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Bias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or false")
            }

            fn visit_bool<E: serde::de::Error>(self, is_allowed: bool) -> Result<Bias, E> {
                match is_allowed {
                    false => Ok(Bias(f32::NEG_INFINITY)),
                    true => Err(E::invalid_value(Unexpected::Bool(true), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, bias: i64) -> Result<Bias, E> {
                self.visit_f64(bias as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, bias: u64) -> Result<Bias, E> {
                self.visit_f64(bias as f64)
            }

            fn visit_f64<E: serde::de::Error>(self, bias: f64) -> Result<Bias, E> {
                match (bias as f32).is_finite() {
                    true => Ok(Bias(bias as f32)),
                    false => Err(E::invalid_value(Unexpected::Float(bias), &self)),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// A pair of a token and its bias.
struct Pair(Named, Bias);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of a token and its bias")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Pair, A::Error> {
                let wrong = |n| A::Error::invalid_length(n, &self);
                let token = pair.next_element()?.ok_or_else(|| wrong(0))?;
                let bias = pair.next_element()?.ok_or_else(|| wrong(1))?;
                match pair.next_element::<IgnoredAny>()? {
                    None => Ok(Pair(token, bias)),
                    Some(_) => Err(wrong(3)),
                }
            }
        }

        deserializer.deserialize_seq(Reader)
    }
}

/// All biases of a request.
struct Biases(Vec<(Named, Bias)>);

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Biases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map or a list of tokens and biases")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Biases, A::Error> {
                let mut biases = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let named = name.parse().map_or_else(|_| Named::Text(name), Named::Number);
                    biases.push((named, map.next_value()?));
                }
                Ok(Biases(biases))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Biases, A::Error> {
                let mut biases = Vec::new();
                while let Some(Pair(named, bias)) = list.next_element()? {
                    biases.push((named, bias));
                }
                Ok(Biases(biases))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
