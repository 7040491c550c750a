//! Errors of the configuration, and what to do about them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::key::list;
use super::{KEYS, Mode, NotText};

/// Place of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line in `anchorite.toml`, counted from 1.
    Line(usize),
    /// The boot argument itself.
    BootArgument(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "anchorite.toml, line {line}"),
            Place::BootArgument(word) => write!(f, "boot argument `{word}`"),
        }
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The file is not TOML, or the argument is not of the form `key=value`.
    Syntax(String),
    /// The text is not UTF-8.
    NotText(NotText),
    /// The key does not exist.
    UnknownKey(String),
    /// The key does not take the value.
    BadValue {
        /// The key.
        key: &'static str,
        /// Values that the key takes.
        expects: String,
    },
    /// Two settings of one place exclude each other.
    Conflict(&'static str, &'static str),
    /// The setting has no effect in the mode.
    Unused {
        /// The key.
        key: &'static str,
        /// The mode.
        mode: Mode,
        /// The modes in which the setting has an effect.
        used_in: &'static [Mode],
    },
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.problem {
            Problem::Syntax(message) => f.write_str(message),
            Problem::NotText(error) => write!(f, "the text {error}"),
            Problem::UnknownKey(key) => write!(f, "there is no setting `{key}`"),
            Problem::BadValue { key, expects } => write!(f, "`{key}` takes {expects}"),
            Problem::Conflict(a, b) if a == b => write!(f, "`{a}` is given twice"),
            Problem::Conflict(a, b) => write!(f, "`{a}` and `{b}` exclude each other"),
            Problem::Unused { key, mode, used_in } => {
                write!(f, "`{key}` does nothing in mode {mode}, only in ")?;
                list(f, used_in, "and")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl ConfigError {
    /// What to do about the error.
    pub fn hint(&self) -> String {
        let hint = match &self.problem {
            Problem::UnknownKey(_) => {
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                format!("the settings are {}", names.join(", "))
            }
            Problem::NotText(_) => NotText::HINT.to_string(),
            Problem::Unused { .. } => "take it out, or choose another `mode`".to_string(),
            _ => "mend the setting there, or take it out to get the default".to_string(),
        };
        match (&self.place, &self.problem) {
            // A firmware's words for Linux look like this.
            (
                Place::BootArgument(_),
                Problem::UnknownKey(_) | Problem::Syntax(_) | Problem::NotText(_),
            ) => format!(
                "if a firmware put it there, write `--` before your own boot arguments (on a \
                 Raspberry Pi in cmdline.txt); else {hint}"
            ),
            _ => hint,
        }
    }
}
