//! Texts around tools of templates in common use, and how to tell them.
//!
//! These are the forms of Qwen 2.5 and 3, and of Mistral 7B v0.3 and Nemo. Other templates, such as
//! that of Llama 3.1 with its date, need `image-builder`.

use alloc::string::String;

use super::Around;
use super::tools::{ToolForm, ToolPlace, ToolTexts};

/// A family of templates with the same texts around tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownTools {
    /// Qwen 2.5, which has a name without a system message.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Mistral 7B v0.3, with a blank behind each mark.
    Mistral,
    /// Mistral Nemo.
    Nemo,
}

impl KnownTools {
    /// Recognises the family by marks of a template's program.
    pub fn recognise(program: &str) -> Option<Self> {
        let has = |mark: &str| program.contains(mark);
        if has("# Tools\\n\\nYou may call one or more functions") && has("<args-json-object>") {
            return Some(match has("You are Qwen, created by Alibaba Cloud.") {
                true => KnownTools::Qwen2,
                false => KnownTools::Qwen3,
            });
        }
        let is_mistral =
            has("[AVAILABLE_TOOLS]") && has("'{\"type\": \"function\", \"function\": {'");
        match () {
            _ if !is_mistral => None,
            _ if has("\"[TOOL_CALLS][\"") => Some(KnownTools::Nemo),
            _ if has("\"[TOOL_CALLS] [\"") => Some(KnownTools::Mistral),
            _ => None,
        }
    }

    /// The texts.
    pub fn texts(self) -> ToolTexts {
        match self {
            KnownTools::Qwen2 => qwen(true),
            KnownTools::Qwen3 => qwen(false),
            KnownTools::Mistral => mistral(" "),
            KnownTools::Nemo => mistral(""),
        }
    }
}

/// Qwen's texts. `is_named`: without a system message, the model has a name.
fn qwen(is_named: bool) -> ToolTexts {
    const SYSTEM: &str = "<|im_start|>system\n";
    const NAME: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n";
    const INTRO: &str = "# Tools\n\nYou may call one or more functions to assist with the user \
        query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n\
        <tools>\n";
    const END: &str = "\n</tools>\n\nFor each function call, return a json object with function \
        name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n\
        {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n";
    const CALL: &str = "<tool_call>\n{\"name\": \"";
    const CALL_END: &str = "}\n</tool_call>";
    let name = if is_named { NAME } else { "" };
    ToolTexts {
        tools: Around { prefix: [SYSTEM, name, INTRO].concat(), suffix: END.into() },
        separator: "\n".into(),
        system: Around { prefix: SYSTEM.into(), suffix: ["\n\n", INTRO].concat() },
        text_suffix: Some("\n".into()),
        call: Around { prefix: CALL.into(), suffix: CALL_END.into() },
        arguments_prefix: "\", \"arguments\": ".into(),
        call_separator: Some([CALL_END, "\n", CALL].concat()),
        results: Around {
            prefix: "<|im_start|>user\n<tool_response>\n".into(),
            suffix: "\n</tool_response><|im_end|>\n".into(),
        },
        result_separator: "\n</tool_response>\n<tool_response>\n".into(),
        ..ToolTexts::default()
    }
}

/// Mistral's texts, with a blank behind the marks or not.
fn mistral(blank: &str) -> ToolTexts {
    const TOOL: &str = "{\"type\": \"function\", \"function\": ";
    let marked = |mark: &str, text: &str| -> String { [mark, blank, text].concat() };
    let result = marked("[TOOL_RESULTS]", "{\"content\": ");
    let result_end = "\"}[/TOOL_RESULTS]";
    ToolTexts {
        place: ToolPlace::LastUser,
        form: ToolForm::RawFunction,
        tools: Around {
            prefix: marked("[AVAILABLE_TOOLS]", &["[", TOOL].concat()),
            suffix: "}][/AVAILABLE_TOOLS]".into(),
        },
        separator: ["}, ", TOOL].concat(),
        call: Around { prefix: marked("[TOOL_CALLS]", "[{\"name\": \""), suffix: "\"}]".into() },
        arguments_prefix: "\", \"arguments\": ".into(),
        id_prefix: Some(", \"id\": \"".into()),
        call_separator: Some("\"}, {\"name\": \"".into()),
        result_separator: [result_end, &result].concat(),
        results: Around { prefix: result, suffix: result_end.into() },
        result_id_prefix: Some(", \"call_id\": \"".into()),
        ..ToolTexts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_name;
    use super::super::conversation::{Call, Ending, Message, Role, segments, text};
    use super::*;

    /// A conversation with a tool, a call and its result.
    fn prompt(program: &str, template: &str) -> String {
        let mut template = by_name(template).unwrap().template("<s>", "</s>");
        template.tools = KnownTools::recognise(program).map(|known| known.texts().into());
        let tool = r#"{"type":"function","function":{"name":"f","description":"a\nb"}}"#;
        let tools = [template.tools.as_ref().unwrap().form.write(tool).unwrap()];
        let call = Call { id: "123456789".into(), name: "f".into(), arguments: "{}".into() };
        let messages = [
            Message::new(Role::User, "Q"),
            Message { calls: [call].into(), ..Message::new(Role::Assistant, "") },
            Message { call_id: "123456789".into(), ..Message::new(Role::Tool, "12") },
        ];
        text(&segments(Some(&template), &messages, &tools, Ending::Ask))
    }

    #[test]
    fn the_texts_of_qwen_and_mistral_are_recognised() {
        // Parts of the programs, as the model's files have them.
        let program = r##"{{- "# Tools\n\nYou may call one or more functions to assist" }}
            {{- "\"arguments\": <args-json-object>}" }}"##;
        let expected = "<|im_start|>system\n# Tools\n\nYou may call one or more functions to \
            assist with the user query.\n\nYou are provided with function signatures within \
            <tools></tools> XML tags:\n<tools>\n{\"type\": \"function\", \"function\": \
            {\"name\": \"f\", \"description\": \"a\\nb\"}}\n</tools>\n\nFor each function call, \
            return a json object with function name and arguments within \
            <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \
            \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n\
            <|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \
            \"arguments\": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n12\n\
            </tool_response><|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(prompt(program, "chatml"), expected);
        let named = [program, "'You are Qwen, created by Alibaba Cloud. You are a'"].concat();
        let name =
            "system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n#";
        assert_eq!(prompt(&named, "chatml"), expected.replacen("system\n#", name, 1));

        let nemo = r#"{{- "[AVAILABLE_TOOLS][" }} {{- '{"type": "function", "function": {' }}
            {{- "[TOOL_CALLS][" }}"#;
        let expected = "[AVAILABLE_TOOLS][{\"type\": \"function\", \"function\": {\"name\": \
            \"f\", \"description\": \"a\nb\"}}][/AVAILABLE_TOOLS][INST]Q[/INST][TOOL_CALLS]\
            [{\"name\": \"f\", \"arguments\": {}, \"id\": \"123456789\"}]</s>[TOOL_RESULTS]\
            {\"content\": 12, \"call_id\": \"123456789\"}[/TOOL_RESULTS]";
        assert_eq!(prompt(nemo, "mistral-v3-tekken"), expected);
        let v3 = nemo.replace("S][\"", "S] [\"");
        let expected = expected.replace("S][{", "S] [{").replace("S]{", "S] {");
        let expected = expected.replace("[INST]Q", "[INST] Q");
        assert_eq!(prompt(&v3, "mistral-v3"), expected);

        for other in
            ["", "<tool_call>", "[AVAILABLE_TOOLS] {{ tools | tojson }} \"[TOOL_CALLS] [\""]
        {
            assert_eq!(KnownTools::recognise(other), None);
        }
    }
}
