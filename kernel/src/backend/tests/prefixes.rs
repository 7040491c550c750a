//! Sessions that share the pages of common prefixes.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::sessions::{TINY, WINDOWED, engine};
use crate::llm::Error;
use crate::llm::engine::Engine;
use crate::llm::kernels::BATCH;
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::{ContextOptions, WorkspaceOptions};
use crate::llm::session::Session;
use crate::llm::state::PAGE;
use crate::llm::workers::SingleThread;
use crate::llm::workspace::{Step, Workspace};

/// Three pages and a part of one: more than the windows of the model with windows.
const N_CTX: usize = 3 * PAGE + 29;

fn context(kv_cache: CacheType) -> ContextOptions {
    ContextOptions { n_ctx: Some(N_CTX), kv_cache, ..ContextOptions::default() }
}

/// A workspace for three sessions that share prefixes.
fn sharing(engine: &Arc<Engine>, kv_cache: CacheType, n_positions: usize) -> Workspace {
    let options = WorkspaceOptions {
        n_positions: Some(n_positions),
        shares_prefixes: true,
        ..WorkspaceOptions::new(context(kv_cache), 3)
    };
    Workspace::with_options(Arc::clone(engine), options, &SingleThread).unwrap()
}

/// The bits of the logits behind each of the last `n` tokens of a text of its own.
fn logits_alone(engine: &Arc<Engine>, kv_cache: CacheType, tokens: &[u32], n: usize) -> Vec<u32> {
    let context = context(kv_cache);
    let mut alone = Workspace::try_new(Arc::clone(engine), context, 1, &SingleThread).unwrap();
    let mut session = alone.session().unwrap();
    logits(&mut alone, &mut session, tokens, n)
}

/// Appends tokens, and gives the bits of the logits behind each of the last `n`.
fn logits(workspace: &mut Workspace, session: &mut Session, tokens: &[u32], n: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    let wanted = tokens.len() - n..tokens.len();
    let mut on_logits = |_, logits: &[f32]| bits.extend(logits.iter().map(|logit| logit.to_bits()));
    workspace.evaluate(session, tokens, wanted, &mut on_logits).unwrap();
    bits
}

fn tokens(engine: &Engine, seed: usize, n: usize) -> Vec<u32> {
    let n_vocab = engine.metadata().n_vocab;
    (0..n).map(|i| ((seed * 4099 + i * i * 31 + 7) % n_vocab) as u32).collect()
}

#[test]
fn logits_behind_a_shared_prefix_are_those_of_a_text_alone() {
    for (file, kinds) in [(TINY, &CacheType::ALL[..]), (WINDOWED, &[CacheType::F16])] {
        let engine = engine(file);
        for &kind in kinds {
            let mut workspace = sharing(&engine, kind, 3 * N_CTX);
            let prompt = tokens(&engine, 3, N_CTX);
            let mut first = workspace.session().unwrap();
            let expected = logits(&mut workspace, &mut first, &prompt, 5);
            assert_eq!(expected, logits_alone(&engine, kind, &prompt, 5), "{kind}");

            // The same text beside the first one, with tokens that other sessions processed.
            let mut second = workspace.session().unwrap();
            second.append(&prompt[..N_CTX - 5]).unwrap();
            assert_eq!(workspace.take_prefix(&mut second), 3 * PAGE);
            assert_eq!((second.n_past(), second.tokens().len()), (3 * PAGE, N_CTX - 5));
            let actual = logits(&mut workspace, &mut second, &prompt[N_CTX - 5..], 5);
            assert_eq!(actual, expected, "{kind}");

            // A text that differs within the third page, once the others have ended.
            drop(first);
            second.clear();
            let mut other = prompt.clone();
            other[2 * PAGE + 13] ^= 1;
            second.append(&other[..N_CTX - 7]).unwrap();
            assert_eq!(workspace.take_prefix(&mut second), 2 * PAGE + 13);
            let actual = logits(&mut workspace, &mut second, &other[N_CTX - 7..], 7);
            assert_eq!(actual, logits_alone(&engine, kind, &other, 7), "{kind}");
            assert_ne!(actual[actual.len() - expected.len()..], expected);

            // The cached pages of the first text are as before.
            drop(second);
            let mut third = workspace.session().unwrap();
            third.append(&prompt[..N_CTX - 5]).unwrap();
            assert_eq!(workspace.take_prefix(&mut third), 3 * PAGE);
            let actual = logits(&mut workspace, &mut third, &prompt[N_CTX - 5..], 5);
            assert_eq!(actual, expected, "{kind}");
        }
    }
}

/// The tokens of sessions in shared passes, and how many tokens of each were cached.
fn together(workspace: &mut Workspace, prompts: &[Vec<u32>], n: usize) -> Vec<(Vec<u32>, usize)> {
    let mut answers = vec![(Vec::new(), 0); prompts.len()];
    let mut sessions: Vec<Session> = Vec::new();
    for (prompt, answer) in prompts.iter().zip(&mut answers) {
        let mut session = workspace.session().unwrap();
        session.append(prompt).unwrap();
        answer.1 = workspace.take_prefix(&mut session);
        sessions.push(session);
    }
    while answers.iter().any(|(answer, _)| answer.len() < n) {
        let steps = workspace.step(&mut sessions.iter_mut().collect::<Vec<_>>()).unwrap();
        for ((answer, _), step) in answers.iter_mut().zip(steps) {
            match step {
                Step::Token(token) => answer.push(token),
                step => assert_eq!(step, Step::Prefill),
            }
        }
    }
    answers
}

#[test]
fn texts_that_diverge_behind_a_shared_prefix_give_what_each_gives_alone() {
    for file in [TINY, WINDOWED] {
        let engine = engine(file);
        let system = tokens(&engine, 5, 2 * PAGE + 11);
        let prompts = [13, 14, 15].map(|seed| [&system[..], &tokens(&engine, seed, 7)].concat());
        let expected = prompts.each_ref().map(|prompt| {
            let options = context(CacheType::F16);
            let mut one = Workspace::try_new(Arc::clone(&engine), options, 1, &SingleThread);
            let mut alone = one.as_mut().unwrap().session().unwrap();
            alone.append(prompt).unwrap();
            Vec::from_iter((0..17).map(|_| alone.step(one.as_mut().unwrap()).unwrap()))
        });
        assert!(expected[0] != expected[1] && expected[1] != expected[2]);
        let mut workspace = sharing(&engine, CacheType::F16, 3 * N_CTX);
        for round in 0..3 {
            let answers = together(&mut workspace, &prompts, 17);
            for ((answer, n_cached), expected) in answers.iter().zip(&expected) {
                assert_eq!(answer[..17], expected[..]);
                // The first round has only its own pages, and those are not there yet.
                assert_eq!(*n_cached > 0, round > 0, "{n_cached}");
                assert!(round == 0 || *n_cached >= 2 * PAGE);
            }
            assert_eq!(workspace.kv_cache().n_available(), 12 * PAGE);
        }
    }
}

#[test]
fn a_session_without_pages_waits_and_the_others_go_on() {
    let engine = engine(TINY);
    let mut workspace = sharing(&engine, CacheType::F16, N_CTX + 2 * PAGE);
    let prompts = [3, 4].map(|seed| tokens(&engine, seed, 3 * PAGE - 1));
    let [mut first, mut second] = [0; 2].map(|_| workspace.session().unwrap());
    first.append(&prompts[0]).unwrap();
    second.append(&prompts[1]).unwrap();
    first.prefill(&mut workspace, &mut |_| ControlFlow::Continue(())).unwrap();
    second.append(&[7]).unwrap();
    let steps = |workspace: &mut Workspace, sessions: [&mut Session; 2]| {
        workspace.step(&mut sessions.map(|session| session)).unwrap()
    };
    // The first text takes four of six pages, and the second one needs three.
    let mut last = None;
    for _ in 0..20 {
        last = Some(steps(&mut workspace, [&mut first, &mut second]));
        if last.as_ref().is_some_and(|last| last[1] == Step::OutOfPages) {
            break;
        }
    }
    let last = last.unwrap();
    assert!(matches!(last[0], Step::Token(_)) && last[1] == Step::OutOfPages, "{last:?}");
    assert_eq!(second.n_past(), 2 * PAGE);
    assert_eq!(second.step(&mut workspace), Err(Error::OutOfPages));
    assert_eq!(second.n_past(), 2 * PAGE);
    // All goes on once the first text has ended, with what a text alone gives.
    drop(first);
    let answer: Vec<u32> = (0..5).map(|_| second.step(&mut workspace).unwrap()).collect();
    let mut fresh = sharing(&engine, CacheType::F16, N_CTX);
    let mut alone = fresh.session().unwrap();
    alone.append(&[&prompts[1][..], &[7]].concat()).unwrap();
    assert_eq!(answer, Vec::from_iter((0..5).map(|_| alone.step(&mut fresh).unwrap())));
}

#[test]
fn shifted_contexts_share_what_they_kept_and_no_more() {
    let engine = engine(TINY);
    let shifting = ContextOptions {
        n_ctx: Some(2 * PAGE + 5),
        context_shift: true,
        keep: PAGE + 3,
        ..ContextOptions::default()
    };
    let run = |workspace: &mut Workspace, prompt: &[u32]| {
        let mut session = workspace.session().unwrap();
        session.append(prompt).unwrap();
        let n_cached = workspace.take_prefix(&mut session);
        let tokens: Vec<u32> = (0..71).map(|_| session.step(workspace).unwrap()).collect();
        assert!(session.context_shifts() > 1);
        (tokens, n_cached)
    };
    let options = WorkspaceOptions::new(shifting, 2);
    let prompts = [3, 4].map(|seed| tokens(&engine, seed, PAGE + BATCH / 2));
    let make = |options| Workspace::with_options(Arc::clone(&engine), options, &SingleThread);
    let expected = prompts.each_ref().map(|prompt| run(&mut make(options).unwrap(), prompt));
    let mut workspace = make(WorkspaceOptions { shares_prefixes: true, ..options }).unwrap();
    // Another text holds the pages that the shifts change.
    let mut reader = workspace.session().unwrap();
    reader.append(&prompts[0]).unwrap();
    for _ in 0..PAGE {
        reader.step(&mut workspace).unwrap();
    }
    for (prompt, (tokens, _)) in prompts.iter().zip(&expected).cycle().take(6) {
        let (actual, _) = run(&mut workspace, prompt);
        assert_eq!(actual, *tokens);
    }
    let (_, n_cached) = run(&mut workspace, &prompts[0]);
    assert!(n_cached >= PAGE, "{n_cached}");
}

#[test]
fn the_memory_for_shared_texts_is_known_before() {
    for file in [TINY, WINDOWED] {
        let engine = engine(file);
        let plan = crate::llm::plan::Plan::read(file, file.len() as u64).unwrap();
        for (n_positions, shares_prefixes) in [(None, false), (None, true), (Some(999), true)] {
            let options = WorkspaceOptions {
                n_positions,
                shares_prefixes,
                ..WorkspaceOptions::new(context(CacheType::F16), 3)
            };
            let needed = plan.needed_for(options).unwrap();
            let workspace =
                Workspace::with_options(Arc::clone(&engine), options, &SingleThread).unwrap();
            assert_eq!(needed.kv_cache_bytes, workspace.kv_cache().bytes());
            assert_eq!(needed.arena_bytes, workspace.arena_bytes());
            let of_text = workspace.state_shape().bytes().unwrap();
            if n_positions.is_none() && !shares_prefixes {
                assert_eq!(needed.kv_cache_bytes, 3 * of_text);
            }
        }
        let few = WorkspaceOptions {
            n_positions: Some(N_CTX - 1),
            ..WorkspaceOptions::new(context(CacheType::F16), 3)
        };
        assert!(matches!(plan.needed_for(few), Err(Error::InvalidConfig { .. })));
    }
}
