//! Choosing the next token from the logits.
//!
//! The steps, their order and their meaning are llama.cpp's: biases, penalties, `top_k`,
//! `typical_p`, `top_p`, `min_p`, temperature, draw. With Mirostat the steps between the penalties
//! and the temperature are left out, and it decides what is drawn from.

#![forbid(unsafe_code)]

mod config;
mod history;
mod random;
mod steps;
#[cfg(test)]
mod tests;

pub use config::{LogitBias, MAX_BIASES, MAX_LAST_N, Mirostat, SamplingConfig};
use history::History;
pub use random::SplitMix64;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Candidate {
    token: u32,
    logit: f32,
    /// Probability among the candidates that are left.
    p: f32,
}

/// Draws tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplingConfig,
    generator: SplitMix64,
    history: History,
    /// Mirostat's bound on the surprise of a token, in bits.
    mu: f32,
}

impl Sampler {
    /// A sampler at the start of its sequence, for a text of which there is nothing yet. It
    /// allocates nothing after this.
    pub fn new(config: SamplingConfig) -> Self {
        let last_n = if config.penalizes() { config.penalty_last_n.min(MAX_LAST_N) } else { 0 };
        let mu = 2.0 * config.mirostat.map_or(0.0, |mirostat| mirostat.tau);
        let generator = SplitMix64::new(config.seed);
        Sampler { config, generator, history: History::new(last_n), mu }
    }

    /// The settings.
    pub fn config(&self) -> SamplingConfig {
        self.config
    }

    /// Tells the sampler a token of the text, one of the prompt or one that was sampled: the
    /// penalties count it.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
    }

    /// Forgets the text, but not where the generator is.
    pub fn forget(&mut self) {
        self.history.clear();
        self.mu = 2.0 * self.config.mirostat.map_or(0.0, |mirostat| mirostat.tau);
    }

    /// The next token. `candidates` is scratch space of the length of `logits`; what it holds does
    /// not matter.
    pub fn sample(&mut self, logits: &[f32], candidates: &mut [Candidate]) -> u32 {
        let config = self.config;
        let changes_logits = config.penalizes() || !config.logit_bias.entries().is_empty();
        if config.temperature <= 0.0 && config.typical_p >= 1.0 && !changes_logits {
            return argmax(logits);
        }
        for (candidate, (token, &logit)) in candidates.iter_mut().zip((0..).zip(logits)) {
            // What is not a number is never chosen.
            let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
            *candidate = Candidate { token, logit, p: 0.0 };
        }
        for &(token, bias) in config.logit_bias.entries() {
            if let Some(candidate) = candidates.get_mut(token as usize) {
                candidate.logit += bias;
            }
        }
        if config.penalizes() {
            self.penalize(candidates);
        }
        if steps::largest(candidates).is_infinite() {
            // There is nothing to compare with: only infinities, or none but them.
            return steps::best(candidates);
        }
        match config.mirostat {
            Some(mirostat) => self.mirostat(candidates, mirostat),
            None => {
                let candidates = steps::top_k(candidates, config.top_k);
                let candidates = steps::typical(candidates, config.typical_p);
                let candidates = steps::top_p(candidates, config.top_p);
                let candidates = steps::min_p(candidates, config.min_p);
                if config.temperature <= 0.0 {
                    return steps::best(candidates);
                }
                steps::temperature(candidates, config.temperature);
                self.draw(candidates).token
            }
        }
    }

    fn penalize(&mut self, candidates: &mut [Candidate]) {
        let SamplingConfig { repeat_penalty, frequency_penalty, presence_penalty, .. } =
            self.config;
        for (token, count) in self.history.counts() {
            let Some(Candidate { logit, .. }) = candidates.get_mut(token as usize) else {
                continue;
            };
            if *logit <= 0.0 {
                *logit *= repeat_penalty;
            } else {
                *logit /= repeat_penalty;
            }
            *logit -= count as f32 * frequency_penalty + presence_penalty;
        }
    }

    fn mirostat(&mut self, candidates: &mut [Candidate], Mirostat { tau, eta }: Mirostat) -> u32 {
        if self.config.temperature <= 0.0 {
            return steps::best(candidates);
        }
        steps::temperature(candidates, self.config.temperature);
        let Candidate { token, p, .. } = self.draw(steps::surprise(candidates, self.mu));
        self.mu -= eta * (-libm::log2f(p) - tau);
        token
    }

    /// Draws one of the candidates by their logits.
    fn draw(&mut self, candidates: &mut [Candidate]) -> Candidate {
        steps::softmax(candidates);
        let mut rest = self.generator.next_unit();
        // The probabilities may add up to a little less than 1; then it is the last one that has
        // any.
        let mut drawn = candidates[0];
        for &candidate in candidates.iter().filter(|candidate| candidate.p > 0.0) {
            drawn = candidate;
            rest -= f64::from(candidate.p);
            if rest < 0.0 {
                break;
            }
        }
        drawn
    }
}

/// The token of the largest logit, the first of equal ones.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}
