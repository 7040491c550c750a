//! Cached prefixes.

use super::*;

#[test]
fn a_prefix_is_processed_once() {
    for (file, is_windowed) in [(SMALL, false), (WINDOWED, true)] {
        let engine = engine(file);
        let mut scheduler = scheduler(&engine, 3);
        let text = prompt(&engine, 3, 100);
        let first = request(text.clone(), 7);
        let (outcome, n_cached) = run_one(&mut scheduler, &first);
        assert_eq!(n_cached, 0);
        // The next turn: prompt, answer and more. The answer's last token was not processed.
        let mut turn = text.clone();
        turn.extend(&outcome.tokens);
        turn.extend(prompt(&engine, 4, 5));
        let next = request(turn, 5);
        let before = *scheduler.counters();
        let (outcome, n_cached) = run_one(&mut scheduler, &next);
        assert_eq!((n_cached, &outcome), (100 + 6, &alone(&engine, &next)));
        assert_eq!(scheduler.counters().since(&before).n_decode_total, 5);
        // The same prompt once more: its last token is processed for its logits.
        let (outcome, n_cached) = run_one(&mut scheduler, &first);
        assert_eq!((n_cached, outcome), (99, alone(&engine, &first)));
        let unlike = Request { cache_prompt: false, ..first.clone() };
        let (outcome, n_cached) = run_one(&mut scheduler, &unlike);
        assert_eq!((n_cached, outcome), (0, alone(&engine, &first)));
        // Half of the text: layers with a window have overwritten what a row so far back sees.
        let half = request(text[..50].to_vec(), 3);
        let (outcome, n_cached) = run_one(&mut scheduler, &half);
        assert_eq!(n_cached, if is_windowed { 0 } else { 49 });
        assert_eq!(outcome, alone(&engine, &half));
    }
}

#[test]
fn the_slot_with_the_longest_prefix_is_taken_and_else_the_one_longest_unused() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 3);
    let mut client = Client::default();
    let texts = [1, 2, 3].map(|seed| prompt(&engine, seed, 60));
    let mut start = |scheduler: &mut Scheduler, tokens: &[u32], n| {
        let id = scheduler.submit(request(tokens.to_vec(), n)).unwrap();
        client.run(scheduler);
        client.started[&id]
    };
    // New slots come first.
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(start(&mut scheduler, text, 1), (i, 0));
    }
    assert_eq!(start(&mut scheduler, &texts[1], 1), (1, 59));
    assert_eq!(start(&mut scheduler, &texts[0][..40], 1), (0, 39));
    // Six tokens of sixty are too few to decide, seven are enough.
    let mut other = prompt(&engine, 9, 60);
    other[..7].copy_from_slice(&texts[1][..7]);
    other[6] ^= 1;
    assert_eq!(start(&mut scheduler, &other, 1), (2, 0));
    other[6] ^= 1;
    assert_eq!(start(&mut scheduler, &other, 1), (1, 7));
}

#[test]
fn a_busy_slot_is_not_taken_and_a_cancelled_prompt_stays_cached() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 2);
    let mut client = Client::default();
    let text = prompt(&engine, 1, 90);
    let first = scheduler.submit(request(text.clone(), 3)).unwrap();
    client.step(&mut scheduler);
    let second = scheduler.submit(request(text[..20].to_vec(), 3)).unwrap();
    client.step(&mut scheduler);
    assert_eq!((client.started[&first], client.started[&second]), ((0, 0), (1, 0)));
    scheduler.cancel(first);
    assert_eq!(scheduler.n_running(), 1);
    client.run(&mut scheduler);
    assert_eq!(client.outcomes[&first], Outcome::default());
    assert_eq!(client.outcomes[&second], alone(&engine, &request(text[..20].to_vec(), 3)));
    // The chunks of two passes, the second one with the 20 rows of the other prompt.
    let (done, _) = client.prefill[&first];
    let third = scheduler.submit(request(text.clone(), 3)).unwrap();
    client.run(&mut scheduler);
    assert_eq!((client.started[&third], done >= 33), ((0, done), true));
    assert_eq!(client.outcomes[&third], alone(&engine, &request(text, 3)));
}

#[test]
fn a_request_for_no_tokens_caches_its_prompt() {
    let engine = engine(SMALL);
    let mut scheduler = scheduler(&engine, 1);
    let text = prompt(&engine, 1, 50);
    let (outcome, _) = run_one(&mut scheduler, &request(text.clone(), 0));
    assert_eq!(outcome.end, Some((Stop::MaxTokens, 50, 0, 0)));
    assert_eq!((outcome.tokens.len(), scheduler.counters().tokens_predicted_total), (0, 0));
    let (outcome, n_cached) = run_one(&mut scheduler, &request(text.clone(), 4));
    assert_eq!((n_cached, outcome), (49, alone(&engine, &request(text, 4))));
}
