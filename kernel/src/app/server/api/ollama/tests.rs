//! Calls of ollama's clients, and what they get.

mod tools;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::testing::*;
use super::*;
use crate::llm;
use crate::llm::sampling::{Mirostat, SamplingConfig};
use crate::llm::scheduler::{Request, Stop, Update};

const BEGAN: u64 = 1_600_000_000;

/// A text with its content type, or what the model answers.
fn call(call: Call, body: &str) -> Result<Result<(&'static str, String), Reply>, ApiError> {
    call_of(&Fixture::new(), call, body)
}

fn call_of(
    fixture: &Fixture,
    call: Call,
    body: &str,
) -> Result<Result<(&'static str, String), Reply>, ApiError> {
    match find(call, body.as_bytes(), &fixture.list(), BEGAN, IDS.created)? {
        Found::Text(content_type, text) => Ok(Ok((content_type, text))),
        Found::Model(number) => {
            assert_eq!(number, 0);
            reply(call, body.as_bytes(), &fixture.served(), BEGAN, &IDS).map(Err)
        }
    }
}

/// The text and its content type.
fn text(of: Call, body: &str) -> (&'static str, String) {
    match call(of, body) {
        Ok(Ok(text)) => text,
        Ok(Err(Reply::Text { text, .. })) => (JSON, text),
        other => panic!("{body}: {other:?}"),
    }
}

fn job(of: Call, body: &str) -> Job {
    job_of(&Fixture::new(), of, body)
}

fn job_of(fixture: &Fixture, of: Call, body: &str) -> Job {
    match call_of(fixture, of, body) {
        Ok(Err(Reply::Job { job, .. })) => *job,
        other => panic!("{body}: {other:?}"),
    }
}

/// The request of a chat, or of a prompt, with further fields.
fn request(of: Call, fields: &str) -> Request {
    let [request] = <[Request; 1]>::try_from(job(of, &body(of, fields)).requests).unwrap();
    request
}

/// A body with further fields.
fn body(of: Call, fields: &str) -> String {
    let task = match of {
        Call::Chat => r#""messages":[{"role":"user","content":"Hi"}]"#,
        _ => r#""prompt":"Hi""#,
    };
    let comma = if fields.is_empty() { "" } else { "," };
    format!(r#"{{"model":"tiny",{task}{comma}{fields}}}"#)
}

#[track_caller]
fn refuses(of: Call, body: &str, status: u16, message: &str) {
    refuses_of(&Fixture::new(), of, body, status, message);
}

#[track_caller]
fn refuses_of(fixture: &Fixture, of: Call, body: &str, status: u16, message: &str) {
    let error = match call_of(fixture, of, body) {
        Ok(reply) => panic!("{body} is accepted: {reply:?}"),
        Err(error) => error,
    };
    assert_eq!((error.status, &*error.message), (status, message), "{body}");
}

const DETAILS: &str = r#""details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"12K","quantization_level":"Q4_0"}"#;

#[test]
fn the_model_is_listed_under_its_name_and_tag() {
    let digest = "a5".repeat(32);
    assert_eq!(text(Call::Version, ""), (JSON, r#"{"version":"0.12.11"}"#.into()));
    let expected = format!(
        r#"{{"models":[{{"name":"tiny:latest","model":"tiny:latest","size":6789,"digest":"{digest}",{DETAILS},"modified_at":"2020-09-13T12:26:40.000000Z","capabilities":["completion"]}}]}}"#
    );
    assert_eq!(text(Call::Tags, ""), (JSON, expected));
    let expected = format!(
        r#"{{"models":[{{"name":"tiny:latest","model":"tiny:latest","size":6789,"digest":"{digest}",{DETAILS},"expires_at":"2316-02-24T22:00:36.000000Z","size_vram":0,"context_length":256}}]}}"#
    );
    assert_eq!(text(Call::Ps, ""), (JSON, expected));
}

#[test]
fn the_model_is_shown_with_its_metadata_and_the_settings_that_count() {
    let (_, shown) = text(Call::Show, r#"{"model":"tiny"}"#);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let settings: Vec<Vec<&str>> = shown["parameters"]
        .as_str()
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [
        ["num_ctx", "256"],
        ["top_k", "40"],
        ["repeat_last_n", "64"],
        ["temperature", "0.8"],
        ["top_p", "0.95"],
        ["min_p", "0.05"],
        ["typical_p", "1"],
        ["repeat_penalty", "1"],
        ["presence_penalty", "0"],
        ["frequency_penalty", "0"],
    ];
    assert_eq!(settings, expected);
    let modelfile = shown["modelfile"].as_str().unwrap();
    assert!(modelfile.starts_with("FROM models/tiny.gguf\nPARAMETER num_ctx 256\n"), "{modelfile}");
    assert_eq!(shown["template"], "chatml");
    assert_eq!(shown["details"]["parameter_size"], "12K");
    assert_eq!(shown["modified_at"], "2020-09-13T12:26:40.000000Z");
    assert_eq!(shown["capabilities"], serde_json::json!(["completion"]));
    let info = serde_json::json!({
        "general.architecture": "llama", "general.basename": "Tiny",
        "general.parameter_count": 12345, "llama.block_count": 2, "llama.context_length": 512,
        "llama.embedding_length": 64, "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.vocab_size": N_VOCAB,
    });
    assert_eq!(shown["model_info"], info);
}

#[test]
fn numbers_of_weights_are_short() {
    let fixture = Fixture::new();
    for (n, short) in [
        (0, "0"),
        (999, "999"),
        (12_345, "12K"),
        (1_000_000, "1M"),
        (134_515_008, "134.52M"),
        (1_100_048_384, "1.1B"),
        (7_000_000_000, "7B"),
        (u64::MAX, "18446744073.7B"),
    ] {
        let mut metadata = fixture.metadata.clone();
        metadata.parameters = n;
        let served = Served { metadata: &metadata, ..fixture.served() };
        let shown = models::tags(&[Listed { served: Some(served), ..fixture.list()[0] }], 0);
        assert!(shown.contains(&format!("\"parameter_size\":\"{short}\"")), "{n}: {shown}");
    }
}

#[test]
fn a_model_is_found_by_its_name_with_and_without_the_tag() {
    for name in [r#""model":"tiny""#, r#""model":"tiny:latest""#, r#""model":"TINY""#] {
        text(Call::Show, &format!("{{{name}}}"));
    }
    text(Call::Show, r#"{"name":"tiny"}"#);
    text(Call::Show, r#"{"model":"","name":"tiny:latest","verbose":true}"#);
    for of in [Call::Show, Call::Chat, Call::Generate, Call::Pull] {
        refuses(of, "{}", 400, "model is required");
        refuses(of, r#"{"model":null,"name":""}"#, 400, "model is required");
    }
    for of in [Call::Show, Call::Chat, Call::Generate] {
        for name in ["tiny2", "tiny:7b", "tin", ":latest", "tiny:latest:latest"] {
            let problem = format!("model '{name}' not found");
            refuses(of, &format!(r#"{{"model":"{name}"}}"#), 404, &problem);
        }
    }
    let problem = "model 'other' not found, and this server pulls none";
    refuses(Call::Pull, r#"{"model":"other"}"#, 404, problem);
    assert_eq!(
        text(Call::Pull, r#"{"model":"tiny"}"#),
        (NDJSON, "{\"status\":\"success\"}\n".into())
    );
    assert_eq!(
        text(Call::Pull, r#"{"name":"tiny","stream":false}"#),
        (JSON, "{\"status\":\"success\"}".into())
    );
}

#[test]
fn what_the_server_does_not_have_is_an_error() {
    for (of, part) in [
        (Call::Embed, "embeddings"),
        (Call::Push, "push"),
        (Call::Create, "disk"),
        (Call::Copy, "disk"),
        (Call::Delete, "disk"),
    ] {
        let error = call(of, r#"{"model":"tiny"}"#).unwrap_err();
        assert!(error.status == 501 && error.message.contains(part), "{error:?}");
    }
    let error = ApiError::invalid("a \"b\"\n");
    assert_eq!(error.ollama_body(), r#"{"error":"a \"b\"\n"}"#);
}

#[test]
fn a_chat_becomes_a_request() {
    let fixture = Fixture::new();
    let body = r#"{"model":"tiny:latest","messages":[
        {"role":"system","content":"Book"},{"role":"user","content":"What","images":[]}],
        "tools":[],"format":"","options":{},"keep_alive":"5m","think":false,"stream":false}"#;
    let Job { requests, answer } = job(Call::Chat, body);
    let text = "<|im_start|>system\nBook<|im_end|>\n<|im_start|>user\nWhat<|im_end|>\n\
                <|im_start|>assistant\n";
    assert_eq!(requests[0].tokens, fixture.encode(text));
    // No options: those of the server, with a random seed.
    assert_eq!(requests[0].sampling, SamplingConfig { seed: 7, ..SamplingConfig::creative() });
    assert_eq!((requests[0].max_tokens, requests[0].n_probs), (usize::MAX, 0));
    assert_eq!(answer.content_type(), JSON);
    let stream = job(Call::Chat, &super::tests::body(Call::Chat, "")).answer;
    assert_eq!(stream.content_type(), NDJSON);
    assert_eq!(stream.options().ping_interval_s, Some(0), "a comment is no JSON");
}

#[test]
fn a_prompt_is_a_chat_of_one_message_unless_it_is_raw() {
    let fixture = Fixture::new();
    let asks = |system: &str, fields: &str| {
        let text = format!("{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(request(Call::Generate, fields).tokens, fixture.encode(&text), "{fields}");
    };
    asks("", "");
    asks("", r#""system":"","suffix":"","template":"","context":[],"images":[],"raw":false"#);
    asks("<|im_start|>system\nBook<|im_end|>\n", r#""system":"Book""#);
    assert_eq!(request(Call::Generate, r#""raw":true"#).tokens, fixture.encode("Hi"));
    let special = r#"{"model":"tiny","prompt":"<|im_start|>","raw":true}"#;
    assert_eq!(job(Call::Generate, special).requests[0].tokens, [BOS, IM_START]);
    let problem = "`system`: `raw` takes the prompt alone";
    refuses(Call::Generate, &body(Call::Generate, r#""raw":true,"system":"a""#), 400, problem);
}

#[test]
fn options_are_the_settings_of_the_other_endpoints() {
    let options = r#""options":{"temperature":0.5,"top_k":7,"top_p":0.5,"min_p":0.25,
        "typical_p":0.75,"seed":42,"num_predict":9,"num_ctx":32768,"stop":["a","b"],
        "repeat_penalty":1.5,"repeat_last_n":8,"presence_penalty":0.5,"frequency_penalty":0.25,
        "mirostat":0,"mirostat_tau":4.0,"mirostat_eta":0.25,
        "num_keep":4,"num_batch":512,"num_gpu":1,"main_gpu":0,"low_vram":false,"use_mmap":true,
        "num_thread":8,"numa":false,"penalize_newline":true,"tfs_z":1.0,"no_option":{}}"#;
    for of in [Call::Chat, Call::Generate] {
        let request = request(of, options);
        let expected = SamplingConfig {
            temperature: 0.5,
            top_k: 7,
            top_p: 0.5,
            min_p: 0.25,
            typical_p: 0.75,
            seed: 42,
            repeat_penalty: 1.5,
            penalty_last_n: 8,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..SamplingConfig::creative()
        };
        assert_eq!(request.sampling, expected);
        assert_eq!((request.max_tokens, &*request.stop), (9, &["a".to_string(), "b".into()][..]));
    }
    let mirostat = request(Call::Chat, r#""options":{"mirostat":2,"mirostat_tau":4}"#);
    let expected = Mirostat { tau: 4.0, ..Mirostat::DEFAULT };
    assert_eq!(mirostat.sampling.mirostat, Some(expected));
    for (n, most) in [("-1", usize::MAX), ("-2", usize::MAX), ("0", 0), ("5.0", 5)] {
        let fields = format!(r#""options":{{"num_predict":{n},"seed":-1}}"#);
        let request = request(Call::Generate, &fields);
        assert_eq!((request.max_tokens, request.sampling.seed), (most, 7), "{n}");
    }
    // The options of the answer's form are no options of the model.
    let form = r#""options":{"n":3,"stream":false,"n_predict":1,"max_tokens":1,"n_probs":2}"#;
    let Job { requests, answer } = job(Call::Generate, &body(Call::Generate, form));
    assert_eq!((requests.len(), requests[0].max_tokens), (1, usize::MAX));
    assert!(answer.options().stream && answer.options().probs.is_none());
}

#[test]
fn probabilities_are_reported_by_switch_and_number() {
    for (fields, probs, n_probs) in [
        (r#""logprobs":true"#, Some(0), 1),
        (r#""logprobs":true,"top_logprobs":20"#, Some(20), 20),
        (r#""top_logprobs":3"#, None, 0),
        (r#""logprobs":false,"top_logprobs":0"#, None, 0),
    ] {
        let Job { requests, answer } = job(Call::Chat, &body(Call::Chat, fields));
        let n_top = answer.options().probs.map(|probs| probs.n_top);
        assert_eq!((n_top, requests[0].n_probs), (probs, n_probs), "{fields}");
    }
}

#[test]
fn a_format_holds_the_answer() {
    for of in [Call::Chat, Call::Generate] {
        for (format, allowed, refused) in [
            (r#""json""#, r#"{"a":[1]}"#, "[1]"),
            (r#"{"type":"array","items":{"const":7},"maxItems":2}"#, "[7,7]", "[7,7,7]"),
        ] {
            let Job { requests, .. } = job(of, &body(of, &format!(r#""format":{format}"#)));
            let constraint = requests[0].constraint.as_ref().unwrap();
            assert!(constraint.grammar.reads(allowed.as_bytes()).unwrap(), "{format}");
            assert!(!constraint.grammar.reads(refused.as_bytes()).unwrap(), "{format}");
        }
        let Job { requests, .. } = job(of, &body(of, r#""format":"""#));
        assert!(requests[0].constraint.is_none());
    }
}

#[test]
fn what_is_wrong_or_not_supported_is_refused_by_name() {
    let unsupported = |name: &str| format!("`{name}`: not supported by this server");
    for of in [Call::Chat, Call::Generate] {
        let bad = |fields: &str, message: &str| refuses(of, &body(of, fields), 400, message);
        for (fields, name) in [
            (r#""images":["aGk="]"#, "images"),
            (r#""template":"{{ .Prompt }}""#, "template"),
            (r#""suffix":"a""#, "suffix"),
            (r#""context":[1,2]"#, "context"),
            (r#""_debug_render_only":true"#, "_debug_render_only"),
        ] {
            bad(fields, &unsupported(name));
        }
        bad(r#""format":"xml""#, "`format`: neither \"json\" nor a JSON schema");
        bad(r#""format":{"type":"x"}"#, "`format.type`: there is no type `x`");
        for think in ["true", "\"high\"", "\"\"", "1"] {
            let problem = "\"tiny\" does not support thinking";
            bad(&format!("\"think\":{think}"), problem);
        }
        let problem = "`keep_alive`: a time is needed, such as \"5m\" or 300";
        bad(r#""keep_alive":"soon""#, problem);
        bad(r#""stream":1"#, "`stream`: invalid type: integer `1`, expected a boolean");
        bad(r#""options":[]"#, "`options`: invalid type: sequence, expected an object");
        bad(r#""top_logprobs":21"#, "`top_logprobs`: 21 is not between 0 and 20");
        let problem = "`options.num_ctx`: invalid type: string \"a\", expected a whole number";
        bad(r#""options":{"num_ctx":"a"}"#, problem);
        let problem = "`options.mirostat`: 1 is not supported, 0 and 2 are";
        bad(r#""options":{"mirostat":1}"#, problem);
        let problem = "`options.repeat_last_n`: -1 is not between 0 and 4096";
        bad(r#""options":{"repeat_last_n":-1}"#, problem);
    }
    let image = r#"{"model":"tiny","messages":[{"role":"user","content":"a"},
        {"role":"user","content":"a","images":["aGk="]}]}"#;
    refuses(Call::Chat, image, 400, &unsupported("messages[1].images"));
    refuses(
        Call::Chat,
        "[]",
        400,
        "the body: invalid type: sequence, expected an object at line 1 column 0",
    );
}

#[test]
fn a_request_without_a_text_loads_the_model() {
    for (of, body, part) in [
        (Call::Generate, r#"{"model":"tiny"}"#, r#""response":"""#),
        (Call::Generate, r#"{"model":"tiny","prompt":"","keep_alive":-1}"#, r#""response":"""#),
        (Call::Chat, r#"{"model":"tiny"}"#, r#""message":{"role":"assistant","content":""}"#),
        (
            Call::Chat,
            r#"{"model":"tiny","messages":[],"keep_alive":"1h"}"#,
            r#""message":{"role":"assistant","content":""}"#,
        ),
    ] {
        let expected = format!(
            r#"{{"model":"tiny","created_at":"2023-11-14T22:13:20.000000Z",{part},"done":true,"done_reason":"load"}}"#
        );
        assert_eq!(text(of, body), (JSON, expected), "{body}");
    }
    for body in [r#"{"model":"tiny","keep_alive":0}"#, r#"{"model":"tiny","keep_alive":"0s"}"#] {
        for of in [Call::Chat, Call::Generate] {
            let Ok(Err(Reply::Text { text, unloads: true })) = call(of, body) else {
                panic!("{body} unloads the model");
            };
            assert!(text.ends_with(r#""done":true,"done_reason":"unload"}"#), "{text}");
        }
    }
    for (fields, is_asked) in [(r#""keep_alive":0"#, true), (r#""keep_alive":"1s""#, false)] {
        match call(Call::Chat, &body(Call::Chat, fields)) {
            Ok(Err(Reply::Job { unloads, .. })) => assert_eq!(unloads, is_asked, "{fields}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn models_are_found_by_name_whether_they_are_loaded_or_not() {
    let fixture = Fixture::new();
    let loaded = fixture.list()[0];
    let other = Listed { name: "Other-7B", served: None, ..loaded };
    let list = [loaded, other];
    let found = |call: Call, body: &str| find(call, body.as_bytes(), &list, BEGAN, IDS.created);
    for (name, number) in [("tiny", 0), ("TINY:latest", 0), ("other-7b", 1), ("Other-7B:latest", 1)]
    {
        let body = format!(r#"{{"model":"{name}","prompt":"a"}}"#);
        for call in [Call::Generate, Call::Show] {
            let Ok(Found::Model(seen)) = found(call, &body) else { panic!("{name}") };
            assert_eq!(seen, number, "{name}");
        }
    }
    // An end of what is not loaded loads nothing.
    let Ok(Found::Text(JSON, text)) =
        found(Call::Generate, r#"{"model":"other-7b","keep_alive":0}"#)
    else {
        panic!("nothing is loaded");
    };
    assert!(text.contains(r#""done_reason":"unload""#), "{text}");
    let names = |call: Call| {
        let Ok(Found::Text(JSON, text)) = found(call, "") else { panic!("{call:?}") };
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let models = list["models"].as_array().unwrap();
        models.iter().map(|model| model["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(Call::Tags), ["tiny:latest", "Other-7B:latest"]);
    assert_eq!(names(Call::Ps), ["tiny:latest"]);
}

/// A run of the answer to a body with further fields.
fn run<'f>(fixture: &'f Fixture, of: Call, fields: &str) -> Run<'f> {
    let answer = job_of(fixture, of, &body(of, fields)).answer;
    Run { fixture, answer, now_us: 1_000_000 }
}

/// The end of [`finished`] after three updates.
fn end(n_prompt: usize) -> String {
    format!(
        r#""done":true,"done_reason":"stop","total_duration":603000000,"load_duration":593000000,"prompt_eval_duration":6000000,"eval_duration":4000000,"prompt_eval_count":{n_prompt},"eval_count":2"#
    )
}

#[test]
fn a_stream_is_a_line_for_each_text_and_one_for_the_end() {
    let fixture = Fixture::new();
    for (of, text) in [
        (Call::Chat, r#""message":{"role":"assistant","content":"TEXT"}"#),
        (Call::Generate, r#""response":"TEXT""#),
    ] {
        let line = |at: &str, content: &str, end: &str| {
            let text = text.replace("TEXT", content);
            let date = format!("2023-11-14T22:13:20.{at}Z");
            format!("{{\"model\":\"tiny\",\"created_at\":\"{date}\",{text},{end}}}\n")
        };
        let mut run = run(&fixture, of, "");
        assert_eq!(run.start(0), "");
        assert_eq!(run.token(0, HELLO, " Hello\n"), line("601000", r" Hello\n", r#""done":false"#));
        assert_eq!(run.token(0, byte(0xc3), ""), "", "a token without a text has no line");
        let n_prompt = request(of, "").tokens.len();
        assert_eq!(run.finish(0, finished(Stop::End)), line("603000", "", &end(n_prompt)));
        assert!(run.answer.is_done());
    }
}

#[test]
fn text_that_was_held_back_has_a_line_before_the_end() {
    let fixture = Fixture::new();
    let mut run = run(&fixture, Call::Generate, "");
    run.start(0);
    let last =
        run.finish(0, llm::scheduler::Finished { text: "é".into(), ..finished(Stop::MaxTokens) });
    let [text, end] = last.lines().collect::<Vec<_>>()[..] else { panic!("{last}") };
    assert!(text.ends_with(r#""response":"é","done":false}"#), "{text}");
    assert!(end.contains(r#""response":"","done":true,"done_reason":"length","#), "{end}");
}

#[test]
fn an_answer_as_a_whole_is_one_object() {
    let fixture = Fixture::new();
    let mut run = run(&fixture, Call::Chat, r#""stream":false,"logprobs":true,"top_logprobs":2"#);
    run.start(0);
    assert_eq!(run.likely(0, HELLO, " Hello") + &run.likely(0, WORLD, " wor"), "");
    let last = llm::scheduler::Finished { text: "ld".into(), ..finished(Stop::Word(0)) };
    let whole: serde_json::Value = serde_json::from_str(&run.finish(0, last)).unwrap();
    assert_eq!(whole["message"]["content"], " Hello world");
    assert_eq!((&whole["done"], &whole["eval_count"]), (&true.into(), &2.into()));
    let tokens = whole["logprobs"].as_array().unwrap();
    let texts: Vec<&str> = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(texts, [" Hello", " world"]);
    assert_eq!(tokens[0]["top_logprobs"][1]["token"], "!");
    assert!((tokens[0]["logprob"].as_f64().unwrap() + 2_f64.ln()).abs() < 1e-6);
}

#[test]
fn probabilities_of_a_stream_come_with_the_next_text_or_the_end() {
    let fixture = Fixture::new();
    let mut run = run(&fixture, Call::Generate, r#""logprobs":true"#);
    run.start(0);
    assert_eq!(run.likely(0, byte(0xc3), ""), "");
    let n_logprobs = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["logprobs"].as_array().map(Vec::len)
    };
    assert_eq!(n_logprobs(&run.likely(0, byte(0xa9), "é")), Some(2));
    assert_eq!(run.likely(0, byte(0xc3), ""), "");
    assert_eq!(n_logprobs(&run.finish(0, finished(Stop::MaxTokens))), Some(1));
}

#[test]
fn an_error_is_the_answer_or_the_last_line() {
    let fixture = Fixture::new();
    let fails = || llm::Error::OutOfMemory { what: "the queue", asked: 7 };
    let mut early = run(&fixture, Call::Chat, "");
    early.start(0);
    let error = early.update(0, Update::Failed(fails())).unwrap_err();
    assert_eq!(error.status, 503);
    let mut late = run(&fixture, Call::Chat, "");
    late.start(0);
    late.token(0, HELLO, "a");
    let expected = "{\"error\":\"not enough memory for the queue: 7 bytes asked\"}\n";
    assert_eq!(late.update(0, Update::Failed(fails())).unwrap(), expected);
    let mut out = String::new();
    let mut cut = run(&fixture, Call::Generate, "");
    cut.start(0);
    cut.token(0, HELLO, "a");
    cut.answer.abort(&ApiError::busy(), &mut out);
    assert_eq!(out, format!("{}\n", ApiError::busy().ollama_body()));
}

#[test]
fn paths_have_their_calls() {
    for (path, call) in PATHS {
        assert!(has(path), "{path}");
        assert_eq!(Call::of(path), Some(*call));
    }
    assert!(has("/api") && has("/api/") && has("/api/nothing"));
    assert!(!has("/") && !has("/apis") && !has("/v1/api/tags"));
    assert_eq!(Call::of("/api/chat/"), None);
}
