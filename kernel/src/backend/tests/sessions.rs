//! Sessions that share forward passes, are cut, and go on.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::backend::ModelBuffer;
use crate::backend::self_test::shared_passes::{N_CTX, Text, alone, texts, together};
use crate::llm::Error;
use crate::llm::engine::{Engine, Weights};
use crate::llm::gguf::write::{Builder, scalar};
use crate::llm::gguf::{Gguf, ValueType};
use crate::llm::kernels::BATCH;
use crate::llm::plan::{ContextOptions, Header, Plan, WorkspaceOptions};
use crate::llm::sampling::{Sampler, SamplingConfig};
use crate::llm::session::Session;
use crate::llm::workers::threads::Threads;
use crate::llm::workers::{SingleThread, Workers};
use crate::llm::workspace::Workspace;

pub(super) const TINY: &[u8] = include_bytes!("../../../../test_models/tiny.gguf");
/// Layers with a window of 11 positions among them.
pub(super) const WINDOWED: &[u8] =
    include_bytes!("../../../../test_models/architectures/gemma2-Q8_0.gguf");

/// Sessions that a test has at a time, most of them beside those of its passes.
const N_TEXTS: usize = 8;

pub(super) fn engine(file: &[u8]) -> Arc<Engine> {
    Arc::new(Engine::from_file(ModelBuffer::from(file), &SingleThread).unwrap())
}

fn workspace(
    engine: &Arc<Engine>,
    n_ctx: usize,
    n_sessions: usize,
    workers: &'static dyn Workers,
) -> Workspace {
    let context = ContextOptions { n_ctx: Some(n_ctx), ..ContextOptions::default() };
    let n_positions = Some(N_TEXTS * n_ctx);
    let options = WorkspaceOptions { n_positions, ..WorkspaceOptions::new(context, n_sessions) };
    Workspace::with_options(Arc::clone(engine), options, workers).unwrap()
}

#[test]
fn eight_sessions_in_shared_passes_give_what_each_gives_alone() {
    for (file, n_ctx) in [(TINY, N_CTX), (WINDOWED, N_CTX)] {
        let engine = engine(file);
        let texts = texts(&engine);
        let mut one = workspace(&engine, n_ctx, 1, &SingleThread);
        let expected: Vec<_> = texts.iter().map(|text| alone(&mut one, text).unwrap()).collect();
        // The comparison can fail: no two texts are alike.
        for (i, answer) in expected.iter().enumerate() {
            assert!(!expected[..i].contains(answer), "{answer:?}");
        }
        for workers in [&SingleThread as &'static dyn Workers, &Threads(3)] {
            let mut eight = workspace(&engine, n_ctx, 8, workers);
            let (answers, most) = together(&mut eight, &texts).unwrap();
            assert_eq!((answers, most), (expected.clone(), 8));
        }
    }
}

#[test]
fn contexts_shift_in_shared_passes_as_they_do_alone() {
    let engine = engine(TINY);
    let context =
        ContextOptions { n_ctx: Some(23), context_shift: true, ..ContextOptions::default() };
    let make = |n| Workspace::try_new(Arc::clone(&engine), context, n, &SingleThread).unwrap();
    let texts = texts(&engine).into_iter().filter(|text| text.prompt.len() < 14);
    let texts: Vec<Text> = texts.map(|text| Text { n: text.n + 41, ..text }).collect();
    let mut one = make(1);
    let expected: Vec<_> = texts.iter().map(|text| alone(&mut one, text).unwrap()).collect();
    let (answers, most) = together(&mut make(texts.len()), &texts).unwrap();
    assert_eq!((answers, most), (expected, texts.len()));
}

#[test]
fn a_text_that_is_cut_goes_on_as_if_the_rest_had_never_been() {
    for file in [TINY, WINDOWED] {
        let engine = engine(file);
        let mut workspace = workspace(&engine, N_CTX, 1, &SingleThread);
        let text = &texts(&engine)[2];
        let mut session = workspace.session().unwrap();
        session.append(&text.prompt).unwrap();
        let first: Vec<u32> = (0..17).map(|_| session.step(&mut workspace).unwrap()).collect();
        // Back by a few tokens, by more than a window spares, and into the prompt.
        for n in [text.prompt.len() + 11, text.prompt.len() + 3, 41] {
            session.truncate(n);
            assert_eq!(session.tokens().len(), n);
            let mut fresh = workspace.session().unwrap();
            fresh.append(session.tokens()).unwrap();
            let tokens = |session: &mut Session, workspace: &mut Workspace| -> Vec<u32> {
                (0..5).map(|_| session.step(workspace).unwrap()).collect()
            };
            let expected = tokens(&mut fresh, &mut workspace);
            assert_eq!(tokens(&mut session, &mut workspace), expected, "{n}");
            if let Some(rest) = first.get(n.wrapping_sub(text.prompt.len())..) {
                assert_eq!(expected[..], rest[..5.min(rest.len())], "{n}");
            }
        }
    }
}

#[test]
fn a_sampler_knows_the_text_that_is_left() {
    let engine = engine(TINY);
    let mut workspace = workspace(&engine, 96, 1, &SingleThread);
    // So high that no token comes twice.
    let config = SamplingConfig { frequency_penalty: 1000.0, ..SamplingConfig::greedy() };
    let mut session = workspace.session().unwrap();
    session.set_sampler(Sampler::new(config));
    session.append(&[1, 300, 400]).unwrap();
    let first: Vec<u32> = (0..7).map(|_| session.step(&mut workspace).unwrap()).collect();
    session.truncate(3);
    // Truncated tokens may be appended again.
    let again: Vec<u32> = (0..7).map(|_| session.step(&mut workspace).unwrap()).collect();
    assert_eq!(first, again);
    assert!(!first.contains(&300) && !first.contains(&400));
}

#[test]
fn a_long_prompt_can_be_stopped_between_two_chunks() {
    let engine = engine(TINY);
    let mut workspace = workspace(&engine, 128, 1, &SingleThread);
    let prompt: Vec<u32> = (300..300 + 3 * BATCH as u32 + 5).collect();
    let mut whole = workspace.session().unwrap();
    whole.append(&prompt).unwrap();
    let expected = whole.step(&mut workspace).unwrap();

    let mut session = workspace.session().unwrap();
    session.append(&prompt).unwrap();
    let mut left = Vec::new();
    let stopped = session.prefill(&mut workspace, &mut |n| {
        left.push(n);
        if left.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped, &left[..]), (Ok(false), &[2 * BATCH + 5, BATCH + 5][..]));
    assert_eq!((session.n_past(), session.n_unprocessed()), (2 * BATCH, BATCH + 5));
    // It can go on all the same, up to the last chunk.
    let finished = session.prefill(&mut workspace, &mut |_| ControlFlow::Continue(()));
    assert_eq!((finished, session.n_unprocessed()), (Ok(true), 5));
    assert_eq!(session.step(&mut workspace), Ok(expected));
}

#[test]
fn a_processed_text_gives_its_last_logits_again() {
    let engine = engine(TINY);
    let mut workspace = workspace(&engine, 32, 1, &SingleThread);
    let mut session = workspace.session().unwrap();
    let mut best = 0;
    let tokens = [1, 300, 400, 500];
    workspace
        .evaluate(&mut session, &tokens, 3..4, &mut |_, logits| {
            best = crate::llm::sampling::argmax(logits);
        })
        .unwrap();
    assert_eq!(session.n_unprocessed(), 0);
    assert_eq!(session.step(&mut workspace), Ok(best));
    assert_eq!(session.tokens(), [1, 300, 400, 500, best]);
}

#[test]
fn tokens_that_do_not_fit_leave_a_session_as_it_was() {
    let engine = engine(TINY);
    let workspace = workspace(&engine, 11, 1, &SingleThread);
    let mut session = workspace.session().unwrap();
    session.append(&[1, 300, 400]).unwrap();
    let full = Error::ContextFull { prompt: 12, n_ctx: 11 };
    assert_eq!(session.append(&[7; 9]), Err(full));
    assert_eq!(session.tokens(), [1, 300, 400]);
    session.append(&[7; 8]).unwrap();
}

#[test]
#[should_panic(expected = "a session of another workspace")]
fn a_session_of_another_context_is_refused() {
    let engine = engine(TINY);
    let mut session = workspace(&engine, 32, 1, &SingleThread).session().unwrap();
    session.append(&[1]).unwrap();
    let _ = session.step(&mut workspace(&engine, 31, 1, &SingleThread));
}

/// A part of a file, as `gguf-split` writes it: the first one has all metadata.
fn part(file: &[u8], number: u16, count: u16, wanted: impl Fn(usize) -> bool) -> Vec<u8> {
    let gguf = Gguf::parse(file).unwrap();
    let mut builder = Builder::new();
    for (key, value) in gguf.raw_metadata().filter(|_| number == 0) {
        builder = builder.raw(key, value.to_vec());
    }
    for (key, value) in [("split.no", number), ("split.count", count)] {
        builder = builder.raw(key, scalar(ValueType::U16, &value.to_le_bytes()));
    }
    for (_, tensor) in gguf.tensors().iter().enumerate().filter(|&(i, _)| wanted(i)) {
        let data = gguf.data(tensor).unwrap().to_vec();
        builder = builder.tensor(tensor.name, &tensor.dims[..tensor.n_dims], tensor.kind, data);
    }
    builder.build()
}

#[test]
fn a_model_in_two_files_is_the_one_in_one_file() {
    let parts = [part(TINY, 0, 2, |i| i % 2 == 0), part(TINY, 1, 2, |i| i % 2 == 1)];
    let headers = parts.each_ref().map(|part| Header::of(part));
    let plan = Plan::read_split(&headers).unwrap();
    let weights = parts.each_ref().map(|part| Weights::Raw(ModelBuffer::from(&part[..])));
    let split = Arc::new(Engine::new(plan, weights, &SingleThread).unwrap());
    let whole = engine(TINY);
    assert_eq!(split.metadata(), whole.metadata());
    let text = &texts(&whole)[3];
    let expected = alone(&mut workspace(&whole, 64, 1, &SingleThread), text).unwrap();
    assert_eq!(alone(&mut workspace(&split, 64, 1, &SingleThread), text).unwrap(), expected);

    // A part alone, parts in the wrong order, a part twice.
    for (headers, words) in [
        (&headers[..1], "2 files (`split.count`) and not 1"),
        (&[headers[1], headers[0]], "`general.architecture` is missing"),
        (&[headers[0], headers[0]], "part 2 of 2 (`split.no`) and not part 1"),
    ] {
        let error = Plan::read_split(headers).unwrap_err().to_string();
        assert!(error.contains(words), "{error} does not say {words:?}");
    }
    // The bytes of another file than the plan's.
    let plan = Plan::read_split(&headers).unwrap();
    let one = [Weights::Raw(ModelBuffer::from(&parts[0][..]))];
    assert!(matches!(Engine::new(plan, one, &SingleThread), Err(Error::ParseError { .. })));
    let plan = Plan::read_split(&headers).unwrap();
    let swapped = [1, 0].map(|i: usize| Weights::Raw(ModelBuffer::from(&parts[i][..])));
    assert!(matches!(Engine::new(plan, swapped, &SingleThread), Err(Error::ParseError { .. })));
}

#[test]
fn a_model_that_gives_no_numbers_says_where_they_end() {
    let gguf = Gguf::parse(TINY).unwrap();
    let inf = f32::INFINITY.to_le_bytes();
    for (name, words) in [
        (
            "output_norm.weight",
            "first in the output norm; `output_norm.weight` holds 1 such weights",
        ),
        ("blk.2.ffn_norm.weight", "first in layer 2; `blk.2.ffn_norm.weight` holds 1 such weights"),
    ] {
        let mut file = TINY.to_vec();
        let start = gguf.range(gguf.tensor(name).unwrap()).unwrap().start;
        file[start..start + 4].copy_from_slice(&inf);
        let mut workspace = workspace(&engine(&file), 32, 1, &SingleThread);
        let mut session = workspace.session().unwrap();
        session.append(&[1, 300, 400]).unwrap();
        let error = session.step(&mut workspace).unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error} does not say {words:?}");
    }
    // All weights of the embedding are finite: one scale of a row of its blocks is not.
    let mut file = TINY.to_vec();
    let tensor = gguf.tensor("token_embd.weight").unwrap();
    let (range, row) =
        (gguf.range(tensor).unwrap(), tensor.size as usize / tensor.dims[1] as usize);
    file[range.start + 300 * row..][..2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let mut workspace = workspace(&engine(&file), 32, 1, &SingleThread);
    let mut session = workspace.session().unwrap();
    session.append(&[1, 400]).unwrap();
    session.step(&mut workspace).unwrap();
    session.append(&[300]).unwrap();
    let error = session.step(&mut workspace).unwrap_err().to_string();
    let words = "first in the embedding; `token_embd.weight` holds 32 such weights";
    assert!(error.contains(words), "{error}");
}
