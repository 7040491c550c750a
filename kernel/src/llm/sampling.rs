//! Choosing the next token from the logits.
//!
//! The order and the meaning of the steps are llama.cpp's: the `top_k` best candidates, of those
//! the best whose probabilities add up to `top_p`, then the temperature, then the draw.

#![forbid(unsafe_code)]

use alloc::format;

use crate::llm::Error;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingConfig {
    /// What logits are divided by before the draw; 0 always takes the best token.
    pub temperature: f32,
    /// How many of the best candidates are kept; 0 keeps all.
    pub top_k: usize,
    /// The best candidates are kept until their probabilities add up to this; 1 keeps all, 0 the
    /// best one.
    pub top_p: f32,
    /// Seed of the generator that draws: the same seed gives the same text.
    pub seed: u64,
}

impl SamplingConfig {
    /// Always the best token.
    pub const fn greedy() -> Self {
        SamplingConfig { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }

    /// Varied text, with llama.cpp's default settings.
    pub const fn creative() -> Self {
        SamplingConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 0 }
    }

    /// Checks that each setting makes sense.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        let SamplingConfig { temperature, top_p, .. } = *self;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            let what = format!("temperature is {temperature}, which is not 0 or more");
            return Err(Error::InvalidConfig { what });
        }
        if !(0.0..=1.0).contains(&top_p) {
            let what = format!("top_p is {top_p}, which is not between 0 and 1");
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
}

/// A small seeded generator (Steele, Lea and Flood: Fast splittable pseudorandom number
/// generators, 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose sequence this seed decides.
    pub const fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next number, of all there are.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, at least 0 and below 1.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Sampler {
    /// A sampler at the start of its sequence.
    pub fn new(config: SamplingConfig) -> Self {
        Sampler { config, generator: SplitMix64::new(config.seed) }
    }

    /// The settings.
    pub fn config(&self) -> SamplingConfig {
        self.config
    }

    /// The next token. `candidates` is scratch space of the length of `logits`; what it holds does
    /// not matter.
    pub fn sample(&mut self, logits: &[f32], candidates: &mut [Candidate]) -> u32 {
        let SamplingConfig { temperature, top_k, top_p, .. } = self.config;
        if temperature <= 0.0 || top_k == 1 {
            return argmax(logits);
        }
        for (candidate, (token, &logit)) in candidates.iter_mut().zip((0..).zip(logits)) {
            // What is not a number is never chosen.
            let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
            *candidate = Candidate { token, logit, p: 0.0 };
        }
        let candidates = keep_top_k(candidates, top_k);
        let candidates = keep_top_p(candidates, top_p);
        let largest = candidates.iter().fold(f32::NEG_INFINITY, |a, b| a.max(b.logit));
        if largest.is_infinite() {
            // There is nothing to compare with: only infinities, or none but them.
            return argmax(logits);
        }
        for candidate in candidates.iter_mut() {
            // The difference first: a quotient of its own may be infinite for a low temperature,
            // the best candidate's difference stays 0.
            candidate.logit = (candidate.logit - largest) / temperature;
        }
        softmax(candidates, 0.0);
        let mut rest = self.generator.next_unit();
        for candidate in candidates.iter() {
            rest -= f64::from(candidate.p);
            if rest < 0.0 {
                return candidate.token;
            }
        }
        // The probabilities add up to a little less than 1.
        candidates.last().map_or(0, |candidate| candidate.token)
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

/// Best first; of equal ones the one with the lower number.
fn sort(candidates: &mut [Candidate]) {
    candidates
        .sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then_with(|| a.token.cmp(&b.token)));
}

fn keep_top_k(candidates: &mut [Candidate], k: usize) -> &mut [Candidate] {
    if k == 0 || k >= candidates.len() {
        return candidates;
    }
    candidates.select_nth_unstable_by(k - 1, |a, b| {
        b.logit.total_cmp(&a.logit).then_with(|| a.token.cmp(&b.token))
    });
    let kept = &mut candidates[..k];
    sort(kept);
    kept
}

fn keep_top_p(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p >= 1.0 {
        return candidates;
    }
    sort(candidates);
    let largest = candidates.first().map_or(0.0, |candidate| candidate.logit);
    softmax(candidates, largest);
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += candidate.p;
        sum >= p
    });
    let kept = enough.map_or(candidates.len(), |last| last + 1);
    &mut candidates[..kept]
}

fn softmax(candidates: &mut [Candidate], largest: f32) {
    let mut sum = 0.0;
    for candidate in candidates.iter_mut() {
        candidate.p = libm::expf(candidate.logit - largest);
        sum += candidate.p;
    }
    for candidate in candidates {
        candidate.p /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Logits whose probabilities are 0.4, 0.3, 0.2 and 0.1, in another order.
    fn logits() -> Vec<f32> {
        [0.2_f32, 0.4, 0.1, 0.3].map(libm::logf).to_vec()
    }

    fn draw(config: SamplingConfig, n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(config);
        let mut scratch = vec![Candidate { token: 99, logit: 99.0, p: 99.0 }; 4];
        (0..n).map(|_| sampler.sample(&logits(), &mut scratch)).collect()
    }

    fn shares(config: SamplingConfig) -> BTreeMap<u32, f64> {
        let n = 20_011;
        let mut counts = BTreeMap::new();
        for token in draw(config, n) {
            *counts.entry(token).or_insert(0.0) += 1.0 / n as f64;
        }
        counts
    }

    #[track_caller]
    fn assert_shares(config: SamplingConfig, expected: &[(u32, f64)]) {
        let shares = shares(config);
        assert_eq!(shares.len(), expected.len(), "{shares:?}");
        for &(token, share) in expected {
            assert!((shares[&token] - share).abs() < 0.015, "{shares:?}, expected {expected:?}");
        }
    }

    const ALL: SamplingConfig = SamplingConfig { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7 };

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(argmax(&[0.5, 2.0, 1.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -3.0, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[]), 0);
        assert_eq!(draw(SamplingConfig::greedy(), 3), [1, 1, 1]);
        assert_eq!(draw(SamplingConfig { top_k: 1, ..ALL }, 3), [1, 1, 1]);
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        assert_shares(ALL, &[(0, 0.2), (1, 0.4), (2, 0.1), (3, 0.3)]);
    }

    #[test]
    fn top_k_keeps_the_best() {
        let config = SamplingConfig { top_k: 2, ..ALL };
        assert_shares(config, &[(1, 0.4 / 0.7), (3, 0.3 / 0.7)]);
        let many = SamplingConfig { top_k: 5, ..ALL };
        assert_eq!(shares(many).len(), 4);
    }

    #[test]
    fn top_p_keeps_the_best_that_reach_it() {
        // 0.4 and 0.3 do not reach 0.75, with 0.2 they do.
        let config = SamplingConfig { top_p: 0.75, ..ALL };
        assert_shares(config, &[(1, 0.4 / 0.9), (3, 0.3 / 0.9), (0, 0.2 / 0.9)]);
        assert_shares(SamplingConfig { top_p: 0.1, ..ALL }, &[(1, 1.0)]);
        assert_shares(SamplingConfig { top_p: 0.0, ..ALL }, &[(1, 1.0)]);
    }

    #[test]
    fn the_lowest_temperatures_take_the_best_token() {
        for temperature in [1e-39, f32::MIN_POSITIVE, 1e-6] {
            for top_p in [1.0, 0.9] {
                let config = SamplingConfig { temperature, top_p, ..ALL };
                assert_eq!(draw(config, 5), [1; 5], "{temperature}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_never_chosen() {
        let mut scratch = [Candidate { token: 99, logit: 99.0, p: 99.0 }; 5];
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for (config, logits, allowed) in [
            (ALL, [nan, 1.0, -nan, 1.5, nan], &[1, 3][..]),
            (SamplingConfig { top_k: 3, ..ALL }, [nan, 1.0, nan, -inf, nan], &[1]),
            (SamplingConfig { top_p: 0.5, ..ALL }, [nan, 1.0, -nan, nan, nan], &[1]),
            (ALL, [nan, -inf, inf, 3.0, nan], &[2]),
            (ALL, [nan; 5], &[0]),
        ] {
            let mut sampler = Sampler::new(config);
            for _ in 0..101 {
                let token = sampler.sample(&logits, &mut scratch);
                assert!(allowed.contains(&token), "{logits:?}: {token}");
            }
        }
    }

    #[test]
    fn top_p_counts_what_top_k_left_and_comes_before_the_temperature() {
        // Of the two best, 0.4 / 0.7 is below 0.6: both stay. The temperature is for the draw only.
        let config = SamplingConfig { top_k: 2, top_p: 0.6, temperature: 0.5, ..ALL };
        assert_shares(config, &[(1, 0.16 / 0.25), (3, 0.09 / 0.25)]);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first numbers of the seed 1234567, as published with the reference code.
        let mut generator = SplitMix64::new(1_234_567);
        let first = [(); 3].map(|()| generator.next_u64());
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(draw(ALL, 101), draw(ALL, 101));
        assert_ne!(draw(ALL, 101), draw(SamplingConfig { seed: 8, ..ALL }, 101));
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        for config in [ALL, SamplingConfig::greedy(), SamplingConfig::creative()] {
            config.check().unwrap();
        }
        for (config, name) in [
            (SamplingConfig { temperature: -0.5, ..ALL }, "temperature"),
            (SamplingConfig { temperature: f32::NAN, ..ALL }, "temperature"),
            (SamplingConfig { temperature: f32::INFINITY, ..ALL }, "temperature"),
            (SamplingConfig { top_p: -0.1, ..ALL }, "top_p"),
            (SamplingConfig { top_p: 1.5, ..ALL }, "top_p"),
            (SamplingConfig { top_p: f32::NAN, ..ALL }, "top_p"),
        ] {
            let Err(Error::InvalidConfig { what }) = config.check() else {
                panic!("{config:?} was accepted");
            };
            assert!(what.starts_with(name), "{what}");
        }
    }
}
