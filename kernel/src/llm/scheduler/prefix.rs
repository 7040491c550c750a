//! Cached prefixes: what a slot's text has in common with a prompt.

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
    let cached = free().map(|(i, slot)| (i, n_common(slot, prompt, cache_prompt)));
    let similar = cached.filter(|&(_, n)| n.saturating_mul(LEAST_SIMILARITY) > prompt.len());
    // The first of equal ones.
    let longest = similar.rev().max_by_key(|&(_, n)| n).map(|(i, _)| i);
    longest.or_else(|| free().min_by_key(|(_, slot)| slot.last_used).map(|(i, _)| i))
}

/// Cuts a slot's text to the prefix that it has in common with a prompt.
///
/// Returns the number of cached tokens, whose positions the KV cache holds. At least the prompt's
/// last token is left, as its logits are needed.
pub fn take(slot: &mut Slot, prompt: &[u32], cache_prompt: bool) -> usize {
    let n = n_common(slot, prompt, cache_prompt);
    slot.session.truncate(n);
    if slot.session.n_past() < n || n == 0 {
        // A layer with a window has overwritten positions.
        slot.session.clear();
        slot.n_shifts = slot.session.context_shifts();
    }
    slot.session.n_past()
}

/// Tokens of a prompt that a slot's KV cache holds.
fn n_common(slot: &Slot, prompt: &[u32], cache_prompt: bool) -> usize {
    // After a context shift, the keys are not those of a text that was processed from its start.
    if !cache_prompt || slot.session.context_shifts() != slot.n_shifts {
        return 0;
    }
    let processed = &slot.session.tokens()[..slot.session.n_past()];
    let most = prompt.len().saturating_sub(1);
    processed.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
}
