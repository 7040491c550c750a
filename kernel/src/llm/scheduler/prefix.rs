//! The choice of a slot for a prompt: by what its text has in common with the prompt.

use super::slot::Slot;

/// A slot is chosen by its text if this fraction of the prompt is cached there: 1/10.
///
/// llama-server's `--slot-prompt-similarity`. So a token that begins all texts decides nothing.
const LEAST_SIMILARITY: usize = 10;

/// The free slot for a prompt.
///
/// As in llama-server with `cache_prompt`, the slot whose text has the longest prefix in common with
/// the prompt. Without such a slot, the least recently used one.
pub fn choose(slots: &[Slot], prompt: &[u32], cache_prompt: bool) -> Option<usize> {
    let free = || slots.iter().enumerate().filter(|(_, slot)| slot.run.is_none());
    let cached = free().map(|(i, slot)| (i, slot.n_common(prompt, cache_prompt)));
    let similar = cached.filter(|&(_, n)| n.saturating_mul(LEAST_SIMILARITY) > prompt.len());
    // The first of equal ones.
    let longest = similar.rev().max_by_key(|&(_, n)| n).map(|(i, _)| i);
    longest.or_else(|| free().min_by_key(|(_, slot)| slot.last_used).map(|(i, _)| i))
}
