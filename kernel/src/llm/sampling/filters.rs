//! The steps of the choice: each keeps some candidates, in llama.cpp's way.
//!
//! No logit is NaN, the largest is finite, and there is a candidate at least; each step leaves it so.

use super::Candidate;

fn by_logit(a: &Candidate, b: &Candidate) -> core::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then_with(|| a.token.cmp(&b.token))
}

/// Best first; of equal ones the one with the lower number.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(by_logit);
}

/// The largest logit; negative infinity if there is no candidate.
pub fn largest(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |largest, candidate| largest.max(candidate.logit))
}

/// Keeps the one of the largest logit, of equal ones that with the lowest number.
pub fn best(candidates: &mut [Candidate]) -> &mut [Candidate] {
    let ranked = (0..candidates.len()).min_by(|&a, &b| by_logit(&candidates[a], &candidates[b]));
    let Some(ranked) = ranked else { return candidates };
    candidates.swap(0, ranked);
    candidates[0].p = 1.0;
    &mut candidates[..1]
}

/// Keeps those that are right.
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

/// Keeps those whose logit is at most `n` standard deviations of all below the largest; all if `n`
/// is 0. Top-nσ, Tang et al., 2024.
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

/// Keeps the `k` best, sorted; all if `k` is 0.
pub fn top_k(candidates: &mut [Candidate], k: usize) -> &mut [Candidate] {
    if k == 0 || k >= candidates.len() {
        return candidates;
    }
    candidates.select_nth_unstable_by(k - 1, by_logit);
    let kept = &mut candidates[..k];
    sort(kept);
    kept
}

/// Keeps those whose surprise is nearest to the entropy until they exceed `p`.
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
        // The distance stands in the place of the logit, which the probability gives back.
        candidate.logit = -libm::fabsf(surprise(candidate) - entropy);
    }
    sort(candidates);
    let candidates = keep_until(candidates, |sum| sum > p);
    for candidate in candidates.iter_mut() {
        candidate.logit = libm::logf(candidate.p);
    }
    candidates
}

/// Keeps the best until they reach `p`, sorted.
pub fn top_p(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p >= 1.0 {
        return candidates;
    }
    sort(candidates);
    softmax(candidates);
    keep_until(candidates, |sum| sum >= p)
}

/// Keeps the first candidates until the sum of their probabilities is enough; all if it never is.
fn keep_until(candidates: &mut [Candidate], is_enough: impl Fn(f32) -> bool) -> &mut [Candidate] {
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += candidate.p;
        is_enough(sum)
    });
    let kept = enough.map_or(candidates.len(), |last| last + 1);
    &mut candidates[..kept]
}

/// Keeps those of at least `p` of the best one's probability.
pub fn min_p(candidates: &mut [Candidate], p: f32) -> &mut [Candidate] {
    if p <= 0.0 {
        return candidates;
    }
    let least = largest(candidates) + libm::logf(p);
    retain(candidates, |candidate| candidate.logit >= least)
}

/// Leaves out those of at least this probability, but for the least probable of them; sorted.
/// "Exclude top choices", p-e-w, 2024.
pub fn xtc(candidates: &mut [Candidate], threshold: f32) -> &mut [Candidate] {
    sort(candidates);
    softmax(candidates);
    // What is impossible is never likely, not even by a threshold of 0.
    let is_likely =
        |candidate: &&Candidate| candidate.p >= threshold && candidate.logit > f32::NEG_INFINITY;
    let likely = candidates.iter().take_while(is_likely).count();
    &mut candidates[likely.saturating_sub(1)..]
}

/// Divides by the temperature, which is above 0. The largest logit becomes 0: were each divided by
/// itself, a low temperature could make it infinite.
pub fn temperature(candidates: &mut [Candidate], temperature: f32) {
    let largest = largest(candidates);
    for candidate in candidates {
        candidate.logit = (candidate.logit - largest) / temperature;
    }
}

/// Keeps those of a surprise of at most `mu` bits, and at least the best one; sorted.
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
