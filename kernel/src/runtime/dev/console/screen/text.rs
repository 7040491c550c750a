//! From the bytes that the serial line carries to what a screen does.

use super::record::Record;
use crate::report::RECORD_SEPARATOR;

/// What a screen does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Shows a character and goes on behind it.
    Show(char),
    /// Goes to the start of the next line.
    NextLine,
    /// Goes to the start of the line.
    Return,
    /// Goes to the next tab stop.
    Tab,
    /// Goes one character back.
    Back,
    /// Erases the rest of the line.
    EraseRest,
}

/// How far the reading of the bytes has come: a character of several bytes, an escape sequence (ECMA-48)
/// or an event may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    partial: [u8; 4],
    partial_len: usize,
    sequence: Sequence,
    record: Option<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    No,
    /// Behind ESC.
    Started,
    /// In a control sequence, whose parameters were none or 0 so far, or something else.
    Control {
        is_plain: bool,
    },
}

impl Text {
    /// Between characters.
    pub const START: Text =
        Text { partial: [0; 4], partial_len: 0, sequence: Sequence::No, record: None };

    /// Takes a byte. Of events that is done which [`Record`] puts in words; of control sequences, "erase
    /// in line" in the form that erases the rest of it; others do nothing.
    pub fn feed(&mut self, byte: u8, mut act: impl FnMut(Action)) {
        let Some(mut record) = self.record else { return self.take(byte, &mut act) };
        record.feed(byte, |byte| self.take(byte, &mut act));
        self.record = (byte != b'\n').then_some(record);
    }

    /// Takes a byte that is no event's.
    fn take(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        if byte.is_ascii_control() && self.partial_len > 0 {
            self.partial_len = 0;
            act(Action::Show(char::REPLACEMENT_CHARACTER));
        }
        match (self.sequence, byte) {
            // Whatever else is under way.
            (_, 0x1b) => self.sequence = Sequence::Started,
            (Sequence::Started, b'[') => self.sequence = Sequence::Control { is_plain: true },
            (Sequence::Started, b' '..=b'/') => {}
            (Sequence::Started, b'0'..=b'~') => self.sequence = Sequence::No,
            (Sequence::Control { is_plain }, b' '..=b'?') => {
                self.sequence = Sequence::Control { is_plain: is_plain && byte == b'0' };
            }
            (Sequence::Control { is_plain }, b'@'..=b'~') => {
                self.sequence = Sequence::No;
                if is_plain && byte == b'K' {
                    act(Action::EraseRest);
                }
            }
            _ => {
                self.sequence = Sequence::No;
                self.character(byte, act);
            }
        }
    }

    fn character(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        match byte {
            b'\n' => act(Action::NextLine),
            b'\r' => act(Action::Return),
            b'\t' => act(Action::Tab),
            0x08 => act(Action::Back),
            _ if byte == RECORD_SEPARATOR as u8 => self.record = Some(Record::START),
            0..0x20 | 0x7f => {}
            0x20..0x7f => self.whole(byte, act),
            0x80.. => self.part(byte, act),
        }
    }

    fn whole(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        if self.partial_len > 0 {
            self.partial_len = 0;
            act(Action::Show(char::REPLACEMENT_CHARACTER));
        }
        act(Action::Show(byte.into()));
    }

    /// A byte of a character of several.
    fn part(&mut self, byte: u8, act: &mut impl FnMut(Action)) {
        // No character is longer than four bytes, so that one that is not whole leaves a place.
        self.partial[self.partial_len] = byte;
        self.partial_len += 1;
        loop {
            match str::from_utf8(&self.partial[..self.partial_len]) {
                Ok(text) => {
                    text.chars().for_each(|c| act(Action::Show(c)));
                    self.partial_len = 0;
                    break;
                }
                Err(error) => {
                    // Without a length the character is only not whole yet. Else those bytes are broken,
                    // and the ones after them start anew.
                    let Some(broken) = error.error_len() else { break };
                    act(Action::Show(char::REPLACEMENT_CHARACTER));
                    self.partial.copy_within(broken.., 0);
                    self.partial_len -= broken;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Back, EraseRest, NextLine, Return, Show, Tab};

    fn actions(bytes: &[u8]) -> Vec<Action> {
        let mut text = Text::START;
        let mut actions = Vec::new();
        for &byte in bytes {
            text.feed(byte, |action| actions.push(action));
        }
        actions
    }

    fn shown(bytes: &[u8]) -> String {
        let show = |action| match action {
            Show(c) => c,
            other => panic!("{other:?}"),
        };
        actions(bytes).into_iter().map(show).collect()
    }

    #[test]
    fn characters_are_put_together_and_broken_ones_replaced() {
        assert_eq!(shown("aé中🙂z".as_bytes()), "aé中🙂z");
        for bytes in [
            &b"\xc3"[..],
            b"a\x80b",
            b"\xff\xfe",
            b"\xc3a",
            b"\xf0\x9f\xc3\xa9b",
            b"\xe2\x82\xff\xe2\x82\xac",
            b"\xed\xa0\x80x",
            b"\xf0\x9f\x99\xf0\x9f\x99\x82",
            b"\xe2\x82\xf0\x9f\x99\x82",
        ] {
            // What is not whole at the end may become so.
            let expected = String::from_utf8_lossy(bytes);
            let expected = if bytes == b"\xc3" { "" } else { &*expected };
            assert_eq!(shown(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn controls_act_and_others_do_nothing() {
        assert_eq!(
            actions(b"a\r\n\t\x08\x07\x00\x7f\xc3\n"),
            [Show('a'), Return, NextLine, Tab, Back, Show('\u{fffd}'), NextLine]
        );
    }

    #[test]
    fn of_escape_sequences_only_the_erasing_one_acts() {
        assert_eq!(actions(b"\r> a\x1b[K")[4..], [EraseRest]);
        assert_eq!(actions(b"\x1b[0K"), [EraseRest]);
        for other in
            ["\x1b[1K", "\x1b[2J", "\x1b[1;31m", "\x1b[?25l", "\x1bc", "\x1b(B", "\x1b[31K"]
        {
            assert_eq!(shown(format!("a{other}b").as_bytes()), "ab", "{other:?}");
        }
        // One that breaks off.
        assert_eq!(actions(b"\x1b[1\nK\x1b\x1b[K"), [NextLine, Show('K'), EraseRest]);
    }

    #[test]
    fn events_are_hidden_but_for_those_in_words() {
        let text = "Once\r\n\x1e{\"event\":\"result\",\"output\":\"\u{e9}\"}\r\nmore\
            \r\n\x1e{\"event\":\"error\",\"code\":\"é\",\"message\":\"x\\ny\",\"hint\":\"z\"}\r\n!";
        let text: String = actions(text.as_bytes())
            .into_iter()
            .filter_map(|action| match action {
                Show(c) => Some(c),
                NextLine => Some('\n'),
                _ => None,
            })
            .collect();
        assert_eq!(text, "Once\nmore\né: x\ny\nz\n!");
    }
}
