//! The line that a person types on the serial console: echo, backspace and the usual control keys.

#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;

/// Length of the longest line, in bytes.
pub const MAX_LINE: usize = 64 << 10;

/// Ctrl-C: drops the present line, and stops an answer.
pub const CTRL_C: u8 = 0x03;

/// Effect of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// The line goes on.
    More,
    /// The line is finished.
    Line(String),
    /// A finished line was longer than [`MAX_LINE`], and is dropped.
    TooLong,
    /// The person wants to leave.
    End,
}

/// The editor of one line after the other.
///
/// Bytes of the console go in; bytes for the terminal come out through `echo`. One editor serves a
/// whole conversation: the line feed of a CR LF pair is dropped at the start of the next line.
pub struct LineEditor {
    prompt: &'static str,
    line: String,
    /// Whether a character did not fit into the line.
    is_too_long: bool,
    /// The first bytes of an incomplete character.
    partial: Vec<u8>,
    escape: Escape,
    after_carriage_return: bool,
}

/// Place of the input in an escape sequence, such as that of an arrow key. The editor drops such
/// sequences.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    Started,
    Inside,
}

impl LineEditor {
    /// An empty line after `prompt`, which the caller has printed.
    pub fn new(prompt: &'static str) -> Self {
        LineEditor {
            prompt,
            line: String::new(),
            is_too_long: false,
            partial: Vec::new(),
            escape: Escape::No,
            after_carriage_return: false,
        }
    }

    /// Takes one byte of input.
    pub fn feed(&mut self, byte: u8, echo: &mut dyn FnMut(&str)) -> Edit {
        // A terminal ends a line with CR, a pipe with LF, some with both.
        let line_feed_of_pair = self.after_carriage_return && byte == b'\n';
        self.after_carriage_return = byte == b'\r';
        if line_feed_of_pair {
            return Edit::More;
        }
        // A control character ends an incomplete sequence, so that no sequence swallows the line's
        // end.
        if byte < 0x20 || byte == 0x7f {
            self.escape = Escape::No;
            if !self.partial.is_empty() {
                self.partial.clear();
                self.insert(char::REPLACEMENT_CHARACTER, echo);
            }
            return self.control(byte, echo);
        }
        match self.escape {
            Escape::Started => {
                let inside = byte == b'[' || byte == b'O';
                self.escape = if inside { Escape::Inside } else { Escape::No };
                return Edit::More;
            }
            Escape::Inside => {
                if (0x40..=0x7e).contains(&byte) {
                    self.escape = Escape::No;
                }
                return Edit::More;
            }
            Escape::No => {}
        }
        self.partial.push(byte);
        loop {
            match core::str::from_utf8(&self.partial) {
                Ok(text) => {
                    let whole = text.chars().next();
                    self.partial.clear();
                    if let Some(c) = whole {
                        self.insert(c, echo);
                    }
                    break;
                }
                Err(error) => {
                    // Without a length the character is incomplete. With a length those bytes are
                    // broken, and the bytes behind start a new character.
                    let Some(broken) = error.error_len() else { break };
                    self.partial.drain(..broken);
                    self.insert(char::REPLACEMENT_CHARACTER, echo);
                }
            }
        }
        Edit::More
    }

    /// Appends a character to the line; rings the bell if the line is full.
    ///
    /// Control characters except tabs are dropped: a line with them could drive the terminal.
    fn insert(&mut self, c: char, echo: &mut dyn FnMut(&str)) {
        if c.is_control() && c != '\t' {
            return;
        }
        if self.line.len() + c.len_utf8() > MAX_LINE {
            self.is_too_long = true;
            return echo("\x07");
        }
        self.line.push(c);
        echo(c.encode_utf8(&mut [0; 4]));
    }

    /// Clears the line, and returns its former text.
    fn take(&mut self) -> String {
        self.is_too_long = false;
        core::mem::take(&mut self.line)
    }

    fn control(&mut self, byte: u8, echo: &mut dyn FnMut(&str)) -> Edit {
        match byte {
            b'\r' | b'\n' => {
                echo("\n");
                let is_too_long = self.is_too_long;
                let line = self.take();
                return if is_too_long { Edit::TooLong } else { Edit::Line(line) };
            }
            0x08 | 0x7f => {
                self.line.pop();
                self.redraw(echo);
            }
            CTRL_C => {
                self.take();
                echo("^C\n");
                echo(self.prompt);
            }
            // Ctrl-D on an empty line leaves.
            0x04 if self.line.is_empty() => {
                echo("\n");
                return Edit::End;
            }
            // Ctrl-U erases the line, Ctrl-W the last word.
            0x15 => {
                self.take();
                self.redraw(echo);
            }
            0x17 => {
                let words = self.line.trim_end();
                let end = words.rfind(char::is_whitespace).map_or(0, |space| {
                    space + words[space..].chars().next().map_or(0, char::len_utf8)
                });
                self.line.truncate(end);
                self.redraw(echo);
            }
            b'\t' => self.insert('\t', echo),
            0x1b => self.escape = Escape::Started,
            _ => {}
        }
        Edit::More
    }

    /// Redraws the whole line. This is right for erased characters of any width.
    fn redraw(&self, echo: &mut dyn FnMut(&str)) {
        echo("\r");
        echo(self.prompt);
        echo(&self.line);
        // Erase to the end of the line (ECMA-48, EL).
        echo("\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The editor's results for an input, and the bytes for the terminal.
    fn type_in(input: &[u8]) -> (Vec<Edit>, String) {
        let mut editor = LineEditor::new("> ");
        let mut terminal = String::new();
        let edits = input
            .iter()
            .map(|&byte| editor.feed(byte, &mut |text| terminal.push_str(text)))
            .filter(|edit| *edit != Edit::More)
            .collect();
        (edits, terminal)
    }

    fn lines(input: &[u8]) -> Vec<String> {
        let (edits, _) = type_in(input);
        edits
            .into_iter()
            .map(|edit| match edit {
                Edit::Line(line) => line,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn lines_end_with_cr_lf_or_both() {
        assert_eq!(lines(b"a\rb\nc\r\nd\n\n"), ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn what_is_typed_is_echoed() {
        assert_eq!(type_in("né🙂".as_bytes()).1, "né🙂");
    }

    #[test]
    fn backspace_takes_back_whole_characters() {
        assert_eq!(lines("né🙂\x7f\x08o\r".as_bytes()), ["no"]);
        assert_eq!(type_in(b"ab\x7f").1, "ab\r> a\x1b[K");
        assert_eq!(type_in(b"\x7f").1, "\r> \x1b[K");
    }

    #[test]
    fn control_keys_erase_the_line_or_the_word() {
        assert_eq!(lines(b"one two\x15three\r"), ["three"]);
        assert_eq!(lines(b"one two  \x17three\r"), ["one three"]);
        assert_eq!(lines(b"one\x17\x17two\r"), ["two"]);
        assert_eq!(lines("a\u{2003}b\x17c\r".as_bytes()), ["a\u{2003}c"]);
        assert_eq!(lines(b"one\x03two\r"), ["two"]);
    }

    #[test]
    fn end_of_input_leaves_only_on_an_empty_line() {
        assert_eq!(type_in(b"\x04").0, [Edit::End]);
        assert_eq!(lines(b"a\x04b\r"), ["ab"]);
    }

    #[test]
    fn escape_sequences_are_swallowed() {
        assert_eq!(lines(b"a\x1b[Ab\x1b[1;5Cc\x1bOPd\x1bxe\r"), ["abcde"]);
    }

    #[test]
    fn no_escape_sequence_swallows_the_end_of_a_line() {
        for unfinished in [&b"\x1b"[..], b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b\x1b", b"\x1b[\x1b"]
        {
            for end in [&b"\r"[..], b"\n", b"\r\n"] {
                let input = [b"a", unfinished, end, b"b", end].concat();
                assert_eq!(lines(&input), ["a", "b"], "{unfinished:?} {end:?}");
            }
        }
        assert_eq!(lines(b"ab\x1b[\x7fc\r"), ["ac"], "other keys work as well");
    }

    #[test]
    fn invalid_utf8_becomes_a_replacement_character() {
        assert_eq!(lines(b"a\xffb\xc3\rc\r"), ["a\u{fffd}b\u{fffd}", "c"]);
        assert_eq!(lines(b"\xe9\n"), ["\u{fffd}"], "a letter of Latin-1 does not vanish");
        assert_eq!(lines(b"a\xe2\x82\x7fb\r"), ["ab"], "nor is it in the way of a key");
    }

    #[test]
    fn good_characters_after_broken_bytes_are_kept() {
        assert_eq!(lines(b"\xc3a\r"), ["\u{fffd}a"]);
        // Two bytes of a character of four, then one of two.
        assert_eq!(lines(b"\xf0\x9f\xc3\xa9b\r"), ["\u{fffd}\u{e9}b"]);
        assert_eq!(lines(b"\xe2\x82\xff\xe2\x82\xac\r"), ["\u{fffd}\u{fffd}\u{20ac}"]);
    }

    #[test]
    fn control_characters_of_two_bytes_are_dropped() {
        // U+009B starts escape sequences, as ESC [ does.
        assert_eq!(type_in("a\u{9b}2J\u{80}b".as_bytes()).1, "a2Jb");
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let mut input = Vec::from([b'x'; MAX_LINE]);
        input.push(b'\r');
        assert_eq!(lines(&input)[0].len(), MAX_LINE);
        for more in [&b"\t"[..], b"\xff", "é".as_bytes()] {
            let mut input = Vec::from([b'x'; MAX_LINE - 1]);
            input.extend(more.repeat(3));
            input.extend(b"\ry\r");
            let (edits, terminal) = type_in(&input);
            // The incomplete line is dropped, and the next line is whole.
            assert_eq!(edits, [Edit::TooLong, Edit::Line("y".into())], "{more:?}");
            assert!(terminal.contains('\x07'), "{more:?}");
        }
        for drop_it in [&b"\x15"[..], b"\x03"] {
            let mut input = Vec::from([b'x'; MAX_LINE + 3]);
            input.extend(drop_it);
            input.extend(b"y\r");
            assert_eq!(lines(&input), ["y"], "{drop_it:?}");
        }
    }
}
