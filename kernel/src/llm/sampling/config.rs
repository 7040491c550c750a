//! The sampler's settings.

use alloc::format;

use crate::llm::Error;

/// The most tokens that penalties and DRY look back at; bounds the memory.
pub const MAX_LAST_N: usize = 4096;
/// The most tokens with a bias.
pub const MAX_BIASES: usize = 16;

/// Settings of sampling. The names are llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingConfig {
    /// Biases of the logits of some tokens, added first.
    pub logit_bias: LogitBias,
    /// Tokens that the penalties look back at, the prompt's included; 0 is off.
    pub penalty_last_n: usize,
    /// Repetition penalty: divides a positive logit, multiplies a negative one.
    ///
    /// 1 changes nothing.
    pub repeat_penalty: f32,
    /// Frequency penalty: subtracted from the logit for each repetition.
    pub frequency_penalty: f32,
    /// Presence penalty: subtracted once from a repeated token's logit.
    pub presence_penalty: f32,
    /// DRY: penalty of continuing a repetition of `dry_allowed_length` tokens.
    ///
    /// 0 turns DRY off.
    pub dry_multiplier: f32,
    /// DRY: base of the exponential growth with the repetition's length; at least 1.
    pub dry_base: f32,
    /// DRY: length of a repetition without a penalty.
    pub dry_allowed_length: usize,
    /// DRY: the last tokens, including the prompt's, that are searched for repetitions.
    ///
    /// 0 turns DRY off.
    pub dry_penalty_last_n: usize,
    /// Top-nσ: keeps logits at most this many standard deviations below the largest.
    ///
    /// 0 keeps all.
    pub top_n_sigma: f32,
    /// Top-k: the number of best candidates to keep; 0 keeps all.
    pub top_k: usize,
    /// Locally typical sampling (Meister et al., 2022); 1 keeps all.
    ///
    /// Keeps the candidates whose surprise is nearest to the entropy, until their probabilities
    /// exceed this.
    pub typical_p: f32,
    /// Top-p: keeps the best candidates until their probabilities add up to this.
    ///
    /// 1 keeps all, 0 the best one.
    pub top_p: f32,
    /// Min-p: keeps candidates of at least this fraction of the best probability.
    ///
    /// 0 keeps all.
    pub min_p: f32,
    /// XTC: probability of removing likely candidates; 0 is never.
    pub xtc_probability: f32,
    /// XTC: removes candidates at least this probable, except the least probable.
    ///
    /// Above 0.5 XTC never removes any.
    pub xtc_threshold: f32,
    /// Temperature: divides the logits before the draw; 0 is greedy.
    pub temperature: f32,
    /// Mirostat, in place of all other settings but `logit_bias` and `temperature`.
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

/// Tokens and the biases of their logits; negative infinity bans a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitBias {
    entries: [(u32, f32); MAX_BIASES],
    len: usize,
}

impl LogitBias {
    /// No biases.
    pub const NONE: LogitBias = LogitBias { entries: [(0, 0.0); MAX_BIASES], len: 0 };

    /// Adds a bias.
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
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 64,
            top_n_sigma: 0.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
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
        self.mirostat.is_none() && self.penalty_last_n > 0 && penalties != (1.0, 0.0, 0.0)
    }

    /// Whether DRY does anything.
    pub(super) fn dries(&self) -> bool {
        self.mirostat.is_none() && self.dry_multiplier > 0.0 && self.dry_penalty_last_n > 0
    }

    /// Whether XTC may do anything.
    pub(super) fn excludes(&self) -> bool {
        self.mirostat.is_none() && self.xtc_probability > 0.0 && self.xtc_threshold <= 0.5
    }

    /// Whether the settings always take the token of the largest logit, biases added.
    pub(super) fn takes_best(&self) -> bool {
        let changes_logits = self.penalizes() || self.dries();
        let leaves_best_out = self.typical_p < 1.0 || self.excludes();
        self.temperature <= 0.0 && !changes_logits && !leaves_best_out
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
            ("dry_multiplier", self.dry_multiplier, 0.0..=1000.0, "between 0 and 1000"),
            ("dry_base", self.dry_base, 1.0..=1000.0, "between 1 and 1000"),
            ("top_n_sigma", self.top_n_sigma, 0.0..=f32::MAX, "0 or more"),
            ("xtc_probability", self.xtc_probability, 0.0..=1.0, "between 0 and 1"),
            ("xtc_threshold", self.xtc_threshold, 0.0..=1.0, "between 0 and 1"),
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
        for (name, n) in [
            ("penalty_last_n", self.penalty_last_n),
            ("dry_penalty_last_n", self.dry_penalty_last_n),
            ("dry_allowed_length", self.dry_allowed_length),
        ] {
            if n > MAX_LAST_N {
                let what = format!("{name} is {n}, above {MAX_LAST_N}");
                return Err(Error::InvalidConfig { what });
            }
        }
        check_biases(self.logit_bias.entries())
    }
}

/// Checks that each bias is finite, or negative infinity.
///
/// # Errors
/// [`Error::InvalidConfig`] naming the token.
pub(super) fn check_biases(biases: &[(u32, f32)]) -> Result<(), Error> {
    match biases.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
        None => Ok(()),
        Some((token, bias)) => {
            let what = format!("logit_bias is {bias} for token {token}");
            Err(Error::InvalidConfig { what })
        }
    }
}

impl Default for SamplingConfig {
    fn default() -> Self {
        SamplingConfig::greedy()
    }
}
