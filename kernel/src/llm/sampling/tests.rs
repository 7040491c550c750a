mod llama_cpp;

use super::*;
use crate::llm::Error;
use alloc::vec;
use alloc::vec::Vec;

/// Logits whose probabilities are 0.4, 0.3, 0.2 and 0.1, in another order.
fn logits() -> Vec<f32> {
    [0.2_f32, 0.4, 0.1, 0.3].map(libm::logf).to_vec()
}

/// `n` draws from [`logits`], after a text of these tokens.
fn draw_after(text: &[u32], config: SamplingConfig, n: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(config);
    text.iter().for_each(|&token| sampler.accept(token));
    let mut scratch = vec![Candidate { token: 99, logit: 99.0, p: 99.0 }; 4];
    (0..n).map(|_| sampler.sample(&logits(), &mut scratch)).collect()
}

fn draw(config: SamplingConfig, n: usize) -> Vec<u32> {
    draw_after(&[], config, n)
}

/// Checks the draws against probabilities by a chi-square test.
///
/// Fewer than one in a thousand correct samplers would fail, and the seed is fixed.
#[track_caller]
fn assert_drawn(draws: &[u32], expected: &[(u32, f64)]) {
    // The 0.999 quantiles for 0 to 3 degrees of freedom.
    const LIMITS: [f64; 4] = [0.0, 10.83, 13.82, 16.27];
    let chi_square = expected.iter().map(|&(token, share)| {
        let seen = draws.iter().filter(|&&drawn| drawn == token).count() as f64;
        let expected = share * draws.len() as f64;
        (seen - expected) * (seen - expected) / expected
    });
    let chi_square: f64 = chi_square.sum();
    let other = draws.iter().find(|drawn| expected.iter().all(|(token, _)| token != *drawn));
    assert_eq!(other, None, "expected {expected:?}");
    let limit = LIMITS[expected.len() - 1] + 1e-9;
    assert!(chi_square <= limit, "{chi_square} > {limit}, expected {expected:?}");
}

const N: usize = 20_011;

#[track_caller]
fn assert_shares(config: SamplingConfig, expected: &[(u32, f64)]) {
    assert_drawn(&draw(config, N), expected);
}

const ALL: SamplingConfig =
    SamplingConfig { temperature: 1.0, seed: 7, ..SamplingConfig::greedy() };

#[test]
#[should_panic(expected = "> 16.27")]
fn the_chi_square_test_finds_shares_that_are_off_by_two_percent() {
    assert_shares(ALL, &[(0, 0.2), (1, 0.38), (2, 0.1), (3, 0.32)]);
}

#[test]
fn greedy_takes_the_first_of_the_best() {
    assert_eq!(argmax(&[0.5, 2.0, 1.0, 2.0]), 1);
    assert_eq!(argmax(&[f32::NAN, -3.0, f32::NEG_INFINITY]), 1);
    assert_eq!(argmax(&[]), 0);
    assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 0);
    assert_eq!(draw(SamplingConfig::greedy(), 3), [1, 1, 1]);
    assert_eq!(draw(SamplingConfig { top_k: 1, ..ALL }, 3), [1, 1, 1]);
}

#[test]
fn the_best_of_many_logits_is_the_one_of_a_plain_search() {
    // Few different numbers, so that many logits are equal.
    let few = [f32::NEG_INFINITY, -1.5, -0.0, 0.0, 1.5, f32::NAN];
    let mut generator = SplitMix64::new(7);
    for n in (0..300).chain([511, 512, 513, 1009]) {
        let mut logits: Vec<f32> =
            (0..n).map(|_| few[(generator.next_u64() % few.len() as u64) as usize]).collect();
        let mut peak = None;
        if let Some(place) = (generator.next_u64() as usize).checked_rem(2 * n) {
            // One logit is above all others in half of the rounds.
            peak = logits.get_mut(place).map(|logit| *logit = 2.0).map(|()| place);
        }
        let mut expected = (0, f32::NEG_INFINITY);
        for (token, &logit) in (0..).zip(&logits) {
            if logit > expected.1 {
                expected = (token, logit);
            }
        }
        let (expected, _) = expected;
        assert_eq!(argmax(&logits), expected, "{n} logits, {peak:?}");
        assert!(peak.is_none_or(|peak| peak == expected as usize));
    }
}

#[test]
fn the_best_with_biases_is_the_best_of_all_candidates() {
    let few = [f32::NEG_INFINITY, -1.5, 0.0, 1.5, 2.0, f32::NAN];
    let of_biases = [f32::NEG_INFINITY, -0.5, 0.5, 1.5];
    let mut generator = SplitMix64::new(11);
    let mut below = |n: usize| (generator.next_u64() % n as u64) as usize;
    let mut n_found = 0;
    for n in (1..200).cycle().take(2000) {
        let logits: Vec<f32> = (0..n).map(|_| few[below(few.len())]).collect();
        // Some tokens have two biases, and some do not exist.
        let n_biases = below(FEW_BIASES + 4);
        let biases =
            (0..n_biases).map(|_| (below(n + 2) as u32, of_biases[below(of_biases.len())]));
        let mut sampler = Sampler::new(SamplingConfig::greedy());
        sampler.set_biases(biases.collect()).unwrap();
        let mut scratch = vec![Candidate::default(); n];
        let expected = sampler.candidates(&logits, &mut scratch)[0].token;
        let found = sampler.best(&logits);
        assert!(found.is_none_or(|found| found == expected), "{logits:?} {:?}", sampler.biases);
        assert_eq!(sampler.sample(&logits, &mut scratch), expected);
        n_found += usize::from(found.is_some());
    }
    assert!((200..1800).contains(&n_found), "{n_found} found without candidates");
}

#[test]
fn tokens_come_as_often_as_their_probability_says() {
    assert_shares(ALL, &[(0, 0.2), (1, 0.4), (2, 0.1), (3, 0.3)]);
}

#[test]
fn top_k_keeps_the_best() {
    let config = SamplingConfig { top_k: 2, ..ALL };
    assert_shares(config, &[(1, 0.4 / 0.7), (3, 0.3 / 0.7)]);
    let many = SamplingConfig { top_k: 5, ..ALL };
    assert_shares(many, &[(0, 0.2), (1, 0.4), (2, 0.1), (3, 0.3)]);
}

#[test]
fn the_likely_tokens_are_all_that_top_k_needs() {
    let of_biases = [f32::NEG_INFINITY, -2.5, -0.5, 0.5, 2.5];
    let mut generator = SplitMix64::new(13);
    let mut below = |n: usize| (generator.next_u64() % n as u64) as usize;
    let (mut n_found, mut n_rounds) = (0, 0);
    for n in [50, 640, 1009, 4096, 9001].into_iter().cycle().take(500) {
        // Coarse numbers make many logits equal.
        let steps = [7, 1000, 1 << 20][below(3)];
        let mut logits: Vec<f32> =
            (0..n).map(|_| below(steps) as f32 * 8.0 / steps as f32).collect();
        for _ in 0..below(4) {
            logits[below(n)] = [f32::NAN, f32::NEG_INFINITY, 9.0, 11.0][below(4)];
        }
        let biases: Vec<_> = (0..below(2) * below(40))
            .map(|_| (below(n + 2) as u32, of_biases[below(of_biases.len())]))
            .collect();
        let text: Vec<u32> = (0..below(2) * below(60)).map(|_| below(n + 2) as u32).collect();
        let config = SamplingConfig {
            top_k: 1 + below(60),
            repeat_penalty: 1.5,
            frequency_penalty: 0.25,
            presence_penalty: -0.5,
            penalty_last_n: 64,
            ..ALL
        };
        let mut sampler = Sampler::new(config);
        sampler.set_text(&text);
        sampler.biases = biases;

        let mut all: Vec<Candidate> = (0..)
            .zip(&logits)
            .map(|(token, &logit)| {
                let own = sampler.biases.iter().filter(|(biased, _)| *biased == token);
                let mut logit = own.fold(logit, |logit, (_, bias)| logit + bias);
                let count = text.iter().filter(|&&said| said == token).count();
                if count > 0 {
                    logit = if logit <= 0.0 { logit * 1.5 } else { logit / 1.5 };
                    logit -= count as f32 * 0.25 - 0.5;
                }
                let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
                Candidate { token, logit, p: 0.0 }
            })
            .collect();
        all.sort_by(filters::by_logit);
        let expected: Vec<u32> = all.iter().take(config.top_k).map(Candidate::token).collect();

        let mut scratch = vec![Candidate { token: 3, logit: 99.0, p: 99.0 }; n];
        n_rounds += 1;
        n_found +=
            usize::from(sampler.likely(&logits, &mut scratch).is_some_and(|found| found < n));
        let found = sampler.candidates(&logits, &mut scratch);
        let tokens: Vec<u32> = found.iter().map(Candidate::token).collect();
        assert_eq!(tokens, expected, "{n} logits, {config:?}, {text:?}");
        let best = all[0].logit;
        for (candidate, all) in found.iter().zip(&all) {
            assert_eq!(candidate.logit.to_bits(), (all.logit - best).to_bits(), "{candidate:?}");
        }
    }
    assert!((n_rounds / 4..n_rounds).contains(&n_found), "{n_found} of {n_rounds} found few");
}

#[test]
fn top_p_keeps_the_best_that_reach_it() {
    // 0.4 and 0.3 do not reach 0.75, with 0.2 they do.
    let config = SamplingConfig { top_p: 0.75, ..ALL };
    assert_shares(config, &[(1, 0.4 / 0.9), (3, 0.3 / 0.9), (0, 0.2 / 0.9)]);
    assert_shares(SamplingConfig { top_p: 0.1, ..ALL }, &[(1, 1.0)]);
    assert_shares(SamplingConfig { top_p: 0.0, ..ALL }, &[(1, 1.0)]);
}

#[test]
fn the_lowest_temperatures_take_the_best_token() {
    for temperature in [1e-39, f32::MIN_POSITIVE, 1e-6] {
        for top_p in [1.0, 0.9] {
            let config = SamplingConfig { temperature, top_p, ..ALL };
            assert_eq!(draw(config, 5), [1; 5], "{temperature}");
        }
    }
}

#[test]
fn what_is_no_number_is_never_chosen() {
    let mut scratch = [Candidate { token: 99, logit: 99.0, p: 99.0 }; 5];
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for (config, logits, allowed) in [
        (ALL, [nan, 1.0, -nan, 1.5, nan], &[1, 3][..]),
        (SamplingConfig { top_k: 3, ..ALL }, [nan, 1.0, nan, -inf, nan], &[1]),
        (SamplingConfig { top_p: 0.5, ..ALL }, [nan, 1.0, -nan, nan, nan], &[1]),
        (ALL, [nan, -inf, inf, 3.0, nan], &[2]),
        (ALL, [nan; 5], &[0]),
    ] {
        let mut sampler = Sampler::new(config);
        for _ in 0..101 {
            let token = sampler.sample(&logits, &mut scratch);
            assert!(allowed.contains(&token), "{logits:?}: {token}");
        }
    }
}

#[test]
fn of_no_logits_there_is_nothing_to_choose() {
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(0, 1.0).unwrap();
    let mirostat = Some(Mirostat::DEFAULT);
    for config in [
        SamplingConfig::greedy(),
        SamplingConfig { logit_bias, ..SamplingConfig::greedy() },
        ALL,
        SamplingConfig { xtc_probability: 1.0, ..ALL },
        SamplingConfig { mirostat, ..ALL },
        SamplingConfig { mirostat, temperature: 0.0, logit_bias, ..ALL },
    ] {
        let mut sampler = Sampler::new(config);
        sampler.accept(0);
        assert_eq!(sampler.sample(&[], &mut []), 0);
        assert_eq!(sampler.candidates(&[], &mut []), []);
        // Scratch space that is too long does no harm.
        assert_eq!(sampler.sample(&[0.5], &mut [Candidate::default(); 3]), 0);
    }
}

#[test]
fn top_p_counts_what_top_k_left_and_comes_before_the_temperature() {
    // Of the two best, 0.4 / 0.7 is below 0.6: both stay. The temperature is for the draw only.
    let config = SamplingConfig { top_k: 2, top_p: 0.6, temperature: 0.5, ..ALL };
    assert_shares(config, &[(1, 0.16 / 0.25), (3, 0.09 / 0.25)]);
}

#[test]
fn min_p_keeps_what_is_near_the_best() {
    // 0.4 * 0.6 = 0.24, 0.4 * 0.4 = 0.16.
    assert_shares(SamplingConfig { min_p: 0.6, ..ALL }, &[(1, 0.4 / 0.7), (3, 0.3 / 0.7)]);
    let config = SamplingConfig { min_p: 0.4, ..ALL };
    assert_shares(config, &[(1, 0.4 / 0.9), (3, 0.3 / 0.9), (0, 0.2 / 0.9)]);
    assert_shares(SamplingConfig { min_p: 1.0, ..ALL }, &[(1, 1.0)]);
    // It looks at the logits before the temperature.
    let config = SamplingConfig { min_p: 0.6, temperature: 2.0, ..ALL };
    let roots = (libm::sqrt(0.4), libm::sqrt(0.3));
    let sum = roots.0 + roots.1;
    assert_shares(config, &[(1, roots.0 / sum), (3, roots.1 / sum)]);
}

#[test]
fn typical_keeps_what_surprises_as_much_as_expected() {
    // The entropy is 1.280. The surprises and their distances from it:
    // 0.3: 1.204, 0.076; 0.2: 1.609, 0.330; 0.4: 0.916, 0.364; 0.1: 2.303, 1.023.
    let typical = |typical_p| SamplingConfig { typical_p, ..ALL };
    assert_shares(typical(0.0), &[(3, 1.0)]);
    assert_shares(typical(0.29), &[(3, 1.0)]);
    assert_shares(typical(0.4), &[(3, 0.6), (0, 0.4)]);
    assert_shares(typical(0.6), &[(3, 0.3 / 0.9), (0, 0.2 / 0.9), (1, 0.4 / 0.9)]);
    // Later filters see the probabilities of the remaining candidates: 0.6 is enough here.
    assert_shares(SamplingConfig { top_p: 0.55, ..typical(0.4) }, &[(3, 1.0)]);
    // The best of the remaining candidates, not of all.
    assert_shares(SamplingConfig { temperature: 0.0, ..typical(0.4) }, &[(3, 1.0)]);
    // With 4/7 and 3/7 the entropy is 0.683, the surprises are 0.560 and 0.847.
    assert_shares(SamplingConfig { top_k: 2, ..typical(0.3) }, &[(1, 1.0)]);
}

#[test]
fn penalties_count_the_last_tokens() {
    let check = |config, text: &[u32], shares: [f64; 4]| {
        let sum: f64 = shares.iter().sum();
        let expected: Vec<_> = (0..).zip(shares.map(|share| share / sum)).collect();
        assert_drawn(&draw_after(text, config, N), &expected);
    };
    let text = [1, 3, 1];
    let half = core::f32::consts::LN_2;
    // The logits are negative, so the penalty squares the probability: 0.16 and 0.09.
    let repeat = SamplingConfig { repeat_penalty: 2.0, ..ALL };
    check(repeat, &text, [0.2, 0.16, 0.1, 0.09]);
    // Half as probable for each time: 0.4 / 4 and 0.3 / 2; or for all times together.
    let frequency = SamplingConfig { frequency_penalty: half, ..ALL };
    check(frequency, &text, [0.2, 0.1, 0.1, 0.15]);
    let presence = SamplingConfig { presence_penalty: half, ..ALL };
    check(presence, &text, [0.2, 0.2, 0.1, 0.15]);
    let all = SamplingConfig { repeat_penalty: 2.0, presence_penalty: half, ..frequency };
    check(all, &text, [0.2, 0.16 / 8.0, 0.1, 0.09 / 4.0]);
    // Older tokens do not count.
    let last = SamplingConfig { penalty_last_n: 2, ..frequency };
    check(last, &text, [0.2, 0.2, 0.1, 0.15]);
    check(SamplingConfig { penalty_last_n: 0, ..all }, &text, [0.2, 0.4, 0.1, 0.3]);
    // A token that does not exist does no harm.
    check(repeat, &[4, u32::MAX, 3], [0.2, 0.4, 0.1, 0.09]);
}

#[test]
fn penalties_make_tokens_rarer_whatever_the_sign_of_their_logits() {
    let greedy = SamplingConfig { repeat_penalty: 1.5, ..SamplingConfig::greedy() };
    // 2 / 1.5 is below 1.4; -1 * 1.5 is below -1.4.
    for logits in [[2.0, 1.4, 0.0], [-1.0, -1.4, -9.0]] {
        let mut sampler = Sampler::new(greedy);
        let mut scratch = [Candidate { token: 99, logit: 99.0, p: 99.0 }; 3];
        assert_eq!(sampler.sample(&logits, &mut scratch), 0);
        sampler.accept(0);
        assert_eq!(sampler.sample(&logits, &mut scratch), 1);
        sampler.forget();
        assert_eq!(sampler.sample(&logits, &mut scratch), 0);
    }
}

#[test]
fn dry_lowers_what_goes_on_with_a_repetition() {
    let dry = SamplingConfig { dry_multiplier: 0.5, dry_base: 3.0, ..ALL };
    let e = libm::exp(-0.5);
    let check = |config, text: &[u32], shares: [f64; 4]| {
        let sum: f64 = shares.iter().sum();
        let shares = (0..).zip(shares.map(|share| share / sum));
        let expected: Vec<_> = shares.filter(|&(_, share)| share > 0.0).collect();
        assert_drawn(&draw_after(text, config, N), &expected);
    };
    // After 1 3 there once came 0; after 3 alone there came 2 as well, which is allowed.
    let text = [3, 2, 1, 3, 0, 1, 3];
    check(dry, &text, [0.2 * e, 0.4, 0.1, 0.3]);
    // One token more: by three times as much.
    check(dry, &[2, 1, 3, 0, 2, 1, 3], [0.2 * e * e * e, 0.4, 0.1, 0.3]);
    check(SamplingConfig { dry_allowed_length: 3, ..dry }, &text, [0.2, 0.4, 0.1, 0.3]);
    check(
        SamplingConfig { dry_allowed_length: 1, ..dry },
        &text,
        [0.2 * e * e * e, 0.4, 0.1 * e, 0.3],
    );
    // The first 1 is too long ago.
    check(SamplingConfig { dry_penalty_last_n: 4, ..dry }, &text, [0.2, 0.4, 0.1, 0.3]);
    // A token that does not exist does no harm.
    check(dry, &[1, 3, 9, 1, 3], [0.2, 0.4, 0.1, 0.3]);
    // Whatever the length, the power is finite; a multiple of it may ban the token.
    let long = [1; 997];
    let steep = SamplingConfig { dry_base: 1000.0, dry_multiplier: 1000.0, ..dry };
    check(SamplingConfig { dry_penalty_last_n: 997, ..steep }, &long, [0.2, 0.0, 0.1, 0.3]);
}

#[test]
fn top_n_sigma_keeps_what_is_near_the_largest_logit() {
    // The logits' mean is -1.509, their standard deviation 0.515; the distances from the largest
    // are 0.288 (0.3), 0.693 (0.2) and 1.386 (0.1).
    let config = |top_n_sigma| SamplingConfig { top_n_sigma, ..ALL };
    assert_shares(config(0.5), &[(1, 1.0)]);
    assert_shares(config(0.6), &[(1, 0.4 / 0.7), (3, 0.3 / 0.7)]);
    assert_shares(config(1.4), &[(1, 0.4 / 0.9), (3, 0.3 / 0.9), (0, 0.2 / 0.9)]);
    assert_shares(config(3.0), &[(0, 0.2), (1, 0.4), (2, 0.1), (3, 0.3)]);
    // Tokens that are banned do not count.
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(2, f32::NEG_INFINITY).unwrap();
    let config = SamplingConfig { logit_bias, ..config(1.0) };
    // The others' mean is -1.244, their deviation 0.285.
    assert_shares(config, &[(1, 1.0)]);
}

#[test]
fn xtc_leaves_likely_tokens_out_now_and_then() {
    let xtc = SamplingConfig { xtc_probability: 1.0, xtc_threshold: 0.15, ..ALL };
    // 0.4 and 0.3 go, 0.2 is the least probable above the threshold.
    assert_shares(xtc, &[(0, 0.2 / 0.3), (2, 0.1 / 0.3)]);
    let always = SamplingConfig { temperature: 0.0, ..xtc };
    assert_shares(always, &[(0, 1.0)]);
    let half = SamplingConfig { xtc_probability: 0.5, ..always };
    assert_shares(half, &[(0, 0.5), (1, 0.5)]);
    let shares = [(0, 0.2), (1, 0.4), (2, 0.1), (3, 0.3)];
    assert_shares(SamplingConfig { xtc_probability: 0.0, ..xtc }, &shares);
    assert_shares(SamplingConfig { xtc_threshold: 0.35, ..xtc }, &shares);
    assert_shares(SamplingConfig { xtc_threshold: 0.51, ..xtc }, &shares);
    // It counts the candidates that the other filters left.
    let config = SamplingConfig { top_k: 2, xtc_threshold: 0.35, ..xtc };
    assert_shares(config, &[(3, 1.0)]);
    // A banned token is not likely, even if all that are likely are at least of probability 0.
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(2, f32::NEG_INFINITY).unwrap();
    assert_shares(SamplingConfig { xtc_threshold: 0.0, logit_bias, ..xtc }, &[(0, 1.0)]);
}

#[test]
fn biases_come_first() {
    let mut bias = LogitBias::NONE;
    bias.push(1, f32::NEG_INFINITY).unwrap();
    // 6 times as probable: 0.6, with 0.2 and 0.3 beside it.
    bias.push(2, libm::logf(6.0)).unwrap();
    bias.push(u32::MAX, 1.0).unwrap();
    let config = SamplingConfig { logit_bias: bias, ..ALL };
    assert_shares(config, &[(0, 0.2 / 1.1), (2, 0.6 / 1.1), (3, 0.3 / 1.1)]);
    assert_shares(SamplingConfig { top_k: 2, ..config }, &[(2, 0.6 / 0.9), (3, 0.3 / 0.9)]);
    assert_shares(SamplingConfig { temperature: 0.0, ..config }, &[(2, 1.0)]);
    let mirostat = Some(Mirostat { tau: 9.0, eta: 0.1 });
    assert_shares(
        SamplingConfig { mirostat, ..config },
        &[(0, 0.2 / 1.1), (2, 0.6 / 1.1), (3, 0.3 / 1.1)],
    );
    for _ in 3..MAX_BIASES {
        bias.push(0, 0.5).unwrap();
    }
    assert!(matches!(bias.push(0, 0.5), Err(Error::InvalidConfig { .. })));
}

#[test]
fn mirostat_bounds_the_surprise_and_follows_its_target() {
    let mirostat = Mirostat { tau: 1.0, eta: 0.5 };
    // Other steps do not count.
    let config = SamplingConfig {
        mirostat: Some(mirostat),
        top_k: 1,
        min_p: 1.0,
        typical_p: 0.1,
        repeat_penalty: 9.0,
        dry_multiplier: 9.0,
        dry_allowed_length: 0,
        xtc_probability: 1.0,
        ..ALL
    };
    let mut scratch = [Candidate { token: 99, logit: 99.0, p: 99.0 }; 4];
    let mut first = |seed| {
        let mut sampler = Sampler::new(SamplingConfig { seed, ..config });
        [1, 3, 1, 3].into_iter().for_each(|token| sampler.accept(token));
        (sampler.sample(&logits(), &mut scratch), sampler.mu)
    };
    // The first bound is 2 bits. The surprises are 1.32 (0.4), 1.74 (0.3), 2.32 and 3.32.
    let draws: Vec<u32> = (0..N as u64).map(|seed| first(seed).0).collect();
    assert_drawn(&draws, &[(1, 0.4 / 0.7), (3, 0.3 / 0.7)]);
    // Among the two the surprises are 0.807 and 1.222 bits.
    for seed in 0..17 {
        let (token, mu) = first(seed);
        let expected = if token == 1 { 2.0 - 0.5 * -0.193 } else { 2.0 - 0.5 * 0.222 };
        assert!((mu - expected).abs() < 1e-3, "{token}: {mu}");
    }
    // The best one is drawn even where the bound excludes all; temperature 0 draws nothing else.
    let strict = Some(Mirostat { tau: 0.0, eta: 0.1 });
    assert_eq!(draw(SamplingConfig { mirostat: strict, ..ALL }, 7), [1; 7]);
    assert_eq!(draw(SamplingConfig { temperature: 0.0, ..config }, 7), [1; 7]);
}

#[test]
fn the_mean_surprise_under_mirostat_is_its_target() {
    // 997 tokens whose probabilities fall as words' do: 1 / rank.
    let logits: Vec<f32> = (1..=997).map(|rank| -libm::logf(rank as f32)).collect();
    let mut scratch = vec![Candidate { token: 99, logit: 99.0, p: 99.0 }; logits.len()];
    for tau in [2.0, 4.0] {
        let mut sampler =
            Sampler::new(SamplingConfig { mirostat: Some(Mirostat { tau, eta: 0.1 }), ..ALL });
        let start = sampler.mu;
        let n = 5003;
        for _ in 0..n {
            sampler.sample(&logits, &mut scratch);
        }
        // Each step subtracts eta times the error from the bound, so the sum is the bound's
        // movement.
        let mean_error = (start - sampler.mu) / (0.1 * n as f32);
        assert!(mean_error.abs() < 0.02, "{tau}: {mean_error}");
        assert!(sampler.mu.is_finite() && sampler.mu > tau, "{}", sampler.mu);
    }
}

#[test]
fn the_generator_is_the_published_one() {
    // The first numbers of the seed 1234567, as published with the reference code.
    let mut generator = SplitMix64::new(1_234_567);
    let first = [(); 3].map(|()| generator.next_u64());
    assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
}

#[test]
fn the_seed_decides() {
    assert_eq!(draw(ALL, 101), draw(ALL, 101));
    assert_ne!(draw(ALL, 101), draw(SamplingConfig { seed: 8, ..ALL }, 101));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for config in [ALL, SamplingConfig::greedy(), SamplingConfig::creative()] {
        config.check().unwrap();
    }
    let bias = |bias| {
        let mut biases = LogitBias::NONE;
        biases.push(3, bias).unwrap();
        biases
    };
    for (config, name) in [
        (SamplingConfig { temperature: -0.5, ..ALL }, "temperature"),
        (SamplingConfig { temperature: f32::NAN, ..ALL }, "temperature"),
        (SamplingConfig { temperature: f32::INFINITY, ..ALL }, "temperature"),
        (SamplingConfig { top_p: -0.1, ..ALL }, "top_p"),
        (SamplingConfig { top_p: 1.5, ..ALL }, "top_p"),
        (SamplingConfig { top_p: f32::NAN, ..ALL }, "top_p"),
        (SamplingConfig { min_p: 1.5, ..ALL }, "min_p"),
        (SamplingConfig { typical_p: -0.5, ..ALL }, "typical_p"),
        (SamplingConfig { repeat_penalty: 0.0, ..ALL }, "repeat_penalty"),
        (SamplingConfig { frequency_penalty: 1e4, ..ALL }, "frequency_penalty"),
        (SamplingConfig { presence_penalty: f32::NAN, ..ALL }, "presence_penalty"),
        (SamplingConfig { penalty_last_n: MAX_LAST_N + 1, ..ALL }, "penalty_last_n"),
        (SamplingConfig { dry_multiplier: -0.5, ..ALL }, "dry_multiplier"),
        (SamplingConfig { dry_base: 0.5, ..ALL }, "dry_base"),
        (SamplingConfig { dry_penalty_last_n: MAX_LAST_N + 1, ..ALL }, "dry_penalty_last_n"),
        (SamplingConfig { dry_allowed_length: MAX_LAST_N + 1, ..ALL }, "dry_allowed_length"),
        (SamplingConfig { top_n_sigma: -1.0, ..ALL }, "top_n_sigma"),
        (SamplingConfig { xtc_probability: 1.5, ..ALL }, "xtc_probability"),
        (SamplingConfig { xtc_threshold: -0.1, ..ALL }, "xtc_threshold"),
        (
            SamplingConfig { mirostat: Some(Mirostat { tau: -1.0, eta: 0.1 }), ..ALL },
            "mirostat_tau",
        ),
        (SamplingConfig { mirostat: Some(Mirostat { tau: 5.0, eta: 2.0 }), ..ALL }, "mirostat_eta"),
        (SamplingConfig { logit_bias: bias(f32::NAN), ..ALL }, "logit_bias"),
        (SamplingConfig { logit_bias: bias(f32::INFINITY), ..ALL }, "logit_bias"),
    ] {
        let Err(Error::InvalidConfig { what }) = config.check() else {
            panic!("{config:?} was accepted");
        };
        assert!(what.starts_with(name), "{what}");
    }
}

#[test]
fn probabilities_of_logits_are_logarithms_of_their_softmax() {
    let mut scratch = [Candidate::default(); 4];
    let mut top = Vec::with_capacity(4);
    let ln = libm::logf;
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    let of_token = logit_probabilities(&logits(), 2, 3, &mut scratch, &mut top);
    assert!(near(of_token, ln(0.1)), "{of_token}");
    assert_eq!(top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3, 0]);
    let expected = [0.4, 0.3, 0.2].map(ln);
    assert!(top.iter().zip(expected).all(|(&(_, p), expected)| near(p, expected)), "{top:?}");
    // Small ones are not rounded to 0, and NaN is as impossible as negative infinity.
    let logits = [f32::NAN, 0.0, -200.0, f32::NEG_INFINITY];
    assert_eq!(logit_probabilities(&logits, 2, 9, &mut scratch, &mut top), -200.0);
    assert_eq!(top, [(1, 0.0), (2, -200.0), (0, f32::MIN), (3, f32::MIN)]);
}

#[test]
fn candidates_are_those_that_the_token_was_drawn_from() {
    let config = SamplingConfig { top_k: 3, ..ALL };
    let mut sampler = Sampler::new(config);
    let mut scratch = [Candidate { token: 99, logit: 99.0, p: 99.0 }; 4];
    let mut top = Vec::with_capacity(4);
    let mut drawn = Vec::new();
    for _ in 0..101 {
        let (token, candidates) = sampler.sample_from(&logits(), &mut scratch);
        let sum: f32 = candidates.iter().map(Candidate::probability).sum();
        assert!((sum - 1.0).abs() < 1e-6 && candidates.len() == 3, "{sum}");
        let own = candidates.iter().find(|it| it.token() == token).unwrap().probability();
        let of_token = candidate_probabilities(candidates, token, 2, &mut top);
        assert_eq!(of_token, libm::log(own.into()) as f32);
        assert_eq!(top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3]);
        drawn.push(token);
    }
    assert_eq!(drawn, draw(config, 101));
    // A banned token is no candidate of probability 0.
    sampler.set_biases(vec![(1, f32::NEG_INFINITY), (3, f32::NEG_INFINITY)]).unwrap();
    let (_, candidates) = sampler.sample_from(&logits(), &mut scratch);
    candidate_probabilities(candidates, 0, 9, &mut top);
    assert_eq!(top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [0, 2]);
    // Greedy sampling has one candidate.
    let (token, candidates) =
        Sampler::new(SamplingConfig::greedy()).sample_from(&logits(), &mut scratch);
    assert_eq!((token, candidate_probabilities(candidates, 1, 9, &mut top)), (1, 0.0));
    assert_eq!(top, [(1, 0.0)]);
}

#[test]
fn biases_of_any_number_come_beside_those_of_the_settings() {
    let mut logit_bias = LogitBias::NONE;
    logit_bias.push(1, libm::logf(0.25)).unwrap();
    let mut sampler = Sampler::new(SamplingConfig { logit_bias, ..ALL });
    // 0.4 / 4, three times halved; 0.1 times 8.
    let mut biases = vec![(1, libm::logf(0.5)); 3];
    biases.extend((0..100).map(|token| (token + 4, 9.0)));
    biases.push((2, libm::logf(8.0)));
    sampler.set_biases(biases).unwrap();
    let mut scratch = [Candidate::default(); 4];
    let draws: Vec<_> = (0..N).map(|_| sampler.sample(&logits(), &mut scratch)).collect();
    let sum = 0.2 + 0.0125 + 0.8 + 0.3;
    let shares = [(0, 0.2 / sum), (1, 0.0125 / sum), (2, 0.8 / sum), (3, 0.3 / sum)];
    assert_drawn(&draws, &shares);
    // Greedy sampling heeds them too.
    let mut sampler = Sampler::new(SamplingConfig::greedy());
    sampler.set_biases(vec![(2, 5.0)]).unwrap();
    assert_eq!(sampler.sample(&logits(), &mut scratch), 2);
    for bad in [f32::NAN, f32::INFINITY] {
        let refused = sampler.set_biases(vec![(0, 1.0), (3, bad)]);
        assert!(matches!(refused, Err(Error::InvalidConfig { .. })), "{bad}");
    }
}
