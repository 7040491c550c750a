//! The text of an answer, its end, and probabilities.

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::llm::engine_tests::synthetic::Synthetic;
use crate::llm::quantize::WeightType;

const BANNED: f32 = f32::NEG_INFINITY;

/// A request whose text is printable ASCII: single characters and a few longer tokens.
fn story(engine: &Engine) -> Request {
    let tokenizer = engine.tokenizer();
    let is_printable = |&token: &u32| {
        let text = tokenizer.decode(&[token]).unwrap();
        !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
    };
    let all = 0..engine.metadata().n_vocab as u32;
    let logit_bias = all.filter(|token| !is_printable(token)).map(|token| (token, BANNED));
    Request {
        sampling: SamplingConfig { temperature: 1.0, seed: 5, ..SamplingConfig::greedy() },
        logit_bias: logit_bias.collect(),
        ..request(tokenizer.encode("ab cab", true, false), 60)
    }
}

/// The texts of the updates of a request, the last one being that of `Finished`.
fn texts(engine: &Arc<Engine>, request: &Request) -> (Vec<String>, Finished) {
    let mut scheduler = scheduler(engine, 1);
    scheduler.submit(request.clone()).unwrap();
    let (mut texts, mut end) = (Vec::new(), None);
    while !scheduler.is_idle() {
        let on_update = &mut |_, update: Update<'_>| match update {
            Update::Token { text, .. } => texts.push(text.to_string()),
            Update::Finished(finished) => {
                texts.push(finished.text.clone());
                end = Some(finished);
            }
            _ => {}
        };
        scheduler.step(&mut || (), on_update).unwrap();
    }
    (texts, end.unwrap())
}

#[test]
fn text_is_that_of_the_tokens_in_whole_characters() {
    // Random bytes, many of which are parts of characters.
    let file = Synthetic::new(WeightType::Q8_0).builder().build();
    let engine = engine(&file);
    let context = ContextOptions { n_ctx: Some(97), ..ContextOptions::default() };
    let hot = SamplingConfig { temperature: 1.0, seed: 9, ..SamplingConfig::greedy() };
    // The lead of a character of four bytes, and bytes that follow one.
    let logit_bias =
        (3 + 0x80..3 + 0xc0).chain([3 + 0xf0, 3 + 0xe2, 3 + 0xc3]).map(|token| (token, 4.0));
    let request =
        Request { sampling: hot, logit_bias: logit_bias.collect(), ..request(vec![1, 260], 90) };
    let mut scheduler = scheduler_in(&engine, context, 1, &SingleThread);
    let (outcome, _) = run_one(&mut scheduler, &request);
    assert_eq!(outcome.text, engine.tokenizer().decode(&outcome.tokens).unwrap());
    let n_whole = outcome.text.chars().filter(|&c| c > '\u{7f}' && c != '\u{fffd}').count();
    assert!(n_whole > 2 && outcome.text.contains('\u{fffd}'), "{}", outcome.text);
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let engine = engine(SMALL);
    let plain = story(&engine);
    let (parts, end) = texts(&engine, &plain);
    let whole = parts.concat();
    assert_eq!((end.stop, end.n_generated, parts.len()), (Stop::MaxTokens, 60, 61));
    let n = whole.chars().count();
    assert!(n > 60, "{whole:?}");
    let mut spans = 0;
    for first in (7..n - 20).step_by(4) {
        let word: String = whole.chars().skip(first).take(9).collect();
        let at = whole.find(&word).unwrap();
        let stop =
            vec!["not in the text".into(), word.clone(), whole[at..].chars().take(14).collect()];
        let stopping = Request { stop: stop.clone(), ..plain.clone() };
        let (stopped, end) = texts(&engine, &stopping);
        assert_eq!((stopped.concat(), end.stop), (whole[..at].into(), Stop::Word(1)), "{word:?}");
        assert_eq!(end.text, "");
        // The answer ends with the token that completes the match.
        let text = |n: usize| parts[..n].concat();
        assert_eq!(end.n_generated, (1..).find(|&n| text(n).len() >= at + word.len()).unwrap());
        // Nothing that may belong to the match was given out early, and all else was at once.
        for n in 1..end.n_generated {
            let out = stopped[..n].concat();
            let so_far = text(n);
            let held = stop.iter().map(|stop| {
                let lens = (0..=stop.len()).rev().filter(|&len| stop.is_char_boundary(len));
                lens.into_iter().find(|&len| so_far.ends_with(&stop[..len])).unwrap()
            });
            let held = held.max().unwrap();
            assert_eq!(out, so_far[..so_far.len() - held], "{word:?} after {n} tokens");
        }
        // Tokens that begin in the match are dropped.
        let begin = |n: usize| text(n).len();
        let dropped = (0..end.n_generated).filter(|&n| begin(n) >= at).count();
        assert_eq!(end.n_dropped, dropped, "{word:?}");
        spans += usize::from(dropped > 1);
    }
    assert!(spans > 3, "{spans}");
}

#[test]
fn a_stop_string_that_is_never_complete_is_given_out_at_the_end() {
    let engine = engine(SMALL);
    let plain = story(&engine);
    let (parts, _) = texts(&engine, &plain);
    let whole = parts.concat();
    let last: String = whole.chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect();
    let stop = vec![last.clone() + "\u{1}", String::new()];
    let (stopped, end) = texts(&engine, &Request { stop, ..plain });
    assert_eq!((stopped.concat(), end.stop), (whole, Stop::MaxTokens));
    assert!(end.text.len() >= last.len() && end.n_dropped == 0, "{:?}", end.text);
}

#[test]
fn an_end_token_ends_the_answer_unless_it_is_ignored() {
    let engine = engine(SMALL);
    let end = engine.tokenizer().ends()[0];
    let plain = story(&engine);
    let mut ends = Request { ignore_end: false, ..plain.clone() };
    ends.logit_bias.retain(|&(token, _)| token != end);
    ends.logit_bias.push((end, 2.0));
    let (parts, finished) = texts(&engine, &ends);
    assert_eq!(finished.stop, Stop::End);
    let outcome = alone(&engine, &ends);
    // The token comes as the last one, without text.
    assert_eq!((outcome.tokens.last(), parts[parts.len() - 2].as_str()), (Some(&end), ""));
    assert_eq!(outcome.tokens.iter().filter(|&&token| token == end).count(), 1);
    let goes_on = Request { ignore_end: true, ..ends };
    let outcome = alone(&engine, &goes_on);
    assert_eq!(outcome.end.unwrap().0, Stop::MaxTokens);
    assert!(!outcome.tokens.contains(&end));
    assert_eq!(outcome, alone(&engine, &plain));
}

#[test]
fn an_answer_ends_when_the_context_is_full() {
    let engine = engine(SMALL);
    for len in [1, 57, N_CTX - 1] {
        let outcome = alone(&engine, &request(prompt(&engine, 2, len), usize::MAX));
        let n = N_CTX - len;
        assert_eq!(outcome.end, Some((Stop::ContextFull, len, n, 0)));
        // One token less is no full context.
        let outcome = alone(&engine, &request(prompt(&engine, 2, len), n));
        assert_eq!(outcome.end, Some((Stop::MaxTokens, len, n, 0)));
    }
}

#[test]
fn more_biases_than_the_settings_hold_are_added_first() {
    let engine = engine(SMALL);
    let n_vocab = engine.metadata().n_vocab as u32;
    // All tokens but one are banned, then that one by its second bias.
    let mut logit_bias: Vec<_> = (0..n_vocab).map(|token| (token, BANNED)).collect();
    logit_bias[133].1 = 1.0;
    logit_bias[144].1 = -1000.0;
    for sampling in [SamplingConfig::greedy(), SamplingConfig::creative()] {
        let only = Request { sampling, logit_bias: logit_bias.clone(), ..story(&engine) };
        assert_eq!(alone(&engine, &only).tokens, [133; 60]);
        let mut only = only;
        only.logit_bias.push((133, BANNED));
        // A token that does not exist does no harm.
        only.logit_bias.push((u32::MAX, 5.0));
        assert_eq!(alone(&engine, &only).tokens, [144; 60]);
    }
}

/// The logarithms of the softmax of the logits behind a text.
fn log_softmax(engine: &Arc<Engine>, tokens: &[u32]) -> Vec<f64> {
    let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
    let mut workspace = Workspace::try_new(Arc::clone(engine), context, 1, &SingleThread).unwrap();
    let mut session = workspace.session().unwrap();
    let mut all = Vec::new();
    let last = tokens.len() - 1..tokens.len();
    let mut on_logits = |_, logits: &[f32]| all = logits.iter().map(|&x| f64::from(x)).collect();
    workspace.evaluate(&mut session, tokens, last, &mut on_logits).unwrap();
    let sum: f64 = all.iter().map(|x| x.exp()).sum();
    all.iter().map(|x| x - sum.ln()).collect()
}

#[test]
fn probabilities_are_the_softmax_of_the_raw_logits() {
    let engine = engine(SMALL);
    // What the sampler does changes nothing of them.
    let sampling = SamplingConfig { seed: 3, repeat_penalty: 1.5, ..SamplingConfig::creative() };
    let logit_bias = (0..50).map(|token| (token, -3.0)).collect();
    let request = Request { sampling, logit_bias, n_probs: 7, max_tokens: 9, ..story(&engine) };
    let outcome = alone(&engine, &request);
    let without = Request { n_probs: 0, ..request.clone() };
    assert_eq!(outcome.tokens, alone(&engine, &without).tokens);
    assert_eq!(outcome.probs.len(), 9);
    let mut text = request.tokens.clone();
    let mut n_best = 0;
    for (probs, &token) in outcome.probs.iter().zip(&outcome.tokens) {
        let expected = log_softmax(&engine, &text);
        let close = |token: u32, is: f32| (f64::from(is) - expected[token as usize]).abs() < 1e-4;
        assert_eq!((probs.token, probs.top.len()), (token, 7));
        assert!(close(token, probs.logprob), "{probs:?}");
        assert!(probs.top.iter().all(|&(token, p)| close(token, p)), "{probs:?}");
        let mut order: Vec<usize> = (0..expected.len()).collect();
        order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
        let top: Vec<usize> = probs.top.iter().map(|&(token, _)| token as usize).collect();
        assert_eq!(top, order[..7]);
        n_best += usize::from(top[0] == token as usize);
        text.push(token);
    }
    // The sampled token is not always the best one.
    assert!(n_best < 9);
    let all = Request { n_probs: usize::MAX, max_tokens: 2, ..request };
    let probs = alone(&engine, &all).probs;
    assert_eq!(probs[1].top.len(), engine.metadata().n_vocab);
    let sum: f64 = probs[1].top.iter().map(|&(_, p)| f64::from(p).exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

#[test]
fn probabilities_after_the_sampler_are_those_of_the_draw() {
    let engine = engine(SMALL);
    let top_k = 4;
    let sampling = SamplingConfig { seed: 3, top_k, top_p: 1.0, ..SamplingConfig::creative() };
    let sampling = SamplingConfig { min_p: 0.0, ..sampling };
    let request = Request {
        sampling,
        n_probs: 9,
        post_sampling_probs: true,
        max_tokens: 30,
        ..story(&engine)
    };
    let outcome = alone(&engine, &request);
    let mut text = request.tokens.clone();
    for probs in &outcome.probs {
        // Of the four best, at the temperature 0.8.
        assert_eq!(probs.top.len(), top_k);
        let sum: f64 = probs.top.iter().map(|&(_, p)| f64::from(p).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(probs.top.is_sorted_by(|(_, a), (_, b)| a >= b), "{probs:?}");
        let own = probs.top.iter().find(|&&(token, _)| token == probs.token).unwrap();
        assert_eq!(own.1, probs.logprob);
        let raw = log_softmax(&engine, &text);
        let ratio = (raw[probs.top[0].0 as usize] - raw[probs.top[3].0 as usize]) / 0.8;
        let is = f64::from(probs.top[0].1 - probs.top[3].1);
        assert!((is - ratio).abs() < 1e-3, "{is}, expected {ratio}");
        text.push(probs.token);
    }
    assert_eq!(outcome.probs.len(), 30);
    // Greedy sampling leaves one candidate.
    let greedy = Request { sampling: SamplingConfig::greedy(), ..request.clone() };
    for probs in alone(&engine, &greedy).probs {
        assert_eq!((probs.logprob, &probs.top[..]), (0.0, &[(probs.token, 0.0)][..]));
    }
    // Fewer than are left.
    let two = Request { n_probs: 2, ..request };
    let probs = alone(&engine, &two).probs;
    assert!(probs.iter().zip(&outcome.probs).all(|(two, all)| two.top == all.top[..2]));
}
