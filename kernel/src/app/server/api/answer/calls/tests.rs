//! Answers with calls of tools, as a whole and in streams.

use alloc::format;

use super::super::super::request::Endpoint::Chat;
use super::super::super::testing::*;
use super::*;
use crate::llm::scheduler::Finished;

const TOOLS: &str = r#""messages":[{"role":"user","content":"Hi"}],"tools":[
    {"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]"#;

fn body(fields: &str) -> String {
    format!("{{{TOOLS}{fields}}}")
}

fn call(name: &str, arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
}

/// An answer whose text comes in these pieces, and its last piece at the end.
fn answer(fields: &str, pieces: &[&str], stop: Stop) -> String {
    let fixture = Fixture::with_tools(tool_texts());
    let mut run = Run::new(&fixture, Chat, &body(fields));
    run.start(0);
    let mut out = String::new();
    let (last, first) = pieces.split_last().unwrap();
    for piece in first {
        out += &run.token(0, HELLO, piece);
    }
    out + &run.finish(0, Finished { text: (*last).into(), ..finished(stop) })
}

/// Reason, content and calls of a whole answer.
fn whole(fields: &str, text: &str, stop: Stop) -> (String, serde_json::Value, serde_json::Value) {
    let answer = answer(fields, &[text, ""], stop);
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let choice = &value["choices"][0];
    let reason = choice["finish_reason"].as_str().unwrap().into();
    (reason, choice["message"]["content"].clone(), choice["message"]["tool_calls"].clone())
}

/// The deltas of a stream, and the reason of its end.
fn deltas(fields: &str, pieces: &[&str], stop: Stop) -> (Vec<String>, String) {
    let stream = answer(&format!("{fields},\"stream\":true"), pieces, stop);
    let mut deltas = Vec::new();
    let mut reason = String::new();
    for event in stream.split("\n\n").filter_map(|event| event.strip_prefix("data: {")) {
        let event: serde_json::Value = serde_json::from_str(&format!("{{{event}")).unwrap();
        let choice = &event["choices"][0];
        match choice["finish_reason"].as_str() {
            Some(text) => reason = text.into(),
            None => deltas.push(choice["delta"].to_string()),
        }
    }
    assert!(stream.ends_with("data: [DONE]\n\n"));
    assert_eq!(deltas.remove(0), r#"{"content":null,"role":"assistant"}"#);
    (deltas, reason)
}

const IDS_OF_CALLS: [&str; 2] = ["00000001a", "00000001b"];

#[test]
fn calls_become_elements_of_the_message() {
    let text = format!("Let me see.\n{}\n{}\n", call("f", r#"{"a": "é\n"}"#), call("g", "{}"));
    let answer = answer("", &[&text, ""], Stop::End);
    let calls = format!(
        r#"[{{"id":"{}","type":"function","function":{{"name":"f","arguments":"{{\"a\": \"é\\n\"}}"}}}},{{"id":"{}","type":"function","function":{{"name":"g","arguments":"{{}}"}}}}]"#,
        IDS_OF_CALLS[0], IDS_OF_CALLS[1],
    );
    // The model wrote an escape, which JSON escapes once more.
    let calls = calls.replace("é\\\\n", "é\\n");
    let expected = format!(
        r#"{{"choices":[{{"finish_reason":"tool_calls","index":0,"message":{{"role":"assistant","content":"Let me see.","refusal":null,"tool_calls":{calls}}},"logprobs":null}}],"#
    );
    assert!(answer.starts_with(&expected.replace("é\\n", "é\\\\n")), "{answer}");

    let (reason, content, calls) = whole("", &call("g", "{}"), Stop::Word(0));
    assert_eq!((&*reason, content), ("tool_calls", serde_json::Value::Null));
    assert_eq!(calls.as_array().unwrap().len(), 1);
}

#[test]
fn a_call_is_streamed_as_openai_streams_it() {
    let text = call("f", r#"{"a": [1, "}"]}"#);
    let letters: Vec<&str> = text.split_inclusive(|_| true).collect();
    let pieces = [&["Hm", ". ", "\n"], &letters[..], &["\n"]].concat();
    let (deltas, reason) = deltas("", &pieces, Stop::End);
    assert_eq!(deltas[..2], [r#"{"content":"Hm"}"#, r#"{"content":"."}"#]);
    let first = format!(
        r#"{{"tool_calls":[{{"function":{{"arguments":"","name":"f"}},"id":"{}","index":0,"type":"function"}}]}}"#,
        IDS_OF_CALLS[0]
    );
    assert_eq!(deltas[2], first);
    let mut arguments = String::new();
    for delta in &deltas[3..] {
        let delta: serde_json::Value = serde_json::from_str(delta).unwrap();
        let call = &delta["tool_calls"][0];
        assert_eq!((call["index"].as_u64(), call.get("id")), (Some(0), None));
        assert_eq!(call.as_object().unwrap().len(), 2);
        arguments += call["function"]["arguments"].as_str().unwrap();
    }
    assert_eq!(arguments, r#"{"a": [1, "}"]}"#);
    // Each letter of the arguments came by itself.
    assert_eq!((deltas.len() - 3, &*reason), (arguments.len(), "tool_calls"));
}

#[test]
fn further_calls_have_their_own_numbers_and_ids() {
    let two = format!("{}\n{}", call("f", "{}"), call("g", "{}"));
    let (stream, reason) = deltas("", &[&two, ""], Stop::End);
    let head = |i: usize, name: &str| {
        format!(
            r#"{{"tool_calls":[{{"function":{{"arguments":"","name":"{name}"}},"id":"{}","index":{i},"type":"function"}}]}}"#,
            IDS_OF_CALLS[i]
        )
    };
    let arguments = |i: usize| {
        format!(r#"{{"tool_calls":[{{"function":{{"arguments":"{{}}"}},"index":{i}}}]}}"#)
    };
    assert_eq!(stream, [head(0, "f"), arguments(0), head(1, "g"), arguments(1)]);
    assert_eq!(reason, "tool_calls");

    let one = r#","parallel_tool_calls":false"#;
    let (stream, _) = deltas(one, &[&two, " more"], Stop::End);
    assert_eq!(stream, [head(0, "f"), arguments(0)]);
    let (_, content, calls) = whole(one, &format!("{two} more"), Stop::End);
    assert_eq!((content.is_null(), calls.as_array().unwrap().len()), (true, 1));
}

#[test]
fn what_is_no_call_is_content() {
    let texts = [
        call("h", "{}"),
        call("f", "[]"),
        "<tool_call>\n{\"name\": \"f\", \"argu".into(),
        "a < b\n".into(),
        String::new(),
    ];
    for text in &texts {
        let (reason, content, calls) = whole("", text, Stop::End);
        assert_eq!((&*reason, content.as_str(), calls.is_null()), ("stop", Some(&**text), true));
        let (stream, reason) = deltas("", &[text, ""], Stop::End);
        let content = stream.iter().map(|delta| {
            let delta: serde_json::Value = serde_json::from_str(delta).unwrap();
            String::from(delta["content"].as_str().unwrap())
        });
        assert_eq!((content.collect::<String>(), &*reason), (text.clone(), "stop"));
    }
    // The start of what cannot be a call waits no longer.
    let fixture = Fixture::with_tools(tool_texts());
    let mut run = Run::new(&fixture, Chat, &body(r#","stream":true"#));
    run.start(0);
    assert!(!run.token(0, HELLO, "<tool_ca").contains("content\":\""));
    assert!(run.token(0, HELLO, "b").contains(r#"{"content":"<tool_cab"}"#));
    for off in [r#","tool_choice":"none""#, r#","parse_tool_calls":false"#] {
        let text = call("f", "{}");
        let (reason, content, calls) = whole(off, &text, Stop::End);
        assert_eq!((&*reason, content.as_str(), calls.is_null()), ("stop", Some(&*text), true));
    }
}

#[test]
fn a_malformed_call_is_content_of_a_whole_answer() {
    let text = format!("\n{}", call("f", "{\"a\": Paris}"));
    let (reason, content, calls) = whole("", &text, Stop::End);
    assert_eq!((&*reason, content.as_str(), calls.is_null()), ("stop", Some(&*text), true));
    // A stream has sent the start: only the rest is content, and no call is complete.
    let (stream, reason) = deltas("", &[&text, ""], Stop::End);
    assert_eq!(stream.len(), 3);
    assert!(stream[1].contains(r#""arguments":"{\"a\": ""#), "{}", stream[1]);
    assert_eq!((&*stream[2], &*reason), (r#"{"content":"Paris}}\n</tool_call>"}"#, "stop"));
    // A call that follows is one.
    let (reason, content, calls) = whole("", &format!("{text}{}", call("g", "{}")), Stop::End);
    assert_eq!((&*reason, content.as_str()), ("tool_calls", Some(&*text)));
    assert_eq!(calls[0]["function"]["name"], "g");
}

#[test]
fn a_call_that_the_length_cuts_stays_a_call() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"Par";
    let (reason, content, calls) = whole("", text, Stop::MaxTokens);
    assert_eq!((&*reason, content.is_null()), ("length", true));
    assert_eq!(calls[0]["function"]["arguments"], "{\"a\": \"Par");
    let (stream, reason) = deltas("", &[text, ""], Stop::ContextFull);
    assert_eq!((stream.len(), &*reason), (2, "length"));
    let (reason, content, _) = whole("", text, Stop::End);
    assert_eq!((&*reason, content.as_str()), ("stop", Some(text)));
}

#[test]
fn probabilities_come_with_the_parts_of_calls() {
    let fixture = Fixture::with_tools(tool_texts());
    let fields = r#","stream":true,"logprobs":true"#;
    let mut run = Run::new(&fixture, Chat, &body(fields));
    run.start(0);
    assert!(!run.likely(0, HELLO, "<tool_call>{\"name\":\"f\",").contains("logprob\":"));
    let events = run.likely(0, WORLD, "\"arguments\":{");
    let events: Vec<&str> = events.split_inclusive("\n\n").collect();
    // Both tokens are those of the first event, and none is reported twice.
    assert_eq!(events.len(), 2);
    assert!(events[0].contains(r#""id":259"#) && events[0].contains(r#""id":260"#), "{events:?}");
    assert!(!events[1].contains("logprobs"), "{events:?}");
}

#[test]
fn ids_are_unique_in_all_answers_to_a_request() {
    let mut ids: Vec<String> = Vec::new();
    for number in 0..64 {
        ids.extend((0..200).map(|index| call_id(u64::MAX - 100, number, index)));
    }
    assert!(ids.iter().all(|id| id.len() == 9 && id.bytes().all(|c| c.is_ascii_alphanumeric())));
    let n = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), n);
}
