//! The engine against llama.cpp: the same tokens for the same text, and the same 128 tokens after
//! each of ten prompts. `test_models/goldens.py` made the files that this reads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kernel::llm::backend::{ModelBuffer, Options, TransformerBackend};
use kernel::llm::gguf::Gguf;
use kernel::llm::tokenizer::Tokenizer;
use kernel::llm::workers::SingleThread;
use serde::Deserialize;
use sha2::{Digest, Sha256};

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

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name)
}

fn read(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn greedy_text_is_that_of_llama_cpp() {
    let model = read("tiny.gguf");
    let goldens: Generations = serde_json::from_slice(&read("goldens/tiny.json")).unwrap();
    assert_eq!(hex(&Sha256::digest(&model)), goldens.model_sha256, "goldens of another model");
    assert_eq!(goldens.runs.len(), 10);

    let options = Options { n_ctx: None, workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::new(options);
    // The goldens go on after an end of the text.
    backend.set_ignore_end(true);
    backend.load_model(ModelBuffer::from(&model[..])).unwrap();
    let mut faults = Vec::new();
    for run in &goldens.runs {
        assert_eq!(run.tokens.len(), goldens.n_generated);
        let mut streamed = String::new();
        let result = backend.infer(&run.prompt, goldens.n_generated, &mut |text| {
            streamed.push_str(text);
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
    let model = read("tiny.gguf");
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&model).unwrap()).unwrap();
    let goldens: Tokenizations = serde_json::from_slice(&read("goldens/tokenizer.json")).unwrap();
    assert!(goldens.strings.len() > 50);
    for Tokenization { text, tokens } in &goldens.strings {
        assert_eq!(&tokenizer.encode(text, true, false), tokens, "{text:?}");
    }
    let generations: Generations = serde_json::from_slice(&read("goldens/tiny.json")).unwrap();
    for Generation { prompt, prompt_tokens, .. } in &generations.runs {
        assert_eq!(&tokenizer.encode(prompt, true, false), prompt_tokens, "{prompt:?}");
    }
}
