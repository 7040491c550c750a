//! The modes, and the sets of modes in which a setting has an effect.

use core::fmt;

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
    /// Answers requests over HTTP.
    Serve,
    /// Measures the disk, the hash and the engine.
    Bench,
    /// Tests itself.
    Test,
}

use Mode::{Bench, Chat, Generate, Perplexity, Serve, Test};

/// Every mode.
pub const ALL: &[Mode] = &[Generate, Chat, Perplexity, Serve, Bench, Test];
/// Modes that read a prompt.
pub const READ_PROMPT: &[Mode] = &[Generate, Chat, Perplexity, Bench];
/// Modes that sample.
pub const SAMPLE: &[Mode] = &[Generate, Chat, Serve, Bench];
/// Modes that write chats.
pub const CHATS: &[Mode] = &[Chat, Serve];
/// Modes that generate text.
pub const GENERATE: &[Mode] = &[Generate, Chat, Bench];
/// Modes that use the network.
pub const NETWORK: &[Mode] = &[Serve];

impl Mode {
    /// The names of all modes.
    pub const NAMES: &[&str] = &["generate", "chat", "perplexity", "serve", "bench", "test"];

    /// The mode of a name.
    pub fn by_name(name: &str) -> Option<Mode> {
        ALL.iter().copied().find(|mode| mode.name() == name)
    }

    /// The name, as the setting `mode` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Generate => "generate",
            Chat => "chat",
            Perplexity => "perplexity",
            Serve => "serve",
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
    fn each_mode_has_its_name() {
        assert!(ALL.iter().map(|mode| mode.name()).eq(Mode::NAMES.iter().copied()));
        assert!(ALL.iter().all(|mode| Mode::by_name(mode.name()) == Some(*mode)));
        assert_eq!(Mode::by_name("dance"), None);
    }

    #[test]
    fn the_settings_that_count_in_every_mode_are_these() {
        let everywhere = KEYS.iter().filter(|key| key.modes == ALL).map(|key| key.name);
        let expected =
            ["mode", "model", "context", "kv_cache", "threads", "log", "verify", "at_exit"];
        assert!(everywhere.eq(expected), "whether a new setting has an effect in every mode");
    }
}
