use std::ops::ControlFlow;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::workers::SingleThread;

use super::*;
use crate::shape::ShapeName;

const SMALL: Shape = Shape {
    architecture: "llama",
    n_layer: 2,
    n_embd: 256,
    n_head: 8,
    n_head_kv: 4,
    n_ff: 512,
    n_vocab: 601,
    n_ctx: 127,
};

fn shapes() -> [Shape; 2] {
    [SMALL, Shape { architecture: "gpt2", n_head_kv: 8, ..SMALL }]
}

fn file(shape: &Shape) -> Vec<u8> {
    let mut file = Vec::new();
    Model::new("a test", shape).write(&mut file).unwrap();
    file
}

fn loaded(file: &[u8], n_ctx: usize) -> TransformerBackend {
    let context = ContextOptions { n_ctx: Some(n_ctx), ..ContextOptions::default() };
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context,
        workers: &SingleThread,
        now_us: || 0,
    });
    backend.load_bytes(ModelBuffer::from(file)).unwrap();
    backend
}

#[test]
fn the_engine_takes_the_models() {
    for shape in shapes() {
        let file = file(&shape);
        assert_eq!(file.len() as u64, Model::new("a test", &shape).bytes());
        let mut backend = loaded(&file, 127);
        let result = backend.infer(&prompt(31), 67).unwrap();
        // One token for each letter, and no end before the last token.
        assert_eq!((result.prompt_tokens, result.tokens_emitted), (31, 67));
        // With NaNs, the sampler would always choose the same token.
        let mut tokens = result.tokens.clone();
        tokens.sort_unstable();
        tokens.dedup();
        assert!(tokens.len() > 7, "{:?}", result.tokens);
    }
}

#[test]
fn no_number_is_a_nan() {
    for shape in shapes() {
        let mut backend = loaded(&file(&shape), 16);
        let perplexity =
            backend.perplexity(&prompt(37), &mut |_| ControlFlow::Continue(())).unwrap();
        // Logits of about 1 make the model neither right nor certain.
        let n_vocab = shape.n_vocab as f64;
        let found = perplexity.perplexity;
        assert!((n_vocab / 10.0..n_vocab * 10.0).contains(&found), "{found}");
    }
}

#[test]
fn the_file_is_the_same_each_time() {
    assert!(file(&SMALL) == file(&SMALL));
}

#[test]
fn sizes_are_those_of_real_files() {
    let megabytes = |name: ShapeName| {
        let bytes = Model::new(name.name(), &name.shape().unwrap()).bytes();
        (bytes as f64 / 1e5).round() / 10.0
    };
    assert_eq!(megabytes(ShapeName::Tiny), 6.4);
    assert_eq!(megabytes(ShapeName::TinyLlama), 636.7);
    assert_eq!(megabytes(ShapeName::Gpt2), 105.7);
}
