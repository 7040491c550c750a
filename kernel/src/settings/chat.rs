//! What surrounds the messages of a chat.

use alloc::borrow::ToOwned;
use alloc::string::String;

use super::Config;
use crate::llm::chat::tools::ToolTexts;
use crate::llm::chat::{Known, Template};

/// Source of the text around the messages of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The known template that the model's own one equals; nothing if there is none.
    #[default]
    Auto,
    /// Nothing: the text goes on as it is typed.
    Plain,
    /// A template in common use.
    Known(&'static Known),
    /// The texts in [`Config::chat_texts`].
    Texts,
}

/// Start of the names of the settings for that text.
pub const CHAT: &str = "chat_";

/// The texts that are set by hand; these replace any template.
pub fn texts(config: &mut Config) -> &mut Template {
    config.chat_template = ChatTemplate::Texts;
    &mut config.chat_texts
}

/// Stores a text. One function for all such settings keeps the image small.
#[inline(never)]
pub fn put(slot: &mut String, text: &str) {
    *slot = text.to_owned();
}

/// Stores a text that may be missing.
#[inline(never)]
pub fn put_some(slot: &mut Option<String>, text: &str) {
    *slot = Some(text.to_owned());
}

/// The texts around tools that are set by hand.
#[inline(never)]
pub fn tool_texts(config: &mut Config) -> &mut ToolTexts {
    texts(config).tools.get_or_insert_default()
}

/// Names that `chat_template` takes; a test compares them with the templates that are known.
pub const TEMPLATES: &[&str] = &[
    "auto",
    "plain",
    "chatml",
    "llama2",
    "llama2-sys",
    "llama2-sys-bos",
    "llama2-sys-strip",
    "llama3",
    "mistral-v1",
    "mistral-v3",
    "mistral-v3-tekken",
    "mistral-v7",
    "mistral-v7-tekken",
    "gemma",
    "phi3",
    "phi4",
    "falcon3",
    "zephyr",
    "monarch",
    "openchat",
    "vicuna",
    "vicuna-orca",
    "deepseek",
    "deepseek2",
    "deepseek3",
    "megrez",
    "smolvlm",
];

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::super::tests::{check_argument_error, check_toml_error};
    use super::*;
    use crate::llm::chat::tools::{ToolForm, ToolPlace};
    use crate::llm::chat::{Around, KNOWN};

    fn around(prefix: &str, suffix: &str) -> Around {
        Around { prefix: prefix.into(), suffix: suffix.into() }
    }

    const TEXTS: &str = r#"
        model = "a.gguf"
        chat_system_prefix = "<sys>\n"
        chat_system_suffix = "</sys>"
        chat_user_prefix = "U: \u001f"
        chat_user_suffix = "\""
        chat_assistant_prefix = "A:"
        chat_assistant_suffix = "\n"
        chat_first_user_prefix = ""
        chat_after_system_prefix = "S"
        "#;

    #[test]
    fn the_texts_of_a_chat_can_be_set_in_the_file() {
        let config = Config::from_toml(TEXTS).unwrap();
        let expected = Template {
            system: around("<sys>\n", "</sys>"),
            user: around("U: \u{1f}", "\""),
            assistant: around("A:", "\n"),
            first_user_prefix: Some("".into()),
            after_system_prefix: Some("S".into()),
            tools: None,
        };
        assert_eq!((config.chat_template, config.chat_texts), (ChatTemplate::Texts, expected));
        check_toml_error(
            "chat_template = \"chatml\"\nchat_user_suffix = \"\"\n",
            "anchorite.toml, line 2: `chat_template` and `chat_user_suffix` exclude each other",
        );
        check_argument_error(
            &["chat_user_suffix=", "chat_template=chatml"],
            "boot argument `chat_template=chatml`: `chat_user_suffix` and `chat_template` exclude \
             each other",
        );
        let error = Config::from_toml("chat_template = \"chatllm\"").unwrap_err().to_string();
        let names = KNOWN.iter().map(|known| known.name);
        for name in names.chain(["auto", "plain"]) {
            let listed = error.split([' ', ',']).any(|word| word == name);
            assert!(listed, "{name} is not in: {error}");
            assert!(Config::from_toml(&format!("chat_template = \"{name}\"")).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_texts_around_tools_can_be_set_in_the_file() {
        let some = |text: &str| Some(String::from(text));
        let expected = ToolTexts {
            place: ToolPlace::LastUser,
            form: ToolForm::RawFunction,
            tools: around("a", "b"),
            separator: "c".into(),
            system: around("d", "e"),
            user_prefix: some("f"),
            text_suffix: some("g"),
            call: around("h", "i"),
            arguments_prefix: "j".into(),
            id_prefix: some("k"),
            call_separator: some("l"),
            results: around("m", "n"),
            result_separator: "o".into(),
            result_id_prefix: some("p"),
            last_result_suffix: some(""),
            quotes_results: true,
        };
        let text = r#"
            chat_tools_place = "last-user"
            chat_tools_form = "raw-function"
            chat_tools_prefix = "a"
            chat_tools_suffix = "b"
            chat_tools_separator = "c"
            chat_tools_system_prefix = "d"
            chat_tools_system_suffix = "e"
            chat_tools_user_prefix = "f"
            chat_calls_text_suffix = "g"
            chat_calls_prefix = "h"
            chat_calls_suffix = "i"
            chat_calls_arguments_prefix = "j"
            chat_calls_id_prefix = "k"
            chat_calls_separator = "l"
            chat_results_prefix = "m"
            chat_results_suffix = "n"
            chat_results_separator = "o"
            chat_results_id_prefix = "p"
            chat_results_last_suffix = ""
            chat_results_form = "quoted"
        "#;
        let tools = |text: &str| Config::from_toml(text).unwrap().chat_texts.tools;
        assert_eq!(tools(text).as_deref(), Some(&expected));
        assert_eq!(tools(TEXTS), None);
        assert_eq!(tools("chat_calls_prefix = \"\"").as_deref(), Some(&ToolTexts::default()));
        check_toml_error(
            "chat_tools_place = \"first-user\"",
            "anchorite.toml, line 1: `chat_tools_place` takes after-system, before-system or \
             last-user",
        );
    }

    #[test]
    fn the_texts_of_a_chat_are_for_the_model_that_the_file_names() {
        let after = |file: &str, arguments: &[&str]| {
            let mut config = Config::from_toml(file).unwrap();
            config.apply_arguments(arguments.iter().copied()).unwrap();
            config.chat_template
        };
        assert_eq!(after(TEXTS, &["system=x"]), ChatTemplate::Texts);
        assert_eq!(after(TEXTS, &["model=a.gguf"]), ChatTemplate::Texts);
        assert_eq!(after(TEXTS, &["model=b.gguf"]), ChatTemplate::Auto);
        for plain in
            [["chat_template=plain", "model=b.gguf"], ["model=b.gguf", "chat_template=plain"]]
        {
            assert_eq!(after(TEXTS, &plain), ChatTemplate::Plain);
        }
        assert_eq!(after(TEXTS, &["chat_template=auto"]), ChatTemplate::Auto);
        assert_eq!(after(TEXTS, &["model=b.gguf", "chat_user_prefix="]), ChatTemplate::Texts);
        // A file that names no model means the only one.
        assert_eq!(after("chat_user_prefix = \"\"", &["model=b.gguf"]), ChatTemplate::Texts);
        let plain = "model = \"a.gguf\"\nchat_template = \"plain\"";
        assert_eq!(after(plain, &["model=b.gguf"]), ChatTemplate::Plain);
    }
}
