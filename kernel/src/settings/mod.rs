//! The settings: one table of keys, read from `anchorite.toml` and from the boot arguments.
//!
//! [`KEYS`] holds name, type, range, default, help and `make` variable of each setting. The table
//! feeds the readers below, the harness's flags, `make help`, the README and the host example.
//!
//! `anchorite.toml` lies on the model disk and is TOML. A boot argument is one word, `key=value`,
//! and overrides the file. An unknown key, a key given twice in one place, or a value out of range
//! is an error that names key and place.
//!
//! Boot arguments before a word `--` are ignored. A Raspberry Pi's firmware puts dozens of words
//! for Linux there, and the words differ with each version of the firmware and each screen. Only
//! addresses count there, as urunc writes them for Hermit: `ip=10.0.0.2/24 gateway=10.0.0.1`.

#![forbid(unsafe_code)]

mod chat;
mod cors;
#[cfg(not(target_os = "none"))]
mod docs;
mod error;
mod key;
mod keys;
mod mode;
mod network;
mod value;

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use log::LevelFilter;
use toml::de::DeTable;

use crate::llm::chat::Template;
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::ContextOptions;
use crate::llm::sampling::{Mirostat, SamplingConfig};

use chat::CHAT;
use value::Value;

pub use chat::ChatTemplate;
pub use cors::Cors;
#[cfg(not(target_os = "none"))]
pub use docs::{MAKE_FILE, make_file, of_make, readme};
pub use error::{ConfigError, Place, Problem};
pub use key::{Group, Initial, Key, MANY, Takes, Variable};
pub use keys::KEYS;
pub use mode::{GENERATE, Mode};
pub use value::NotText;

/// The largest configuration or prompt file, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// The prompt if none is set.
pub const DEFAULT_PROMPT: &str = "Once upon a time";

/// The boot argument before which the others are ignored.
pub const SEPARATOR: &str = "--";

/// What the machine does when the run has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtExit {
    /// The machine turns off.
    #[default]
    PowerOff,
    /// The machine restarts.
    Reboot,
}

/// Source of the prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// None is set: [`DEFAULT_PROMPT`], but in a chat no prompt.
    #[default]
    Unset,
    /// The text itself.
    Text(String),
    /// A file on the model disk.
    File(String),
}

/// The grammar that answers are held to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grammar {
    /// None.
    #[default]
    None,
    /// A grammar in GBNF.
    Gbnf(String),
    /// A JSON schema.
    JsonSchema(String),
}

/// The value of every setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What to do.
    pub mode: Mode,
    /// Name of a file in `models/`; `None`: the only model there.
    pub model: Option<String>,
    /// The prompt; in a chat, the first message.
    pub prompt: Prompt,
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Positions in the KV cache; `None`: 256, or the model's own context if that is less.
    pub context: Option<usize>,
    /// Format of keys and values in the KV cache.
    pub kv_cache: CacheType,
    /// Whether a prompt that does not fit into the context is cut.
    pub cut_prompt: bool,
    /// Whether names of control tokens in a prompt are those tokens; `None`: as in llama.cpp for
    /// the mode. Lines that are typed in a chat are text in any case.
    pub parse_special: Option<bool>,
    /// Whether the context shifts when it is full.
    pub context_shift: bool,
    /// Tokens of the first prompt that cuts and context shifts keep.
    pub keep: usize,
    /// Settings of the sampler, without seed and Mirostat's numbers.
    pub sampling: SamplingConfig,
    /// Texts that end a repetition for DRY.
    pub dry_breakers: Vec<String>,
    /// Settings of Mirostat, which count if `sampling` chooses Mirostat.
    pub mirostat: Mirostat,
    /// The grammar of answers.
    pub grammar: Grammar,
    /// Source of the text around the messages of a chat.
    pub chat_template: ChatTemplate,
    /// The texts that are set by hand.
    pub chat_texts: Template,
    /// The system message of a chat; empty: none.
    pub system: String,
    /// TCP port of the server.
    pub port: u16,
    /// Requests that the server runs at once.
    pub parallel: usize,
    /// Keys of the server's clients; empty: everyone may ask.
    pub api_keys: Vec<String>,
    /// Pages of other sites that may use the server.
    pub cors: Cors,
    /// Seconds that running requests have after Ctrl-C.
    pub shutdown_timeout: u64,
    /// Seed of the sampler; `None`: another one at each start.
    pub seed: Option<u64>,
    /// Fixed addresses with the lengths of their prefixes; empty: the network gives addresses.
    pub ip: Vec<(IpAddr, u8)>,
    /// Gateways of fixed addresses.
    pub gateway: Vec<IpAddr>,
    /// Cores to use; `None`: all.
    pub threads: Option<usize>,
    /// Least level of the log messages that are shown.
    pub log: LevelFilter,
    /// Whether the model's checksum is checked.
    pub verify: bool,
    /// What the machine does at the end.
    pub at_exit: AtExit,
    /// A part of the names of the self-tests to run; empty: all run.
    pub tests: String,
}

impl Default for Config {
    /// The defaults of [`KEYS`].
    fn default() -> Self {
        // Whatever has a default in the table has no value of its own here.
        let mut config = Config {
            mode: Mode::default(),
            model: None,
            prompt: Prompt::Unset,
            max_tokens: 0,
            context: None,
            kv_cache: CacheType::F16,
            cut_prompt: false,
            parse_special: None,
            context_shift: false,
            keep: 0,
            sampling: SamplingConfig::greedy(),
            dry_breakers: Vec::new(),
            mirostat: Mirostat::DEFAULT,
            grammar: Grammar::default(),
            chat_template: ChatTemplate::default(),
            chat_texts: Template::default(),
            system: String::new(),
            seed: None,
            ip: Vec::new(),
            gateway: Vec::new(),
            port: 0,
            parallel: 0,
            api_keys: Vec::new(),
            cors: Cors::default(),
            shutdown_timeout: 0,
            threads: None,
            log: LevelFilter::Off,
            verify: false,
            at_exit: AtExit::default(),
            tests: String::new(),
        };
        for key in KEYS {
            if let Initial::Value(value) = key.default {
                let is_set = key.set(&mut config, &Value::Word(value));
                debug_assert!(is_set.is_some(), "{} does not take its default", key.name);
            }
        }
        config
    }
}

impl Config {
    /// Settings of the sampler, with `seed` if none is configured.
    pub fn sampling(&self, seed: impl FnOnce() -> u64) -> SamplingConfig {
        SamplingConfig {
            mirostat: self.sampling.mirostat.map(|_| self.mirostat),
            seed: self.seed.unwrap_or_else(seed),
            ..self.sampling
        }
    }

    /// Whether names of control tokens in a prompt are those tokens.
    ///
    /// The default is that of llama.cpp's tools; `llama-perplexity` takes such names for text. In a
    /// chat such names are text.
    pub fn parses_special(&self) -> bool {
        match self.mode {
            Mode::Generate | Mode::Bench => self.parse_special.unwrap_or(true),
            Mode::Perplexity => self.parse_special.unwrap_or(false),
            Mode::Chat | Mode::Serve | Mode::Test => false,
        }
    }

    /// Size, format and shift of the KV cache.
    pub fn context_options(&self) -> ContextOptions {
        ContextOptions {
            n_ctx: self.context,
            kv_cache: self.kv_cache,
            context_shift: self.context_shift,
            keep: self.keep,
        }
    }

    /// Reads the settings of `anchorite.toml`; the others have their defaults.
    ///
    /// # Errors
    /// The text is not TOML, or a setting is unknown or malformed.
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

    /// Overrides settings by boot arguments, each of the form `key=value`.
    ///
    /// Arguments before `--` are ignored. Linux gives the arguments behind `--` to the init program
    /// (Linux, Documentation/admin-guide/kernel-parameters.rst).
    ///
    /// # Errors
    /// An argument is not of the form or not UTF-8, or its setting is unknown, malformed or given
    /// twice.
    pub fn apply_arguments<'a, A: AsRef<[u8]> + ?Sized + 'a>(
        &mut self,
        arguments: impl IntoIterator<Item = &'a A>,
    ) -> Result<(), ConfigError> {
        let mut seen = Vec::new();
        let model = self.model.clone();
        let (foreign, ours) = split(arguments);
        for word in ours {
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
        if !seen.contains(&"ip") {
            self.take_addresses(&foreign);
        }
        // The file's texts belong to the model that the file names.
        let is_other = model.is_some() && model != self.model;
        let stands = seen.iter().any(|key| key.starts_with(CHAT));
        if is_other && !stands && self.chat_template == ChatTemplate::Texts {
            self.chat_template = ChatTemplate::Auto;
        }
        Ok(())
    }

    /// Takes addresses from words before `--`. Linux's own `ip` has another form.
    fn take_addresses(&mut self, words: &[&[u8]]) {
        let value = |start: &[u8]| {
            str::from_utf8(words.iter().rev().find_map(|word| word.strip_prefix(start))?).ok()
        };
        let ip = value(b"ip=").and_then(network::addresses).filter(|ip| !ip.is_empty());
        let Some(ip) = ip else { return };
        self.ip = ip;
        self.gateway = value(b"gateway=").and_then(network::gateways).unwrap_or_default();
    }

    /// Refuses boot arguments without effect in the mode, after [`Config::apply_arguments`].
    ///
    /// Settings of the file may be for another mode.
    ///
    /// # Errors
    /// An argument has no effect.
    pub fn refuse_unused<'a, A: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a A>,
    ) -> Result<(), ConfigError> {
        // Arguments that are not UTF-8 were refused before.
        for word in split(arguments).1.into_iter().filter_map(|word| str::from_utf8(word).ok()) {
            let name = word.split_once('=').map_or(word, |(name, _)| name);
            let Some(key) = KEYS.iter().find(|key| key.name == name) else { continue };
            if !key.modes.contains(&self.mode) {
                let (mode, used_in) = (self.mode, key.modes);
                let problem = Problem::Unused { key: key.name, mode, used_in };
                return Err(ConfigError { place: Place::BootArgument(word.to_owned()), problem });
            }
        }
        Ok(())
    }

    /// Sets one key. `seen` holds the keys that the same place has set before.
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
            ("grammar", "json_schema") | ("json_schema", "grammar") => true,
            ("chat_template", other) => other.starts_with(CHAT),
            (name, "chat_template") => name.starts_with(CHAT),
            (name, other) => name == other,
        };
        if let Some(other) = seen.iter().find(|other| excludes(other)) {
            return Err(Problem::Conflict(other, key.name));
        }
        seen.push(key.name);
        let bad = || Problem::BadValue { key: key.name, expects: key.takes.to_string() };
        key.set(self, value).ok_or_else(bad)
    }
}

/// The boot arguments before `--`, and those that are settings: all others.
fn split<'a, A: AsRef<[u8]> + ?Sized + 'a>(
    arguments: impl IntoIterator<Item = &'a A>,
) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let mut arguments: Vec<&[u8]> = arguments.into_iter().map(AsRef::as_ref).collect();
    let is_separator = |word: &&[u8]| *word == SEPARATOR.as_bytes();
    let first = arguments.iter().position(is_separator).map_or(0, |i| i + 1);
    let ours = arguments.split_off(first);
    (arguments, ours)
}

#[cfg(test)]
mod tests;
