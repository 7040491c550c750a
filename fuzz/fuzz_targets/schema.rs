//! Reads any JSON as a JSON schema, and has a model of noise write an answer to it.
#![no_main]

use fuzz::constrained::{self, Answer};
use fuzz::limits::Limits;
use fuzz::served;
use kernel::app::server::api::schema;
use kernel::llm::grammar::Grammar;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

/// A token may take as much time as the budget of its stacks allows.
const LIMITS: Limits = Limits { memory: (4096, 32 << 20), ns_per_byte: 100_000_000 };

// The first byte is the seed of the model.
fuzz_target!(|data: &[u8]| {
    served::prepare();
    let Some((&seed, json)) = data.split_first() else { return };
    let Ok(schema) = serde_json::from_slice::<&RawValue>(json) else { return };
    LIMITS.hold(data.len(), || run(seed, schema));
});

fn run(seed: u8, value: &RawValue) {
    match schema::grammar("schema", value) {
        Ok(text) => {
            // Only a schema that contains itself alone, or too much, gives no grammar.
            let Ok(grammar) = Grammar::parse(&text, served::served().tokenizer) else { return };
            if let Answer::Whole(_, answer) = constrained::answer(grammar, seed, 200) {
                let parsed = serde_json::from_slice::<&RawValue>(&answer);
                assert!(parsed.is_ok(), "{}: {parsed:?}", String::from_utf8_lossy(&answer));
            }
        }
        Err(error) => {
            assert_eq!(error.status, 400, "{error:?}");
            assert!(!error.message.is_empty() && error.message.len() <= 303, "{error:?}");
        }
    }
}
