//! The hyperparameters of a model: keys that start with its architecture's name.

use alloc::format;
use alloc::string::String;

use crate::llm::Error;
use crate::llm::gguf::{Gguf, Value};

/// The shape of a model, from its header.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Layers.
    pub n_layer: usize,
    /// Width of the embedding.
    pub n_embd: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Heads of keys and values; each serves `n_head / n_head_kv` attention heads.
    pub n_head_kv: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions that the model was trained for.
    pub n_ctx_train: usize,
}

impl Shape {
    /// Width of keys, or of values, of all heads.
    pub fn n_embd_kv(&self) -> usize {
        self.n_head_kv * self.head_size
    }

    /// Width of the queries of all heads.
    pub fn n_embd_q(&self) -> usize {
        self.n_head * self.head_size
    }

    /// Width of queries, keys and values together.
    pub fn n_embd_qkv(&self) -> usize {
        self.n_embd_q() + 2 * self.n_embd_kv()
    }

    /// Reads the shape of a model with a vocabulary of `n_vocab` tokens.
    ///
    /// # Errors
    /// [`Error::ParseError`] if a number is missing or invalid, [`Error::Unsupported`] if the
    /// engine does not support a number.
    pub fn read(header: &Header<'_, '_>, n_vocab: usize) -> Result<Self, Error> {
        if header.optional_or_zero("expert_count")? > 0 {
            let what = format!("experts (`{}`)", header.key("expert_count"));
            return Err(Error::Unsupported { what });
        }
        let n_layer = header.required("block_count")?;
        let n_embd = header.required("embedding_length")?;
        let n_head = header.of_layers("attention.head_count", n_layer)?;
        let n_head = n_head.ok_or_else(|| header.missing("attention.head_count"))?;
        let n_head_kv = header.of_layers("attention.head_count_kv", n_layer)?.unwrap_or(n_head);
        if !n_head.is_multiple_of(n_head_kv) {
            let why = format!("is {n_head_kv}, which does not divide the {n_head} heads");
            return Err(header.invalid("attention.head_count_kv", &why));
        }
        let head_size = match header.optional("attention.key_length")? {
            Some(size) => size,
            None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
            None => {
                let why = format!("is {n_head}, which does not divide the width {n_embd}");
                return Err(header.invalid("attention.head_count", &why));
            }
        };
        if header.optional("attention.value_length")?.unwrap_or(head_size) != head_size {
            return Err(Error::Unsupported { what: "values of another width than keys".into() });
        }
        let n_ff = header.of_layers("feed_forward_length", n_layer)?;
        Ok(Shape {
            n_layer,
            n_embd,
            n_head,
            n_head_kv,
            head_size,
            n_ff: n_ff.ok_or_else(|| header.missing("feed_forward_length"))?,
            n_vocab,
            n_ctx_train: header.required("context_length")?,
        })
    }
}

/// The header of a model of one architecture.
pub struct Header<'f, 'a> {
    gguf: &'f Gguf<'a>,
    architecture: &'static str,
}

impl<'f, 'a> Header<'f, 'a> {
    /// The keys of this architecture.
    pub fn new(gguf: &'f Gguf<'a>, architecture: &'static str) -> Self {
        Header { gguf, architecture }
    }

    /// The file.
    pub fn gguf(&self) -> &'f Gguf<'a> {
        self.gguf
    }

    /// The full name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// The number of this key; at least 1.
    ///
    /// # Errors
    /// [`Error::ParseError`] if it is no whole number or not between 1 and 2^31.
    pub fn optional(&self, name: &str) -> Result<Option<usize>, Error> {
        self.not_zero(name, self.number(name)?)
    }

    /// As [`Header::optional`], but 0 is allowed and is what an absent key stands for.
    ///
    /// # Errors
    /// As [`Header::optional`].
    pub fn optional_or_zero(&self, name: &str) -> Result<usize, Error> {
        Ok(self.number(name)?.unwrap_or(0))
    }

    /// The number of this key, which must be there.
    ///
    /// # Errors
    /// As [`Header::optional`].
    pub fn required(&self, name: &str) -> Result<usize, Error> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    /// As [`Header::optional`], for a key that may be an array with a number per layer.
    ///
    /// # Errors
    /// As [`Header::optional`]; [`Error::ParseError`] if the array has not `n_layer` numbers,
    /// [`Error::Unsupported`] if the numbers differ.
    pub fn of_layers(&self, name: &str, n_layer: usize) -> Result<Option<usize>, Error> {
        let Some(Value::Array(layers)) = self.gguf.get(&self.key(name)) else {
            return self.optional(name);
        };
        let Some(mut numbers) = layers.integers() else {
            return Err(self.invalid(name, "is no array of whole numbers"));
        };
        if layers.len() != n_layer {
            let why = format!("has {} numbers for {n_layer} layers", layers.len());
            return Err(self.invalid(name, &why));
        }
        let first = numbers.next();
        if numbers.any(|number| Some(number) != first) {
            let what = format!("layers of different shapes (`{}`)", self.key(name));
            return Err(Error::Unsupported { what });
        }
        self.not_zero(name, self.in_range(name, first.map(u64::from))?)
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Error> {
        self.in_range(name, self.gguf.unsigned(&self.key(name))?)
    }

    fn in_range(&self, name: &str, number: Option<u64>) -> Result<Option<usize>, Error> {
        match number {
            // Numbers of this size have no meaning, and would overflow later.
            Some(n) if n >= 1 << 31 => {
                Err(self.invalid(name, &format!("is {n}, which is not below 2^31")))
            }
            number => Ok(number.map(|n| n as usize)),
        }
    }

    fn not_zero(&self, name: &str, number: Option<usize>) -> Result<Option<usize>, Error> {
        match number {
            Some(0) => Err(self.invalid(name, "is 0")),
            number => Ok(number),
        }
    }

    /// The number of this key, which must be above 0.
    ///
    /// # Errors
    /// [`Error::ParseError`] if it is not.
    pub fn positive(&self, name: &str) -> Result<Option<f32>, Error> {
        match self.non_negative(name)? {
            Some(0.0) => Err(self.invalid(name, "is not above 0")),
            number => Ok(number),
        }
    }

    /// The number of this key, which must not be negative.
    ///
    /// # Errors
    /// [`Error::ParseError`] if it is.
    pub fn non_negative(&self, name: &str) -> Result<Option<f32>, Error> {
        match self.gguf.float(&self.key(name))? {
            Some(number) if number < 0.0 => Err(self.invalid(name, "is negative")),
            number => Ok(number),
        }
    }

    /// The text of this key.
    ///
    /// # Errors
    /// [`Error::ParseError`] if it is no text.
    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.gguf.string(&self.key(name))
    }

    /// The error for a key that must be there and is not.
    pub fn missing(&self, name: &str) -> Error {
        self.gguf.missing(&self.key(name))
    }

    /// The error for a key whose value makes no sense.
    pub fn invalid(&self, name: &str, why: &str) -> Error {
        self.gguf.invalid(&self.key(name), why)
    }

    /// Whether each of `n_layer` layers has a sliding window.
    ///
    /// Without the key, all but the last of each `pattern` layers have one.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the key is neither a number nor an array with a boolean per layer.
    pub fn windowed_layers(
        &self,
        n_layer: usize,
        pattern: usize,
    ) -> Result<impl Fn(usize) -> bool + 'a, Error> {
        const NAME: &str = "attention.sliding_window_pattern";
        let list = match self.gguf.get(&self.key(NAME)) {
            Some(Value::Array(list)) => match list.integers() {
                Some(layers) if list.len() >= n_layer => Some(layers),
                _ => return Err(self.invalid(NAME, "has no truth value for each layer")),
            },
            _ => None,
        };
        let pattern = match &list {
            Some(_) => pattern,
            None => self.number(NAME)?.unwrap_or(pattern),
        };
        Ok(move |layer: usize| match &list {
            Some(list) => list.clone().nth(layer).is_some_and(|windowed| windowed != 0),
            None => pattern == 0 || layer % pattern < pattern - 1,
        })
    }
}
