//! Sampler filters: each keeps some candidates, as llama.cpp's samplers do.
//!
//! Each filter expects at least one candidate, no NaN, and a finite largest logit. Each filter
//! keeps it so.

use super::Candidate;

pub fn by_logit(a: &Candidate, b: &Candidate) -> core::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then_with(|| a.token.cmp(&b.token))
}

/// By probability, the best first; of equal candidates, the lower token first.
pub fn by_probability(a: &Candidate, b: &Candidate) -> core::cmp::Ordering {
    b.p.total_cmp(&a.p).then_with(|| a.token.cmp(&b.token))
}

/// The first `n` candidates in this order, sorted; all if there are fewer.
pub fn first_in_order(
    candidates: &mut [Candidate],
    n: usize,
    order: fn(&Candidate, &Candidate) -> core::cmp::Ordering,
) -> &mut [Candidate] {
    let n = n.min(candidates.len());
    if n > 0 {
        candidates.select_nth_unstable_by(n - 1, order);
    }
    let first = &mut candidates[..n];
    first.sort_unstable_by(order);
    first
}

/// Sorts the best first; of equal candidates, the lower token first.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(by_logit);
}

/// The largest logit; negative infinity if there is no candidate.
pub fn largest(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |largest, candidate| largest.max(candidate.logit))
}

/// Keeps the candidate of the largest logit; of equal ones, the lowest token.
pub fn best(candidates: &mut [Candidate]) -> &mut [Candidate] {
    let ranked = (0..candidates.len()).min_by(|&a, &b| by_logit(&candidates[a], &candidates[b]));
    let Some(ranked) = ranked else { return candidates };
    candidates.swap(0, ranked);
    candidates[0].p = 1.0;
    &mut candidates[..1]
}

/// Keeps the candidates for which `is_right` holds.
fn retain(candidates: &mut [Candidate], is_right: impl Fn(&Candidate) -> bool) -> &mut [Candidate] {
    let mut kept = 0;
    for i in 0..candidates.len() {
        if is_right(&candidates[i]) {
            candidates.swap(kept, i);
            kept += 1;
        }
    }
    &mut candidates[..kept]
}

/// Top-nσ (Tang et al., 2024): keeps logits within `n` deviations of the largest.
///
/// The deviation is the standard deviation of all logits. Keeps all if `n` is 0.
pub fn top_n_sigma(candidates: &mut [Candidate], n: f32) -> &mut [Candidate] {
    if n <= 0.0 {
        return candidates;
    }
    let logits = candidates.iter().map(|candidate| candidate.logit);
    let logits = logits.filter(|&logit| logit != f32::NEG_INFINITY);
    let count = logits.clone().count() as f32;
    // Rounded as llama.cpp does.
    let mean = logits.clone().sum::<f32>() / count;
    let squares = logits.fold(0.0_f32, |sum, logit| {
        let difference = f64::from(logit - mean);
        (f64::from(sum) + difference * difference) as f32
    });
    let least = largest(candidates) - n * libm::sqrtf(squares / count);
    retain(candidates, |candidate| candidate.logit >= least)
}

/// Top-k: keeps the `k` best, sorted; all if `k` is 0.
pub fn top_k(candidates: &mut [Candidate], k: usize) -> &mut [Candidate] {
    if k == 0 {
        return candidates;
    }
    first_in_order(candidates, k, by_logit)
}

/// Locally typical: keeps surprises nearest to the entropy, until they exceed `p`.
pub fn typical(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p >= 1.0 {
        return candidates;
    }
    softmax(candidates);
    let surprise = |candidate: &Candidate| -libm::logf(candidate.p);
    let entropy: f32 = candidates
        .iter()
        .filter(|candidate| candidate.p > 0.0)
        .map(|candidate| candidate.p * surprise(candidate))
        .sum();
    for candidate in candidates.iter_mut() {
        // The distance replaces the logit, which the probability restores later.
        candidate.logit = -libm::fabsf(surprise(candidate) - entropy);
    }
    sort(candidates);
    let candidates = keep_until(candidates, |sum| sum > p);
    for candidate in candidates.iter_mut() {
        candidate.logit = libm::logf(candidate.p);
    }
    candidates
}

/// Top-p: keeps the best until their probabilities reach `p`, sorted.
pub fn top_p(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p >= 1.0 {
        return candidates;
    }
    sort(candidates);
    softmax(candidates);
    keep_until(candidates, |sum| sum >= p)
}

/// Keeps the first candidates until the sum of their probabilities is enough.
fn keep_until(candidates: &mut [Candidate], is_enough: impl Fn(f32) -> bool) -> &mut [Candidate] {
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += candidate.p;
        is_enough(sum)
    });
    let kept = enough.map_or(candidates.len(), |last| last + 1);
    &mut candidates[..kept]
}

/// Min-p: keeps candidates of at least `p` times the best probability.
pub fn min_p(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p <= 0.0 {
        return candidates;
    }
    let least = largest(candidates) + libm::logf(p);
    retain(candidates, |candidate| candidate.logit >= least)
}

/// XTC, "exclude top choices" (p-e-w, 2024): removes likely candidates; sorted.
///
/// Candidates of at least this probability are removed, except the least probable of them.
pub fn xtc(candidates: &mut [Candidate], threshold: f32) -> &mut [Candidate] {
    sort(candidates);
    softmax(candidates);
    // An impossible candidate is never likely, not even by a threshold of 0.
    let is_likely =
        |candidate: &&Candidate| candidate.p >= threshold && candidate.logit > f32::NEG_INFINITY;
    let likely = candidates.iter().take_while(is_likely).count();
    &mut candidates[likely.saturating_sub(1)..]
}

/// Divides the logits by the temperature, which is above 0.
///
/// The largest logit is subtracted first. Otherwise a low temperature could make it infinite.
pub fn temperature(candidates: &mut [Candidate], temperature: f32) {
    let largest = largest(candidates);
    for candidate in candidates {
        candidate.logit = (candidate.logit - largest) / temperature;
    }
}

/// Mirostat: keeps surprises of at most `mu` bits, and at least the best; sorted.
pub fn surprise(candidates: &mut [Candidate], mu: f32) -> &mut [Candidate] {
    sort(candidates);
    softmax(candidates);
    let kept = candidates.partition_point(|candidate| -libm::log2f(candidate.p) <= mu);
    &mut candidates[..kept.max(1)]
}

/// Sets the probabilities among these candidates.
pub fn softmax(candidates: &mut [Candidate]) {
    let largest = largest(candidates);
    let mut sum = 0.0_f64;
    for candidate in candidates.iter_mut() {
        candidate.p = libm::expf(candidate.logit - largest);
        sum += f64::from(candidate.p);
    }
    for candidate in candidates {
        candidate.p = (f64::from(candidate.p) / sum) as f32;
    }
}
