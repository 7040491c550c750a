//! Reads any bytes as the body of an ollama client's request, and answers what is accepted.
#![no_main]

use fuzz::served;
use kernel::app::server::api::models::{Listed, Status};
use kernel::app::server::api::ollama::{Found, PATHS, Reply, find, reply};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

// The first byte, from `0` on, chooses the path.
fuzz_target!(|data: &[u8]| {
    served::prepare();
    let Some((first, body)) = data.split_first() else { return };
    served::LIMITS.hold(data.len(), || run(*first, body));
});

fn run(first: u8, body: &[u8]) {
    let (_, call) = PATHS[usize::from(first.wrapping_sub(b'0')) % PATHS.len()];
    let served = served::served();
    let list = ["other", served.model].map(|name| {
        let served = (name == served.model).then_some(served);
        Listed { name, path: "p", bytes: 7, status: Status::Loaded, served }
    });
    let result = find(call, body, &list, 4, 5).and_then(|found| match found {
        // Only the second model is loaded.
        Found::Model(0) => Ok(None),
        Found::Model(_) => reply(call, body, &served, 4, &served::IDS).map(Some),
        Found::Text(_, text) => Ok(Some(Reply::Text { text, unloads: false })),
    });
    match result {
        Ok(None) => {}
        Ok(Some(Reply::Text { text, .. })) => assert!(object(&text).is_object()),
        Ok(Some(Reply::Job { job, .. })) => {
            let stream = job.answer.options().stream;
            let all = served::answer(*job);
            assert_eq!(all.ends_with('\n'), stream);
            let lines: Vec<Value> = all.lines().map(object).collect();
            let (last, parts) = lines.split_last().unwrap();
            assert!(stream || parts.is_empty());
            assert!(last["done"] == true && parts.iter().all(|part| part["done"] == false));
            let calls = lines.iter().filter_map(|line| line["message"]["tool_calls"].as_array());
            assert!(calls.flatten().all(|call| call["function"]["arguments"].is_object()));
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
