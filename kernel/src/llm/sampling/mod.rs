//! Sampling: chooses the next token from the logits.
//!
//! The filters, their order and their meaning are llama.cpp's: biases, penalties, DRY,
//! `top_n_sigma`, `top_k`, `typical_p`, `top_p`, `min_p`, XTC, temperature, draw. With Mirostat,
//! only biases and the temperature come before.

#![forbid(unsafe_code)]

mod config;
mod dry;
mod filters;
mod history;
mod mask;
mod probabilities;
mod random;
#[cfg(test)]
mod tests;

pub use config::{LogitBias, MAX_BIASES, MAX_LAST_N, Mirostat, SamplingConfig};
use dry::Dry;
pub use dry::{Breakers, DEFAULT_BREAKERS, MAX_BREAKER_BYTES};
use history::History;
pub use mask::TokenMask;
pub use probabilities::{candidate_probabilities, logit_probabilities};
pub use random::SplitMix64;

use alloc::vec::Vec;

use crate::llm::Error;
use crate::llm::kernels::largest;

/// The most biases that are searched for each of them.
const FEW_BIASES: usize = 32;
/// The most tokens with biases and penalties that are searched for each likely token.
const FEW_CHANGED: usize = 128;
/// Logits whose largest one decides whether one of them is likely.
const BLOCK: usize = 64;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Candidate {
    token: u32,
    logit: f32,
    /// Probability among the candidates that are left.
    p: f32,
}

impl Candidate {
    /// The token.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// Its probability among the candidates that are left.
    pub fn probability(&self) -> f32 {
        self.p
    }
}

/// Draws tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplingConfig,
    generator: SplitMix64,
    history: History,
    dry: Dry,
    /// Biases beside those of the settings.
    biases: Vec<(u32, f32)>,
    /// Mirostat's bound on the surprise of a token, in bits.
    mu: f32,
}

impl Sampler {
    /// A sampler for an empty text, without sequence breakers.
    ///
    /// It allocates nothing later. See [`Sampler::set_breakers`].
    pub fn new(config: SamplingConfig) -> Self {
        let last_n = if config.penalizes() { config.penalty_last_n.min(MAX_LAST_N) } else { 0 };
        let dry_n = if config.dries() { config.dry_penalty_last_n.min(MAX_LAST_N) } else { 0 };
        let mut sampler = Sampler {
            config,
            generator: SplitMix64::new(config.seed),
            history: History::new(last_n),
            dry: Dry::new(dry_n),
            biases: Vec::new(),
            mu: 0.0,
        };
        sampler.forget();
        sampler
    }

    /// The settings.
    pub fn config(&self) -> SamplingConfig {
        self.config
    }

    /// Sets biases beside those of the settings, of any number.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if one is NaN or infinity.
    pub fn set_biases(&mut self, biases: Vec<(u32, f32)>) -> Result<(), Error> {
        config::check_biases(&biases)?;
        self.biases = biases;
        Ok(())
    }

    /// Whether the settings ask for DRY and no sequence breakers were set.
    pub fn wants_breakers(&self) -> bool {
        self.config.dries() && !self.dry.has_breakers()
    }

    /// Sets DRY's sequence breakers. The text so far stays.
    pub fn set_breakers(&mut self, breakers: Breakers) {
        self.dry.set_breakers(breakers);
    }

    /// Appends a token of the text, of the prompt or sampled, for the penalties.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
        self.dry.push(token);
    }

    /// Replaces the text. The generator and Mirostat go on where they are.
    pub fn set_text(&mut self, tokens: &[u32]) {
        self.history.clear();
        self.dry.clear();
        tokens.iter().for_each(|&token| self.accept(token));
    }

    /// Forgets the text, but not where the generator is.
    pub fn forget(&mut self) {
        self.history.clear();
        self.dry.clear();
        self.mu = 2.0 * self.config.mirostat.map_or(0.0, |mirostat| mirostat.tau);
    }

    /// Forgets the text and starts the generator anew.
    pub fn restart(&mut self) {
        self.forget();
        self.generator = SplitMix64::new(self.config.seed);
    }

    /// Samples the next token; 0 without logits.
    ///
    /// `candidates` is scratch space of the length of `logits`.
    ///
    /// Logits may have any value. NaN is never chosen. Negative infinity is only chosen without
    /// other logits.
    pub fn sample(&mut self, logits: &[f32], candidates: &mut [Candidate]) -> u32 {
        self.sample_from(logits, candidates).0
    }

    /// As [`Sampler::sample`]; gives the candidates that the token was drawn from, too.
    ///
    /// Their probabilities add up to 1.
    pub fn sample_from<'c>(
        &mut self,
        logits: &[f32],
        candidates: &'c mut [Candidate],
    ) -> (u32, &'c mut [Candidate]) {
        self.sample_among(logits, candidates, None)
    }

    /// As [`Sampler::sample_from`], among the tokens of a mask.
    pub fn sample_among<'c>(
        &mut self,
        logits: &[f32],
        candidates: &'c mut [Candidate],
        mask: Option<&TokenMask>,
    ) -> (u32, &'c mut [Candidate]) {
        if mask.is_none()
            && self.config.takes_best()
            && let Some(token) = self.best(logits)
        {
            let n = logits.len().min(candidates.len()).min(1);
            let best = &mut candidates[..n];
            best.fill(Candidate { token, logit: 0.0, p: 1.0 });
            return (token, best);
        }
        let candidates = self.candidates_among(logits, candidates, mask);
        let drawn = match (self.config.temperature, &*candidates) {
            (_, []) => return (argmax(logits), candidates),
            (temperature, candidates) if temperature > 0.0 => self.draw(candidates),
            (_, &[best, ..]) => best,
        };
        self.observe(drawn);
        (drawn.token, candidates)
    }

    /// The candidates of [`Sampler::sample`], with probabilities that add up to 1.
    ///
    /// There is at least one candidate if there are logits. The parameters are those of `sample`.
    /// XTC draws from the generator.
    pub fn candidates<'c>(
        &mut self,
        logits: &[f32],
        candidates: &'c mut [Candidate],
    ) -> &'c mut [Candidate] {
        self.candidates_among(logits, candidates, None)
    }

    /// As [`Sampler::candidates`], among the tokens of a mask.
    fn candidates_among<'c>(
        &mut self,
        logits: &[f32],
        candidates: &'c mut [Candidate],
        mask: Option<&TokenMask>,
    ) -> &'c mut [Candidate] {
        let config = self.config;
        let n = logits.len().min(candidates.len());
        let (logits, candidates) = (&logits[..n], &mut candidates[..n]);
        let likely = if mask.is_none() { self.likely(logits, candidates) } else { None };
        let n = likely.unwrap_or_else(|| {
            let is_allowed = |token| mask.is_none_or(|mask| mask.contains(token));
            let allowed = (0..).zip(logits).filter(|(token, _)| is_allowed(*token));
            let mut n = 0;
            for (candidate, (token, &logit)) in candidates.iter_mut().zip(allowed) {
                *candidate = Candidate { token, logit, p: 0.0 };
                n += 1;
            }
            n
        });
        let candidates = &mut candidates[..n];
        for (token, bias) in self.biases() {
            if let Some(candidate) = find(candidates, token) {
                candidate.logit += bias;
            }
        }
        if config.penalizes() {
            self.penalize(candidates);
        }
        if config.dries() {
            self.dry.penalize(&config, candidates);
        }
        // NaN is never chosen.
        for candidate in candidates.iter_mut().filter(|candidate| candidate.logit.is_nan()) {
            candidate.logit = f32::NEG_INFINITY;
        }
        if filters::largest(candidates).is_infinite() {
            // Infinities cannot be compared by their differences.
            return filters::best(candidates);
        }
        let candidates = match config.mirostat {
            Some(_) => candidates,
            None => {
                let candidates = filters::top_n_sigma(candidates, config.top_n_sigma);
                let candidates = filters::top_k(candidates, config.top_k);
                let candidates = filters::typical(candidates, config.typical_p);
                let candidates = filters::top_p(candidates, config.top_p);
                let candidates = filters::min_p(candidates, config.min_p);
                self.xtc(candidates)
            }
        };
        if config.temperature <= 0.0 {
            return filters::best(candidates);
        }
        filters::temperature(candidates, config.temperature);
        let candidates = match config.mirostat {
            Some(_) => filters::surprise(candidates, self.mu),
            None => candidates,
        };
        filters::softmax(candidates);
        candidates
    }

    /// The biases of the settings, and those beside them.
    fn biases(&self) -> impl Iterator<Item = (u32, f32)> {
        self.config.logit_bias.entries().iter().chain(&self.biases).copied()
    }

    /// The token of the largest logit, biases added, if a search without candidates finds it.
    ///
    /// That is so unless the largest logit of all has a bias, or there are many biases.
    fn best(&self, logits: &[f32]) -> Option<u32> {
        let token = argmax(logits);
        let n_biases = self.biases().count();
        if n_biases == 0 {
            return Some(token);
        }
        let is_biased = self.biases().any(|(biased, _)| biased == token);
        let logit = *logits.get(token as usize)?;
        if n_biases > FEW_BIASES || is_biased || logit == f32::NEG_INFINITY || logit.is_nan() {
            return None;
        }
        let mut best = (token, logit);
        for (token, _) in self.biases() {
            let Some(&logit) = logits.get(token as usize) else { continue };
            let own = self.biases().filter(|(biased, _)| *biased == token);
            let logit = own.fold(logit, |logit, (_, bias)| logit + bias);
            if logit > best.1 || logit == best.1 && token < best.0 {
                best = (token, logit);
            }
        }
        Some(best.0)
    }

    /// Makes candidates of the tokens that top-k may keep; returns their number.
    ///
    /// The first ones are the tokens with biases and penalties, at most [`FEW_CHANGED`]. The others
    /// are the tokens of large logits. The result is `None` if that saves nothing, or if other
    /// tokens count.
    fn likely(&mut self, logits: &[f32], candidates: &mut [Candidate]) -> Option<usize> {
        let config = self.config;
        let needs_all = config.top_n_sigma > 0.0 || config.mirostat.is_some() || config.dries();
        let n_blocks = logits.len().div_ceil(BLOCK);
        if needs_all || config.top_k == 0 || config.top_k > n_blocks {
            return None;
        }
        let mut n_changed = 0;
        let mut change = |token: u32| {
            let Some(&logit) = logits.get(token as usize) else { return true };
            let is_known = candidates[..n_changed].iter().any(|changed| changed.token == token);
            if !is_known && n_changed < FEW_CHANGED {
                candidates[n_changed] = Candidate { token, logit, p: 0.0 };
                n_changed += 1;
                return true;
            }
            is_known
        };
        let are_few = self.biases().all(|(token, _)| change(token))
            && (!config.penalizes() || self.history.counts().all(|(token, _)| change(token)));
        // Of so many blocks, each has a logit of this size. Some of these logits may be changed.
        let n_wanted = config.top_k + n_changed;
        if !are_few || n_wanted > n_blocks || n_changed + n_blocks > candidates.len() {
            return None;
        }
        let (changed, others) = candidates.split_at_mut(n_changed);
        let of_blocks = &mut others[..n_blocks];
        for (candidate, block) in of_blocks.iter_mut().zip(logits.chunks(BLOCK)) {
            candidate.logit = largest(block);
        }
        let by_logit = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit);
        let (_, least, _) = of_blocks.select_nth_unstable_by(n_wanted - 1, by_logit);
        let least = least.logit;
        if !least.is_finite() {
            return None;
        }
        // The places of the blocks' largest are filled with candidates, so they are found again.
        let blocks = (0..).step_by(BLOCK).zip(logits.chunks(BLOCK));
        let large = blocks
            .filter(|(_, block)| largest(block) >= least)
            .flat_map(|(at, block)| (at..).zip(block).filter(|(_, logit)| **logit >= least));
        let is_other = |token: u32| changed.iter().all(|changed| changed.token != token);
        let large = large.filter(|(token, _)| is_other(*token));
        let mut n_likely = n_changed;
        for (candidate, (token, &logit)) in others.iter_mut().zip(large) {
            *candidate = Candidate { token, logit, p: 0.0 };
            n_likely += 1;
        }
        Some(n_likely)
    }

    fn penalize(&mut self, candidates: &mut [Candidate]) {
        let SamplingConfig { repeat_penalty, frequency_penalty, presence_penalty, .. } =
            self.config;
        for (token, count) in self.history.counts() {
            let Some(Candidate { logit, .. }) = find(candidates, token) else { continue };
            if *logit <= 0.0 {
                *logit *= repeat_penalty;
            } else {
                *logit /= repeat_penalty;
            }
            *logit -= count as f32 * frequency_penalty + presence_penalty;
        }
    }

    /// XTC: removes likely candidates, at random.
    fn xtc<'c>(&mut self, candidates: &'c mut [Candidate]) -> &'c mut [Candidate] {
        let SamplingConfig { xtc_probability, xtc_threshold, .. } = self.config;
        if !self.config.excludes() || candidates.len() < 2 {
            return candidates;
        }
        match self.generator.next_unit() {
            chance if chance > f64::from(xtc_probability) => candidates,
            _ => filters::xtc(candidates, xtc_threshold),
        }
    }

    /// Draws a candidate by probability.
    fn draw(&mut self, candidates: &[Candidate]) -> Candidate {
        let mut rest = self.generator.next_unit();
        // The probabilities may add up to slightly less than 1. Then the last possible candidate is
        // drawn.
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

    /// Mirostat: moves the bound towards the drawn candidate's surprise.
    fn observe(&mut self, drawn: Candidate) {
        if let Some(Mirostat { tau, eta }) = self.config.mirostat {
            self.mu -= eta * (-libm::log2f(drawn.p) - tau);
        }
    }
}

/// The candidate of a token.
///
/// The candidates are in the order of their tokens, or those that are looked for are in front.
fn find(candidates: &mut [Candidate], token: u32) -> Option<&mut Candidate> {
    let is_it = |candidate: &Candidate| candidate.token == token;
    let by_token = |candidate: &Candidate| candidate.token;
    let place = match candidates.get(token as usize) {
        Some(candidate) if is_it(candidate) => token as usize,
        _ => match candidates.binary_search_by_key(&token, by_token) {
            Ok(place) => place,
            Err(_) => candidates.iter().take(FEW_CHANGED).position(is_it)?,
        },
    };
    candidates.get_mut(place)
}

/// The token of the largest logit, the first of equal ones.
///
/// NaN is never the largest. Without a logit above negative infinity, the token is 0.
pub fn argmax(logits: &[f32]) -> u32 {
    // Only one block is searched for the token.
    let mut best = (0, f32::NEG_INFINITY);
    for (i, block) in logits.chunks(BLOCK).enumerate() {
        let largest = largest(block);
        if largest > best.1 {
            best = (BLOCK * i, largest);
        }
    }
    let (start, largest) = best;
    let is_best = |&logit: &f32| logit == largest && logit > f32::NEG_INFINITY;
    (start + logits[start..].iter().position(is_best).unwrap_or(0)) as u32
}
