//! Reads any bytes as the body of a request, and answers what is accepted.
#![no_main]

use fuzz::served;
use kernel::app::server::api::request::tokens::{apply_template, count_tokens};
use kernel::app::server::api::request::tokens::{detokenize, tokenize};
use kernel::app::server::api::{ApiError, Endpoint, Job, generate};
use libfuzzer_sys::fuzz_target;

// The first byte chooses the endpoint.
fuzz_target!(|data: &[u8]| {
    served::prepare();
    let Some((first, body)) = data.split_first() else { return };
    served::LIMITS.hold(data.len(), || run(*first, body));
});

fn run(first: u8, body: &[u8]) {
    let served = served::served();
    let ids = served::IDS;
    let endpoint = match first.wrapping_sub(b'0') % 7 {
        0 => Endpoint::Chat,
        1 => Endpoint::Completions,
        2 => Endpoint::Completion,
        3 => return check_text(tokenize(body, &served)),
        4 => return check_text(detokenize(body, &served)),
        5 => return check_text(apply_template(body, &served)),
        _ => return check_text(count_tokens(body, &served)),
    };
    match generate(endpoint, body, &served, &ids) {
        Ok(job) => answer(endpoint, job),
        Err(error) => check_error(&error),
    }
}

fn check_text(text: Result<String, ApiError>) {
    match text {
        Ok(text) => check_json(&text),
        Err(error) => check_error(&error),
    }
}

fn check_json(text: &str) {
    // Numbers of JSON are finite, and the text is one object or a list of them.
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(value.is_object() || value.is_array());
}

fn check_error(error: &ApiError) {
    assert_eq!(error.status, 400, "{error:?}");
    assert!(!error.message.is_empty() && error.message.len() <= 303);
    check_json(&error.body());
}

/// Answers with a few tokens, and checks each event.
fn answer(endpoint: Endpoint, job: Job) {
    let stream = job.answer.options().stream;
    let all = served::answer(job);
    if !stream {
        return check_json(&all);
    }
    let mut events: Vec<&str> = all.split_terminator("\n\n").collect();
    assert!(all.ends_with("\n\n"));
    if endpoint != Endpoint::Completion {
        assert_eq!(events.pop(), Some("data: [DONE]"));
    }
    events.iter().for_each(|event| check_json(event.strip_prefix("data: ").unwrap()));
}
