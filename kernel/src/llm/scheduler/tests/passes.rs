//! What a pass is made of: slots, rows, turns, the stage hook, faults, counters.

use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::llm::gguf::Gguf;
use crate::llm::kernels::{BATCH, TOGETHER};
use crate::llm::scheduler::{Counters, LEAST_PROMPT_ROWS, SubmitError};
use crate::llm::workers::threads::Threads;

#[test]
fn streams_get_a_token_each_pass_while_prompts_take_turns() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 5);
    let mut client = Client::default();
    let streams =
        [0, 1].map(|seed| scheduler.submit(request(prompt(&engine, seed, 2), usize::MAX)).unwrap());
    client.step(&mut scheduler);
    let prompts =
        [5, 6, 7].map(|seed| scheduler.submit(request(prompt(&engine, seed, 120), 1)).unwrap());
    // Two streams and three prompts: 27 spare rows a pass, for one of the prompts.
    let spare = BATCH - 5;
    let mut n_passes = 0;
    let mut done = [0; 3];
    while client.finished.len() < prompts.len() {
        client.step(&mut scheduler);
        n_passes += 1;
        for stream in streams {
            assert_eq!(client.outcomes[&stream].tokens.len(), 1 + n_passes, "{n_passes}");
        }
        for (i, id) in prompts.iter().enumerate() {
            let (now, _) = client.prefill[id];
            let n = now - core::mem::replace(&mut done[i], now);
            if n_passes <= 9 {
                // Each prompt has its turn in one of three passes.
                let expected = if (n_passes - 1) % 3 == i { 1 + spare } else { 1 };
                assert_eq!(n, expected, "prompt {i} in pass {n_passes}");
            }
        }
    }
    // 360 tokens, of which each pass takes up to 30.
    assert!((12..=15).contains(&n_passes), "{n_passes}");
}

#[test]
fn a_crowd_of_streams_lets_a_prompt_through() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, BATCH);
    let mut client = Client::default();
    let streams: Vec<RequestId> = (0..BATCH - 1)
        .map(|seed| scheduler.submit(request(prompt(&engine, seed, 1), usize::MAX)).unwrap())
        .collect();
    client.step(&mut scheduler);
    client.step(&mut scheduler);
    // Without a prompt, no stream misses a pass.
    assert!(streams.iter().all(|id| client.outcomes[id].tokens.len() == 2));
    let long = scheduler.submit(request(prompt(&engine, 99, 101), 3)).unwrap();
    let mut n_passes = 0;
    let mut last = vec![0; streams.len()];
    while !client.finished.contains_key(&long) {
        client.step(&mut scheduler);
        n_passes += 1;
        for (last, id) in last.iter_mut().zip(&streams) {
            if client.outcomes[id].tokens.len() > 2 + *last {
                *last += 1;
            }
            assert!(2 * *last + 1 >= n_passes, "{last} tokens in {n_passes} passes");
        }
        assert!(n_passes <= 9, "the prompt is at {:?}", client.prefill[&long]);
    }
    // Passes of 32 rows and of one row by turns, then two tokens.
    assert_eq!(n_passes, 7 + 2, "{LEAST_PROMPT_ROWS}");
}

#[test]
fn requests_start_in_the_order_of_their_arrival() {
    let engine = engine(SMALL);
    let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
    let workspace = Workspace::try_new(Arc::clone(&engine), context, 2, &SingleThread).unwrap();
    let options = SchedulerOptions { parallel: 2, queue: 3, now_us };
    let mut scheduler = Scheduler::try_new(workspace, options).unwrap();
    let submit =
        |scheduler: &mut Scheduler, n| scheduler.submit(request(prompt(&engine, n, 3), 2 + n));
    let ids: Vec<_> = (0..5).map(|n| submit(&mut scheduler, n).unwrap()).collect();
    assert!(ids.is_sorted());
    assert_eq!(submit(&mut scheduler, 5), Err(SubmitError::QueueFull));
    assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (0, 5));
    scheduler.cancel(ids[2]);
    let mut client = Client::default();
    let mut order = Vec::new();
    client.step(&mut scheduler);
    assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (2, 2));
    // One of them was cancelled, so one more may wait.
    submit(&mut scheduler, 5).unwrap();
    assert_eq!(submit(&mut scheduler, 6), Err(SubmitError::QueueFull));
    while !scheduler.is_idle() {
        scheduler
            .step(&mut || (), &mut |id, update| {
                if matches!(update, Update::Started { .. }) {
                    order.push(id.number());
                }
            })
            .unwrap();
    }
    assert_eq!(order, [4, 5, 6]);
    assert_eq!(client.started.keys().map(|id| id.number()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 2);
    let full = SubmitError::ContextFull { n_prompt: N_CTX, n_ctx: N_CTX };
    assert_eq!(scheduler.submit(request(prompt(&engine, 1, N_CTX), 1)), Err(full));
    let n_vocab = engine.metadata().n_vocab as u32;
    let hot = SamplingConfig { temperature: f32::NAN, ..SamplingConfig::greedy() };
    for (bad, words) in [
        (request(vec![1, n_vocab], 1), "of the prompt is not one of"),
        (request(Vec::new(), 1), "the prompt is empty"),
        (Request { sampling: hot, ..request(vec![1], 1) }, "temperature"),
        (Request { logit_bias: vec![(3, f32::NAN)], ..request(vec![1], 1) }, "logit_bias"),
        (Request { logit_bias: vec![(3, f32::INFINITY)], ..request(vec![1], 1) }, "logit_bias"),
    ] {
        let error = scheduler.submit(bad).unwrap_err();
        assert!(matches!(error, SubmitError::Refused(Error::InvalidConfig { .. })), "{error:?}");
        assert!(error.to_string().contains(words), "{error} does not say {words:?}");
    }
    assert!(scheduler.is_idle());
    for parallel in [0, 3] {
        let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
        let workspace = Workspace::try_new(Arc::clone(&engine), context, 2, &SingleThread).unwrap();
        let options = SchedulerOptions { parallel, queue: 3, now_us };
        assert!(matches!(Scheduler::try_new(workspace, options), Err(Error::InvalidConfig { .. })));
    }
}

#[test]
fn the_stage_hook_is_called_by_the_caller_many_times_a_pass() {
    let engine = engine(SMALL);
    let n_layer = engine.metadata().n_layer;
    let long = request(prompt(&engine, 3, 100), 5);
    let expected = alone(&engine, &long);
    let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
    for workers in [&SingleThread as &'static dyn Workers, &Threads(2)] {
        let mut scheduler = scheduler_in(&engine, context, 2, workers);
        let id = scheduler.submit(long.clone()).unwrap();
        let mut client = Client::default();
        let caller = std::thread::current().id();
        let n = AtomicUsize::new(0);
        while !scheduler.is_idle() {
            n.store(0, Ordering::Relaxed);
            let mut on_stage = || {
                assert_eq!(std::thread::current().id(), caller);
                n.fetch_add(1, Ordering::Relaxed);
            };
            scheduler.step(&mut on_stage, &mut |id, update| client.take(id, update)).unwrap();
            // The caller may miss a stage whose work other threads were quicker to take. Alone, it
            // misses none: attention and the products of each layer, except those of the last
            // layer in a pass that gives no logits.
            let n = n.load(Ordering::Relaxed);
            let least = if workers.count() == 1 { 5 * (n_layer - 1) + 1 } else { n_layer };
            assert!(n >= least, "{n} calls with {} threads", workers.count());
        }
        assert_eq!(client.outcomes[&id], expected);
    }
}

#[test]
fn the_stage_hook_is_called_within_long_products() {
    let engine = engine(TINY);
    let metadata = engine.metadata();
    let (n_layer, n_head, n_head_kv) = (metadata.n_layer, metadata.n_head, metadata.n_head_kv);
    let mut scheduler = scheduler(&engine, 1);
    scheduler.submit(request(prompt(&engine, 3, BATCH + 1), 1)).unwrap();
    let mut n = 0;
    scheduler.step(&mut || n += 1, &mut |_, _| ()).unwrap();
    // The maps of a layer: queries, keys, values, output, gate with values, down; the last layer of
    // a pass without logits has the first three. Attention calls for each row and some heads of it.
    let n_maps = 6 * (n_layer - 1) + 3;
    let n_heads = BATCH * n_head_kv * (n_head / n_head_kv).div_ceil(TOGETHER) * (n_layer - 1);
    assert!(n > n_maps + n_heads, "{n} calls, {n_maps} maps, {n_heads} times some heads");
}

#[test]
fn what_is_not_finite_fails_its_request_alone() {
    // One scale of a row of the embedding is infinite: the token 200 gives no numbers.
    let mut file = UNTIED.to_vec();
    let gguf = Gguf::parse(UNTIED).unwrap();
    let tensor = gguf.tensor("token_embd.weight").unwrap();
    let row = tensor.size as usize / tensor.dims[1] as usize;
    let start = gguf.range(tensor).unwrap().start + 200 * row;
    file[start..start + 2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let engine = engine(&file);
    let good: Vec<Request> =
        (0..4).map(|seed| request(vec![1, 100 + seed, 250 - seed, 7], 20)).collect();
    let expected: Vec<_> = good.iter().map(|request| alone(&engine, request)).collect();
    assert!(expected.iter().all(|outcome| outcome.error.is_none() && outcome.tokens.len() == 20));

    let mut scheduler = scheduler(&engine, 3);
    let mut client = Client::default();
    let ids: Vec<_> = good.iter().map(|good| scheduler.submit(good.clone()).unwrap()).collect();
    client.step(&mut scheduler);
    client.step(&mut scheduler);
    let mut bad = request(vec![1, 100, 200, 7], 20);
    let first = scheduler.submit(bad.clone()).unwrap();
    client.run(&mut scheduler);
    // A prompt of several passes, whose last ones give no numbers.
    bad.tokens.splice(1..1, prompt(&engine, 3, 100).into_iter().map(|token| token / 2));
    let second = scheduler.submit(bad.clone()).unwrap();
    client.run(&mut scheduler);
    let third = scheduler.submit(bad).unwrap();
    client.run(&mut scheduler);
    // The first token is that of the other prompts, too.
    assert!(client.started[&third].1 <= 1, "{:?}", client.started[&third]);
    // The slots are as good as before, and nothing is cached of a failed request.
    let again: Vec<_> = good.iter().map(|good| scheduler.submit(good.clone()).unwrap()).collect();
    client.run(&mut scheduler);
    for ids in [ids, again] {
        let outcomes: Vec<_> = ids.iter().map(|id| client.outcomes[id].clone()).collect();
        assert_eq!(outcomes, expected);
    }
    let error = |id| client.outcomes[id].error.as_ref().unwrap().to_string();
    let words = "first in the embedding; `token_embd.weight` holds 32 such weights";
    assert!(error(&first).contains(words), "{}", error(&first));
    assert!(error(&second).contains("as in an earlier request: first"), "{}", error(&second));
}

#[test]
fn counters_and_slots_say_what_was_done() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 2);
    let mut client = Client::default();
    let tokens = prompt(&engine, 3, 40);
    let first = scheduler.submit(request(tokens.clone(), 4)).unwrap();
    assert!(scheduler.slots().all(|slot| slot.request.is_none() && slot.n_tokens == 0));
    client.step(&mut scheduler);
    let slots: Vec<_> = scheduler.slots().collect();
    assert_eq!(slots.len(), 2);
    assert_eq!((slots[0].slot, slots[0].n_ctx, slots[0].n_tokens), (0, N_CTX, 40));
    let status = slots[0].request.as_ref().unwrap();
    assert_eq!((status.id, status.n_prompt, status.n_cached), (first, 40, 0));
    assert_eq!((status.n_processed, status.n_generated, status.max_tokens), (32, 0, 4));
    assert_eq!(slots[1].request, None);
    client.run(&mut scheduler);
    let after_first = *scheduler.counters();
    assert_eq!(
        after_first,
        Counters {
            prompt_tokens_total: 40,
            prompt_tokens_cached_total: 0,
            // From the start to the ends of two passes.
            prompt_us_total: 2000,
            tokens_predicted_total: 4,
            decode_steps_total: 3,
            tokens_predicted_us_total: 3000,
            n_decode_total: 5,
            n_busy_slots_total: 5,
            n_tokens_max: 44,
        }
    );
    let Finished { prompt_us, generated_us, n_generated, .. } = client.finished[&first];
    assert_eq!((prompt_us, generated_us, n_generated), (2000, 3000, 4));
    // The same prompt, cut after 30 tokens, beside another one.
    let second = scheduler.submit(request(tokens[..30].to_vec(), 1)).unwrap();
    let third = scheduler.submit(request(prompt(&engine, 4, 2), 1)).unwrap();
    client.run(&mut scheduler);
    assert_eq!((client.started[&second], client.started[&third]), ((0, 29), (1, 0)));
    let since = scheduler.counters().since(&after_first);
    assert_eq!((since.prompt_tokens_total, since.prompt_tokens_cached_total), (1 + 2, 29));
    assert_eq!((since.n_decode_total, since.n_busy_slots_total), (1, 2));
    assert_eq!((since.tokens_predicted_total, since.decode_steps_total), (2, 0));
    assert_eq!(since.predicted_tokens_per_s(), 0.0);
    assert_eq!(after_first.predicted_tokens_per_s(), 1000.0);
    assert_eq!(after_first.prompt_tokens_per_s(), 20_000.0);
    assert_eq!(scheduler.counters().n_tokens_max, 44);
}
