//! Bit identity of rows of several sessions in one pass, for all architectures.

#[path = "../../../tests/support/architectures.rs"]
mod architectures;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::llm::arena::{Arena, ModelBuffer};
use crate::llm::engine::Engine;
use crate::llm::kv_cache::CacheType;
use crate::llm::model::scratch::{Scratch, ScratchShape};
use crate::llm::model::{Compute, Input, Row};
use crate::llm::plan::ContextOptions;
use crate::llm::state::{CacheOptions, CacheShape, KvMemory, Texts};
use crate::llm::workers::threads::Threads;
use crate::llm::workers::{SingleThread, Workers};
use crate::llm::workspace::Workspace;

/// Positions of each text, so that a window of 11 goes round.
const N_CTX: usize = 61;
/// The rows of three texts in each pass: one alone, prefill beside decode, chunks.
const PASSES: [[usize; 3]; 6] =
    [[5, 0, 0], [1, 17, 3], [1, 1, 30], [7, 11, 13], [1, 1, 1], [0, 19, 2]];

type Logits = Vec<Vec<u32>>;

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The tokens of a text.
fn tokens(engine: &Engine, text: usize) -> Vec<u32> {
    let n: usize = PASSES.iter().map(|rows| rows[text]).sum();
    let n_vocab = engine.metadata().n_vocab;
    (0..n).map(|i| ((43 * i * i + 17 * i + 101 * text + 1) % n_vocab) as u32).collect()
}

/// The logits behind each token of each text, the texts one after the other.
fn alone(engine: &Arc<Engine>, kv_cache: CacheType) -> Vec<Logits> {
    let context = ContextOptions { n_ctx: Some(N_CTX), kv_cache, ..ContextOptions::default() };
    let mut workspace = Workspace::try_new(Arc::clone(engine), context, 1, &SingleThread).unwrap();
    let mut of_text = |text| {
        let (mut session, mut all) = (workspace.session().unwrap(), Vec::new());
        let mut on_logits = |_, logits: &[f32]| all.push(bits(logits));
        let tokens = tokens(engine, text);
        workspace.evaluate(&mut session, &tokens, 0..tokens.len(), &mut on_logits).unwrap();
        all
    };
    (0..3).map(&mut of_text).collect()
}

/// Memory for the states of three texts.
fn memory(engine: &Engine, kv_cache: CacheType) -> KvMemory {
    let shape = engine.model.state_shape(kv_cache, N_CTX, false).unwrap();
    let options = CacheOptions { n_texts: 3, n_positions: 3 * N_CTX, shares_prefixes: false };
    KvMemory::try_new(CacheShape::new(shape, options)).unwrap()
}

/// The logits in shared passes. Every other row wants none, and its place stays empty.
fn together(engine: &Engine, kv_cache: CacheType, workers: &dyn Workers) -> Vec<Logits> {
    let model = &engine.model;
    let mut memory = memory(engine, kv_cache);
    let sizes = ScratchShape { n_rows: 32, n_outputs: 7, n_ctx: N_CTX, kv_cache };
    let mut arena = Arena::try_new(Scratch::bytes(model, sizes)).unwrap();
    let mut frame = arena.frame();
    let mut scratch = Scratch::take(&mut frame, model, sizes).unwrap();
    let mut states = [0; 3].map(|_| memory.state().unwrap());
    let sources = &engine.sources;
    let compute = Compute { sources, workers, observer: None, on_stage: None };
    let mut all = vec![Logits::new(); 3];
    for counts in PASSES {
        let mut rows = Vec::new();
        for (session, n) in counts.into_iter().enumerate() {
            let start = states[session].len();
            assert_eq!(states[session].reserve(&mut memory, n), n);
            rows.extend((start..start + n).map(|position| Row {
                input: Input::Token(tokens(engine, session)[position]),
                position,
                session,
                wants_logits: (position + session) % 2 == 0,
            }));
        }
        let mut texts = Texts { memory: &mut memory, states: states.iter_mut().collect() };
        let n_outputs = model.forward(compute, &rows, &mut texts, &mut scratch);
        let wanted: Vec<_> = rows.iter().filter(|row| row.wants_logits).collect();
        assert_eq!(n_outputs, wanted.len());
        rows.iter().for_each(|row| all[row.session].push(Vec::new()));
        for (i, rows) in wanted.chunks(sizes.n_outputs).enumerate() {
            let first = i * sizes.n_outputs;
            model.logits(compute, first..first + rows.len(), &mut scratch);
            let logits = scratch.logits.chunks_exact(engine.metadata().n_vocab);
            for (row, logits) in rows.iter().zip(logits) {
                all[row.session][row.position] = bits(logits);
            }
        }
    }
    all
}

fn models(wanted: impl Fn(&str) -> bool) -> Vec<(String, Arc<Engine>)> {
    let files = architectures::models(wanted).into_iter();
    let engine = |file: Vec<u8>| Engine::from_file(ModelBuffer::from(&file[..]), &SingleThread);
    files.map(|(name, file)| (name, Arc::new(engine(file).unwrap()))).collect()
}

#[track_caller]
fn compare(name: &str, engine: &Arc<Engine>, kv_cache: CacheType, workers: &dyn Workers) {
    let alone = alone(engine, kv_cache);
    // The comparison can fail: no two texts have the same logits.
    assert!(alone[0][0] != alone[1][0] && alone[1][0] != alone[2][0], "{name}");
    let together = together(engine, kv_cache, workers);
    let mut n = 0;
    for (text, (together, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!(together.len(), alone.len());
        for (i, (together, alone)) in together.iter().zip(alone).enumerate() {
            let is_same = together.is_empty() || together == alone;
            assert!(is_same, "{name}, {kv_cache}: text {text}, position {i}");
            n += usize::from(!together.is_empty());
        }
    }
    assert!(n > 40, "{n} logits compared");
}

#[test]
fn rows_of_several_sessions_are_rows_alone() {
    let models = models(|_| true);
    assert!(models.len() > 36);
    for (name, engine) in models {
        compare(&name, &engine, CacheType::F16, &SingleThread);
        if name.ends_with("-Q4_K_M") {
            compare(&name, &engine, CacheType::F32, &Threads(3));
            compare(&name, &engine, CacheType::Q8_0, &Threads(2));
        }
    }
}

#[test]
fn an_embedding_stands_for_its_token() {
    // Without scaled embeddings and learned positions, the matrix row is the input.
    for (name, engine) in models(|name| name == "llama-Q8_0" || name == "qwen2-Q4_0") {
        let model = &engine.model;
        let mut memory = memory(&engine, CacheType::F16);
        let sizes =
            ScratchShape { n_rows: 2, n_outputs: 1, n_ctx: N_CTX, kv_cache: CacheType::F16 };
        let mut arena = Arena::try_new(Scratch::bytes(model, sizes)).unwrap();
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, sizes).unwrap();
        let sources = &engine.sources;
        let workers = &SingleThread;
        let compute = Compute { sources, workers, observer: None, on_stage: None };
        let mut embedding = vec![0.0; engine.metadata().n_embd];
        model.token_embd().dequantize_row(&engine.sources, 7, &mut embedding);
        let mut logits = |inputs: [Input<'_>; 2]| {
            let mut state = memory.state().unwrap();
            assert_eq!(state.reserve(&mut memory, 2), 2);
            let rows = [0, 1].map(|position| Row {
                input: inputs[position],
                position,
                session: 0,
                wants_logits: position == 1,
            });
            let states = core::iter::once(&mut state).collect();
            let mut texts = Texts { memory: &mut memory, states };
            model.forward(compute, &rows, &mut texts, &mut scratch);
            model.logits(compute, 0..1, &mut scratch);
            bits(&scratch.logits[..engine.metadata().n_vocab])
        };
        let tokens = logits([Input::Token(7), Input::Token(9)]);
        assert_eq!(logits([Input::Embedding(&embedding), Input::Token(9)]), tokens, "{name}");
        embedding[0] += 1.0;
        assert_ne!(logits([Input::Embedding(&embedding), Input::Token(9)]), tokens, "{name}");
    }
}
