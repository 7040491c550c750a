//! Chats with tools: as OpenAI's endpoint has them, in ollama's form.

use serde_json::{Value, json};

use super::super::super::generate;
use super::*;
use crate::llm::chat::tools::ToolTexts;
use crate::llm::grammar::Trigger;
use crate::llm::scheduler::Finished;

const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f","description":"d",
    "parameters":{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}}},
    {"type":"function","function":{"name":"g"}}]"#;

fn fixture() -> Fixture {
    Fixture::with_tools(tool_texts())
}

/// The request of messages in ollama's form, with further fields.
fn asked(fixture: &Fixture, messages: &str, fields: &str) -> Request {
    let body = format!(r#"{{"model":"tiny","messages":[{messages}],{TOOLS}{fields}}}"#);
    job_of(fixture, Call::Chat, &body).requests.remove(0)
}

/// The request of messages in OpenAI's form.
fn asked_of_openai(fixture: &Fixture, messages: &str) -> Request {
    let body = format!(r#"{{"messages":[{messages}],{TOOLS}}}"#);
    let job = generate(Endpoint::Chat, body.as_bytes(), &fixture.served(), &IDS);
    job.unwrap().requests.remove(0)
}

#[test]
fn a_chat_with_tools_is_that_of_openais_endpoint() {
    let ollamas = r#"{"role":"user","content":"A"},
        {"role":"assistant","content":"","tool_calls":[
            {"function":{"name":"f","arguments":{"n":7, "x":["é"]}}},
            {"id":"b","function":{"index":1,"name":"g","arguments":{}}}]},
        {"role":"tool","content":"R","tool_name":"f"},
        {"role":"tool","content":"S"},
        {"role":"assistant","content":"T","thinking":"","tool_calls":[]},
        {"role":"user","content":"B"}"#;
    let openais = r#"{"role":"user","content":"A"},
        {"role":"assistant","content":null,"tool_calls":[
            {"id":"a","type":"function",
                "function":{"name":"f","arguments":"{\"n\":7,\"x\":[\"é\"]}"}},
            {"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},
        {"role":"tool","content":"R","tool_call_id":"a"},
        {"role":"tool","content":"S","tool_call_id":"b"},
        {"role":"assistant","content":"T"},
        {"role":"user","content":"B"}"#;
    let fixture = fixture();
    let openais = asked_of_openai(&fixture, openais);
    // ollama's clients have no choice: what OpenAI's would send is no field here.
    let choices = r#","tool_choice":"none","parallel_tool_calls":false,"parse_tool_calls":false"#;
    for fields in ["", choices] {
        let request = asked(&fixture, ollamas, fields);
        assert_eq!(request.tokens, openais.tokens);
        let constraint = request.constraint.unwrap();
        assert_eq!(constraint.trigger, Trigger::Text("<tool_call>".into()));
        let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 7}}\n</tool_call>";
        for (text, is_one) in [
            (call.to_string(), true),
            (format!("{call}\n{call}"), true),
            (call.replace('7', "\"a\""), false),
        ] {
            assert_eq!(constraint.grammar.reads(text.as_bytes()).unwrap(), is_one, "{text}");
        }
    }
    // No tools are none, whatever the template has.
    let plain = Fixture::new();
    let messages = r#""messages":[{"role":"user","content":"Hi"}]"#;
    for tools in ["[]", "null"] {
        let body = format!(r#"{{"model":"tiny",{messages},"tools":{tools}}}"#);
        let request = job_of(&plain, Call::Chat, &body).requests.remove(0);
        assert_eq!(request.tokens, super::request(Call::Chat, "").tokens, "{tools}");
    }
}

#[test]
fn results_have_the_ids_of_their_calls_where_the_template_writes_ids() {
    let mut texts = tool_texts();
    texts.id_prefix = Some(" id ".into());
    texts.result_id_prefix = Some(" of ".into());
    let fixture = Fixture::with_tools(texts);
    let calls = |ids: [&str; 2]| {
        let [f, g] = ids;
        format!(
            r#"{{"role":"user","content":"A"}},{{"role":"assistant","tool_calls":[
            {{{f}"function":{{"name":"f","arguments":{{}}}}}},
            {{{g}"function":{{"name":"g","arguments":{{}}}}}}]}}"#
        )
    };
    let result = |of: &str| format!(r#",{{"role":"tool","content":"R"{of}}}"#);
    let (one, two) = (r#""id":"000000001","#, r#""id":"000000002","#);
    let id = |n: usize| format!(r#","tool_call_id":"00000000{n}""#);
    let openais = |first: usize, second: usize| {
        let messages = calls([one, two]) + &result(&id(first)) + &result(&id(second));
        asked_of_openai(&fixture, &messages).tokens
    };
    for (ids, first, second, expected) in [
        ([r#""id":"","#, ""], r#","tool_name":"f""#, r#","tool_name":"g""#, openais(1, 2)),
        (["", ""], r#","tool_name":"g""#, "", openais(2, 1)),
        (["", ""], r#","name":"g""#, r#","name":"f""#, openais(2, 1)),
        (["", two], "", "", openais(1, 2)),
        (["", two], r#","tool_call_id":"000000002""#, "", openais(2, 1)),
        (["", ""], r#","tool_name":7"#, r#","tool_name":"h""#, openais(1, 2)),
    ] {
        let messages = calls(ids) + &result(first) + &result(second);
        assert_eq!(asked(&fixture, &messages, "").tokens, expected, "{first} {second}");
    }
}

#[test]
fn a_message_may_leave_out_an_empty_content() {
    let fixture = fixture();
    let messages = |content: &str| {
        format!(
            r#"{{"role":"system"{content}}},{{"role":"user"{content}}},
            {{"role":"assistant"{content},"tool_calls":[{{"function":{{"name":"f"}}}}]}},{{"role":"tool"{content}}}"#
        )
    };
    let request = |content: &str| asked(&fixture, &messages(content), "").tokens;
    assert_eq!(request(""), request(r#","content":"""#));
    assert_eq!(request(""), request(r#","content":null"#));
}

#[test]
fn tools_that_cannot_be_had_are_refused_as_on_openais_endpoint() {
    let with = fixture();
    let both = body(Call::Chat, &format!(r#"{TOOLS},"format":"json""#));
    let problem = "`tools`: cannot be used with a grammar or a schema of the answer";
    refuses_of(&with, Call::Chat, &both, 400, problem);
    let wrong = body(Call::Chat, r#""tools":[{"type":"function"}]"#);
    refuses_of(&with, Call::Chat, &wrong, 400, "`tools[0].function`: required");
    let generate = body(Call::Generate, TOOLS);
    refuses_of(&with, Call::Generate, &generate, 400, "`tools`: not supported by this server");

    let lacking =
        "the chat template has no texts for tools; `image-builder inspect` names the reason";
    let plain = Fixture::new();
    let chat = body(Call::Chat, TOOLS);
    refuses_of(&plain, Call::Chat, &chat, 400, &format!("`tools`: {lacking}"));
    let result = r#"{"model":"tiny","messages":[{"role":"tool","content":"x"}]}"#;
    refuses_of(&plain, Call::Chat, result, 400, &format!("`messages[0].role`: {lacking}"));
    let calls = r#"{"model":"tiny","messages":[{"role":"user","content":"a"},
        {"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]}]}"#;
    refuses_of(&plain, Call::Chat, calls, 400, &format!("`messages[1].tool_calls`: {lacking}"));
    let none = Fixture { template: None, ..Fixture::new() };
    let problem = "`tools`: tools need a chat template, which the model lacks";
    refuses_of(&none, Call::Chat, &chat, 400, problem);
}

#[test]
fn a_model_is_capable_of_tools_if_its_template_is() {
    let (with, plain) = (fixture(), Fixture::new());
    let text = |fixture: &Fixture, call: Call, body: &str| match call_of(fixture, call, body) {
        Ok(Ok((_, text)) | Err(Reply::Text { text, .. })) => text,
        other => panic!("{other:?}"),
    };
    let with_tools = r#""capabilities":["completion","tools"]"#;
    let without = r#""capabilities":["completion"]"#;
    for (fixture, expected) in [(&with, with_tools), (&plain, without)] {
        let shown = text(fixture, Call::Show, r#"{"model":"tiny"}"#);
        assert!(shown.contains(expected), "{shown}");
        let tags = text(fixture, Call::Tags, "");
        assert!(tags.contains(expected), "{tags}");
    }
    // The texts of a model that is not loaded are not known.
    let unloaded = Listed { served: None, ..with.list()[0] };
    let tags = models::tags(&[unloaded], 0);
    assert!(tags.contains(without), "{tags}");
}

fn call_text(name: &str, arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
}

/// The lines of an answer whose text comes in these pieces, the last at the end.
fn lines(fields: &str, pieces: &[&str], stop: Stop) -> Vec<String> {
    let fixture = fixture();
    let mut run = run(&fixture, Call::Chat, &format!("{TOOLS}{fields}"));
    run.start(0);
    let mut out = String::new();
    let (last, first) = pieces.split_last().unwrap();
    for piece in first {
        out += &run.token(0, HELLO, piece);
    }
    out += &run.finish(0, Finished { text: (*last).into(), ..finished(stop) });
    out.lines().map(String::from).collect()
}

/// The messages of a stream, and the reason of its end.
fn messages(pieces: &[&str], stop: Stop) -> (Vec<Value>, String) {
    let lines = lines("", pieces, stop);
    let mut values: Vec<Value> = lines.iter().map(|line| value(line)).collect();
    let last = values.pop().unwrap();
    assert_eq!(last["message"], json!({"role": "assistant", "content": ""}));
    assert!(last["done"] == true && values.iter().all(|value| value["done"] == false));
    let messages = values.into_iter().map(|mut value| value["message"].take()).collect();
    (messages, last["done_reason"].as_str().unwrap().into())
}

/// The message of a whole answer, and the reason of its end.
fn whole(text: &str, stop: Stop) -> (Value, String) {
    let [line] = <[String; 1]>::try_from(lines(r#","stream":false"#, &[text, ""], stop)).unwrap();
    let mut value = value(&line);
    (value["message"].take(), value["done_reason"].as_str().unwrap().into())
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn text_message(content: &str) -> Value {
    json!({"role": "assistant", "content": content})
}

const FIRST: &str =
    r#"{"id":"00000001a","function":{"index":0,"name":"f","arguments":{"n":[1,"}\n"]}}}"#;
const SECOND: &str = r#"{"id":"00000001b","function":{"index":1,"name":"g","arguments":{}}}"#;

#[test]
fn a_whole_answer_has_its_calls_with_objects_as_arguments() {
    let arguments = "{\n  \"n\": [1,\n\"}\\n\"]\n}";
    let text = format!("So:\n{}\n{}", call_text("f", arguments), call_text("g", "{}"));
    let [line] =
        <[String; 1]>::try_from(lines(r#","stream":false"#, &[&text, ""], Stop::End)).unwrap();
    let message = format!(
        r#""message":{{"role":"assistant","content":"So:","tool_calls":[{FIRST},{SECOND}]}},"#
    );
    assert!(line.contains(&message), "{line}");
    assert!(line.contains(r#""done":true,"done_reason":"stop","#), "{line}");
    let (message, _) = whole(&call_text("g", "{}"), Stop::End);
    assert_eq!(message["content"], "", "a content is a text");
    assert_eq!(whole("a < b", Stop::End).0, text_message("a < b"));
}

#[test]
fn a_call_of_a_stream_comes_in_a_line_when_it_is_whole() {
    let first = call_text("f", "{\"n\":\n[1, \"}\\n\"]}");
    let second = call_text("g", "{}");
    let letters: Vec<&str> = first.split_inclusive(|_| true).collect();
    let pieces = [&["Hm", ". ", "\n"], &letters[..], &["\n", &second, ""]].concat();
    let (stream, reason) = messages(&pieces, Stop::End);
    let called =
        |call: &str| json!({"role": "assistant", "content": "", "tool_calls": [value(call)]});
    let expected = [text_message("Hm"), text_message("."), called(FIRST), called(SECOND)];
    assert_eq!((&stream[..], &*reason), (&expected[..], "stop"));
    // An open call waits, whatever stands before it.
    let (begun, rest) = first.split_at(first.len() - 20);
    let (stream, _) = messages(&[&format!("So: {begun}"), rest, ""], Stop::End);
    assert_eq!(stream, [text_message("So:"), called(FIRST)]);
    // The last text of an answer may hold text and a call.
    let (stream, _) = messages(&[&format!("So: {first}")], Stop::Word(0));
    let both = json!({"role": "assistant", "content": "So:", "tool_calls": [value(FIRST)]});
    assert_eq!(stream, [both]);
}

#[test]
fn what_is_no_whole_call_is_content() {
    let cut = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": \"Par";
    for (text, stop, reason) in [
        (call_text("h", "{}"), Stop::End, "stop"),
        (call_text("f", "{\"n\": Paris}"), Stop::End, "stop"),
        (cut.into(), Stop::End, "stop"),
        // Arguments without their end are no object.
        (cut.into(), Stop::MaxTokens, "length"),
        (cut.into(), Stop::ContextFull, "length"),
    ] {
        assert_eq!(whole(&text, stop), (text_message(&text), reason.into()), "{text}");
        let letters: Vec<&str> = text.split_inclusive(|_| true).chain([""]).collect();
        let (stream, of_stream) = messages(&letters, stop);
        assert!(stream.iter().all(|message| message.get("tool_calls").is_none()), "{stream:?}");
        let content = stream.iter().map(|message| message["content"].as_str().unwrap());
        assert_eq!((content.collect::<String>(), &*of_stream), (text, reason));
    }
    // A lone surrogate is no text of a client.
    let (message, _) = whole(&call_text("f", r#"{"n": "\ud800"}"#), Stop::End);
    let content = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": \"\\ud800\"}";
    assert_eq!(message, text_message(content));
    // A call behind it is the first one.
    let text =
        format!("{}\n{}", call_text("f", "{\"n\": x}"), call_text("f", "{\"n\":[1,\"}\\n\"]}"));
    let (message, _) = whole(&text, Stop::End);
    assert_eq!(message["tool_calls"], json!([value(FIRST)]));
    let (stream, _) = messages(&[&text, ""], Stop::End);
    assert_eq!(stream.last().unwrap()["tool_calls"], json!([value(FIRST)]));
}

#[test]
fn probabilities_of_a_call_come_with_its_line() {
    let fixture = fixture();
    let mut run = run(&fixture, Call::Chat, &format!(r#"{TOOLS},"logprobs":true"#));
    run.start(0);
    assert_eq!(run.likely(0, HELLO, "<tool_call>{\"name\":\"g\","), "");
    let line = value(&run.likely(0, WORLD, "\"arguments\":{}"));
    assert_eq!(line["message"]["tool_calls"][0]["function"]["name"], "g");
    assert_eq!(line["logprobs"].as_array().unwrap().len(), 2);
    let last = value(&run.finish(0, finished(Stop::End)));
    assert!(last["done"] == true && last.get("logprobs").is_none(), "{last}");
}

#[test]
fn control_tokens_of_calls_are_shown() {
    let mut texts: ToolTexts = tool_texts();
    texts.call.prefix = "<|im_start|>call {\"name\": \"".into();
    texts.call_separator = None;
    let fixture = Fixture::with_tools(texts);
    let user = r#"{"role":"user","content":"A"}"#;
    assert_eq!(asked(&fixture, user, "").shown, [IM_START]);
}
