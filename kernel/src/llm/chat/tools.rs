//! The texts of a chat template around tools, calls of tools, and their results.
//!
//! `image-builder` finds these texts by running the template, as it finds the others.

use alloc::string::String;

use super::Around;
use super::json::{self, Style};

/// The place of the tools in a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolPlace {
    /// At the start, behind a system message.
    #[default]
    AfterSystem,
    /// At the start, before a system message.
    BeforeSystem,
    /// Before the last message of the user.
    LastUser,
}

impl ToolPlace {
    /// The names of all places.
    pub const NAMES: [&str; 3] = ["after-system", "before-system", "last-user"];

    /// All places, in the order of [`ToolPlace::NAMES`].
    pub const ALL: [ToolPlace; 3] =
        [ToolPlace::AfterSystem, ToolPlace::BeforeSystem, ToolPlace::LastUser];

    /// The place of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        let mut all = Self::NAMES.iter().zip(Self::ALL);
        all.find(|(other, _)| **other == name).map(|(_, place)| place)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().zip(Self::ALL).find(|(_, place)| *place == self).map_or("", |it| it.0)
    }
}

/// The form of a tool's JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolForm {
    /// The tool in one line, `{"type": "function", "function": {…}}`.
    #[default]
    Tool,
    /// The tool in lines, with four blanks for each level.
    IndentedTool,
    /// The object `function` alone, in one line.
    Function,
    /// The object `function` alone, in lines, with four blanks for each level.
    IndentedFunction,
    /// The object `function` alone, whose own texts stand in quotes without escapes.
    ///
    /// Mistral's templates write so. They leave a field `return` out.
    RawFunction,
    /// The object `function` alone, with a Python signature in its description.
    ///
    /// Hermes' templates write so.
    Signature,
}

impl ToolForm {
    /// The names of all forms.
    pub const NAMES: [&str; 6] =
        ["tool", "indented-tool", "function", "indented-function", "raw-function", "signature"];

    /// All forms, in the order of [`ToolForm::NAMES`].
    pub const ALL: [ToolForm; 6] = [
        ToolForm::Tool,
        ToolForm::IndentedTool,
        ToolForm::Function,
        ToolForm::IndentedFunction,
        ToolForm::RawFunction,
        ToolForm::Signature,
    ];

    /// The form of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        let mut all = Self::NAMES.iter().zip(Self::ALL);
        all.find(|(other, _)| **other == name).map(|(_, form)| form)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().zip(Self::ALL).find(|(_, form)| *form == self).map_or("", |it| it.0)
    }

    /// Writes a tool of a request, whose JSON is `text`.
    ///
    /// The result is `None` if the tool is malformed, or its `function` is no object.
    pub fn write(self, text: &str) -> Option<String> {
        const INDENTED: Style = Style::Indented(4);
        let mut out = String::new();
        let function = |text| {
            let fields = json::fields(text)?;
            fields.into_iter().find(|(key, _)| key == "function").map(|(_, value)| value)
        };
        match self {
            ToolForm::Tool => json::reformat(text, Style::Line, &mut out)?,
            ToolForm::IndentedTool => json::reformat(text, INDENTED, &mut out)?,
            ToolForm::Function => json::reformat(function(text)?, Style::Line, &mut out)?,
            ToolForm::IndentedFunction => json::reformat(function(text)?, INDENTED, &mut out)?,
            ToolForm::RawFunction => push_raw(function(text)?, &mut out)?,
            ToolForm::Signature => super::signature::push(function(text)?, &mut out)?,
        }
        Some(out)
    }
}

/// Appends an object whose own texts have no escapes.
fn push_raw(object: &str, out: &mut String) -> Option<()> {
    let fields = json::fields(object)?;
    let mut between = "{";
    for (key, value) in fields.iter().filter(|(key, _)| key != "return") {
        out.push_str(between);
        out.extend(["\"", key, "\": "]);
        match json::string(value) {
            Some(text) => out.extend(["\"", &text, "\""]),
            None => json::reformat(value, Style::Line, out)?,
        }
        between = ", ";
    }
    out.push_str(if between == "{" { "{}" } else { "}" });
    Some(())
}

/// The texts of a chat template around tools, calls and results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolTexts {
    /// The place of the tools.
    pub place: ToolPlace,
    /// The form of each tool.
    pub form: ToolForm,
    /// Around the tools, without a system message at their side.
    pub tools: Around,
    /// Between two tools.
    pub separator: String,
    /// Around a system message at the side of the tools.
    ///
    /// Before the tools, the suffix replaces `tools.prefix`. Behind the tools, the prefix replaces
    /// `tools.suffix`.
    pub system: Around,
    /// Before the first message of the user behind the tools, if different.
    pub user_prefix: Option<String>,
    /// Between the text and the calls of an answer; `None`: such a text is left out.
    pub text_suffix: Option<String>,
    /// From the start of the first call to the function's name, and behind the last call.
    pub call: Around,
    /// Between the name and the arguments of a call.
    pub arguments_prefix: String,
    /// Between the arguments and the ID of a call; `None`: calls have no IDs.
    pub id_prefix: Option<String>,
    /// From the end of a call to the name of the next one; `None`: an answer has one call.
    pub call_separator: Option<String>,
    /// Around the results of calls.
    pub results: Around,
    /// Between two results.
    pub result_separator: String,
    /// Between a result and the ID of its call; `None`: results have no IDs.
    pub result_id_prefix: Option<String>,
    /// Behind results at the end of a prompt, if different.
    pub last_result_suffix: Option<String>,
    /// Whether a result is written as a JSON string.
    pub quotes_results: bool,
}

impl ToolTexts {
    /// The text of a result, in the form that the template writes.
    pub fn result(&self, text: String) -> String {
        if !self.quotes_results {
            return text;
        }
        let mut quoted = String::new();
        json::push_text(&text, &mut quoted);
        quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tool of a request, with much that a writer can get wrong.
    const TOOL: &str = r#"{"function":{"name":"f","description":"\"Say\" it\nloud, <é> \u00fc","return":{"type":"string"},
        "parameters":{"type":"object","properties":{"b":{"type":"number","minimum":1.50}},"required":[]}},"type":"function"}"#;

    #[test]
    fn tools_have_the_form_of_the_template() {
        let parameters = r#"{"type": "object", "properties": {"b": {"type": "number", "minimum": 1.50}}, "required": []}"#;
        let function = alloc::format!(
            r#"{{"name": "f", "description": "\"Say\" it\nloud, <é> ü", "return": {{"type": "string"}}, "parameters": {parameters}}}"#
        );
        let written = |form: ToolForm| form.write(TOOL).unwrap();
        assert_eq!(written(ToolForm::Function), function);
        assert_eq!(
            written(ToolForm::Tool),
            [r#"{"function": "#, &function, r#", "type": "function"}"#].concat()
        );
        assert_eq!(
            written(ToolForm::RawFunction),
            [
                "{\"name\": \"f\", \"description\": \"\"Say\" it\nloud, <é> ü\", \"parameters\": ",
                parameters,
                "}"
            ]
            .concat()
        );
        assert!(
            written(ToolForm::IndentedTool)
                .starts_with("{\n    \"function\": {\n        \"name\": \"f\",\n")
        );
        assert!(
            written(ToolForm::IndentedFunction).ends_with("        \"required\": []\n    }\n}")
        );
        for form in ToolForm::ALL {
            assert_eq!(
                form.write("{}").is_some(),
                matches!(form, ToolForm::Tool | ToolForm::IndentedTool)
            );
            assert_eq!(form.write("{\"function\":"), None);
            assert_eq!(ToolForm::by_name(form.name()), Some(form));
        }
        for place in ToolPlace::ALL {
            assert_eq!(ToolPlace::by_name(place.name()), Some(place));
        }
    }
}
