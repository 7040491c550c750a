//! Grammars and JSON schemas against llama.cpp: the same tokens.
//!
//! `test_models/grammars.py` made the file that this reads.

use std::collections::BTreeMap;

use kernel::app::server::api::schema;
use kernel::backend::{
    BackendOptions, ContextOptions, ModelBuffer, StopReason, TransformerBackend,
};
use kernel::llm::workers::SingleThread;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::read;

#[derive(Deserialize)]
struct Goldens {
    n_predict: usize,
    models: BTreeMap<String, Vec<Run>>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    prompt: String,
    grammar: Option<String>,
    json_schema: Option<Box<RawValue>>,
    /// With the token that ends the answer.
    tokens: Vec<u32>,
    text: String,
    stop: String,
}

/// A backend with a model of `test_models`, on one thread.
fn backend(model: &str) -> TransformerBackend {
    let options =
        BackendOptions { context: ContextOptions::default(), workers: &SingleThread, now_us: || 0 };
    let mut backend = TransformerBackend::with_options(options);
    backend.load_bytes(ModelBuffer::from(&read(&format!("{model}.gguf"))[..])).unwrap();
    backend
}

#[test]
fn answers_under_grammars_are_those_of_llama_cpp() {
    let goldens: Goldens = serde_json::from_slice(&read("goldens/grammars.json")).unwrap();
    let mut differ = Vec::new();
    for (model, runs) in &goldens.models {
        let n_grammars = runs.iter().filter(|run| run.grammar.is_some()).count();
        assert!(n_grammars >= 30 && runs.len() - n_grammars >= 30, "{model}");
        let mut backend = backend(model);
        for run in runs {
            let grammar = match (&run.grammar, &run.json_schema) {
                (Some(grammar), None) => grammar.clone(),
                (None, Some(value)) => schema::grammar("json_schema", value).unwrap(),
                _ => panic!("{}: a grammar or a schema", run.name),
            };
            backend.set_grammar(Some(&grammar)).unwrap();
            let answer = backend.infer(&run.prompt, goldens.n_predict).unwrap();
            // llama-server's tokens end with the one that ends the answer.
            let ends = run.stop == "eos";
            let tokens = &run.tokens[..run.tokens.len() - usize::from(ends)];
            if answer.tokens != tokens
                || answer.output != run.text
                || (answer.stop == StopReason::EndOfSequence) != ends
            {
                differ.push(format!(
                    "{model}, {}: {:?}, llama.cpp's is {:?}\n{grammar}",
                    run.name, answer.output, run.text
                ));
            }
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}
