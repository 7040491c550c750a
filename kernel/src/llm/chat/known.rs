//! Templates in common use, under llama.cpp's names for them, and how to tell them.
//!
//! Source: llama.cpp's `llama-chat.cpp`, for the architectures that this engine runs.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Around, Template};

/// A template in common use. In its texts `<s>` and `</s>` stand for whatever tokens begin and end
/// a text of the model.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// llama.cpp's name for it.
    pub name: &'static str,
    system: (&'static str, &'static str),
    user: (&'static str, &'static str),
    assistant: (&'static str, &'static str),
    first_user_prefix: Option<&'static str>,
    after_system_prefix: Option<&'static str>,
}

impl Known {
    /// The texts, for a model whose tokens for begin and end are `bos` and `eos`.
    pub fn template(&self, bos: &str, eos: &str) -> Template {
        // Not one replacement after the other: `bos` may itself hold `</s>`, even a thousand times.
        let text = |text: &str| -> String {
            let parts: Vec<String> = text.split("</s>").map(|it| it.replace("<s>", bos)).collect();
            parts.join(eos)
        };
        let around = |(prefix, suffix)| Around { prefix: text(prefix), suffix: text(suffix) };
        Template {
            system: around(self.system),
            user: around(self.user),
            assistant: around(self.assistant),
            first_user_prefix: self.first_user_prefix.map(text),
            after_system_prefix: self.after_system_prefix.map(text),
            tools: None,
        }
    }
}

/// A template in which each role has its own texts.
const fn roles(
    name: &'static str,
    system: (&'static str, &'static str),
    user: (&'static str, &'static str),
    assistant: (&'static str, &'static str),
) -> Known {
    Known { name, system, user, assistant, first_user_prefix: None, after_system_prefix: None }
}

/// A template whose system message is the start of the user's first message.
const fn merged(
    name: &'static str,
    system: (&'static str, &'static str),
    user: (&'static str, &'static str),
    assistant: (&'static str, &'static str),
) -> Known {
    Known { after_system_prefix: Some(""), ..roles(name, system, user, assistant) }
}

/// Mistral's templates, with or without spaces around the brackets.
const fn mistral(name: &'static str, user: (&'static str, &'static str)) -> Known {
    merged(name, (user.0, "\n\n"), user, ("", "</s>"))
}

/// All of them.
pub const KNOWN: &[Known] = &[
    roles(
        "chatml",
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>\n"),
    ),
    merged("llama2", ("[INST] ", "\n"), ("[INST] ", " [/INST]"), ("", "</s>")),
    merged(
        "llama2-sys",
        ("[INST] <<SYS>>\n", "\n<</SYS>>\n\n"),
        ("[INST] ", " [/INST]"),
        ("", "</s>"),
    ),
    Known {
        first_user_prefix: Some("[INST] "),
        ..merged(
            "llama2-sys-bos",
            ("[INST] <<SYS>>\n", "\n<</SYS>>\n\n"),
            ("<s>[INST] ", " [/INST]"),
            ("", "</s>"),
        )
    },
    merged(
        "llama2-sys-strip",
        ("[INST] <<SYS>>\n", "\n<</SYS>>\n\n"),
        ("[INST] ", " [/INST]"),
        ("", "</s>"),
    ),
    roles(
        "llama3",
        ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ),
    mistral("mistral-v1", (" [INST] ", " [/INST]")),
    mistral("mistral-v3", ("[INST] ", "[/INST]")),
    mistral("mistral-v3-tekken", ("[INST]", "[/INST]")),
    roles(
        "mistral-v7",
        ("[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"),
        ("[INST] ", "[/INST]"),
        ("", "</s>"),
    ),
    roles(
        "mistral-v7-tekken",
        ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        ("[INST]", "[/INST]"),
        ("", "</s>"),
    ),
    merged(
        "gemma",
        ("<start_of_turn>user\n", "\n\n"),
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>model\n", "<end_of_turn>\n"),
    ),
    roles(
        "phi3",
        ("<|system|>\n", "<|end|>\n"),
        ("<|user|>\n", "<|end|>\n"),
        ("<|assistant|>\n", "<|end|>\n"),
    ),
    roles(
        "phi4",
        ("<|im_start|>system<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
    ),
    roles("falcon3", ("<|system|>\n", "\n"), ("<|user|>\n", "\n"), ("<|assistant|>\n", "\n")),
    // TinyLlama's too.
    roles(
        "zephyr",
        ("<|system|>\n", "</s>\n"),
        ("<|user|>\n", "</s>\n"),
        ("<|assistant|>\n", "</s>\n"),
    ),
    Known {
        first_user_prefix: Some("user\n"),
        ..roles(
            "monarch",
            ("system\n", "</s>\n"),
            ("<s>user\n", "</s>\n"),
            ("<s>assistant\n", "</s>\n"),
        )
    },
    roles(
        "openchat",
        ("", "<|end_of_turn|>"),
        ("GPT4 Correct User: ", "<|end_of_turn|>"),
        ("GPT4 Correct Assistant:", "<|end_of_turn|>"),
    ),
    roles("vicuna", ("", "\n\n"), ("USER: ", "\n"), ("ASSISTANT:", "</s>\n")),
    roles("vicuna-orca", ("SYSTEM: ", "\n"), ("USER: ", "\n"), ("ASSISTANT:", "</s>\n")),
    roles("deepseek", ("", ""), ("### Instruction:\n", "\n"), ("### Response:\n", "\n<|EOT|>\n")),
    roles("deepseek2", ("", "\n\n"), ("User: ", "\n\n"), ("Assistant:", "<｜end▁of▁sentence｜>")),
    roles(
        "deepseek3",
        ("", "\n\n"),
        ("<｜User｜>", ""),
        ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    ),
    roles(
        "megrez",
        ("<|role_start|>system<|role_end|>", "<|turn_end|>"),
        ("<|role_start|>user<|role_end|>", "<|turn_end|>"),
        ("<|role_start|>assistant<|role_end|>", "<|turn_end|>"),
    ),
    Known {
        first_user_prefix: Some("<|im_start|>User: "),
        ..roles(
            "smolvlm",
            ("<|im_start|>", "\n\n"),
            ("User: ", "<end_of_utterance>\n"),
            ("Assistant:", "<end_of_utterance>\n"),
        )
    },
];

/// The template of this name.
pub fn by_name(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Recognises a template's program by the marks that llama.cpp looks for.
pub fn recognise(text: &str) -> Option<&'static Known> {
    by_name(name_of(text)?)
}

fn name_of(text: &str) -> Option<&'static str> {
    let has = |mark: &str| text.contains(mark);
    if has("<|im_start|>") {
        return Some(match () {
            _ if has("<|im_sep|>") => "phi4",
            _ if has("<end_of_utterance>") => "smolvlm",
            _ => "chatml",
        });
    }
    if has("[INST]") {
        return Some(match () {
            _ if has("[SYSTEM_PROMPT]") => "mistral-v7",
            _ if has("' [INST] ' + system_message") || has("[AVAILABLE_TOOLS]") => match () {
                _ if has(" [INST]") => "mistral-v1",
                _ if has("\"[INST]\"") => "mistral-v3-tekken",
                _ => "mistral-v3",
            },
            _ if has("content.strip()") => "llama2-sys-strip",
            _ if has("bos_token + '[INST]") => "llama2-sys-bos",
            _ if has("<<SYS>>") => "llama2-sys",
            _ => "llama2",
        });
    }
    if has("<|assistant|>") && has("<|end|>") {
        return Some("phi3");
    }
    // Of other architectures.
    if has("[gMASK]") || has("<|tool_declare|>") || has("<|begin_of_image|>") {
        return None;
    }
    if has("<|assistant|>") && has("<|user|>") {
        // llama.cpp takes programs without a literal `</s>` for GLM-Edge's. But TinyLlama's,
        // Zephyr's and StableLM's end their messages with the model's end token.
        return match () {
            _ if has("</s>") => Some("falcon3"),
            _ if has("eos_token") => Some("zephyr"),
            _ => None,
        };
    }
    Some(match () {
        _ if has("<|user|>") && has("<|endoftext|>") => "zephyr",
        _ if has("bos_token + message['role']") => "monarch",
        _ if has("<start_of_turn>") => "gemma",
        _ if has("GPT4 Correct ") => "openchat",
        _ if has("USER: ") && has("ASSISTANT: ") => match has("SYSTEM: ") {
            true => "vicuna-orca",
            false => "vicuna",
        },
        _ if has("### Instruction:") && has("<|EOT|>") => "deepseek",
        _ if has("<|start_header_id|>") && has("<|end_header_id|>") => "llama3",
        _ if has("'Assistant: ' + message['content'] + eos_token") => "deepseek2",
        _ if has("<｜Assistant｜>") && has("<｜User｜>") && has("<｜end▁of▁sentence｜>") => {
            "deepseek3"
        }
        _ if has("<|role_start|>") => "megrez",
        _ => return None,
    })
}
