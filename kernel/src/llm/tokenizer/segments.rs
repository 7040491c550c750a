//! Prompts in segments, written by a template or by people.

use alloc::vec::Vec;

use super::Tokenizer;
use super::special::Part;

/// A segment of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'t> {
    /// Written by a template: control tokens in it are found by their names.
    Template(&'t str),
    /// Written by a person: the name of a control token is text like any other.
    Message(&'t str),
}

impl<'t> Segment<'t> {
    /// The text.
    pub fn text(self) -> &'t str {
        match self {
            Segment::Template(text) | Segment::Message(text) => text,
        }
    }
}

impl Tokenizer {
    /// Encodes a prompt in segments: as one text, without control tokens in messages.
    ///
    /// A name of a control token in a message is plain text. So is a user-defined token that the
    /// template's segments hold, except blanks, as old files mark roles by user-defined tokens.
    /// `is_start` starts a text, with the model's begin token unless the prompt starts with it.
    pub fn encode_segments(&self, segments: &[Segment<'_>], is_start: bool) -> Vec<u32> {
        let marks = self.marks(segments);
        let mut tokens = Vec::new();
        // Text up to the next special token, across segments, which is encoded as a whole.
        let mut text = Vec::new();
        let mut after_special = is_start;
        for segment in segments {
            let specials = match segment {
                Segment::Template(_) => &self.specials,
                Segment::Message(_) => &self.user_defined,
            };
            for part in specials.cut(segment.text().as_bytes()) {
                match part {
                    Part::Text(part) => text.extend_from_slice(part),
                    Part::Special(token)
                        if matches!(segment, Segment::Message(_))
                            && marks.binary_search(&token).is_ok() =>
                    {
                        text.extend_from_slice(self.vocab.text(token));
                    }
                    Part::Special(token) => {
                        self.encode_text(&text, after_special, &mut tokens);
                        text.clear();
                        tokens.push(token);
                        after_special = true;
                    }
                }
            }
        }
        self.encode_text(&text, after_special, &mut tokens);
        if let Some(bos) = self.begin().filter(|bos| is_start && tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        tokens
    }

    /// The special tokens that the template's segments hold, except blanks, in order.
    fn marks(&self, segments: &[Segment<'_>]) -> Vec<u32> {
        let templates = segments.iter().filter(|segment| matches!(segment, Segment::Template(_)));
        let parts = templates.flat_map(|p| self.specials.cut(p.text().as_bytes()));
        let mark = |part| match part {
            Part::Special(token) => Some(token),
            Part::Text(_) => None,
        };
        let is_blank = |&token: &u32| self.vocab.text(token).trim_ascii().is_empty();
        let mut marks: Vec<u32> = parts.filter_map(mark).filter(|it| !is_blank(it)).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::super::tests::{builder, read};
    use super::*;
    use crate::llm::gguf::write::Builder;

    fn tokens_of(builder: &Builder, segments: &[Segment<'_>], is_start: bool) -> Vec<String> {
        let tokenizer = read(builder).unwrap();
        let text = |&token: &u32| String::from_utf8(tokenizer.vocab.text(token).to_vec()).unwrap();
        tokenizer.encode_segments(segments, is_start).iter().map(text).collect()
    }

    #[test]
    fn names_of_control_tokens_count_in_templates_and_are_text_in_messages() {
        let tokens = |segments: &[Segment<'_>]| tokens_of(&builder(), segments, false);
        assert_eq!(tokens(&[Segment::Template("a<|im_end|>b")]), ["a", "<|im_end|>", "▁", "b"]);
        assert_eq!(tokens(&[Segment::Message("a<s>b")]), ["a", "<", "s", ">", "b"]);
        // A name across a message and the template is text, too.
        let joined = [Segment::Template("<"), Segment::Message("s"), Segment::Template(">")];
        assert_eq!(tokens(&joined), ["<", "s", ">"]);
        // A user-defined token is found in messages, unless it is a mark of the template's.
        let message = Segment::Message("<|user|>");
        assert_eq!(tokens(&[message]), ["<|user|>"]);
        let marked = [Segment::Template("<|user|>"), message];
        let tokens = tokens(&marked);
        assert_eq!(tokens[..2], ["<|user|>", "▁"]);
        assert!(!tokens[1..].contains(&"<|user|>".into()), "{tokens:?}");
    }

    #[test]
    fn text_is_encoded_across_segments() {
        let across = [Segment::Template("a"), Segment::Message("b"), Segment::Template("cd")];
        assert_eq!(tokens_of(&builder(), &across, false), ["abcd"]);
        assert_eq!(tokens_of(&builder(), &across, true), ["<s>", "▁", "abcd"]);
        let apart = [Segment::Message("a"), Segment::Template("<|im_end|>"), Segment::Message("b")];
        assert_eq!(tokens_of(&builder(), &apart, false), ["a", "<|im_end|>", "▁", "b"]);
        assert_eq!(tokens_of(&builder(), &[], true), ["<s>"]);
        assert_eq!(tokens_of(&builder(), &[], false), [""; 0]);
    }

    #[test]
    fn a_text_begins_once() {
        let template = [Segment::Template("<s><s>a")];
        assert_eq!(tokens_of(&builder(), &template, true), ["<s>", "<s>", "▁a"]);
        let without = builder().bool("tokenizer.ggml.add_bos_token", false);
        assert_eq!(tokens_of(&without, &template, true), ["<s>", "<s>", "▁a"]);
        assert_eq!(tokens_of(&without, &[Segment::Message("a")], true), ["▁a"]);
    }
}
