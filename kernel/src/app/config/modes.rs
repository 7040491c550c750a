//! What the modes are called, and which settings do something in which of them.

use core::fmt;

use super::{CHAT, Mode};

use Mode::{Bench, Chat, Generate, Perplexity, Test};

/// Every mode there is.
pub const ALL: &[Mode] = &[Generate, Chat, Perplexity, Bench, Test];
/// Those that take a text.
const TAKE_TEXT: &[Mode] = &[Generate, Chat, Perplexity, Bench];
/// Those that write a text.
const WRITE_TEXT: &[Mode] = &[Generate, Chat, Bench];

/// The settings of the sampler.
const SAMPLER: &[&str] = &[
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "penalty_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "logit_bias",
];

/// The modes in which a setting does something.
pub fn of(key: &str) -> &'static [Mode] {
    match key {
        "prompt" | "prompt_file" => TAKE_TEXT,
        "max_tokens" | "context_shift" | "keep" => WRITE_TEXT,
        "cut_prompt" => &[Generate],
        "parse_special" => &[Generate, Perplexity, Bench],
        "system" => &[Chat],
        "tests" => &[Test],
        key if key.starts_with(CHAT) => &[Chat],
        key if SAMPLER.contains(&key) => WRITE_TEXT,
        _ => ALL,
    }
}

impl Mode {
    /// Its name, as `mode` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Generate => "generate",
            Chat => "chat",
            Perplexity => "perplexity",
            Bench => "bench",
            Test => "test",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::*;

    #[test]
    fn each_setting_that_is_named_here_is_one() {
        let some = ["prompt", "prompt_file", "max_tokens", "context_shift", "keep", "cut_prompt"];
        for name in SAMPLER.iter().chain(&some).chain(&["system", "tests"]) {
            assert!(KEYS.iter().any(|key| key.name == *name), "{name}");
            assert_ne!(of(name), ALL, "{name}");
        }
        let everywhere = KEYS.iter().map(|key| key.name).filter(|name| of(name) == ALL);
        let expected =
            ["mode", "model", "context", "kv_cache", "threads", "log", "verify", "at_exit"];
        assert!(everywhere.eq(expected), "whether a new setting does something everywhere");
    }
}
