//! A request's answer depends on nothing but the request.

use super::*;
use crate::llm::sampling::{Breakers, DEFAULT_BREAKERS, Mirostat, SplitMix64};
use crate::llm::workers::threads::Threads;

const N_REQUESTS: usize = 16;
/// Tokens of the prompts: one row, several passes, a whole pass, and one row more.
const LENGTHS: [usize; N_REQUESTS] = [1, 2, 71, 7, 32, 13, 3, 33, 64, 71, 90, 5, 127, 71, 40, 71];

/// Requests with different prompts, lengths, samplers and stops.
fn requests(engine: &Arc<Engine>) -> Vec<Request> {
    let greedy = SamplingConfig::greedy();
    let creative = SamplingConfig { seed: 7, ..SamplingConfig::creative() };
    let wild = SamplingConfig { temperature: 1.5, top_k: 0, seed: 11, ..creative };
    let samplings = [
        greedy,
        creative,
        SamplingConfig { repeat_penalty: 1.3, ..greedy },
        wild,
        SamplingConfig { dry_multiplier: 0.8, seed: 3, ..wild },
        SamplingConfig { mirostat: Some(Mirostat::DEFAULT), ..wild },
        SamplingConfig { xtc_probability: 0.5, frequency_penalty: 0.3, ..creative },
        SamplingConfig { top_n_sigma: 1.5, typical_p: 0.9, seed: 5, ..wild },
    ];
    let mut requests: Vec<Request> = (0..N_REQUESTS)
        .map(|i| {
            // Four prompts share 71 tokens, and others a part of them.
            let seed = if LENGTHS[i] > 40 { 3 } else { i };
            let mut tokens = prompt(engine, seed, LENGTHS[i]);
            if i % 3 == 0 {
                tokens[LENGTHS[i] / 2..].iter_mut().for_each(|token| *token /= 2);
            }
            let plain = request(tokens, 9 + 2 * i);
            Request {
                sampling: SamplingConfig { seed: i as u64, ..samplings[i % samplings.len()] },
                breakers: (i % samplings.len() == 4)
                    .then(|| Breakers::new(&DEFAULT_BREAKERS, engine.tokenizer()).unwrap()),
                logit_bias: (0..(i % 4) as u32 * 20).map(|j| (200 + j, 1.5)).collect(),
                ignore_end: i % 2 == 0,
                n_probs: i % 5,
                post_sampling_probs: i % 2 == 1,
                ..plain
            }
        })
        .collect();
    // Each third request stops at a passage of its own text.
    for request in requests.iter_mut().skip(1).step_by(3) {
        let text: Vec<char> = alone(engine, request).text.chars().collect();
        let middle = text.len() / 2;
        request.stop =
            alloc::vec!["never to be seen".into(), text[middle..].iter().take(4).collect()];
    }
    requests
}

/// The seeds of the order in which requests come and are cancelled.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Requests come at random steps, some are cancelled at random steps and come again.
///
/// Returns the most slots that were busy, and the number of cancelled requests that had started.
fn mixed(
    scheduler: &mut Scheduler,
    requests: &[Request],
    expected: &[Outcome],
    seed: u64,
) -> (usize, usize) {
    let mut random = SplitMix64::new(seed);
    let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
    let mut client = Client::default();
    let mut waiting: Vec<usize> = (0..requests.len()).collect();
    let mut running: BTreeMap<RequestId, usize> = BTreeMap::new();
    let (mut n_done, mut most, mut n_cancelled) = (0, 0, 0);
    while n_done < requests.len() {
        for _ in 0..below(3).min(waiting.len()) {
            let number = waiting.swap_remove(below(waiting.len()));
            running.insert(scheduler.submit(requests[number].clone()).unwrap(), number);
        }
        if below(5) == 0 && !running.is_empty() && n_cancelled < 2 * requests.len() {
            let id = *running.keys().nth(below(running.len())).unwrap();
            let number = running.remove(&id).unwrap();
            scheduler.cancel(id);
            waiting.push(number);
            let partial = client.outcomes.remove(&id).unwrap_or_default();
            assert!(expected[number].tokens.starts_with(&partial.tokens), "{number}");
            assert!(expected[number].text.starts_with(&partial.text), "{number}");
            n_cancelled += usize::from(!partial.tokens.is_empty());
        }
        client.step(scheduler);
        most = most.max(scheduler.n_running());
        running.retain(|id, &mut number| {
            let outcome = &client.outcomes.get(id);
            let is_done = outcome.is_some_and(|outcome| outcome.end.is_some());
            if is_done {
                assert_eq!(client.outcomes[id], expected[number], "request {number}, {seed}");
                n_done += 1;
            }
            !is_done
        });
    }
    assert!(scheduler.is_idle() && running.is_empty() && waiting.is_empty());
    (most, n_cancelled)
}

#[test]
fn requests_that_come_and_go_give_what_each_gives_alone() {
    for file in [SMALL, WINDOWED] {
        let engine = engine(file);
        let mut requests = requests(&engine);
        let expected: Vec<_> = requests.iter().map(|request| alone(&engine, request)).collect();
        // The comparison can fail: no two answers are alike.
        for (i, outcome) in expected.iter().enumerate() {
            assert!(outcome.end.is_some() && outcome.error.is_none(), "{outcome:?}");
            assert!(!expected[..i].contains(outcome), "{outcome:?}");
        }
        let by_word = expected.iter().filter(|it| matches!(it.end, Some((Stop::Word(1), ..))));
        assert_eq!(by_word.count(), 5);

        let context = ContextOptions { n_ctx: Some(N_CTX), ..ContextOptions::default() };
        for (workers, seeds) in
            [(&SingleThread as &'static dyn Workers, &SEEDS[..2]), (&Threads(2), &SEEDS[2..])]
        {
            for cache_prompt in [true, false] {
                requests.iter_mut().for_each(|request| request.cache_prompt = cache_prompt);
                let mut scheduler = scheduler_in(&engine, context, 5, workers);
                // The slots keep what the rounds before left in them.
                for &seed in seeds {
                    let (most, n_cancelled) = mixed(&mut scheduler, &requests, &expected, seed);
                    assert_eq!(most, 5);
                    assert!(n_cancelled > 3, "{n_cancelled}");
                }
                let n_cached = scheduler.counters().prompt_tokens_cached_total;
                let least = if cache_prompt { 50 } else { 0 };
                assert!(n_cached >= least && (n_cached == 0) != cache_prompt, "{n_cached}");
            }
        }
    }
}

#[test]
fn contexts_that_shift_leave_nothing_to_the_next_request() {
    let engine = engine(SMALL);
    let context = ContextOptions {
        n_ctx: Some(23),
        context_shift: true,
        keep: 5,
        ..ContextOptions::default()
    };
    let requests: Vec<Request> = (0..8)
        .map(|i| {
            // Each prompt is the start of a text that shifted, or of one that did not.
            let tokens = prompt(&engine, 1, 3 + 2 * i);
            let sampling = SamplingConfig { seed: i as u64, ..SamplingConfig::creative() };
            Request { sampling, ..request(tokens, if i % 2 == 0 { 61 } else { 3 }) }
        })
        .collect();
    let alone = |request| run_one(&mut scheduler_in(&engine, context, 1, &SingleThread), request).0;
    let expected: Vec<_> = requests.iter().map(alone).collect();
    for parallel in [1, 3] {
        let mut scheduler = scheduler_in(&engine, context, parallel, &SingleThread);
        for seed in SEEDS {
            mixed(&mut scheduler, &requests, &expected, seed);
        }
        assert!(scheduler.counters().prompt_tokens_cached_total > 0);
    }
    // The keys of a text that shifted are not those of a prompt with the same tokens.
    let mut scheduler = scheduler_in(&engine, context, 1, &SingleThread);
    run_one(&mut scheduler, &requests[0]);
    let shifted = request(scheduler.slots[0].session.tokens()[..11].to_vec(), 9);
    assert!(scheduler.slots[0].session.context_shifts() > 0);
    assert_eq!(run_one(&mut scheduler, &shifted), (alone(&shifted), 0));
    // A prompt that leaves too little to shift is refused.
    let mut scheduler = scheduler_in(&engine, context, 1, &SingleThread);
    assert!(scheduler.submit(request(prompt(&engine, 1, 19), 1)).is_ok());
    assert!(scheduler.submit(request(prompt(&engine, 1, 20), 1)).is_err());
}
