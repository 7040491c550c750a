//! Reads any bytes as the body of an ollama client's request, and answers what is accepted.
#![no_main]

use fuzz::limits::Limits;
use fuzz::served;
use kernel::app::server::api::ollama::{PATHS, Reply, reply};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The sequence breakers of DRY and their copies take memory by the vocabulary.
const LIMITS: Limits = Limits { memory: (512, 4 << 20), ns_per_byte: 50_000 };

// The first byte, from `0` on, chooses the path.
fuzz_target!(|data: &[u8]| {
    served::prepare();
    let Some((first, body)) = data.split_first() else { return };
    LIMITS.hold(data.len(), || run(*first, body));
});

fn run(first: u8, body: &[u8]) {
    let (_, call) = PATHS[usize::from(first.wrapping_sub(b'0')) % PATHS.len()];
    match reply(call, body, &served::served(), 4, &served::IDS) {
        Ok(Reply::Text(_, text)) => assert!(object(&text).is_object()),
        Ok(Reply::Job(job)) => {
            let stream = job.answer.options().stream;
            let all = served::answer(*job);
            assert_eq!(all.ends_with('\n'), stream);
            let lines: Vec<Value> = all.lines().map(object).collect();
            let (last, parts) = lines.split_last().unwrap();
            assert!(stream || parts.is_empty());
            assert!(last["done"] == true && parts.iter().all(|part| part["done"] == false));
        }
        Err(error) => {
            assert!(matches!(error.status, 400 | 404 | 501), "{error:?}");
            assert!(!error.message.is_empty() && error.message.len() <= 303, "{error:?}");
            assert!(object(&error.ollama_body())["error"].is_string());
        }
    }
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
