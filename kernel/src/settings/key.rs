//! The shape of an entry in the table of settings.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use super::mode::{CHATS, NETWORK, SAMPLE};
use super::{Config, Mode, Value};

/// One setting: everything that any reader or document needs to know about it.
pub struct Key {
    /// Name in `anchorite.toml`, in boot arguments, and for `make run`.
    pub name: &'static str,
    /// Heading under which the documents list the setting.
    pub group: Group,
    /// Modes in which the setting has an effect.
    pub modes: &'static [Mode],
    /// Second name that `make` has for the setting.
    pub variable: Variable,
    /// Type and range, and where the configuration keeps the value.
    pub takes: Takes,
    /// Value of a setting that is not given.
    pub default: Initial,
    /// Help for people: the first sentence alone is the short form.
    pub help: &'static str,
}

/// Headings of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Mode, model and prompt.
    Task,
    /// Length and context.
    Context,
    /// Sampler.
    Sampler,
    /// Chats.
    Chat,
    /// Network.
    Network,
    /// Machine.
    Machine,
}

/// Second name that `make` has for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// None: `make run key=value`.
    None,
    /// `make run NAME=value` gives the value to the guest.
    Guest(&'static str),
    /// `make run NAME=path` also puts a file on the model disk.
    Disk(&'static str),
}

/// Value of a setting that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// This value, in the form of a boot argument.
    Value(&'static str),
    /// No fixed value: what applies instead, in words.
    Words(&'static str),
}

/// Type and range of a setting, with the function that stores a value.
pub enum Takes {
    /// Any text.
    Text(fn(&mut Config, &str)),
    /// A text of the form that is described; `None` refuses a text.
    Form(&'static str, fn(&mut Config, &str) -> Option<()>),
    /// One of these words; `None` refuses a word.
    Choice(&'static [&'static str], fn(&mut Config, &str) -> Option<()>),
    /// `true` or `false`.
    Boolean(fn(&mut Config, bool)),
    /// A whole number from the first to the second; [`MANY`] or more is no bound for people.
    Whole(i64, u64, fn(&mut Config, i128)),
    /// One of these whole numbers.
    OneOf(&'static [i64], fn(&mut Config, i128)),
    /// A number from the first to the second.
    Number(f32, f32, fn(&mut Config, f32)),
    /// A list of texts, each of a length in bytes within the two.
    Texts(usize, usize, fn(&mut Config, Vec<String>)),
}

/// The largest count that a setting takes.
pub const MANY: u64 = u32::MAX as u64;

impl Key {
    /// Stores a value; `None` if the setting does not take the value.
    pub(super) fn set(&self, config: &mut Config, value: &Value<'_>) -> Option<()> {
        match self.takes {
            Takes::Text(set) => set(config, value.text()?),
            Takes::Form(_, set) | Takes::Choice(_, set) => return set(config, value.text()?),
            Takes::Boolean(set) => set(config, value.boolean()?),
            Takes::Whole(from, to, set) => {
                set(config, value.integer(i128::from(from)..=i128::from(to))?);
            }
            Takes::OneOf(numbers, set) => {
                let n = value.integer(i128::from(i64::MIN)..=i128::from(i64::MAX))?;
                numbers.iter().any(|&number| i128::from(number) == n).then(|| set(config, n))?;
            }
            Takes::Number(from, to, set) => set(config, value.number(from..=to)?),
            Takes::Texts(from, to, set) => {
                let lengths: RangeInclusive<usize> = from..=to;
                set(config, value.texts(lengths)?);
            }
        }
        Some(())
    }
}

/// The end of a sentence "`key` takes …".
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::Text(_) => f.write_str("text"),
            Takes::Form(form, _) => f.write_str(form),
            Takes::Choice(words, _) => list(f, words, "or"),
            Takes::Boolean(_) => f.write_str("true or false"),
            Takes::Whole(from, to, _) if *to >= MANY => {
                write!(f, "a whole number from {from} on")
            }
            Takes::Whole(from, to, _) => write!(f, "a whole number from {from} to {to}"),
            Takes::OneOf(numbers, _) => list(f, numbers, "or"),
            Takes::Number(from, to, _) => write!(f, "a number from {from} to {to}"),
            Takes::Texts(from, to, _) => {
                write!(f, "a list of texts, each of {from} to {to} bytes: [\"\\n\", \":\"]")
            }
        }
    }
}

/// Writes "a, b and c".
pub(super) fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    last: &str,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        match i {
            0 => write!(f, "{item}")?,
            _ if i + 1 == items.len() => write!(f, " {last} {item}")?,
            _ => write!(f, ", {item}")?,
        }
    }
    Ok(())
}

/// A text for people, which the kernel's image does without.
pub(super) const fn docs(text: &'static str) -> &'static str {
    if cfg!(target_os = "none") { "" } else { text }
}

impl Key {
    /// The setting with a second name for `make`.
    pub(super) const fn make(self, name: &'static str) -> Key {
        Key { variable: Variable::Guest(name), ..self }
    }
}

/// A setting of the sampler.
pub(super) const fn sampler(
    name: &'static str,
    default: &'static str,
    takes: Takes,
    help: &'static str,
) -> Key {
    let (group, modes, variable) = (Group::Sampler, SAMPLE, Variable::None);
    Key { name, group, modes, variable, takes, default: Initial::Value(default), help: docs(help) }
}

/// One of the texts around the messages of a chat.
pub(super) const fn chat_text(
    name: &'static str,
    set: fn(&mut Config, &str),
    default: &'static str,
    help: &'static str,
) -> Key {
    let (group, modes, variable) = (Group::Chat, CHATS, Variable::None);
    Key {
        name,
        group,
        modes,
        variable,
        takes: Takes::Text(set),
        default: Initial::Words(default),
        help: docs(help),
    }
}

/// One of the texts around tools, calls and results. The server alone has tools.
pub(super) const fn tool_text(
    name: &'static str,
    set: fn(&mut Config, &str),
    default: &'static str,
    help: &'static str,
) -> Key {
    Key { modes: NETWORK, ..chat_text(name, set, default, help) }
}
