//! The texts that llama.cpp gives, and their tokens. `test_models/chat.py` made the files.

use std::collections::BTreeMap;
use std::path::Path;
use std::string::String;
use std::sync::LazyLock;
use std::vec::Vec;

use serde::Deserialize;

use super::*;
use crate::llm::gguf::write::Builder;
use crate::llm::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Goldens {
    conversations: Vec<Vec<Message>>,
    templates: BTreeMap<String, Rendered>,
    built_in: BTreeMap<String, Golden>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Golden {
    /// A text for each conversation.
    texts: Vec<String>,
    /// Its tokens, by the vocabulary.
    tokens: BTreeMap<String, Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
struct Rendered {
    bos: String,
    eos: String,
    /// The conversation as llama.cpp formats it by the template's text.
    recognised: Vec<String>,
}

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

static GOLDENS: LazyLock<Goldens> =
    LazyLock::new(|| serde_json::from_slice(&file("goldens/chat.json")).unwrap());

/// A conversation in segments. Where the model writes a space before its answers by itself, `lead`
/// is that space.
fn compose<'t>(
    template: &'t Template,
    conversation: &'t [Message],
    lead: &'t str,
) -> Vec<Segment<'t>> {
    let (system, rest) = match conversation {
        [system, rest @ ..] if system.role == "system" => (system.content.as_str(), rest),
        rest => ("", rest),
    };
    let mut segments = Vec::new();
    for (i, turn) in rest.chunks(2).enumerate() {
        let question = &turn[0];
        assert_eq!(question.role, "user");
        match i {
            0 => segments.extend(template.open(system, &question.content)),
            _ => segments.extend(template.go_on(&question.content)),
        }
        if let [_, answer] = turn {
            segments.extend([Segment::Message(lead), Segment::Message(&answer.content)]);
        }
    }
    segments
}

fn text(segments: &[Segment<'_>]) -> String {
    segments.iter().map(|segment| segment.text()).collect()
}

/// The text that a model of this template writes before each of its answers.
fn lead(name: &str) -> &'static str {
    match name {
        "mistral-v1" | "mistral-v3" | "mistral-v7" | "openchat" | "vicuna" | "vicuna-orca"
        | "deepseek2" | "smolvlm" => " ",
        _ => "",
    }
}

#[test]
fn known_templates_give_llama_cpps_texts() {
    assert_eq!(GOLDENS.built_in.len(), KNOWN.len());
    for known in KNOWN {
        let golden = &GOLDENS.built_in[known.name];
        // llama.cpp has a literal where the program has the model's token.
        let eos = if known.name == "zephyr" { "<|endoftext|>" } else { "</s>" };
        let template = known.template("<s>", eos);
        for (conversation, expected) in GOLDENS.conversations.iter().zip(&golden.texts) {
            let segments = compose(&template, conversation, lead(known.name));
            assert_eq!(text(&segments), *expected, "{}", known.name);
        }
    }
}

#[test]
fn pieces_give_the_tokens_of_the_whole_text() {
    let mut with_special = 0;
    for vocabulary in ["bpe", "spm"] {
        let bytes = file(&std::format!("vocabularies/{vocabulary}.gguf"));
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        for known in KNOWN {
            let golden = &GOLDENS.built_in[known.name];
            let eos = if known.name == "zephyr" { "<|endoftext|>" } else { "</s>" };
            let template = known.template("<s>", eos);
            for (i, conversation) in GOLDENS.conversations.iter().enumerate() {
                let segments = compose(&template, conversation, lead(known.name));
                let tokens = tokenizer.encode_segments(&segments, true);
                let expected = &golden.tokens[vocabulary][i];
                assert_eq!(tokens, *expected, "{} with {vocabulary}", known.name);
                let as_text = tokenizer.encode(text(&segments), true, false);
                with_special += usize::from(as_text != *expected);
            }
        }
    }
    assert!(with_special > 100, "only {with_special} texts hold a special token");
}

#[test]
fn templates_are_recognised_as_llama_cpp_does() {
    for (name, golden) in &GOLDENS.templates {
        let program = String::from_utf8(file(&std::format!("chat/{name}.jinja"))).unwrap();
        let known = recognise(&program).unwrap_or_else(|| panic!("{name} is not recognised"));
        if name == "tinyllama" {
            // llama.cpp takes it for GLM-Edge's, whose messages have no end.
            assert_eq!(known.name, "zephyr");
            continue;
        }
        // llama.cpp writes the tokens of Llama's and Mistral's vocabularies, whatever the model's.
        let eos = if golden.eos == "</s>" { "</s>" } else { &golden.eos };
        let template = known.template(&golden.bos, eos);
        for (conversation, expected) in GOLDENS.conversations.iter().zip(&golden.recognised) {
            let segments = compose(&template, conversation, lead(known.name));
            assert_eq!(text(&segments), *expected, "{name}");
        }
    }
}

#[test]
fn templates_of_other_models_are_not_taken_for_known_ones() {
    let names = ["chatml", "llama3", "gemma"].map(|name| by_name(name).unwrap().name);
    assert_eq!(names, ["chatml", "llama3", "gemma"]);
    for program in [
        "",
        "chatml",
        "{{ messages[0].content }}",
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|user|><|assistant|>",
        "<|user|>{{ m.content }}<|assistant|>",
        "<|start_of_role|>user<|end_of_role|>",
        "<|header_start|>user<|header_end|>",
    ] {
        assert_eq!(recognise(program), None, "{program}");
    }
    assert_eq!(by_name("plain"), None);
}

#[test]
fn marks_stand_for_the_models_own_tokens() {
    let template = by_name("llama2-sys-bos").unwrap().template("[B]", "[E]");
    assert_eq!(template.user.prefix, "[B][INST] ");
    assert_eq!(template.first_user_prefix.unwrap(), "[INST] ");
    assert_eq!(template.assistant.suffix, "[E]");
}

#[test]
fn a_models_tokens_are_no_marks() {
    // One put into the other, they would grow with the square of their length.
    let (bos, eos) = ("<s></s>".repeat(1009), "</s><s>".repeat(1009));
    let template = by_name("llama2-sys-bos").unwrap().template(&bos, &eos);
    assert!(template.assistant.suffix.starts_with("</s><s>"));
    for known in KNOWN {
        let Template { system, user, assistant, .. } = known.template(&bos, &eos);
        for Around { prefix, suffix } in [system, user, assistant] {
            assert!(prefix.len().max(suffix.len()) < 2 * (bos.len() + eos.len()), "{}", known.name);
        }
    }
}

fn declared(builder: &Builder) -> Declared {
    Declared::from_gguf(&Gguf::parse(&builder.build()).unwrap())
}

#[test]
fn a_file_says_which_template_and_tokens_it_has() {
    let builder = || Builder::new().strings("tokenizer.ggml.tokens", &["a", "b", "c", "d"]);
    let nothing = declared(&builder());
    assert_eq!(nothing, Declared::default());

    let sentence_piece = builder().string("tokenizer.ggml.model", "llama");
    let found = declared(&sentence_piece);
    assert_eq!((found.bos.as_str(), found.eos.as_str()), ("b", "c"));

    let full = sentence_piece
        .u32("tokenizer.ggml.bos_token_id", 3)
        .u32("tokenizer.ggml.eos_token_id", 4)
        .string(TEMPLATE, "<|im_start|>");
    let found = declared(&full);
    assert_eq!((found.bos.as_str(), found.eos.as_str()), ("d", ""));
    assert_eq!(found.known, by_name("chatml"));
    let unknown = declared(&builder().string(TEMPLATE, "{{ messages }}"));
    assert!(unknown.has_template && unknown.known.is_none());

    assert_eq!(unknown.problem, None);

    // A template that is no text costs the chat alone.
    let array = declared(&builder().strings(TEMPLATE, &["<|im_start|>"]));
    let number = declared(&builder().u32(TEMPLATE, 7));
    for (wrong, shown) in [(array, "an array of 1 strings"), (number, "7")] {
        assert!(wrong.has_template && wrong.known.is_none());
        let problem = wrong.problem.unwrap();
        assert!(problem.contains(TEMPLATE) && problem.contains(shown), "{problem}");
    }
    // A template that is not UTF-8 is recognised by a part of the text, as in llama.cpp.
    let latin_1 = |text: &[u8]| declared(&builder().string(TEMPLATE, text));
    let found = latin_1(b"{# caf\xE9 #}<|im_start|>");
    assert_eq!(found.known, by_name("chatml"));
    assert!(found.problem.unwrap().contains("must be UTF-8 text"));
    assert_eq!(latin_1(b"caf\xE9").known, None);
}
