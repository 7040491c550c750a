//! Draws from any logits with any settings that are accepted, after any text.
#![no_main]

use std::sync::LazyLock;

use fuzz::limits::Limits;
use fuzz::text::byte_tokens;
use kernel::llm::gguf::Gguf;
use kernel::llm::gguf::write::Builder;
use kernel::llm::sampling::{
    Breakers, Candidate, LogitBias, MAX_BREAKER_BYTES, Mirostat, Sampler, SamplingConfig, argmax,
};
use kernel::llm::tokenizer::Tokenizer;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// A number as settings and models have it, or any bits.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Bits(u32),
    Hundredths(i16),
    Thousandth(u16),
    Infinite(bool),
    Largest(bool),
    Smallest,
    NaN,
}

impl Number {
    fn value(self) -> f32 {
        match self {
            Number::Bits(bits) => f32::from_bits(bits),
            Number::Hundredths(n) => f32::from(n) / 100.0,
            Number::Thousandth(n) => f32::from(n % 1001) / 1000.0,
            Number::Infinite(true) => f32::INFINITY,
            Number::Infinite(false) => f32::NEG_INFINITY,
            Number::Largest(true) => f32::MAX,
            Number::Largest(false) => f32::MIN,
            Number::Smallest => f32::from_bits(1),
            Number::NaN => f32::NAN,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// In the order of the settings.
    numbers: [Option<Number>; 11],
    counts: [u8; 4],
    biases: Vec<(u8, Number)>,
    mirostat: Option<(Number, Number)>,
    seed: u64,
    text: Vec<u8>,
    logits: Vec<Number>,
    /// Texts that end a repetition.
    breakers: Vec<String>,
}

/// The settings, if they are accepted.
fn config(input: &Input) -> Option<SamplingConfig> {
    let usual = SamplingConfig::creative();
    let mut numbers = input.numbers.iter();
    let mut or = |usual: f32| numbers.next().copied().flatten().map_or(usual, Number::value);
    let [penalty_last_n, dry_allowed_length, dry_penalty_last_n, top_k] =
        input.counts.map(usize::from);
    let mut logit_bias = LogitBias::NONE;
    for &(token, bias) in &input.biases {
        logit_bias.push(token.into(), bias.value()).ok()?;
    }
    let config = SamplingConfig {
        logit_bias,
        penalty_last_n,
        repeat_penalty: or(usual.repeat_penalty),
        frequency_penalty: or(usual.frequency_penalty),
        presence_penalty: or(usual.presence_penalty),
        dry_multiplier: or(usual.dry_multiplier),
        dry_base: usual.dry_base,
        dry_allowed_length,
        dry_penalty_last_n,
        top_n_sigma: or(usual.top_n_sigma),
        top_k,
        typical_p: or(usual.typical_p),
        top_p: or(usual.top_p),
        min_p: or(usual.min_p),
        xtc_probability: or(usual.xtc_probability),
        xtc_threshold: or(usual.xtc_threshold),
        temperature: or(usual.temperature),
        mirostat: input.mirostat.map(|(tau, eta)| Mirostat { tau: tau.value(), eta: eta.value() }),
        seed: input.seed,
    };
    config.check().ok()?;
    Some(config)
}

/// A tokenizer whose tokens are the bytes, as those of the text are.
static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &byte_tokens().collect::<Vec<_>>())
        .f32s("tokenizer.ggml.scores", &[0.0; 256])
        .i32s("tokenizer.ggml.token_type", &[6; 256])
        .build();
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap()
});

const LIMITS: Limits = Limits { memory: (64, 64 << 10), ns_per_byte: 20_000 };

fuzz_target!(|input: Input| {
    LazyLock::force(&BYTES);
    let Some(config) = config(&input) else { return };
    let logits: Vec<f32> = input.logits.iter().map(|logit| logit.value()).collect();
    let mut breakers = input.breakers;
    breakers.retain(|text| text.len() <= MAX_BREAKER_BYTES);
    let n =
        logits.len() + input.text.len() + breakers.iter().map(|text| text.len() + 1).sum::<usize>();
    LIMITS.hold(n, || draw(config, &input.text, &logits, &breakers));
});

fn draw(config: SamplingConfig, text: &[u8], logits: &[f32], breakers: &[String]) {
    let mut sampler = Sampler::new(config);
    if sampler.wants_breakers() {
        sampler.set_breakers(Breakers::new(breakers, &BYTES).expect("memory"));
    }
    for &token in text {
        sampler.accept(token.into());
    }
    let mut scratch = vec![Candidate::default(); logits.len()];
    for _ in 0..3 {
        let mut candidates: Vec<(u32, f32)> = sampler
            .clone()
            .candidates(logits, &mut scratch)
            .iter()
            .map(|candidate| (candidate.token(), candidate.probability()))
            .collect();
        let again = sampler.clone().sample(logits, &mut scratch);
        let token = sampler.sample(logits, &mut scratch);
        assert_eq!(token, again, "the same state draws the same token");
        if logits.is_empty() {
            assert_eq!((token, candidates.len()), (0, 0));
            return;
        }
        assert!((token as usize) < logits.len(), "{token}");
        check_candidates(&mut candidates, &config);
        if is_greedy(&config) {
            assert_eq!(token, argmax(logits));
        } else {
            let drawn = candidates.iter().find(|&&(candidate, _)| candidate == token);
            assert!(drawn.is_some_and(|&(_, p)| p > 0.0), "{token} of {candidates:?}");
        }
        // Nothing impossible, where there is a choice.
        let is_choice =
            |(i, &logit): (u32, &f32)| logit.abs() < 1e30 && is_possible(&config, i, logit);
        if is_gentle(&config) && (0..).zip(logits).any(is_choice) {
            let is_right = is_possible(&config, token, logits[token as usize]);
            assert!(is_right, "{token} of {logits:?} with {config:?}");
        }
        sampler.accept(token);
    }
}

/// Each is there once, with probabilities that add up to 1.
fn check_candidates(candidates: &mut [(u32, f32)], config: &SamplingConfig) {
    candidates.sort_unstable_by_key(|&(token, _)| token);
    assert!(candidates.windows(2).all(|pair| pair[0].0 < pair[1].0), "{candidates:?}");
    assert!(candidates.iter().all(|(_, p)| (0.0..=1.0).contains(p)), "{candidates:?}");
    let sum: f64 = candidates.iter().map(|&(_, p)| f64::from(p)).sum();
    assert!((sum - 1.0).abs() < 1e-3, "{sum} with {config:?}: {candidates:?}");
}

/// Whether a token may be chosen: its logit is a number, and it is not banned.
fn is_possible(config: &SamplingConfig, token: u32, logit: f32) -> bool {
    let mut biases = config.logit_bias.entries().iter();
    let is_banned = biases.any(|&(id, bias)| id == token && bias == f32::NEG_INFINITY);
    logit > f32::NEG_INFINITY && !is_banned
}

/// Whether nothing that lowers a logit is so large that it bans the token.
fn is_gentle(config: &SamplingConfig) -> bool {
    let mut biases = config.logit_bias.entries().iter().map(|&(_, bias)| bias);
    (0.01..=100.0).contains(&config.repeat_penalty)
        && config.dry_multiplier == 0.0
        && biases.all(|bias| bias == f32::NEG_INFINITY || bias.abs() < 1e30)
}

/// Whether it is the largest logit that is chosen, whatever else is set.
fn is_greedy(config: &SamplingConfig) -> bool {
    let &SamplingConfig { temperature, top_k, top_p, min_p, top_n_sigma, seed, .. } = config;
    let &SamplingConfig { penalty_last_n, dry_base, mirostat, xtc_threshold, .. } = config;
    let &SamplingConfig { dry_allowed_length, dry_penalty_last_n, .. } = config;
    let greedy = SamplingConfig {
        top_k,
        top_p,
        min_p,
        top_n_sigma,
        seed,
        penalty_last_n,
        dry_base,
        dry_allowed_length,
        dry_penalty_last_n,
        mirostat,
        xtc_threshold,
        ..SamplingConfig::greedy()
    };
    temperature == 0.0 && *config == greedy
}
