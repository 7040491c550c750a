//! The sampler's settings.

use alloc::format;

use crate::llm::Error;

/// The most tokens that the penalties look back at: a bound for the sampler's memory.
pub const MAX_LAST_N: usize = 4096;
/// The most tokens with a bias.
pub const MAX_BIASES: usize = 16;

/// How the next token is chosen. The names are llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingConfig {
    /// What is added to the logits of some tokens first of all.
    pub logit_bias: LogitBias,
    /// How many of the last tokens, the prompt's included, the penalties count; 0 turns them off.
    pub penalty_last_n: usize,
    /// What the logit of a token among them is divided by if positive, else multiplied with; 1
    /// changes nothing.
    pub repeat_penalty: f32,
    /// What its logit is lowered by for each time it is among them.
    pub frequency_penalty: f32,
    /// What its logit is lowered by if it is among them at all.
    pub presence_penalty: f32,
    /// How many of the best candidates are kept; 0 keeps all.
    pub top_k: usize,
    /// The candidates whose surprise is nearest to the expected one are kept until their
    /// probabilities exceed this; 1 keeps all. Locally typical sampling, Meister et al., 2022.
    pub typical_p: f32,
    /// The best candidates are kept until their probabilities add up to this; 1 keeps all, 0 the
    /// best one.
    pub top_p: f32,
    /// The candidates that are at least this much of the best one's probability are kept; 0 keeps
    /// all.
    pub min_p: f32,
    /// What logits are divided by before the draw; 0 always takes the best candidate.
    pub temperature: f32,
    /// In place of all that keeps only some candidates: Mirostat.
    pub mirostat: Option<Mirostat>,
    /// Seed of the generator that draws: the same seed gives the same text.
    pub seed: u64,
}

/// Keeps the surprise of the text near a target: Mirostat 2, Basu et al., 2021.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The target, in bits.
    pub tau: f32,
    /// How fast the bound on a token's surprise follows the error.
    pub eta: f32,
}

impl Mirostat {
    /// llama.cpp's defaults.
    pub const DEFAULT: Mirostat = Mirostat { tau: 5.0, eta: 0.1 };
}

/// Tokens with what is added to their logits; negative infinity bans a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitBias {
    entries: [(u32, f32); MAX_BIASES],
    len: usize,
}

impl LogitBias {
    /// No biases.
    pub const NONE: LogitBias = LogitBias { entries: [(0, 0.0); MAX_BIASES], len: 0 };

    /// Adds one.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if there are [`MAX_BIASES`] already.
    pub fn push(&mut self, token: u32, bias: f32) -> Result<(), Error> {
        let Some(entry) = self.entries.get_mut(self.len) else {
            let what = format!("logit_bias has more than {MAX_BIASES} tokens");
            return Err(Error::InvalidConfig { what });
        };
        *entry = (token, bias);
        self.len += 1;
        Ok(())
    }

    /// All of them.
    pub fn entries(&self) -> &[(u32, f32)] {
        &self.entries[..self.len]
    }
}

impl SamplingConfig {
    /// Always the best token.
    pub const fn greedy() -> Self {
        SamplingConfig {
            logit_bias: LogitBias::NONE,
            penalty_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            temperature: 0.0,
            mirostat: None,
            seed: 0,
        }
    }

    /// Varied text, with llama.cpp's default settings.
    pub const fn creative() -> Self {
        SamplingConfig {
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            temperature: 0.8,
            ..SamplingConfig::greedy()
        }
    }

    /// Whether the penalties do anything.
    pub(super) fn penalizes(&self) -> bool {
        let penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty);
        self.penalty_last_n > 0 && penalties != (1.0, 0.0, 0.0)
    }

    /// Checks that each setting makes sense.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        // So wide that no use lies outside, and that no sum of penalties overflows.
        let penalty = -1000.0..=1000.0;
        let positive = f32::MIN_POSITIVE..=f32::MAX;
        let Mirostat { tau, eta } = self.mirostat.unwrap_or(Mirostat::DEFAULT);
        for (name, value, range, words) in [
            ("repeat_penalty", self.repeat_penalty, positive, "above 0"),
            ("frequency_penalty", self.frequency_penalty, penalty.clone(), "within 1000"),
            ("presence_penalty", self.presence_penalty, penalty, "within 1000"),
            ("typical_p", self.typical_p, 0.0..=1.0, "between 0 and 1"),
            ("top_p", self.top_p, 0.0..=1.0, "between 0 and 1"),
            ("min_p", self.min_p, 0.0..=1.0, "between 0 and 1"),
            ("temperature", self.temperature, 0.0..=f32::MAX, "0 or more"),
            ("mirostat_tau", tau, 0.0..=f32::MAX, "0 or more"),
            ("mirostat_eta", eta, 0.0..=1.0, "between 0 and 1"),
        ] {
            if !range.contains(&value) {
                let what = format!("{name} is {value}, which is not {words}");
                return Err(Error::InvalidConfig { what });
            }
        }
        if self.penalty_last_n > MAX_LAST_N {
            let what = format!("penalty_last_n is {}, above {MAX_LAST_N}", self.penalty_last_n);
            return Err(Error::InvalidConfig { what });
        }
        if let Some((token, bias)) = self
            .logit_bias
            .entries()
            .iter()
            .find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY)
        {
            let what = format!("logit_bias is {bias} for token {token}");
            return Err(Error::InvalidConfig { what });
        }
        Ok(())
    }
}

impl Default for SamplingConfig {
    fn default() -> Self {
        SamplingConfig::greedy()
    }
}
