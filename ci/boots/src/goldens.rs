//! What llama.cpp answers: the files in `test_models/goldens/`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The first prompt of `tiny.json`, which is also what the kernel goes on from by default.
pub const PROMPT: &str = "Once upon a time";
/// How many tokens of the answer most boots ask for.
pub const TOKENS: usize = 16;

/// The folder of the project, from wherever the boots' own tests are run.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = root().join("test_models/goldens").join(name);
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_reader(std::io::BufReader::new(file))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The first tokens of the answer to [`PROMPT`].
pub fn tokens() -> Vec<u32> {
    #[derive(Deserialize)]
    struct Goldens {
        runs: Vec<Run>,
    }
    #[derive(Deserialize)]
    struct Run {
        prompt: String,
        tokens: Vec<u32>,
    }
    let goldens: Goldens = read("tiny.json");
    let run = goldens.runs.into_iter().find(|run| run.prompt == PROMPT);
    let mut tokens = run.expect("the goldens have the prompt").tokens;
    tokens.truncate(TOKENS);
    tokens
}

/// The answers to a message, one after the other, of the chats with this system message.
pub fn chat(system: &str) -> Vec<Vec<u32>> {
    #[derive(Deserialize)]
    struct Goldens {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        chats: Vec<Chat>,
    }
    #[derive(Deserialize)]
    struct Chat {
        system: String,
        turns: Vec<Turn>,
    }
    #[derive(Deserialize)]
    struct Turn {
        tokens: Vec<u32>,
    }
    let goldens: Goldens = read("chat.json");
    let chat = goldens.model.chats.into_iter().find(|chat| chat.system == system);
    let turns = chat.expect("the goldens have such a chat").turns;
    turns.into_iter().map(|turn| turn.tokens).collect()
}

/// The perplexities that builds of llama.cpp give the first so many chunks of a text.
pub fn perplexities(model: &str, chunks: usize) -> Vec<f64> {
    #[derive(Deserialize)]
    struct Goldens {
        models: BTreeMap<String, Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        after_each_chunk: Vec<Vec<f64>>,
    }
    let goldens: Goldens = read("perplexity.json");
    let model = &goldens.models[model];
    model.after_each_chunk.iter().map(|build| build[chunks - 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goldens_hold_what_the_boots_compare_with() {
        assert_eq!(tokens().len(), TOKENS);
        let answers = chat("ab b");
        assert_eq!(answers.len(), 3);
        assert!(answers.iter().all(|tokens| tokens.len() >= 12), "{answers:?}");
        assert_ne!(answers, chat(""));
        assert!(perplexities("tiny.gguf", 3).len() > 1);
    }
}
