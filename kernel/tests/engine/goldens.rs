//! The engine against llama.cpp: the same tokens for texts and for answers.
//!
//! Each model answers ten prompts with 128 tokens. `test_models/goldens.py` made the files that
//! this reads.

use std::ops::ControlFlow;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, Progress, TransformerBackend};
use kernel::llm::gguf::Gguf;
use kernel::llm::tokenizer::Tokenizer;
use kernel::llm::workers::SingleThread;
use serde::Deserialize;

use crate::support::{hex, read, read_model};

#[derive(Deserialize)]
struct Generations {
    model_sha256: String,
    n_generated: usize,
    runs: Vec<Generation>,
}

#[derive(Deserialize)]
struct Generation {
    prompt: String,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    text_utf8_hex: String,
    /// Between the best and the second-best logit of each step.
    gaps: Vec<f32>,
}

#[derive(Deserialize)]
struct Tokenizations {
    strings: Vec<Tokenization>,
}

#[derive(Deserialize)]
struct Tokenization {
    text: String,
    tokens: Vec<u32>,
}

#[test]
fn greedy_text_of_a_llama_is_that_of_llama_cpp() {
    compare_texts("tiny");
}

#[test]
fn greedy_text_of_a_gpt2_is_that_of_llama_cpp() {
    compare_texts("tiny-gpt2");
}

fn generations(model: &str) -> Generations {
    serde_json::from_slice(&read(&format!("goldens/{model}.json"))).unwrap()
}

fn compare_texts(name: &str) {
    let goldens = generations(name);
    let model = read_model(&format!("{name}.gguf"), &goldens.model_sha256);
    assert_eq!(goldens.runs.len(), 10);

    let options =
        BackendOptions { context: ContextOptions::default(), workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    // The goldens go on after an end of the text.
    backend.set_ignore_end(true);
    backend.load_bytes(ModelBuffer::from(&model[..])).unwrap();
    let mut faults = Vec::new();
    for run in &goldens.runs {
        assert_eq!(run.tokens.len(), goldens.n_generated);
        let mut streamed = String::new();
        let result = backend.infer_streaming(&run.prompt, goldens.n_generated, &mut |progress| {
            if let Progress::Text(text) = progress {
                streamed.push_str(text);
            }
            ControlFlow::Continue(())
        });
        let result = result.unwrap();
        assert_eq!(result.prompt_tokens, run.prompt_tokens.len());
        assert_eq!(streamed, result.output);
        let same = result.tokens.iter().zip(&run.tokens).take_while(|(a, b)| a == b).count();
        if same < goldens.n_generated {
            faults.push(format!(
                "{:?}: token {same} is {}, llama.cpp's is {} (its logit leads by {})",
                run.prompt, result.tokens[same], run.tokens[same], run.gaps[same]
            ));
        } else if hex(result.output.as_bytes()) != run.text_utf8_hex {
            faults.push(format!("{:?}: the text is {:?}", run.prompt, result.output));
        }
    }
    assert!(faults.is_empty(), "{} of 10 differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    for (name, strings) in [("tiny", "tokenizer"), ("tiny-gpt2", "tokenizer-gpt2")] {
        let model = read(&format!("{name}.gguf"));
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&model).unwrap()).unwrap();
        let goldens: Tokenizations =
            serde_json::from_slice(&read(&format!("goldens/{strings}.json"))).unwrap();
        assert!(goldens.strings.len() > 50);
        for Tokenization { text, tokens } in &goldens.strings {
            assert_eq!(&tokenizer.encode(text, true, false), tokens, "{name}: {text:?}");
        }
        for Generation { prompt, prompt_tokens, .. } in &generations(name).runs {
            assert_eq!(&tokenizer.encode(prompt, true, false), prompt_tokens, "{name}: {prompt:?}");
        }
    }
}

#[derive(Deserialize)]
struct Perplexities {
    models: std::collections::BTreeMap<String, Measured>,
}

#[derive(Deserialize)]
struct Measured {
    sha256: String,
    /// One list for each order of llama.cpp's sums, and for other last digits of norms.
    after_each_chunk: Vec<Vec<f64>>,
}

#[test]
fn perplexity_is_that_of_llama_cpp() {
    let goldens: Perplexities = serde_json::from_slice(&read("goldens/perplexity.json")).unwrap();
    let text = String::from_utf8(read("goldens/perplexity.txt")).unwrap();
    assert!(!goldens.models.is_empty());
    for (name, measured) in &goldens.models {
        let model = read_model(name, &measured.sha256);
        let options = BackendOptions {
            context: ContextOptions::default(),
            workers: &SingleThread,
            now_us: || 0,
        };
        let mut backend = TransformerBackend::with_options(options);
        backend.load_bytes(ModelBuffer::from(&model[..])).unwrap();
        let mut after_each = Vec::new();
        let result = backend
            .perplexity(&text, &mut |so_far| {
                after_each.push(so_far.perplexity);
                ControlFlow::Continue(())
            })
            .unwrap();
        let theirs = &measured.after_each_chunk;
        assert!(after_each.len() >= 5 && theirs.iter().all(|list| list.len() == after_each.len()));
        for (i, ours) in after_each.iter().enumerate() {
            // Rounding makes many figures possible, llama.cpp's and ours. One in 16,000 is four
            // deviations off.
            let logs: Vec<f64> = theirs.iter().map(|list| list[i].ln()).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            let squares = logs.iter().map(|log| (log - mean) * (log - mean));
            let deviation = (squares.sum::<f64>() / (logs.len() - 1) as f64).sqrt();
            assert!(logs.len() >= 20 && deviation < 1e-3, "{name}, chunk {i}: {logs:?}");
            let error = ours.ln() - mean;
            assert!(
                error.abs() < 4.0 * deviation,
                "{name}, chunk {i}: {ours}, llama.cpp's is {}, {} deviations off",
                mean.exp(),
                error / deviation
            );
        }
        assert_eq!((result.chunks, result.n_chunks), (after_each.len(), after_each.len()));
        assert_eq!(result.tokens, after_each.len() * 127);
        assert_eq!(result.perplexity, after_each[after_each.len() - 1]);
    }
}
