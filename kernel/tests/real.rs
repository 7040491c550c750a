//! A real model against float64.
//!
//! The logits along given texts must be as near to double precision as llama.cpp's logits.
//! `test_models/real.py` made what this reads. `make test-real` fetches the model, boots it in QEMU
//! and runs this:
//!
//!     REAL_MODEL=path/to/FILE.gguf REAL_GUEST=path/to/serial.log \
//!         cargo test -p kernel --test real -- --include-ignored --nocapture

#[path = "support/engine.rs"]
mod engine;
mod support;
#[path = "support/threads.rs"]
mod threads;

use std::sync::LazyLock;

use kernel::llm::gguf::write::Builder;
use kernel::llm::gguf::{Gguf, TensorInfo};
use kernel::llm::kv_cache::CacheType;
use kernel::llm::plan::ContextOptions;
use kernel::llm::quantize::{WeightType, dequantize_row};
use serde::Deserialize;

use support::{read, read_model};
use threads::Threads;

/// How many times the error of llama.cpp's better mode the engine's may be.
const LIMIT: f64 = 1.05;
/// The error bound without any rounding to fewer than 32 bits.
const LIMIT_F32: f64 = 2e-5;
/// The lead of float64's best logit that rounding must not overturn.
const CLEAR_LEAD: f64 = 0.3;
/// Positions of the context that llama.cpp had.
const N_CTX: usize = 256;

#[derive(Deserialize)]
struct Goldens {
    sha256: String,
    /// Number of texts in `goldens/real.txt`, which the guest reads.
    n_plain: usize,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    tokens: Vec<u32>,
    /// The logits after each token.
    steps: Vec<Step>,
}

/// The best tokens by float64, the best first, with their logits.
#[derive(Deserialize)]
struct Step {
    best: Vec<u32>,
    float64: Vec<f64>,
    /// By llama.cpp with flash attention.
    flash: Vec<f64>,
    /// And without.
    plain: Vec<f64>,
}

impl Step {
    /// The logits of the best tokens, of all logits.
    fn of(&self, logits: &[f32]) -> Vec<f64> {
        self.best.iter().map(|&token| f64::from(logits[token as usize])).collect()
    }

    /// By how much float64's best token leads.
    fn lead(&self) -> f64 {
        self.float64[0] - self.float64[1]
    }
}

static GOLDENS: LazyLock<Goldens> =
    LazyLock::new(|| serde_json::from_slice(&read("goldens/real.json")).unwrap());

static MODEL: LazyLock<Vec<u8>> =
    LazyLock::new(|| read_model(&variable("REAL_MODEL"), &GOLDENS.sha256));

/// The engine's logits: `[n_texts, n_tokens, n_vocab]`.
static OURS: LazyLock<Vec<Vec<Vec<f32>>>> = LazyLock::new(|| run(&MODEL, CacheType::F16));

fn run(file: &[u8], kv_cache: CacheType) -> Vec<Vec<Vec<f32>>> {
    let context = ContextOptions { n_ctx: Some(N_CTX), kv_cache, ..ContextOptions::default() };
    let along = |text: &Text| {
        engine::logits(&mut engine::start(file, context, &Threads(2)), &text.tokens, 0)
    };
    GOLDENS.texts.iter().map(along).collect()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} names no file; `make test-real` sets it"))
}

/// Each step of a text, with the engine's logits.
fn steps<'a>(text: &'a Text, ours: &'a [Vec<f32>]) -> impl Iterator<Item = (&'a Step, &'a [f32])> {
    assert_eq!(text.steps.len(), ours.len());
    text.steps.iter().zip(ours.iter().map(|logits| &logits[..]))
}

/// Each step of all texts.
fn all_steps(ours: &[Vec<Vec<f32>>]) -> impl Iterator<Item = (&Step, &[f32])> {
    GOLDENS.texts.iter().zip(ours).flat_map(|(text, ours)| steps(text, ours))
}

/// The token of the largest logit, and the first ones behind it.
fn best(logits: &[f32], n: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    // Equal values stay in order.
    tokens.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    tokens.truncate(n);
    tokens
}

/// Root mean square errors of the best tokens' logits.
struct Errors {
    ours: f64,
    flash: f64,
    plain: f64,
}

impl Errors {
    fn of<'a>(steps: impl Iterator<Item = (&'a Step, &'a [f32])>) -> Self {
        let (mut squares, mut n) = ([0.0; 3], 0.0);
        for (step, ours) in steps {
            let engines = [&step.of(ours), &step.flash, &step.plain];
            for (sum, logits) in squares.iter_mut().zip(engines) {
                let pairs = logits.iter().zip(&step.float64);
                *sum += pairs.map(|(logit, exact)| (logit - exact).powi(2)).sum::<f64>();
            }
            n += step.best.len() as f64;
        }
        let [ours, flash, plain] = squares.map(|sum| (sum / n).sqrt());
        Errors { ours, flash, plain }
    }

    /// The engine's error over the error of llama.cpp's better mode.
    fn ratio(&self) -> f64 {
        self.ours / self.flash.min(self.plain)
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Errors { ours, flash, plain } = self;
        write!(f, "{ours:.4}, llama.cpp {flash:.4} with flash attention, {plain:.4} without: ")?;
        write!(f, "{:.3} times the better", self.ratio())
    }
}

#[test]
fn goldens_are_the_ten_best_after_each_of_32_tokens_of_five_texts() {
    let Goldens { texts, n_plain, .. } = &*GOLDENS;
    assert_eq!((texts.len(), *n_plain), (5, 4));
    for text in texts {
        assert_eq!((text.tokens.len(), text.steps.len()), (32, 32));
        for Step { best, float64, flash, plain } in &text.steps {
            assert_eq!([best.len(), flash.len(), plain.len()], [10; 3]);
            assert!(float64.len() == 10 && float64.is_sorted_by(|a, b| a >= b));
        }
    }
    // Most steps are clear ones.
    let steps = texts.iter().flat_map(|text| &text.steps);
    assert!(steps.filter(|step| step.lead() > CLEAR_LEAD).count() > 80);
}

#[test]
#[ignore = "takes a real model: make test-real"]
fn logits_are_as_near_to_float64_as_those_of_llama_cpp() {
    println!("root mean square error of float64's ten best logits");
    for (i, (text, ours)) in GOLDENS.texts.iter().zip(&*OURS).enumerate() {
        println!("text {i}: {}", Errors::of(steps(text, ours)));
    }
    let errors = Errors::of(all_steps(&OURS));
    println!("all:    {errors}");
    assert!(errors.ratio() <= LIMIT, "more than {LIMIT} times: {errors}");
}

/// The model with its weights in F32.
fn in_f32(file: &[u8]) -> Vec<u8> {
    let gguf = Gguf::parse(file).unwrap();
    let entries = gguf.raw_metadata();
    let builder = entries.fold(Builder::new(), |all, (key, value)| all.raw(key, value.to_vec()));
    let with_tensor = |all: Builder, tensor: &TensorInfo<'_>| {
        let kind = WeightType::from_tensor_type(tensor.kind).unwrap();
        let mut weights = vec![0.0; tensor.elements() as usize];
        let columns = tensor.dims[0] as usize;
        let rows = gguf.data(tensor).unwrap().chunks_exact(kind.row_bytes(columns));
        for (row, weights) in rows.zip(weights.chunks_exact_mut(columns)) {
            dequantize_row(kind, row, weights);
        }
        all.tensor_f32(tensor.name, &tensor.dims, &weights)
    };
    gguf.tensors().iter().fold(builder, with_tensor).build()
}

/// Activations of 8 bits hide small faults. This check has no quantised activations.
#[test]
#[ignore = "takes a real model: make test-real"]
fn without_rounding_to_fewer_than_32_bits_the_logits_are_those_of_float64() {
    let ours = run(&in_f32(&MODEL), CacheType::F32);
    let Errors { ours: error, .. } = Errors::of(all_steps(&ours));
    println!("with weights, keys and values in F32: {error:.1e}");
    assert!(error <= LIMIT_F32, "{error}, more than {LIMIT_F32}");
}

#[test]
#[ignore = "takes a real model: make test-real"]
fn the_best_token_is_that_of_float64_where_it_leads_clearly() {
    let (mut clear, mut others, mut wrong) = (0, Vec::new(), Vec::new());
    for (i, (step, ours)) in all_steps(&OURS).enumerate() {
        let is_clear = step.lead() > CLEAR_LEAD;
        clear += usize::from(is_clear);
        if best(ours, 1) != step.best[..1] {
            let found = format!("step {i} (lead {:.3})", step.lead());
            if is_clear { wrong.push(found) } else { others.push(found) }
        }
    }
    println!("the best token is float64's in all of {clear} clear steps, another in {others:?}");
    assert!(wrong.is_empty(), "another token is the best one: {wrong:?}");
}

#[test]
#[ignore = "takes a real model and its serial line from QEMU: make test-real"]
fn the_guest_has_the_same_logits() {
    let log = String::from_utf8(read(&variable("REAL_GUEST"))).unwrap();
    let guest: Vec<_> = log.lines().filter_map(|line| line.split_once("best:")).collect();
    // `mode=perplexity` in a context of 32 predicts the second half of each text, but for its
    // first.
    let ours = OURS[..GOLDENS.n_plain].iter().flat_map(|text| &text[16..31]);
    let ours: Vec<_> = ours.collect();
    assert_eq!(guest.len(), ours.len());
    for (i, ((_, line), ours)) in guest.into_iter().zip(ours).enumerate() {
        let expected = best(ours, 10);
        let expected = expected.iter().map(|&t| (t, format!("{:.3}", ours[t as usize])));
        assert!(tokens_and_logits(line).eq(expected), "step {i}: {line}");
    }
}

/// The entries of a line `  TOKEN "TEXT" LOGIT  TOKEN "TEXT" LOGIT ...`.
fn tokens_and_logits(mut line: &str) -> impl Iterator<Item = (u32, String)> {
    std::iter::from_fn(move || {
        let (token, rest) = line.trim_start().split_once(" \"")?;
        // A quotation mark in the text has a backslash before it, and so has a backslash.
        let mut is_escaped = false;
        let end = rest.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })?;
        let (logit, rest) = rest[end + 2..].split_once(' ').unwrap_or((&rest[end + 2..], ""));
        line = rest;
        Some((token.parse().unwrap(), logit.trim_end().to_string()))
    })
}

#[test]
fn a_line_of_the_log_is_read() {
    let line = r#"  28 "," 17.250  7 "\"\\" -0.125  1 " a b" 3.000"#;
    let read = tokens_and_logits(line).collect::<Vec<_>>();
    let expected = [(28, "17.250"), (7, "-0.125"), (1, "3.000")];
    assert_eq!(read, expected.map(|(token, logit)| (token, logit.to_string())));
}
