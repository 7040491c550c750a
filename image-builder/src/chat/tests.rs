//! Tests of chat templates, against Jinja's texts and llama.cpp's tokens.
//!
//! The templates in `test_models/chat` were written for this project. `test_models/chat.py` made
//! the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kernel::llm::chat::TEMPLATE;
use kernel::llm::gguf::write::Builder;
use kernel::settings::{ChatTemplate, Config};
use serde::Deserialize;

use super::*;

mod with_tools;

#[derive(Deserialize)]
struct Goldens {
    conversations: Vec<Vec<GoldenMessage>>,
    templates: BTreeMap<String, Golden>,
}

#[derive(Deserialize)]
struct GoldenMessage {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Golden {
    bos: String,
    eos: String,
    /// The text of each conversation; `None` where the template refuses it.
    texts: Vec<Option<String>>,
    /// The tokens of each text, by vocabulary.
    tokens: BTreeMap<String, Vec<Option<Vec<u32>>>>,
}

fn test_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models")
}

static GOLDENS: LazyLock<Goldens> = LazyLock::new(|| {
    serde_json::from_slice(&fs::read(test_models().join("goldens/chat.json")).unwrap()).unwrap()
});

/// The time of the goldens, in seconds since 1970.
const DATE: i64 = 1_136_160_000;

fn program<'a>(name: &str, golden: &'a Golden) -> Program<'a> {
    let text = fs::read_to_string(test_models().join(format!("chat/{name}.jinja"))).unwrap();
    Program::new(&text, &golden.bos, &golden.eos, DATE)
}

impl GoldenMessage {
    fn borrowed(&self) -> Message<'_> {
        Message { role: &self.role, content: &self.content }
    }
}

fn messages(conversation: &[GoldenMessage]) -> Vec<Message<'_>> {
    conversation.iter().map(GoldenMessage::borrowed).collect()
}

/// Templates that no fixed texts can replace.
///
/// They put a system message into the last question, or ask for an answer in another way than they
/// write earlier ones.
const DIFFER: [&str; 3] = ["mistral-v3", "mistral-v3-tekken", "deepseek-r1"];

#[test]
fn templates_render_as_with_jinja() {
    for (name, golden) in &GOLDENS.templates {
        let program = program(name, golden);
        for (conversation, expected) in GOLDENS.conversations.iter().zip(&golden.texts) {
            let text = program.render(&messages(conversation), true);
            assert_eq!(text.ok(), *expected, "{name}");
        }
    }
}

#[test]
fn the_texts_give_what_the_template_gives() {
    let mut compared = 0;
    for (name, golden) in &GOLDENS.templates {
        // With a vocabulary that adds bos, and one that does not.
        for begin in [golden.bos.as_str(), ""] {
            let program = program(name, golden);
            let derived = Derived::from_program(&program, begin).unwrap();
            let difference = derived.difference(&program, begin);
            assert_eq!(difference.is_some(), DIFFER.contains(&name.as_str()), "{difference:?}");
            for (conversation, expected) in GOLDENS.conversations.iter().zip(&golden.texts) {
                let Some(expected) = expected else { continue };
                let mut expected = expected.strip_prefix(begin).unwrap_or(expected).to_owned();
                if !derived.asks {
                    expected += "<|im_start|>assistant\n";
                }
                let given = text_of(&derived.compose(&messages(conversation)));
                assert!(
                    given == expected || difference.is_some(),
                    "{name}: {given} not {expected}"
                );
                compared += usize::from(given == expected);
            }
        }
    }
    assert_eq!(compared, 200);
}

#[test]
fn the_texts_give_llama_cpps_tokens() {
    let mut compared = 0;
    for vocabulary in ["bpe", "spm"] {
        let file = fs::read(test_models().join(format!("vocabularies/{vocabulary}.gguf"))).unwrap();
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
        for (name, golden) in &GOLDENS.templates {
            let derived = Derived::from_program(&program(name, golden), "").unwrap();
            let texts = golden.texts.iter().zip(&golden.tokens[vocabulary]);
            for (conversation, (text, tokens)) in GOLDENS.conversations.iter().zip(texts) {
                let messages = messages(conversation);
                let segments = derived.compose(&messages);
                if Some(text_of(&segments)) == *text {
                    let given = Some(tokenizer.encode_segments(&segments, true));
                    assert_eq!(given, *tokens, "{name} with {vocabulary}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 188);
}

#[test]
fn the_kernel_reads_the_texts_that_are_written() {
    let (mut optional, mut all) = (0, 0);
    for (name, golden) in &GOLDENS.templates {
        let derived = Derived::from_program(&program(name, golden), &golden.bos).unwrap();
        let settings = settings(&derived.template);
        optional += settings.len() - 6;
        all += 1;
        let config = Config::from_toml(&to_toml(&settings)).unwrap();
        assert_eq!(config.chat_template, ChatTemplate::Texts);
        assert_eq!(config.chat_texts, derived.template, "{name}");
    }
    assert!(optional > 3 && optional < all, "{optional} texts that few templates need");
    let odd = BTreeMap::from([("chat_user_prefix", "\"\\\u{7f}\u{1b}\t\r\n🙂".to_owned())]);
    assert_eq!(
        Config::from_toml(&to_toml(&odd)).unwrap().chat_texts.user.prefix,
        odd["chat_user_prefix"]
    );
}

/// A model with this template.
fn model(template: &str) -> Builder {
    model_of(["<s>", "</s>"], template)
}

/// A model with this template, and these tokens for begin and end.
fn model_of([begin, end]: [&str; 2], template: &str) -> Builder {
    Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["<unk>", begin, end])
        .f32s("tokenizer.ggml.scores", &[0.0; 3])
        .i32s("tokenizer.ggml.token_type", &[2, 3, 3])
        .string(TEMPLATE, template)
}

fn found(builder: &Builder) -> Found {
    find(&Gguf::parse(&builder.build()).unwrap(), DATE).unwrap()
}

#[test]
fn a_token_that_comes_by_itself_is_not_written() {
    let template = "{{ bos_token }}{% for m in messages %}U{{ m.content }}{% endfor %}";
    let prefix = |builder: &Builder| found(builder).settings.unwrap()["chat_user_prefix"].clone();
    let first =
        |builder: &Builder| found(builder).settings.unwrap().get("chat_first_user_prefix").cloned();
    let begins = model(template);
    assert_eq!((prefix(&begins), first(&begins)), ("U".into(), None));
    let bare = model(template).bool("tokenizer.ggml.add_bos_token", false);
    assert_eq!((prefix(&bare), first(&bare)), ("U".into(), Some("<s>U".into())));
}

#[test]
fn the_report_says_where_no_texts_can_replace_a_template() {
    let problem = |template: &str| {
        let found = found(&model(template));
        (found.settings.is_some(), found.problem.unwrap_or_default())
    };
    let each = |body: &str| format!("{{% for m in messages %}}{body}{{% endfor %}}");
    for (template, says) in [
        ("{% if", "line 1: "),
        ("{{ raise_exception('never\x1b[2J') }}", "never"),
        ("{{ messages[0].content }}", "leaves a message out"),
        (&each("{{ m.content }}{{ m.content }}"), "repeats a message"),
        (&each("{{ m.content | upper }}"), "leaves a message out, or changes it"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "leaves a message out"),
    ] {
        let (has_texts, problem) = problem(template);
        assert!(!has_texts && problem.contains(says), "{template}: {problem}");
    }
    // There are texts, and the problem names where they do not hold.
    let (has_texts, text) = problem(&each("{{ loop.index }}{{ m.content }}"));
    assert!(has_texts);
    assert!(text.starts_with("with 3 questions it writes \""), "{text}");
    let (_, text) =
        problem(&each("{{ 'S' if m.role == 'system' and loop.length > 2 }}{{ m.content }}"));
    assert!(text.starts_with("with 2 questions and a system message it writes \"S"), "{text}");
    let (_, text) =
        problem(&each("{{ raise_exception('long') if loop.index > 3 }}{{ m.content }}"));
    assert_eq!(text, "with 3 questions it fails: line 1: long");
}

#[test]
fn a_system_message_without_a_place_stands_before_the_first_message() {
    let golden = &GOLDENS.templates["gemma"];
    let derived = Derived::from_program(&program("gemma", golden), &golden.bos).unwrap();
    assert!(!derived.takes_system);
    let with_place = &GOLDENS.templates["gemma3"];
    let other = Derived::from_program(&program("gemma3", with_place), &golden.bos).unwrap();
    assert!(other.takes_system);
    assert_eq!(derived.template, other.template);
}

#[test]
fn the_report_says_why_a_template_has_no_texts_for_tools() {
    let open = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}assistant: ";
    let problem = |tools: &str, message: &str| {
        let body = open.replace("{{ m.content }}", message);
        found(&model(&format!("{tools}{body}"))).tools_problem.unwrap_or_default()
    };
    let tools = "{% for t in tools or [] %}{{ t | tojson }};{% endfor %}";
    let calls = "{{ m.content }}{% for c in m.tool_calls or [] %}\
                 {{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}";
    let marked = calls.replace("{{ c.function.name", "CALL{{ c.function.name");
    for (tools, message, says) in [
        ("", "{{ m.content }}", "it leaves tools out"),
        ("{{ tools[0].function.name if tools }}", "{{ m.content }}", "in a form of its own"),
        (
            "{% for t in tools or [] %}{{ t | tojson if loop.first else t.function | tojson }}\
             {% endfor %}",
            "{{ m.content }}",
            "it writes two tools in another form",
        ),
        (tools, "{{ m.content }}", "calls of tools: "),
        (tools, calls, "calls of tools: nothing marks the start of a call"),
        (
            tools,
            &marked.replace("arguments | tojson", "arguments | length"),
            "calls of tools: it writes the arguments in a form of its own",
        ),
        (
            tools,
            &format!("{marked}{{{{ 'X' if loop.index > 5 }}}}"),
            "with 0 tools and 7 messages it writes \"",
        ),
        (
            tools,
            &format!("{marked}{{{{ raise_exception('full') if loop.index > 5 }}}}"),
            "it refuses 7 messages with 0 tools: line 1: full",
        ),
    ] {
        let problem = problem(tools, message);
        assert!(problem.contains(says), "{tools}{message}: {problem}");
    }
    assert_eq!(problem(tools, &marked), "");
}
