//! The other modes of the guest: self-tests, perplexity, chats.

use anyhow::{Result, ensure};
use image_builder::contents::ContentOptions;
use kernel::report::{ChatState, Code, Event, StopReason};

use crate::boot::{Boot, boot};
use crate::check::{Check, Passed, check};
use crate::disk::{Disk, TINY, tiny};
use crate::event;
use crate::expect::{Expect, pattern};
use crate::goldens::{self, PROMPT, TOKENS, tokens};
use crate::lab::Lab;
use crate::machine::MAX;

/// A model of random weights.
const RANDOM: &str = "test_models/architectures/llama-Q4_0.gguf";

/// The tests of a model that measure something.
const MEASURING: [&str; 9] = [
    "load_real_model",
    "generate_single_token",
    "generate_multiple_tokens",
    "sampling_strategies",
    "performance_targets",
    "long_generation",
    "concurrent_inference",
    "repeated_inference",
    "kv_cache_speedup",
];

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![
        check("self-tests", self_tests),
        check("perplexity", perplexity),
        Check::from(chat()),
        Check::from(grammar()),
        Check::from(json_schema()),
        Check::from(malformed_grammar()),
        Check::from(chat_odd_lines()),
    ];
    let settings = [
        ("log", "warn", "as configured"),
        ("chat_template", "auto", "the model's, recognised as chatml"),
        ("chat_template", "chatml", "chatml, as configured"),
    ];
    checks.extend(settings.map(|(key, value, said)| chat_with(key, value, said).into()));
    checks
}

/// The golden of the same grammar and prompt says " no".
fn grammar() -> Boot {
    boot("grammar")
        .disk(tiny())
        .set("grammar", "root ::= \" yes\" | \" no\" | \" maybe\"")
        .set("prompt", "Question: What do bees make?\nAnswer:")
        .event(event!(Result { output == " no", stop == StopReason::EndOfSequence }))
        .exits(0)
}

fn json_schema() -> Boot {
    boot("json-schema")
        .disk(tiny())
        .set("json_schema", "{\"type\":\"array\",\"items\":{\"const\":\"a\"},\"minItems\":2,\"maxItems\":2}")
        .event(event!(Result { output ~ r#"^\[\s*"a",\s*"a"\s*\]$"#, stop == StopReason::EndOfSequence }))
        .exits(0)
}

fn malformed_grammar() -> Boot {
    boot("malformed-grammar")
        .disk(tiny())
        .set("grammar", "root ::= (\"a\"")
        .fails(Code::InvalidConfig, "line 1, column 14: expected `[)]`, found the end")
}

fn self_tests(lab: &Lab) -> Result<Passed> {
    let mut boot = boot("self-tests")
        .disk(Disk::of_model("random", RANDOM))
        .cores(4)
        .cpu(MAX)
        .set("mode", "test")
        .event(event!(Test { pass == true }))
        .exits(0)
        .expect(Expect::NoEvent(event!(Test { pass == false })));
    for name in MEASURING {
        boot = boot.expect(Expect::that(
            format!("test_{name} passes and has a figure"),
            move |seen| {
                let name = format!("test_{name}");
                let test = seen.events().find_map(|event| match event {
                    Event::Test(test) if test.name == name => Some(test),
                    _ => None,
                });
                match test {
                    Some(test) if test.pass && test.figure.is_some() => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        ));
    }
    let seen = boot.run(lab)?;
    let tests = seen.events().filter(|event| matches!(event, Event::Test(_))).count();
    Ok(Passed::with(format!("{tests} self-tests")))
}

/// The perplexity of a text, as near to llama.cpp's as llama.cpp's builds are to each other.
fn perplexity(lab: &Lab) -> Result<Passed> {
    const CHUNKS: usize = 3;
    let text = Disk::of("text", |lab| {
        let file = lab.file("text.txt");
        std::fs::write(&file, &std::fs::read("test_models/goldens/perplexity.txt")?[..3000])?;
        Ok(ContentOptions { prompt_file: Some(file), ..ContentOptions::new(vec![TINY.into()]) })
    });
    let theirs = goldens::perplexities("tiny.gguf", CHUNKS);
    ensure!(theirs.len() > 1, "the goldens have the figures of {} builds", theirs.len());
    let least = theirs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = theirs.iter().copied().fold(0.0, f64::max);
    let (least, most) = (2.0 * least - most, 2.0 * most - least);
    let seen = boot("perplexity")
        .disk(text)
        .set("mode", "perplexity")
        .event(event!(Perplexity { pieces == CHUNKS, perplexity >= least, perplexity <= most }))
        .exits(0)
        .run(lab)?;
    let ours = seen.events().find_map(|event| match event {
        Event::Perplexity(it) => Some(it.perplexity),
        _ => None,
    });
    Ok(Passed::with(format!("{} within {least:.4}..{most:.4}", ours.unwrap_or_default())))
}

fn chat() -> Boot {
    boot("chat")
        .disk(tiny())
        .set("max_tokens", TOKENS)
        .typed(format!("{PROMPT}\n/stats\n/reset\n{PROMPT}\n/quit\n"))
        .expect(Expect::Events(2, event!(Result {})))
        .exits(0)
}

/// Empty lines get no answer, and messages that look like commands get one each.
///
/// The prompt is the first message.
fn chat_odd_lines() -> Boot {
    let no_lines: &[u8] =
        b"\xc2\xa0\n\xe3\x80\x80\n\x1b[A\n\x1b\n\x1b[\nabc\x15\na\x7f\n\xe3\x80\x80/stats\n";
    let messages: &[u8] = b"caf\xe9\n//quit\nab\x15cd\r\nlast\n";
    boot("chat-odd-lines")
        .disk(tiny())
        .set("max_tokens", TOKENS)
        .set("prompt", PROMPT)
        .idle_limit_s(60)
        .typed([no_lines, messages].concat())
        .expect(Expect::Events(5, event!(Result {})))
        // One event for each line, and one for the end of the input.
        .expect(Expect::Events(13, event!(Chat { state == ChatState::Waiting })))
        .event(event!(Result { tokens == tokens() }))
        .exits(0)
}

/// A model with a chat template: the answers are llama.cpp's.
fn chat_with(key: &str, value: &str, said: &str) -> Boot {
    const SYSTEM: &str = "ab b";
    boot(format!("chat-with-{key}={value}"))
        .disk(Disk::of_model("chat", "test_models/chat/model.gguf"))
        .set("max_tokens", 13)
        .set("system", SYSTEM)
        .set(key, value)
        .typed("Hm? abc\nc\ncab\n/quit\n")
        .expect(Expect::Answers(goldens::chat(SYSTEM)))
        .expect(Expect::Line(pattern(&format!("^chat template: {said}$"))))
        .exits(0)
}
