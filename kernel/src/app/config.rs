//! The configuration: `anchorite.toml` on the model disk, overridden by the boot arguments.
//!
//! Both use the same keys, listed in [`KEYS`]. The file is TOML; a boot argument is one word,
//! `key=value`. A key that is unknown, given twice in one place, or has no sensible value is an
//! error that names the key and the place: nothing is silently ignored. The one exception is what
//! stands before a word `--` among the boot arguments: it is someone else's. A Raspberry Pi's
//! firmware puts dozens of words for Linux before those of `cmdline.txt`, others with each version
//! and each screen.

#![forbid(unsafe_code)]

mod chat;
mod modes;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use log::LevelFilter;
use toml::de::{DeTable, DeValue};

pub use chat::ChatTemplate;
use chat::{CHAT, NAMES_OF_TEMPLATES, chat_text, set_chat_text};

use crate::llm::chat::{Template, by_name};
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::ContextOptions;
use crate::llm::sampling::{
    DEFAULT_BREAKERS, LogitBias, MAX_BREAKER_BYTES, MAX_LAST_N, Mirostat, SamplingConfig,
};

/// The largest configuration and prompt file taken, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// The prompt if none is set.
pub const DEFAULT_PROMPT: &str = "Once upon a time";

/// The boot argument before which all are another's.
pub const SEPARATOR: &str = "--";

/// What the unikernel does with the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Answers one prompt.
    #[default]
    Generate,
    /// Answers prompts from the console until `/quit`.
    Chat,
    /// Measures how well the model predicts the prompt.
    Perplexity,
    /// Measures the disk, the hash and the engine.
    Bench,
    /// Tests itself.
    Test,
}

/// What becomes of the machine when the run has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtExit {
    /// It is turned off.
    #[default]
    PowerOff,
    /// It starts anew.
    Reboot,
}

/// Where the prompt comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// Nobody has set one: it is [`DEFAULT_PROMPT`], but in a chat none.
    #[default]
    Unset,
    /// The text itself.
    Text(String),
    /// A file on the model disk.
    File(String),
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What to do.
    pub mode: Mode,
    /// Name of a file in `models/`; `None`: the only one there.
    pub model: Option<String>,
    /// The prompt; in a chat, the first message.
    pub prompt: Prompt,
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Positions in the KV cache; `None`: 256, or fewer if the model has fewer.
    pub context: Option<usize>,
    /// The format of keys and values in the KV cache.
    pub kv_cache: CacheType,
    /// Whether a prompt that does not fit into the context loses what is too much.
    pub cut_prompt: bool,
    /// Whether names of control tokens in a prompt are those tokens; `None`: as llama.cpp has it for
    /// the mode. What is typed in a chat is text in any case.
    pub parse_special: Option<bool>,
    /// Whether a text that outgrows the context goes on.
    pub context_shift: bool,
    /// Tokens of the first prompt that are kept in both cases.
    pub keep: usize,
    /// How tokens are chosen, but for the seed.
    pub sampling: SamplingConfig,
    /// What ends a repetition for DRY.
    pub dry_breakers: Vec<String>,
    /// The settings of Mirostat, should it be chosen.
    pub mirostat: Mirostat,
    /// What stands around the messages of a chat.
    pub chat_template: ChatTemplate,
    /// The texts that are set by hand.
    pub chat_texts: Template,
    /// The system message of a chat; empty: none.
    pub system: String,
    /// Seed of the sampler; `None`: another one at each start.
    pub seed: Option<u64>,
    /// Cores to use; `None`: all.
    pub threads: Option<usize>,
    /// What the log shows.
    pub log: LevelFilter,
    /// Whether the model's checksum is checked.
    pub verify: bool,
    /// What becomes of the machine.
    pub at_exit: AtExit,
    /// A part of the names of the self-tests to run; empty: all run.
    pub tests: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Generate,
            model: None,
            prompt: Prompt::Unset,
            max_tokens: 128,
            context: None,
            kv_cache: CacheType::F16,
            cut_prompt: false,
            parse_special: None,
            context_shift: false,
            keep: 0,
            sampling: SamplingConfig { temperature: 0.0, ..SamplingConfig::creative() },
            dry_breakers: DEFAULT_BREAKERS.map(String::from).into(),
            mirostat: Mirostat::DEFAULT,
            chat_template: ChatTemplate::Auto,
            chat_texts: Template::default(),
            system: String::new(),
            seed: None,
            threads: None,
            log: LevelFilter::Warn,
            verify: true,
            at_exit: AtExit::PowerOff,
            tests: String::new(),
        }
    }
}

/// One key of the configuration.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be given.
    pub expects: &'static str,
    /// What it does.
    pub help: &'static str,
    set: Set,
}

/// Takes a value over; `None` if the key does not take it.
type Set = fn(&mut Config, &Value<'_>) -> Option<()>;

/// Every key there is.
pub const KEYS: &[Key] = &[
    Key {
        name: "mode",
        expects: "generate, chat, perplexity, bench or test",
        help: "what to do with the model (generate)",
        set: |config, value| {
            let name = value.text()?;
            config.mode = *modes::ALL.iter().find(|mode| mode.name() == name)?;
            Some(())
        },
    },
    Key {
        name: "model",
        expects: "the name of a file in models/",
        help: "the model to load (the only one on the disk)",
        set: |config, value| {
            let name = value.text()?;
            let is_name = !name.is_empty() && !name.contains(['/', '\\', '\0']);
            is_name.then(|| config.model = Some(name.to_owned()))
        },
    },
    Key {
        name: "prompt",
        expects: "text",
        help: "the text to go on from (Once upon a time); in a chat, the first message (none)",
        set: |config, value| {
            config.prompt = Prompt::Text(value.text()?.to_owned());
            Some(())
        },
    },
    Key {
        name: "prompt_file",
        expects: "the path of a file on the model disk",
        help: "a file that holds the prompt; a newline at its end is not part of it",
        set: |config, value| {
            let path = value.text()?;
            let is_path = !path.is_empty() && !path.contains('\0');
            is_path.then(|| config.prompt = Prompt::File(path.to_owned()))
        },
    },
    Key {
        name: "max_tokens",
        expects: "a whole number from 1 on",
        help: "tokens to generate at most (128)",
        set: |config, value| {
            config.max_tokens = value.integer(1..=u64::from(u32::MAX))? as usize;
            Some(())
        },
    },
    Key {
        name: "context",
        expects: "a whole number from 1 on",
        help: "positions in the KV cache (256, or the model's own if that is less)",
        set: |config, value| {
            config.context = Some(value.integer(1..=u64::from(u32::MAX))? as usize);
            Some(())
        },
    },
    Key {
        name: "kv_cache",
        expects: "f16, f32 or q8_0",
        help: "the format of the KV cache; q8_0 takes about half the memory of f16 (f16)",
        set: |config, value| {
            config.kv_cache = value.text()?.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "cut_prompt",
        expects: "true or false",
        help: "leave out of a prompt what does not fit into the context, instead of refusing it (false)",
        set: |config, value| {
            config.cut_prompt = value.boolean()?;
            Some(())
        },
    },
    Key {
        name: "parse_special",
        expects: "true or false",
        help: "take names of control tokens in a prompt, as </s>, for those tokens; not for chats, where \
               they are text (true; in mode perplexity false)",
        set: |config, value| {
            config.parse_special = Some(value.boolean()?);
            Some(())
        },
    },
    Key {
        name: "context_shift",
        expects: "true or false",
        help: "when the context is full, forget half of it and go on, instead of stopping (false)",
        set: |config, value| {
            config.context_shift = value.boolean()?;
            Some(())
        },
    },
    Key {
        name: "keep",
        expects: "a whole number from -1 on",
        help: "tokens of the first prompt that are never cut or forgotten, -1: all (0)",
        set: |config, value| {
            config.keep = match value.signed()? {
                -1 => usize::MAX,
                n => usize::try_from(n).ok()?,
            };
            Some(())
        },
    },
    Key {
        name: "system",
        expects: "text",
        help: "the system message of a chat (none)",
        set: |config, value| {
            config.system = value.text()?.to_owned();
            Some(())
        },
    },
    Key {
        name: "chat_template",
        expects: NAMES_OF_TEMPLATES,
        help: "what stands around the messages of a chat: auto recognises the model's own template, plain is nothing (auto)",
        set: |config, value| {
            config.chat_template = match value.text()? {
                "auto" => ChatTemplate::Auto,
                "plain" => ChatTemplate::Plain,
                name => ChatTemplate::Known(by_name(name)?),
            };
            Some(())
        },
    },
    chat_text("chat_system_prefix", "the text before a chat's system message", |config, value| {
        set_chat_text(config, value, |texts, text| texts.system.prefix = text)
    }),
    chat_text("chat_system_suffix", "the text behind a chat's system message", |config, value| {
        set_chat_text(config, value, |texts, text| texts.system.suffix = text)
    }),
    chat_text("chat_user_prefix", "the text before each message of a chat", |config, value| {
        set_chat_text(config, value, |texts, text| texts.user.prefix = text)
    }),
    chat_text("chat_user_suffix", "the text behind each message of a chat", |config, value| {
        set_chat_text(config, value, |texts, text| texts.user.suffix = text)
    }),
    chat_text("chat_assistant_prefix", "the text before each answer of a chat", |config, value| {
        set_chat_text(config, value, |texts, text| texts.assistant.prefix = text)
    }),
    chat_text("chat_assistant_suffix", "the text behind each answer of a chat", |config, value| {
        set_chat_text(config, value, |texts, text| texts.assistant.suffix = text)
    }),
    chat_text(
        "chat_first_user_prefix",
        "the text before a chat's first message if there is no system message (chat_user_prefix)",
        |config, value| {
            set_chat_text(config, value, |texts, text| texts.first_user_prefix = Some(text))
        },
    ),
    chat_text(
        "chat_after_system_prefix",
        "the text before a chat's first message if there is a system message (chat_user_prefix)",
        |config, value| {
            set_chat_text(config, value, |texts, text| texts.after_system_prefix = Some(text))
        },
    ),
    Key {
        name: "seed",
        expects: "a whole number from 0 on",
        help: "seed of the sampler (another one at each start)",
        set: |config, value| {
            config.seed = Some(value.integer(0..=u64::MAX)?);
            Some(())
        },
    },
    Key {
        name: "temperature",
        expects: "a number from 0 to 100",
        help: "0 always takes the likeliest token, more gives more surprises (0)",
        set: |config, value| {
            config.sampling.temperature = value.number(0.0..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "top_k",
        expects: "a whole number from 0 on",
        help: "choose from this many of the likeliest tokens, 0: from all (40)",
        set: |config, value| {
            config.sampling.top_k = value.integer(0..=u64::from(u32::MAX))? as usize;
            Some(())
        },
    },
    Key {
        name: "top_p",
        expects: "a number from 0 to 1",
        help: "choose from the likeliest tokens that share this much of the probability (0.95)",
        set: |config, value| {
            config.sampling.top_p = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "min_p",
        expects: "a number from 0 to 1",
        help: "choose from tokens at least this share as likely as the likeliest (0.05)",
        set: |config, value| {
            config.sampling.min_p = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "typical_p",
        expects: "a number from 0 to 1",
        help: "choose from the tokens that surprise about as much as expected, up to this much of the probability (1)",
        set: |config, value| {
            config.sampling.typical_p = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "repeat_penalty",
        expects: "a number from 0.01 to 100",
        help: "make tokens of the last ones less likely; 1: do not (1)",
        set: |config, value| {
            config.sampling.repeat_penalty = value.number(0.01..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "frequency_penalty",
        expects: "a number from -100 to 100",
        help: "lower the logit of a token by this for each time it is among the last ones (0)",
        set: |config, value| {
            config.sampling.frequency_penalty = value.number(-100.0..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "presence_penalty",
        expects: "a number from -100 to 100",
        help: "lower the logit of a token by this if it is among the last ones (0)",
        set: |config, value| {
            config.sampling.presence_penalty = value.number(-100.0..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "penalty_last_n",
        expects: "a whole number from 0 to 4096",
        help: "how many of the last tokens the penalties count (64)",
        set: |config, value| {
            config.sampling.penalty_last_n = value.integer(0..=MAX_LAST_N as u64)? as usize;
            Some(())
        },
    },
    Key {
        name: "dry_multiplier",
        expects: "a number from 0 to 1000",
        help: "DRY: how much less likely a token gets that goes on with a repetition; 0: not at all (0)",
        set: |config, value| {
            config.sampling.dry_multiplier = value.number(0.0..=1000.0)?;
            Some(())
        },
    },
    Key {
        name: "dry_base",
        expects: "a number from 1 to 1000",
        help: "DRY: by what that grows with each token repeated (1.75)",
        set: |config, value| {
            config.sampling.dry_base = value.number(1.0..=1000.0)?;
            Some(())
        },
    },
    Key {
        name: "dry_allowed_length",
        expects: "a whole number from 0 to 4096",
        help: "DRY: tokens that may be repeated (2)",
        set: |config, value| {
            config.sampling.dry_allowed_length = value.integer(0..=MAX_LAST_N as u64)? as usize;
            Some(())
        },
    },
    Key {
        name: "dry_penalty_last_n",
        expects: "a whole number from 0 to 4096",
        help: "DRY: how many of the last tokens are searched for repetitions (64)",
        set: |config, value| {
            config.sampling.dry_penalty_last_n = value.integer(0..=MAX_LAST_N as u64)? as usize;
            Some(())
        },
    },
    Key {
        name: "dry_sequence_breakers",
        expects: "a list of texts, each of 1 to 40 bytes: [\"\\n\", \":\"]",
        help: "DRY: what ends a repetition ([\"\\n\", \":\", \"\\\"\", \"*\"])",
        set: |config, value| {
            config.dry_breakers = value.texts(1..=MAX_BREAKER_BYTES)?;
            Some(())
        },
    },
    Key {
        name: "top_n_sigma",
        expects: "a number from 0 to 100",
        help: "keep the tokens whose logits are at most so many standard deviations below the largest; 0: all (0)",
        set: |config, value| {
            config.sampling.top_n_sigma = value.number(0.0..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "xtc_probability",
        expects: "a number from 0 to 1",
        help: "XTC: how often likely tokens are left out (0)",
        set: |config, value| {
            config.sampling.xtc_probability = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "xtc_threshold",
        expects: "a number from 0 to 1",
        help: "XTC: leave out the tokens of at least this probability but for the least probable of them (0.1)",
        set: |config, value| {
            config.sampling.xtc_threshold = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "mirostat",
        expects: "0 or 2",
        help: "2: keep the surprise of the text near a target, in place of all but temperature and logit_bias (0)",
        set: |config, value| {
            let chosen = value.integer(0..=2).filter(|&version| version != 1)? == 2;
            config.sampling.mirostat = chosen.then_some(Mirostat::DEFAULT);
            Some(())
        },
    },
    Key {
        name: "mirostat_tau",
        expects: "a number from 0 to 100",
        help: "Mirostat's target in bits (5)",
        set: |config, value| {
            config.mirostat.tau = value.number(0.0..=100.0)?;
            Some(())
        },
    },
    Key {
        name: "mirostat_eta",
        expects: "a number from 0 to 1",
        help: "how fast Mirostat adapts (0.1)",
        set: |config, value| {
            config.mirostat.eta = value.number(0.0..=1.0)?;
            Some(())
        },
    },
    Key {
        name: "logit_bias",
        expects: "up to 16 of TOKEN:BIAS with commas between, a bias from -1000 to 1000 or -inf",
        help: "what to add to the logits of tokens by their numbers (nothing)",
        set: |config, value| {
            config.sampling.logit_bias = logit_bias(value.text()?)?;
            Some(())
        },
    },
    Key {
        name: "threads",
        expects: "a whole number from 1 on",
        help: "cores to use (all)",
        set: |config, value| {
            config.threads = Some(value.integer(1..=u64::from(u32::MAX))? as usize);
            Some(())
        },
    },
    Key {
        name: "log",
        expects: "off, error, warn, info, debug or trace",
        help: "what the log shows (warn)",
        set: |config, value| {
            config.log = value.text()?.parse().ok()?;
            Some(())
        },
    },
    Key {
        name: "verify",
        expects: "true or false",
        help: "whether the model's checksum is checked (true)",
        set: |config, value| {
            config.verify = value.boolean()?;
            Some(())
        },
    },
    Key {
        name: "at_exit",
        expects: "power-off or reboot",
        help: "what becomes of the machine at the end (power-off)",
        set: |config, value| {
            config.at_exit = match value.text()? {
                "power-off" => AtExit::PowerOff,
                "reboot" => AtExit::Reboot,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "tests",
        expects: "a part of a test's name",
        help: "which tests mode = \"test\" runs (all)",
        set: |config, value| {
            config.tests = value.text()?.to_owned();
            Some(())
        },
    },
];

/// Reads biases of tokens, as in "13:-inf,29871:2.5".
fn logit_bias(text: &str) -> Option<LogitBias> {
    let mut biases = LogitBias::NONE;
    for entry in text.split(',').filter(|_| !text.is_empty()) {
        let (token, bias) = entry.split_once(':')?;
        let bias: f32 = bias.parse().ok()?;
        let is_bias = bias == f32::NEG_INFINITY || (-1000.0..=1000.0).contains(&bias);
        biases.push(token.parse().ok().filter(|_| is_bias)?, bias).ok()?;
    }
    Some(biases)
}

/// A value as it was given: with its type in TOML, as a word among the boot arguments.
enum Value<'a> {
    Toml(&'a DeValue<'a>),
    Word(&'a str),
}

impl Value<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Value::Toml(value) => value.as_str(),
            Value::Word(word) => Some(word),
        }
    }

    /// A list of texts; a boot argument has it in TOML's form too.
    fn texts(&self, lengths: RangeInclusive<usize>) -> Option<Vec<String>> {
        match self {
            Value::Toml(value) => {
                let texts = value.as_array()?.iter().map(|text| text.get_ref().as_str());
                let texts = texts.map(|text| text.filter(|text| lengths.contains(&text.len())));
                texts.map(|text| text.map(String::from)).collect()
            }
            Value::Word(word) => Value::Toml(DeValue::parse(word).ok()?.get_ref()).texts(lengths),
        }
    }

    fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let n = match self {
            Value::Toml(value) => {
                let integer = value.as_integer()?;
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()?
            }
            // In the forms that TOML has for integers: 1_000, 0xff.
            Value::Word(word) => {
                let parsed = DeValue::parse(word).ok()?;
                return Value::Toml(parsed.get_ref()).integer(range);
            }
        };
        range.contains(&n).then_some(n)
    }

    fn signed(&self) -> Option<i64> {
        match self {
            Value::Toml(value) => {
                let integer = value.as_integer()?;
                i64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Value::Word(word) => Value::Toml(DeValue::parse(word).ok()?.get_ref()).signed(),
        }
    }

    fn number(&self, range: RangeInclusive<f32>) -> Option<f32> {
        let float: Option<f32> = match self {
            Value::Toml(value) => value.as_float().and_then(|float| float.as_str().parse().ok()),
            Value::Word(word) => word.parse().ok(),
        };
        float.or_else(|| Some(self.signed()? as f32)).filter(|n| range.contains(n))
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Value::Toml(value) => value.as_bool(),
            Value::Word("true") => Some(true),
            Value::Word("false") => Some(false),
            Value::Word(_) => None,
        }
    }
}

/// The first byte of a text that is no UTF-8.
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
    /// What to do about it.
    pub const HINT: &str = "write the text in UTF-8: an editor or terminal that is set to another \
                            encoding (Latin-1, Windows-1252, UTF-16) wrote other bytes";

    /// The text that these bytes are.
    ///
    /// # Errors
    /// They are no UTF-8.
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

/// Where a setting stands.
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
    /// The file is no TOML, or the argument is not of the form `key=value`.
    Syntax(String),
    /// The text is no UTF-8.
    NotText(NotText),
    /// There is no such key.
    UnknownKey(String),
    /// The key's value is not one of those it takes.
    BadValue {
        /// The key.
        key: &'static str,
        /// What it takes.
        expects: &'static str,
    },
    /// Two settings of one place exclude each other.
    Conflict(&'static str, &'static str),
    /// The setting does nothing in the mode that was chosen.
    Unused {
        /// The key.
        key: &'static str,
        /// The mode.
        mode: Mode,
        /// The modes in which it does something.
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
                for (i, mode) in used_in.iter().enumerate() {
                    let separator = match i {
                        0 => "",
                        _ if i + 1 == used_in.len() => " and ",
                        _ => ", ",
                    };
                    write!(f, "{separator}{mode}")?;
                }
                Ok(())
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl ConfigError {
    /// What to do about it.
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
            // What a firmware says to Linux looks like this.
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

impl Config {
    /// The sampler's settings, with this seed if none is configured.
    pub fn sampling(&self, seed: impl FnOnce() -> u64) -> SamplingConfig {
        SamplingConfig {
            mirostat: self.sampling.mirostat.map(|_| self.mirostat),
            seed: self.seed.unwrap_or_else(seed),
            ..self.sampling
        }
    }

    /// Whether names of control tokens in a prompt are those tokens: by default as llama.cpp's tools
    /// have it, of which the one for perplexity takes them for text. In a chat they are text.
    pub fn parses_special(&self) -> bool {
        match self.mode {
            Mode::Generate | Mode::Bench => self.parse_special.unwrap_or(true),
            Mode::Perplexity => self.parse_special.unwrap_or(false),
            Mode::Chat | Mode::Test => false,
        }
    }

    /// How much of the text the model sees, and how that is kept.
    pub fn context_options(&self) -> ContextOptions {
        ContextOptions {
            n_ctx: self.context,
            kv_cache: self.kv_cache,
            context_shift: self.context_shift,
            keep: self.keep,
        }
    }

    /// Reads the settings of `anchorite.toml`; those not given have their defaults.
    ///
    /// # Errors
    /// The text is no TOML, or a setting is unknown or malformed.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let place = |offset: usize| {
            let before = &text.as_bytes()[..offset.min(text.len())];
            Place::Line(1 + before.iter().filter(|&&byte| byte == b'\n').count())
        };
        let table = DeTable::parse(text).map_err(|error| ConfigError {
            place: place(error.span().map_or(0, |span| span.start)),
            problem: Problem::Syntax(error.message().to_owned()),
        })?;
        let mut config = Config::default();
        let mut seen = Vec::new();
        for (key, value) in table.get_ref() {
            config
                .set(key.get_ref(), &Value::Toml(value.get_ref()), &mut seen)
                .map_err(|problem| ConfigError { place: place(key.span().start), problem })?;
        }
        Ok(config)
    }

    /// Overrides settings by boot arguments, each of the form `key=value`. If one is `--`, only those
    /// behind it are settings, as with Linux, for which they are the init program's (Linux,
    /// Documentation/admin-guide/kernel-parameters.rst).
    ///
    /// # Errors
    /// An argument is not of that form or no UTF-8, or its setting is unknown, malformed or given
    /// twice.
    pub fn apply_arguments<'a, A: AsRef<[u8]> + ?Sized + 'a>(
        &mut self,
        arguments: impl IntoIterator<Item = &'a A>,
    ) -> Result<(), ConfigError> {
        let mut seen = Vec::new();
        let model = self.model.clone();
        for word in ours(arguments) {
            let shown = String::from_utf8_lossy(word);
            let error = |problem| ConfigError {
                place: Place::BootArgument(shown.clone().into_owned()),
                problem,
            };
            let word = NotText::check(word).map_err(|at| error(Problem::NotText(at)))?;
            let (key, value) = word.split_once('=').ok_or_else(|| {
                error(Problem::Syntax("a boot argument has the form key=value".to_owned()))
            })?;
            self.set(key, &Value::Word(value), &mut seen).map_err(error)?;
        }
        // The texts in the file are those of the model that it names.
        let is_other = model.is_some() && model != self.model;
        let stands = seen.iter().any(|key| key.starts_with(CHAT));
        if is_other && !stands && self.chat_template == ChatTemplate::Texts {
            self.chat_template = ChatTemplate::Auto;
        }
        Ok(())
    }

    /// Refuses boot arguments that do nothing in the mode that is chosen, after
    /// [`Config::apply_arguments`] took them. What stands in the file may be for another mode.
    ///
    /// # Errors
    /// An argument does nothing.
    pub fn refuse_unused<'a, A: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a A>,
    ) -> Result<(), ConfigError> {
        // What is no text was refused before.
        for word in ours(arguments).into_iter().filter_map(|word| str::from_utf8(word).ok()) {
            let name = word.split_once('=').map_or(word, |(name, _)| name);
            let Some(key) = KEYS.iter().find(|key| key.name == name) else { continue };
            let used_in = modes::of(key.name);
            if !used_in.contains(&self.mode) {
                let problem = Problem::Unused { key: key.name, mode: self.mode, used_in };
                return Err(ConfigError { place: Place::BootArgument(word.to_owned()), problem });
            }
        }
        Ok(())
    }

    /// Sets one key. `seen` holds the keys that this place has set already.
    fn set(
        &mut self,
        name: &str,
        value: &Value<'_>,
        seen: &mut Vec<&'static str>,
    ) -> Result<(), Problem> {
        let key = KEYS
            .iter()
            .find(|key| key.name == name)
            .ok_or_else(|| Problem::UnknownKey(name.to_owned()))?;
        let excludes = |other: &str| match (key.name, other) {
            ("prompt", "prompt_file") | ("prompt_file", "prompt") => true,
            ("chat_template", other) => other.starts_with(CHAT),
            (name, "chat_template") => name.starts_with(CHAT),
            (name, other) => name == other,
        };
        if let Some(other) = seen.iter().find(|other| excludes(other)) {
            return Err(Problem::Conflict(other, key.name));
        }
        seen.push(key.name);
        (key.set)(self, value).ok_or(Problem::BadValue { key: key.name, expects: key.expects })
    }
}

/// Those boot arguments that are settings: all of them or, if one is `--`, those behind it.
fn ours<'a, A: AsRef<[u8]> + ?Sized + 'a>(
    arguments: impl IntoIterator<Item = &'a A>,
) -> Vec<&'a [u8]> {
    let mut arguments: Vec<&[u8]> = arguments.into_iter().map(AsRef::as_ref).collect();
    let is_separator = |word: &&[u8]| *word == SEPARATOR.as_bytes();
    let first = arguments.iter().position(is_separator).map_or(0, |i| i + 1);
    arguments.split_off(first)
}

#[cfg(test)]
mod tests;
