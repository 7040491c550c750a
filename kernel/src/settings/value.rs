//! A value as it was given, before the type of its setting is known.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use toml::de::DeValue;

/// A value: typed in TOML, a word among the boot arguments.
pub enum Value<'a> {
    /// A value of `anchorite.toml`.
    Toml(&'a DeValue<'a>),
    /// A boot argument, behind the `=`.
    Word(&'a str),
}

impl Value<'_> {
    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Toml(value) => value.as_str(),
            Value::Word(word) => Some(word),
        }
    }

    /// The value as a list of texts; a boot argument has TOML's form too.
    pub fn texts(&self, lengths: RangeInclusive<usize>) -> Option<Vec<String>> {
        match self {
            Value::Toml(value) => {
                let texts = value.as_array()?.iter().map(|text| text.get_ref().as_str());
                let texts = texts.map(|text| text.filter(|text| lengths.contains(&text.len())));
                texts.map(|text| text.map(String::from)).collect()
            }
            Value::Word(word) => Value::Toml(DeValue::parse(word).ok()?.get_ref()).texts(lengths),
        }
    }

    /// The value as a whole number within a range, in the forms of TOML: 1_000, 0xff.
    pub fn integer(&self, range: RangeInclusive<i128>) -> Option<i128> {
        match self {
            Value::Toml(value) => {
                let integer = value.as_integer()?;
                let n = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
                range.contains(&n).then_some(n)
            }
            Value::Word(word) => Value::Toml(DeValue::parse(word).ok()?.get_ref()).integer(range),
        }
    }

    /// The value as a number within a range.
    pub fn number(&self, range: RangeInclusive<f32>) -> Option<f32> {
        let float: Option<f32> = match self {
            Value::Toml(value) => value.as_float().and_then(|float| float.as_str().parse().ok()),
            Value::Word(word) => word.parse().ok(),
        };
        let whole = i128::from(i64::MIN)..=i128::from(i64::MAX);
        float.or_else(|| Some(self.integer(whole)? as i64 as f32)).filter(|n| range.contains(n))
    }

    /// The value as a boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Value::Toml(value) => value.as_bool(),
            Value::Word("true") => Some(true),
            Value::Word("false") => Some(false),
            Value::Word(_) => None,
        }
    }
}

/// The first byte of a text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText {
    /// The byte.
    pub byte: u8,
    /// Its line, counted from 1.
    pub line: usize,
    /// Its place in the line, in bytes counted from 1.
    pub column: usize,
}

impl NotText {
    /// What to do about such a byte.
    pub const HINT: &str = "write the text in UTF-8: an editor or terminal that is set to another \
                            encoding (Latin-1, Windows-1252, UTF-16) wrote other bytes";

    /// The text that these bytes are.
    ///
    /// # Errors
    /// The bytes are not UTF-8.
    pub fn check(bytes: &[u8]) -> Result<&str, NotText> {
        str::from_utf8(bytes).map_err(|error| {
            let (before, rest) = bytes.split_at(error.valid_up_to());
            let lines = before.split(|&byte| byte == b'\n');
            let column = 1 + lines.clone().next_back().map_or(0, <[u8]>::len);
            NotText { byte: rest.first().copied().unwrap_or(0), line: lines.count(), column }
        })
    }
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotText { byte, line, column } = self;
        write!(f, "is not UTF-8: line {line} has the byte 0x{byte:02X} in column {column}")
    }
}
