//! `generation_settings`: the settings of a request, under llama-server's names.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use super::super::Served;
use super::super::request::{Options, sampling};
use crate::llm::sampling::{Mirostat, SamplingConfig};
use crate::llm::scheduler::Request;

/// -1 for all tokens, as llama-server writes it.
fn max_tokens(n: usize) -> i64 {
    if n == usize::MAX { -1 } else { i64::try_from(n).unwrap_or(i64::MAX) }
}

/// The settings of sampling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sampling {
    seed: u64,
    temperature: f32,
    dynatemp_range: f32,
    dynatemp_exponent: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    top_n_sigma: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    typical_p: f32,
    repeat_last_n: usize,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: usize,
    dry_penalty_last_n: usize,
    mirostat: u8,
    mirostat_tau: f32,
    mirostat_eta: f32,
    adaptive_target: f32,
    adaptive_decay: f32,
    max_tokens: i64,
    n_predict: i64,
    n_keep: usize,
    n_discard: usize,
    min_keep: usize,
    chat_format: &'static str,
    reasoning_format: &'static str,
    reasoning_in_content: bool,
    generation_prompt: &'static str,
    samplers: [&'static str; 9],
    #[serde(rename = "speculative.types")]
    speculative_types: &'static str,
    backend_sampling: bool,
    lora: [u8; 0],
}

impl Sampling {
    /// The settings of sampling, and the number of tokens to generate.
    pub fn new(config: &SamplingConfig, mirostat: Mirostat, n: usize) -> Self {
        Sampling {
            seed: config.seed,
            temperature: config.temperature,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            top_n_sigma: config.top_n_sigma,
            xtc_probability: config.xtc_probability,
            xtc_threshold: config.xtc_threshold,
            typical_p: config.typical_p,
            repeat_last_n: config.penalty_last_n,
            repeat_penalty: config.repeat_penalty,
            presence_penalty: config.presence_penalty,
            frequency_penalty: config.frequency_penalty,
            dry_multiplier: config.dry_multiplier,
            dry_base: config.dry_base,
            dry_allowed_length: config.dry_allowed_length,
            dry_penalty_last_n: config.dry_penalty_last_n,
            mirostat: if config.mirostat.is_some() { 2 } else { 0 },
            mirostat_tau: config.mirostat.unwrap_or(mirostat).tau,
            mirostat_eta: config.mirostat.unwrap_or(mirostat).eta,
            // Negative is off.
            adaptive_target: -1.0,
            adaptive_decay: 0.9,
            max_tokens: max_tokens(n),
            n_predict: max_tokens(n),
            n_keep: 0,
            n_discard: 0,
            min_keep: 0,
            chat_format: "Content-only",
            reasoning_format: "none",
            reasoning_in_content: false,
            generation_prompt: "",
            samplers: sampling::SAMPLERS,
            speculative_types: "none",
            backend_sampling: false,
            lora: [],
        }
    }
}

/// A token and its bias; a banned token has null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Bias {
    bias: f32,
    token: u32,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The settings of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    #[serde(flatten)]
    sampling: Sampling,
    dry_sequence_breakers: Vec<String>,
    stop: Vec<String>,
    ignore_eos: bool,
    stream: bool,
    logit_bias: Vec<Bias>,
    n_probs: usize,
    #[serde(serialize_with = "text")]
    grammar: Arc<str>,
    grammar_lazy: bool,
    grammar_triggers: [u8; 0],
    preserved_tokens: [u8; 0],
    timings_per_token: bool,
    post_sampling_probs: bool,
}

impl Settings {
    /// The settings that the requests for several answers have in common.
    pub fn new(
        served: &Served<'_>,
        request: &Request,
        breakers: Vec<String>,
        grammar: Option<Arc<str>>,
        options: &Options,
    ) -> Self {
        let Request { sampling, logit_bias, ignore_end, .. } = request;
        let configured = sampling.logit_bias.entries().iter().chain(logit_bias);
        let mut biases: Vec<(u32, f32)> = configured.copied().collect();
        if *ignore_end {
            let tokens = 0..served.tokenizer.n_vocab() as u32;
            let ends = tokens.filter(|&token| served.tokenizer.is_end(token));
            biases.extend(ends.map(|token| (token, f32::NEG_INFINITY)));
        }
        let mirostat = served.defaults.sampling.mirostat;
        Settings {
            sampling: Sampling::new(sampling, mirostat, request.max_tokens),
            dry_sequence_breakers: breakers,
            stop: request.stop.clone(),
            ignore_eos: *ignore_end,
            stream: options.stream,
            logit_bias: biases.into_iter().map(|(token, bias)| Bias { bias, token }).collect(),
            n_probs: options.probs.map_or(0, |probs| probs.n_top),
            grammar: grammar.unwrap_or_default(),
            grammar_lazy: false,
            grammar_triggers: [],
            preserved_tokens: [],
            timings_per_token: options.timings_per_token,
            post_sampling_probs: options.post_sampling_probs,
        }
    }

    /// The settings with another seed.
    pub fn with_seed(&self, seed: u64) -> Self {
        let mut settings = self.clone();
        settings.sampling.seed = seed;
        settings
    }

    /// The stop string of this number.
    pub fn stop_string(&self, number: usize) -> String {
        self.stop.get(number).map(ToString::to_string).unwrap_or_default()
    }
}
