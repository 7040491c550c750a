//! Updates of the scheduler, and the answers that they become, to the last character.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::ErrorKind;
use super::super::testing::*;
use super::Endpoint::{Chat, Completion, Completions};
use super::*;
use crate::llm;
use crate::llm::scheduler::Stop;

const HI: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

/// A body of the endpoint with further fields; a prompt is five tokens.
fn body(endpoint: Endpoint, fields: &str) -> String {
    match endpoint {
        Chat => format!("{{{HI}{fields}}}"),
        _ => format!(r#"{{"prompt":[1,259,260,261,263]{fields}}}"#),
    }
}

/// What the events of OpenAI's streams have in common, behind the choices.
fn tail(object: &str, prefix: &str) -> String {
    format!(
        r#""created":1700000000,"model":"tiny","system_fingerprint":"b0.1.0-anchorite","object":"{object}",{}"#,
        id(prefix)
    )
}

fn id(prefix: &str) -> String {
    format!(r#""id":"{prefix}-0000000000000000000000000000002a""#)
}

/// The event of a chat.
fn chat_event(choice: &str) -> String {
    format!("data: {{\"choices\":[{choice}],{}}}\n\n", tail("chat.completion.chunk", "chatcmpl"))
}

/// The event of OpenAI's older API.
fn text_event(choice: &str) -> String {
    format!("data: {{\"choices\":[{choice}],{}}}\n\n", tail("text_completion", "cmpl"))
}

/// The times of [`finished`].
const TIMINGS: &str = r#""timings":{"cache_n":2,"prompt_n":3,"prompt_ms":6.0,"prompt_per_token_ms":2.0,"prompt_per_second":500.0,"predicted_n":2,"predicted_ms":4.0,"predicted_per_token_ms":4.0,"predicted_per_second":250.0}"#;

const DONE: &str = "data: [DONE]\n\n";

/// Tokens of a prompt for [`HI`].
fn n_hi() -> usize {
    Fixture::new().job(Chat, &body(Chat, "")).unwrap().requests[0].tokens.len()
}

fn usage(n_prompt: usize, n_generated: usize) -> String {
    format!(
        r#""usage":{{"completion_tokens":{n_generated},"prompt_tokens":{n_prompt},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":2}}}}"#,
        n_prompt + n_generated
    )
}

#[test]
fn a_chat_is_answered_as_a_whole() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Chat, &body(Chat, ""));
    assert_eq!(run.answer.content_type(), "application/json; charset=utf-8");
    assert_eq!(run.start(0), "");
    assert_eq!(run.update(0, Update::Prefill { done: 5, total: 5 }).unwrap(), "");
    assert_eq!(run.token(0, HELLO, " Hello"), "");
    assert_eq!(run.token(0, WORLD, ""), "");
    assert!(!run.answer.is_done());
    let answer = run.finish(0, Finished { text: " \"world\"\n".into(), ..finished(Stop::End) });
    let expected = format!(
        r#"{{"choices":[{{"finish_reason":"stop","index":0,"message":{{"role":"assistant","content":" Hello \"world\"\n","refusal":null}},"logprobs":null}}],"created":1700000000,"model":"tiny","system_fingerprint":"b0.1.0-anchorite","object":"chat.completion",{},{},{TIMINGS}}}"#,
        usage(n_hi(), 2),
        id("chatcmpl"),
    );
    assert_eq!(answer, expected);
    assert!(run.answer.is_done());
    assert_eq!(run.token(0, HELLO, " Hello"), "");
}

#[test]
fn a_chat_is_streamed() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","stream":true"#));
    assert_eq!(run.answer.content_type(), "text/event-stream");
    assert_eq!(run.start(0), "");
    assert_eq!(run.update(0, Update::Prefill { done: 5, total: 5 }).unwrap(), "");
    let role = r#"{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}"#;
    let text = |text: &str| {
        chat_event(&format!(r#"{{"finish_reason":null,"index":0,"delta":{{"content":"{text}"}}}}"#))
    };
    assert_eq!(run.token(0, HELLO, " Hello"), chat_event(role) + &text(" Hello"));
    // Held back.
    assert_eq!(run.token(0, WORLD, ""), "");
    let end = run.finish(0, Finished { text: " w".into(), ..finished(Stop::MaxTokens) });
    let last = format!(
        "data: {{\"choices\":[{{\"finish_reason\":\"length\",\"index\":0,\"delta\":{{}}}}],{},{TIMINGS}}}\n\n",
        tail("chat.completion.chunk", "chatcmpl")
    );
    assert_eq!(end, text(" w") + &last + DONE);
    assert!(run.answer.is_done());
}

#[test]
fn a_stream_ends_with_the_usage_if_asked() {
    let fixture = Fixture::new();
    let fields = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let head = r#""created":1700000000,"model":"tiny","system_fingerprint":"b0.1.0-anchorite""#;

    let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
    run.start(0);
    run.token(0, HELLO, " Hello");
    let last = chat_event(r#"{"finish_reason":"stop","index":0,"delta":{}}"#);
    let numbers = format!(
        "data: {{\"choices\":[],{head},\"object\":\"chat.completion.chunk\",{},{},{TIMINGS}}}\n\n",
        usage(n_hi(), 2),
        id("chatcmpl")
    );
    assert_eq!(run.finish(0, finished(Stop::End)), last + &numbers + DONE);

    let mut run = Run::new(&fixture, Completions, &body(Completions, fields));
    run.start(0);
    run.token(0, HELLO, " Hello");
    let last = text_event(r#"{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}"#);
    let numbers = format!(
        "data: {{\"choices\":[],{head},\"object\":\"text_completion\",{},{},{TIMINGS}}}\n\n",
        usage(5, 2),
        id("cmpl")
    );
    assert_eq!(run.finish(0, finished(Stop::End)), last + &numbers + DONE);
}

#[test]
fn an_answer_without_tokens_has_an_author() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","stream":true,"max_tokens":0"#));
    run.start(0);
    let end =
        run.finish(0, Finished { n_generated: 0, generated_us: 0, ..finished(Stop::MaxTokens) });
    let role = r#"{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}"#;
    assert!(end.starts_with(&chat_event(role)), "{end}");
    assert!(end.contains(r#""predicted_n":0,"predicted_ms":0.0,"predicted_per_token_ms":0.0,"predicted_per_second":0.0"#));
}

#[test]
fn a_text_is_completed_as_a_whole_and_streamed() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Completions, &body(Completions, ""));
    run.start(0);
    run.token(0, HELLO, " Hello");
    run.token(0, WORLD, " world");
    let expected = format!(
        r#"{{"choices":[{{"text":" Hello world","index":0,"logprobs":null,"finish_reason":"length"}}],"created":1700000000,"model":"tiny","system_fingerprint":"b0.1.0-anchorite","object":"text_completion",{},{},{TIMINGS}}}"#,
        usage(5, 2),
        id("cmpl"),
    );
    assert_eq!(run.finish(0, finished(Stop::ContextFull)), expected);

    let mut run = Run::new(&fixture, Completions, &body(Completions, r#","stream":true"#));
    run.start(0);
    let text = |text: &str| {
        text_event(&format!(
            r#"{{"text":"{text}","index":0,"logprobs":null,"finish_reason":null}}"#
        ))
    };
    assert_eq!(run.token(0, HELLO, " Hello"), text(" Hello"));
    assert_eq!(run.token(0, WORLD, ""), "");
    let last = format!(
        "data: {{\"choices\":[{{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"created\":1700000000,\"model\":\"tiny\",\"system_fingerprint\":\"b0.1.0-anchorite\",\"object\":\"text_completion\",{},{},{TIMINGS}}}\n\n",
        usage(5, 2),
        id("cmpl")
    );
    let end = run.finish(0, Finished { text: " world".into(), ..finished(Stop::Word(0)) });
    assert_eq!(end, text(" world") + &last + DONE);
}

/// The settings of llama-server's own answer, for the defaults of [`Fixture`].
fn generation_settings(stream: bool, n_predict: i64, stop: &str, rest: &str) -> String {
    format!(
        r#""generation_settings":{{"seed":7,"temperature":0.8,"dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.95,"min_p":0.05,"top_n_sigma":0.0,"xtc_probability":0.0,"xtc_threshold":0.1,"typical_p":1.0,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":64,"mirostat":0,"mirostat_tau":5.0,"mirostat_eta":0.1,"adaptive_target":-1.0,"adaptive_decay":0.9,"max_tokens":{n_predict},"n_predict":{n_predict},"n_keep":0,"n_discard":0,"min_keep":0,"chat_format":"Content-only","reasoning_format":"none","reasoning_in_content":false,"generation_prompt":"","samplers":["penalties","dry","top_n_sigma","top_k","typ_p","top_p","min_p","xtc","temperature"],"speculative.types":"none","backend_sampling":false,"lora":[],"dry_sequence_breakers":["\n"],"stop":{stop},"ignore_eos":false,"stream":{stream},{rest},"grammar":"","grammar_lazy":false,"grammar_triggers":[],"preserved_tokens":[],"timings_per_token":false,"post_sampling_probs":false}}"#
    )
}

#[test]
fn llama_servers_own_answer_is_written() {
    let fixture = Fixture::new();
    let fields =
        r#","n_predict":8,"stop":["x","!!"],"return_tokens":true,"logit_bias":[[2,false],[5,1.5]]"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    run.start(0);
    run.token(0, HELLO, " Hello\n");
    run.token(0, WORLD, " world");
    let settings = generation_settings(
        false,
        8,
        r#"["x","!!"]"#,
        r#""logit_bias":[{"bias":null,"token":2},{"bias":1.5,"token":5}],"n_probs":0"#,
    );
    let expected = format!(
        r#"{{"index":0,"content":" Hello\n world","tokens":[259,260],"id_slot":3,"stop":true,"model":"tiny","tokens_predicted":2,"tokens_evaluated":5,{settings},"prompt":"<s> Hello world!a","has_new_line":true,"truncated":false,"stop_type":"word","stopping_word":"!!","tokens_cached":6,{TIMINGS}}}"#
    );
    assert_eq!(run.finish(0, finished(Stop::Word(1))), expected);
}

#[test]
fn llama_servers_own_stream_is_written() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Completion, &body(Completion, r#","stream":true"#));
    assert_eq!(run.start(0), "");
    let event = |content: &str, token: u32, n: usize| {
        format!(
            "data: {{\"index\":0,\"content\":\"{content}\",\"tokens\":[{token}],\"stop\":false,\"id_slot\":3,\"tokens_predicted\":{n},\"tokens_evaluated\":5}}\n\n"
        )
    };
    assert_eq!(run.token(0, HELLO, " Hello"), event(" Hello", HELLO, 1));
    assert_eq!(run.token(0, WORLD, ""), event("", WORLD, 2));
    let settings = generation_settings(true, -1, "[]", r#""logit_bias":[],"n_probs":0"#);
    let expected = format!(
        "data: {{\"index\":0,\"content\":\" w\",\"tokens\":[],\"id_slot\":3,\"stop\":true,\"model\":\"tiny\",\"tokens_predicted\":2,\"tokens_evaluated\":5,{settings},\"prompt\":\"<s> Hello world!a\",\"has_new_line\":false,\"truncated\":false,\"stop_type\":\"eos\",\"stopping_word\":\"\",\"tokens_cached\":6,{TIMINGS}}}\n\n"
    );
    let end = run.finish(0, Finished { text: " w".into(), ..finished(Stop::End) });
    assert_eq!(end, expected);
    assert!(run.answer.is_done());
}

#[test]
fn fields_of_the_answer_are_selected() {
    let fixture = Fixture::new();
    let fields =
        r#","response_fields":["content","generation_settings/n_predict","none/x","prompt"]"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    run.start(0);
    run.token(0, HELLO, " Hello");
    assert_eq!(
        run.finish(0, finished(Stop::End)),
        r#"{"content":" Hello","generation_settings/n_predict":-1,"prompt":"<s> Hello world!a"}"#
    );
}

#[test]
fn ignored_ends_are_biases_of_the_settings() {
    let fixture = Fixture::new();
    let fields = r#","ignore_eos":true,"response_fields":["generation_settings/logit_bias"]"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    run.start(0);
    assert_eq!(
        run.finish(0, finished(Stop::End)),
        r#"{"generation_settings/logit_bias":[{"bias":null,"token":2},{"bias":null,"token":265}]}"#
    );
}

#[test]
fn an_answer_that_outgrew_its_context_is_truncated() {
    let fixture = Fixture::new();
    let truncated = |stop, n_generated| {
        let fields = r#","response_fields":["truncated","stop_type","tokens_cached"]"#;
        let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
        run.start(0);
        run.finish(0, Finished { n_generated, ..finished(stop) })
    };
    let expected = |truncated, stop_type, n| {
        format!(r#"{{"stop_type":"{stop_type}","tokens_cached":{n},"truncated":{truncated}}}"#)
    };
    assert_eq!(truncated(Stop::MaxTokens, 9), expected(false, "limit", 13));
    assert_eq!(truncated(Stop::ContextFull, 251), expected(true, "limit", 255));
    assert_eq!(truncated(Stop::MaxTokens, 251), expected(false, "limit", 255));
    // After a context shift.
    assert_eq!(truncated(Stop::End, 252), expected(true, "eos", 256));
}

#[test]
fn several_answers_are_numbered() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","n":2"#));
    run.start(0);
    run.start(1);
    run.token(1, WORLD, " world");
    run.token(0, HELLO, " Hello");
    assert_eq!(run.finish(1, finished(Stop::End)), "");
    let answer = run.finish(0, finished(Stop::MaxTokens));
    let choice = |reason: &str, number: usize, text: &str| {
        format!(
            r#"{{"finish_reason":"{reason}","index":{number},"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null}}"#
        )
    };
    let choices = choice("length", 0, " Hello") + "," + &choice("stop", 1, " world");
    assert!(answer.starts_with(&format!(r#"{{"choices":[{choices}],"#)), "{answer}");
    // The prompt counts once.
    assert!(answer.contains(&usage(n_hi(), 4)), "{answer}");

    let fields = r#","n":2,"stream":true,"stream_options":{"include_usage":true}"#;
    let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
    run.start(0);
    run.start(1);
    let first = run.token(1, WORLD, " world");
    assert_eq!(first.matches(r#""index":1"#).count(), 2);
    assert_eq!(run.token(0, HELLO, " Hello").matches(r#""role":"assistant""#).count(), 1);
    let last = chat_event(r#"{"finish_reason":"stop","index":1,"delta":{}}"#);
    assert_eq!(run.finish(1, finished(Stop::End)), last);
    let end = run.finish(0, finished(Stop::End));
    assert!(end.contains(&usage(n_hi(), 4)) && end.ends_with(DONE), "{end}");
    assert_eq!(end.matches("usage").count(), 1);

    // The prompts of two texts count both, and llama-server's own answers are a list.
    let texts = r#"{"prompt":["a","!"],"n":2}"#;
    let mut run = Run::new(&fixture, Completions, texts);
    (0..4).for_each(|number| drop(run.start(number)));
    (0..3).for_each(|number| assert_eq!(run.finish(number, finished(Stop::End)), ""));
    let answer = run.finish(3, finished(Stop::End));
    assert!(answer.contains(r#""completion_tokens":8,"prompt_tokens":6,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}"#), "{answer}");
    let texts = r#"{"prompt":["a","!"],"seed":3,"response_fields":["index","generation_settings/seed","prompt"]}"#;
    let mut run = Run::new(&fixture, Completion, texts);
    (0..2).for_each(|number| drop(run.start(number)));
    assert_eq!(run.finish(1, finished(Stop::End)), "");
    assert_eq!(
        run.finish(0, finished(Stop::End)),
        r#"[{"generation_settings/seed":3,"index":0,"prompt":"<s> a"},{"generation_settings/seed":3,"index":1,"prompt":"<s> !"}]"#
    );
}

/// The probabilities of " Hello" as both APIs write them.
const HELLO_PROBS: &str = r#"{"id":259,"token":" Hello","bytes":[32,72,101,108,108,111],"logprob":-0.6931472,"top_logprobs":[{"id":259,"token":" Hello","bytes":[32,72,101,108,108,111],"logprob":-0.6931472},{"id":261,"token":"!","bytes":[33],"logprob":-1.3862944}]}"#;
/// Those of the first byte of "é", which is no text by itself.
const BYTE_PROBS: &str = r#"{"id":198,"token":"","bytes":[195],"logprob":-0.6931472,"top_logprobs":[{"id":198,"token":"","bytes":[195],"logprob":-0.6931472},{"id":261,"token":"!","bytes":[33],"logprob":-1.3862944}]}"#;

#[test]
fn a_chat_reports_probabilities() {
    let fixture = Fixture::new();
    let fields = r#","logprobs":true,"top_logprobs":2"#;
    let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
    run.start(0);
    run.likely(0, HELLO, " Hello");
    run.likely(0, byte(0xc3), "");
    // The stop string's token is dropped.
    run.likely(0, BANG, "");
    let answer = run.finish(0, Finished { n_dropped: 1, ..finished(Stop::Word(0)) });
    let expected = format!(r#""logprobs":{{"content":[{HELLO_PROBS},{BYTE_PROBS}]}}}}]"#);
    assert!(answer.contains(&expected), "{answer}");

    let mut run = Run::new(&fixture, Chat, &body(Chat, &format!(r#"{fields},"stream":true"#)));
    run.start(0);
    // The probabilities of a token without text come with the next text.
    let first = run.likely(0, byte(0xc3), "");
    assert!(first.contains("role") && !first.contains("logprobs"), "{first}");
    let expected = format!(
        r#"{{"finish_reason":null,"index":0,"delta":{{"content":"é Hello"}},"logprobs":{{"content":[{BYTE_PROBS},{HELLO_PROBS}]}}}}"#
    );
    assert_eq!(run.likely(0, HELLO, "é Hello"), chat_event(&expected));
    assert_eq!(run.likely(0, BANG, ""), "");
    let end = run.finish(0, Finished { n_dropped: 1, ..finished(Stop::Word(0)) });
    assert!(!end.contains("logprobs"), "{end}");

    // OpenAI's default: the chosen tokens alone.
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","logprobs":true"#));
    run.start(0);
    run.likely(0, HELLO, " Hello");
    // The token that ends the answer is none of its tokens.
    run.likely(0, EOS, "");
    let answer = run.finish(0, finished(Stop::End));
    assert!(answer.contains(r#""logprob":-0.6931472,"top_logprobs":[]}]}}]"#), "{answer}");
    assert_eq!(answer.matches("top_logprobs").count(), 1);
}

#[test]
fn a_completion_reports_probabilities() {
    let fixture = Fixture::new();
    let fields = r#","logprobs":2"#;
    let mut run = Run::new(&fixture, Completions, &body(Completions, fields));
    run.start(0);
    run.likely(0, HELLO, " Hello");
    run.likely(0, HELLO, " Hello");
    let answer = run.finish(0, finished(Stop::End));
    let expected = format!(
        r#""logprobs":{{"content":[{HELLO_PROBS},{HELLO_PROBS}],"tokens":[" Hello"," Hello"],"token_logprobs":[-0.6931472,-0.6931472],"top_logprobs":[{{" Hello":-0.6931472,"!":-1.3862944}},{{" Hello":-0.6931472,"!":-1.3862944}}],"text_offset":[0,6]}}"#
    );
    assert!(answer.contains(&expected), "{answer}");

    let fields = r#","logprobs":0,"stream":true"#;
    let mut run = Run::new(&fixture, Completions, &body(Completions, fields));
    run.start(0);
    run.likely(0, HELLO, " Hello");
    let second = run.likely(0, HELLO, " Hello");
    assert!(second.contains(r#""top_logprobs":null,"text_offset":[6]}"#), "{second}");
}

#[test]
fn llama_servers_own_answer_reports_probabilities() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Completion, &body(Completion, r#","n_probs":2"#));
    run.start(0);
    run.likely(0, HELLO, " Hello");
    let answer = run.finish(0, finished(Stop::End));
    let expected = format!(r#","completion_probabilities":[{HELLO_PROBS}]}}"#);
    assert!(answer.ends_with(&expected), "{answer}");

    let fields = r#","n_probs":1,"post_sampling_probs":true,"stream":true"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    run.start(0);
    let probs = TokenProbs::new(HELLO, 0.0, Vec::from([(HELLO, 0.0), (BANG, f32::MIN)]));
    let update = Update::Token { token: HELLO, text: "", probs: Some(&probs) };
    let event = run.update(0, update).unwrap();
    let expected = r#""completion_probabilities":[{"id":259,"token":" Hello","bytes":[32,72,101,108,108,111],"prob":1.0,"top_probs":[{"id":259,"token":" Hello","bytes":[32,72,101,108,108,111],"prob":1.0}]}]}"#;
    assert!(event.contains(expected), "{event}");

    // Excluded tokens are none of the most probable ones; a control token has a name there.
    let fields = r#","n_probs":3,"post_sampling_probs":true"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    run.start(0);
    let probs = TokenProbs::new(EOS, 0.0, Vec::from([(EOS, 0.0), (BANG, f32::MIN)]));
    run.update(0, Update::Token { token: EOS, text: "", probs: Some(&probs) }).unwrap();
    let answer = run.finish(0, finished(Stop::End));
    let expected = r#"[{"id":2,"token":"","bytes":[],"prob":1.0,"top_probs":[{"id":2,"token":"</s>","bytes":[60,47,115,62],"prob":1.0}]}]}"#;
    assert!(answer.ends_with(expected), "{answer}");

    // JSON has no infinity.
    let mut run = Run::new(&fixture, Completion, &body(Completion, r#","n_probs":1"#));
    run.start(0);
    let probs = TokenProbs::new(BANG, f32::NEG_INFINITY, Vec::new());
    run.update(0, Update::Token { token: BANG, text: "!", probs: Some(&probs) }).unwrap();
    let answer = run.finish(0, finished(Stop::End));
    assert!(answer.contains(r#""logprob":-3.4028235e+38,"#), "{answer}");
}

#[test]
fn the_processing_of_a_prompt_is_reported() {
    let fixture = Fixture::new();
    let fields = r#","stream":true,"return_progress":true"#;
    let progress = |processed: usize, time_ms: u64, total: usize| {
        format!(
            r#""prompt_progress":{{"total":{total},"cache":2,"processed":{processed},"time_ms":{time_ms}}}"#
        )
    };
    let role = r#"{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}"#;
    let event = |processed, time_ms| {
        let tail = tail("chat.completion.chunk", "chatcmpl");
        format!(
            "data: {{\"choices\":[{role}],{tail},{}}}\n\n",
            progress(processed, time_ms, n_hi())
        )
    };
    let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
    assert_eq!(run.start(0), event(2, 0));
    // The same number again is no news.
    assert_eq!(run.update(0, Update::Prefill { done: 2, total: 9 }).unwrap(), "");
    assert_eq!(run.update(0, Update::Prefill { done: 4, total: 9 }).unwrap(), event(4, 2));
    assert_eq!(run.update(0, Update::Prefill { done: 9, total: 9 }).unwrap(), event(9, 3));
    // The author was named.
    assert!(!run.token(0, HELLO, " Hello").contains("role"));

    let mut run = Run::new(&fixture, Completions, &body(Completions, fields));
    let tail = tail("text_completion", "cmpl");
    let choice = r#"{"text":"","index":0,"logprobs":null,"finish_reason":null}"#;
    let expected = format!("data: {{\"choices\":[{choice}],{tail},{}}}\n\n", progress(2, 0, 5));
    assert_eq!(run.start(0), expected);

    let fields = r#","stream":true,"return_progress":true,"timings_per_token":true"#;
    let mut run = Run::new(&fixture, Completion, &body(Completion, fields));
    let native = |timings: &str, processed, time_ms| {
        format!(
            "data: {{\"index\":0,\"content\":\"\",\"tokens\":[],\"stop\":false,\"id_slot\":3,\"tokens_predicted\":0,\"tokens_evaluated\":5,\"timings\":{{\"cache_n\":2,{timings},\"predicted_n\":0,\"predicted_ms\":0.0,\"predicted_per_token_ms\":0.0,\"predicted_per_second\":0.0}},{}}}\n\n",
            progress(processed, time_ms, 5)
        )
    };
    let before =
        r#""prompt_n":0,"prompt_ms":0.0,"prompt_per_token_ms":0.0,"prompt_per_second":0.0"#;
    assert_eq!(run.start(0), native(before, 2, 0));
    let after = r#""prompt_n":3,"prompt_ms":1.0,"prompt_per_token_ms":0.3333333333333333,"prompt_per_second":3000.0"#;
    let update = Update::Prefill { done: 5, total: 5 };
    assert_eq!(run.update(0, update).unwrap(), native(after, 5, 1));

    // Without a stream, nothing is reported.
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","return_progress":true"#));
    assert_eq!(run.start(0), "");
}

#[test]
fn each_token_has_the_times_so_far() {
    let fixture = Fixture::new();
    let fields = r#","stream":true,"timings_per_token":true"#;
    let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
    run.start(0);
    let first = run.token(0, HELLO, " Hello");
    let events: Vec<&str> = first.split_inclusive("\n\n").collect();
    assert!(!events[0].contains("timings") && events[0].contains("role"), "{first}");
    let n = n_hi() - 2;
    let expected = format!(
        r#""timings":{{"cache_n":2,"prompt_n":{n},"prompt_ms":1.0,"prompt_per_token_ms":{},"prompt_per_second":{n}000.0,"predicted_n":1,"predicted_ms":0.0,"predicted_per_token_ms":0.0,"predicted_per_second":0.0}}}}"#,
        1.0 / n as f64
    );
    assert!(events[1].contains(&expected), "{first}");
    let second = run.token(0, WORLD, " world");
    let expected = r#""predicted_n":2,"predicted_ms":1.0,"predicted_per_token_ms":1.0,"predicted_per_second":1000.0}"#;
    assert!(second.contains(expected), "{second}");
}

#[test]
fn a_verbose_answer_has_llama_servers_own_in_it() {
    let fixture = Fixture::new();
    for (endpoint, fields) in [
        (Chat, r#","verbose":true"#),
        (Completions, r#","verbose":true"#),
        (Chat, r#","verbose":true,"stream":true"#),
        (Completions, r#","verbose":true,"stream":true"#),
    ] {
        let mut run = Run::new(&fixture, endpoint, &body(endpoint, fields));
        run.start(0);
        run.token(0, HELLO, " Hello");
        let answer = run.finish(0, finished(Stop::End));
        let json = answer.trim_start_matches("data: ").split("\n\n").next().unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let prompt = json["__verbose"]["prompt"].as_str().unwrap();
        let expected = match endpoint {
            Chat => "<|im_start|> user\nHi<|im_end|> \n<|im_start|> assistant\n",
            _ => "<s> Hello world!a",
        };
        assert!(prompt.ends_with(expected), "{prompt}");
    }
}

#[test]
fn a_failure_is_the_answer_or_an_event() {
    let fixture = Fixture::new();
    let failed = || Update::Failed(llm::Error::NotFinite { what: "layer 1".into() });
    let message = "the model computes NaN or infinity: layer 1";
    for fields in ["", r#","stream":true"#] {
        let mut run = Run::new(&fixture, Chat, &body(Chat, fields));
        run.start(0);
        let error = run.update(0, failed()).unwrap_err();
        assert_eq!((error.status, error.kind), (500, ErrorKind::Server));
        assert_eq!(error.message, message);
        assert!(run.answer.is_done());
    }
    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","stream":true,"n":2"#));
    run.start(0);
    run.token(0, HELLO, " Hello");
    let error =
        format!(r#"{{"error":{{"code":500,"message":"{message}","type":"server_error"}}}}"#);
    assert_eq!(run.update(1, failed()).unwrap(), format!("data: {error}\n\n"));
    assert!(run.answer.is_done());
    assert_eq!(run.token(0, WORLD, " world"), "");

    let mut run = Run::new(&fixture, Chat, &body(Chat, r#","stream":true"#));
    run.token(0, HELLO, " Hello");
    let mut out = String::new();
    run.answer.abort(&ApiError::loading(), &mut out);
    let error = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
    assert_eq!(out, format!("data: {error}\n\n"));
    assert!(run.answer.is_done());
}

#[test]
fn updates_of_unknown_answers_change_nothing() {
    let fixture = Fixture::new();
    let mut run = Run::new(&fixture, Chat, &body(Chat, ""));
    assert_eq!(run.token(1, HELLO, " Hello"), "");
    run.finish(0, finished(Stop::End));
    assert_eq!(run.finish(0, finished(Stop::End)), "");
}
