//! Comparison with llama.cpp's samplers on the same logits. `test_models/sampling.py` made the file
//! that this reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::string::String;

use serde::Deserialize;

use super::*;
use crate::llm::gguf::Gguf;
use crate::llm::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Goldens {
    text: Vec<u32>,
    logits: Vec<Vec<f32>>,
    chains: Vec<Chain>,
    mirostats: Vec<MirostatRun>,
    repetitions: Vec<Repetition>,
}

#[derive(Deserialize)]
struct Chain {
    settings: Settings,
    logits: usize,
    left: Left,
}

#[derive(Deserialize)]
struct MirostatRun {
    settings: Settings,
    steps: Vec<MirostatStep>,
}

#[derive(Deserialize)]
struct MirostatStep {
    left: Left,
    drawn: u32,
}

/// The candidates that may be drawn, with their probabilities.
#[derive(Deserialize)]
struct Left {
    tokens: Vec<u32>,
    p: Vec<f32>,
}

#[derive(Deserialize)]
struct Repetition {
    vocabulary: String,
    breakers: Vec<String>,
    settings: Settings,
    text: Vec<u32>,
    /// The tokens whose logits of 0 were lowered, with the new logits.
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Setting {
    Number(f64),
    Biases(Vec<(u32, f64)>),
}

type Settings = BTreeMap<String, Setting>;

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn goldens() -> Goldens {
    serde_json::from_slice(&file("goldens/sampling.json")).unwrap()
}

fn config(settings: &Settings) -> SamplingConfig {
    let mut config = SamplingConfig { temperature: 1.0, ..SamplingConfig::greedy() };
    for (name, setting) in settings {
        let n = match setting {
            Setting::Number(n) => *n,
            Setting::Biases(biases) => {
                biases.iter().for_each(|&(token, bias)| {
                    config.logit_bias.push(token, bias as f32).unwrap();
                });
                continue;
            }
        };
        let mirostat = config.mirostat.unwrap_or(Mirostat::DEFAULT);
        match &name[..] {
            "penalty_last_n" => config.penalty_last_n = n as usize,
            "repeat_penalty" => config.repeat_penalty = n as f32,
            "frequency_penalty" => config.frequency_penalty = n as f32,
            "presence_penalty" => config.presence_penalty = n as f32,
            "dry_multiplier" => config.dry_multiplier = n as f32,
            "dry_base" => config.dry_base = n as f32,
            "dry_allowed_length" => config.dry_allowed_length = n as usize,
            "dry_penalty_last_n" => config.dry_penalty_last_n = n as usize,
            "top_n_sigma" => config.top_n_sigma = n as f32,
            "top_k" => config.top_k = n as usize,
            "typical_p" => config.typical_p = n as f32,
            "top_p" => config.top_p = n as f32,
            "min_p" => config.min_p = n as f32,
            "xtc_probability" => config.xtc_probability = n as f32,
            "xtc_threshold" => config.xtc_threshold = n as f32,
            "temperature" => config.temperature = n as f32,
            "mirostat_tau" => config.mirostat = Some(Mirostat { tau: n as f32, ..mirostat }),
            "mirostat_eta" => config.mirostat = Some(Mirostat { eta: n as f32, ..mirostat }),
            other => panic!("the setting {other}"),
        }
    }
    config.check().unwrap();
    config
}

/// The candidates are the same. Probabilities may differ by the rounding, in F32, of exponents of
/// up to 60 and of their powers.
#[track_caller]
fn assert_same(ours: &[Candidate], theirs: &Left, what: &dyn core::fmt::Debug) {
    let mut ours: Vec<_> = ours.iter().filter(|candidate| candidate.p > 0.0).collect();
    ours.sort_by_key(|candidate| candidate.token);
    let tokens: Vec<u32> = ours.iter().map(|candidate| candidate.token).collect();
    assert_eq!(tokens, theirs.tokens, "{what:?}");
    for (candidate, &p) in ours.iter().zip(&theirs.p) {
        let error = (candidate.p - p).abs() / p;
        assert!(error < 1e-5, "{what:?}: {candidate:?}, llama.cpp's is {p}");
    }
}

#[test]
fn probabilities_are_those_of_llama_cpp() {
    let goldens = goldens();
    assert!(goldens.chains.len() > 100);
    for Chain { settings, logits, left } in &goldens.chains {
        let mut sampler = Sampler::new(config(settings));
        goldens.text.iter().for_each(|&token| sampler.accept(token));
        let logits = &goldens.logits[*logits];
        let mut scratch = vec![Candidate { token: 0, logit: 0.0, p: 0.0 }; logits.len()];
        assert_same(sampler.candidates(logits, &mut scratch), left, settings);
    }
}

#[test]
fn mirostat_is_that_of_llama_cpp() {
    let goldens = goldens();
    for MirostatRun { settings, steps } in &goldens.mirostats {
        let mut sampler = Sampler::new(config(settings));
        goldens.text.iter().for_each(|&token| sampler.accept(token));
        for (i, MirostatStep { left, drawn }) in steps.iter().enumerate() {
            let logits = &goldens.logits[i % goldens.logits.len()];
            let mut scratch = vec![Candidate { token: 0, logit: 0.0, p: 0.0 }; logits.len()];
            let candidates = sampler.candidates(logits, &mut scratch);
            assert_same(candidates, left, &(settings, i));
            let drawn = candidates.iter().find(|candidate| candidate.token == *drawn);
            sampler.observe(*drawn.unwrap());
        }
    }
}

#[test]
fn repetitions_are_those_of_llama_cpp() {
    let goldens = goldens();
    let mut lowered = 0;
    for repetition in &goldens.repetitions {
        let Repetition { vocabulary, breakers, settings, text, tokens, logits } = repetition;
        let bytes = file(&std::format!("vocabularies/{vocabulary}.gguf"));
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        let config = config(settings);
        let mut dry = Dry::new(config.dry_penalty_last_n);
        dry.set_breakers(Breakers::new(breakers, &tokenizer).unwrap());
        text.iter().for_each(|&token| dry.push(token));
        let mut candidates: Vec<Candidate> = (0..tokenizer.n_vocab() as u32)
            .map(|token| Candidate { token, logit: 0.0, p: 0.0 })
            .collect();
        dry.penalize(&config, &mut candidates);
        candidates.retain(|candidate| candidate.logit != 0.0);
        let what = (vocabulary, breakers, settings, text);
        let ours: Vec<u32> = candidates.iter().map(|candidate| candidate.token).collect();
        assert_eq!(&ours, tokens, "{what:?}");
        for (candidate, logit) in candidates.iter().zip(logits) {
            let error = (candidate.logit / logit - 1.0).abs();
            assert!(error < 1e-6, "{what:?}: {candidate:?}, llama.cpp's is {logit}");
        }
        lowered += usize::from(!tokens.is_empty());
    }
    assert!(lowered > 50 && lowered < goldens.repetitions.len());
}
