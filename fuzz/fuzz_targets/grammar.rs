//! Reads any text as a grammar, and has a model of noise write an answer of it.
#![no_main]

use fuzz::constrained::{self, Answer};
use fuzz::limits::Limits;
use fuzz::served;
use kernel::llm::grammar::Grammar;
use libfuzzer_sys::fuzz_target;

/// A token may take as much time as the budget of its stacks allows.
const LIMITS: Limits = Limits { memory: (64, 24 << 20), ns_per_byte: 20_000_000 };

// The first byte is the seed of the model.
fuzz_target!(|data: &[u8]| {
    served::prepare();
    let Some((&seed, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    LIMITS.hold(data.len(), || run(seed, text));
});

fn run(seed: u8, text: &str) {
    match Grammar::parse(text, served::served().tokenizer) {
        Ok(grammar) => {
            if let Answer::Whole(grammar, answer) = constrained::answer(grammar, seed, 12) {
                // Tokens of the grammar have no text that it reads.
                assert!(text.contains('<') || grammar.reads(&answer) != Ok(false), "{answer:?}");
            }
        }
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1 && !error.problem.is_empty());
            assert!(error.line <= text.matches('\n').count() + 1, "{error}");
        }
    }
}
