//! JSON objects that are written field by field.
//!
//! The code of a field is one call, where that of a derived `Serialize` is some hundred bytes.

use alloc::string::{String, ToString};

use super::to_json;

/// A JSON object that is being written.
#[derive(Debug)]
pub struct Writer(String);

impl Writer {
    /// An object without fields.
    pub fn new() -> Self {
        Writer("{".into())
    }

    /// Adds a field whose value is JSON.
    #[inline(never)]
    pub fn json(&mut self, name: &str, json: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&to_json(&name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// Adds a text.
    #[inline(never)]
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.json(name, &to_json(&text))
    }

    /// Adds a list of one text.
    pub fn list(&mut self, name: &str, text: &str) -> &mut Self {
        self.json(name, &to_json(&[text]))
    }

    /// Adds a text of the model with a list of calls, in ollama's form.
    pub fn ollama_text(&mut self, is_chat: bool, text: &str, calls: &str) -> &mut Self {
        match is_chat {
            true => {
                let mut message = Writer::new();
                message.text("role", "assistant").text("content", text);
                if calls != "[]" {
                    message.json("tool_calls", calls);
                }
                self.json("message", &message.end())
            }
            false => self.text("response", text),
        }
    }

    /// Adds a whole number.
    #[inline(never)]
    pub fn number(&mut self, name: &str, number: u64) -> &mut Self {
        self.json(name, &number.to_string())
    }

    /// The object.
    #[inline(never)]
    pub fn end(&mut self) -> String {
        self.0.push('}');
        core::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        assert_eq!(Writer::new().end(), "{}");
        let mut writer = Writer::new();
        writer.text("a\"", "b\n\"").number("n", u64::MAX).json("list", "[1]");
        assert_eq!(writer.end(), r#"{"a\"":"b\n\"","n":18446744073709551615,"list":[1]}"#);
    }
}
