//! Probabilities of tokens, for those who ask for more than the token.

use alloc::vec::Vec;

use super::{Candidate, filters};

/// The logarithm of a probability. As in llama-server, the least number stands for that of 0.
fn logarithm(p: f64) -> f32 {
    (libm::log(p) as f32).max(f32::MIN)
}

/// The logarithm of a token's probability by the softmax of the logits.
///
/// `top` gets the `n` most probable tokens with theirs, the best first. `scratch` is as long as
/// `logits`. NaN counts as negative infinity.
pub fn logit_probabilities(
    logits: &[f32],
    token: u32,
    n: usize,
    scratch: &mut [Candidate],
    top: &mut Vec<(u32, f32)>,
) -> f32 {
    for (candidate, (token, &logit)) in scratch.iter_mut().zip((0..).zip(logits)) {
        let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        *candidate = Candidate { token, logit, p: 0.0 };
    }
    let largest = filters::largest(scratch);
    let sum = scratch.iter().map(|candidate| f64::from(libm::expf(candidate.logit - largest)));
    let log_sum = libm::log(sum.sum());
    // The logarithm of a logit's probability, without the detour that rounds small ones to 0.
    let of_logit = |logit: f32| ((f64::from(logit - largest) - log_sum) as f32).max(f32::MIN);
    let of_token = scratch.get(token as usize).map_or(f32::MIN, |own| of_logit(own.logit));
    top.clear();
    let best = filters::first_in_order(scratch, n, filters::by_logit);
    top.extend(best.iter().map(|best| (best.token, of_logit(best.logit))));
    of_token
}

/// The logarithm of a token's probability among the candidates that it was drawn from.
///
/// `top` gets the `n` most probable candidates with theirs, the best first, as far as they are
/// possible.
pub fn candidate_probabilities(
    candidates: &mut [Candidate],
    token: u32,
    n: usize,
    top: &mut Vec<(u32, f32)>,
) -> f32 {
    let own = candidates.iter().find(|candidate| candidate.token == token);
    let of_token = logarithm(own.map_or(0.0, |own| own.p.into()));
    top.clear();
    let best = filters::first_in_order(candidates, n, filters::by_probability);
    let possible = best.iter().take_while(|best| best.p > 0.0);
    top.extend(possible.map(|best| (best.token, logarithm(best.p.into()))));
    of_token
}
