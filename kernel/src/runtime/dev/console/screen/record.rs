//! What a person at the screen sees of the events.
//!
//! They are for programs ([`crate::report`]), and nearly all of what they tell stands in the lines for
//! people as well. The two that do not, an error and the end, are put in words. All this is done while
//! the bytes go by: a panic has no memory to keep them in.

/// The longest name of an event or a field that matters: "message".
const MAX_NAME: usize = 7;

const GOOD_END: &str = "Anchorite has ended.\n";
const BAD_END: &str = "Anchorite has failed, see above.\n";

/// An event that goes by: a JSON object on a line, whose first field is its type, and of which the
/// fields that matter are texts or whole numbers.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    kind: Kind,
    /// The field that goes by, and whether that is its name or its value.
    field: Name,
    in_value: bool,
    state: State,
    /// The last number was not 0.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its name is still to come, or going by.
    Unknown(Name),
    Error,
    Exit,
    /// Of no interest.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    Text,
    /// Behind a backslash.
    Escape,
    /// Within the four digits of a character's number.
    Number {
        digits: u8,
        value: u16,
    },
}

/// The first bytes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    bytes: [u8; MAX_NAME + 1],
    len: usize,
}

impl Name {
    const EMPTY: Name = Name { bytes: [0; MAX_NAME + 1], len: 0 };

    /// A name that is too long keeps one byte too many, and is none that matters.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Record {
    /// An event of which nothing has come yet.
    pub const START: Record = Record {
        kind: Kind::Unknown(Name::EMPTY),
        field: Name::EMPTY,
        in_value: false,
        state: State::Outside,
        has_failed: false,
    };

    /// Takes the next byte of the line, up to its newline; shows what there is to show.
    pub fn feed(&mut self, byte: u8, mut show: impl FnMut(u8)) {
        if byte == b'\n' {
            let words = match self.kind {
                Kind::Error => "\n",
                Kind::Exit if self.has_failed => BAD_END,
                Kind::Exit => GOOD_END,
                Kind::Unknown(_) | Kind::Other => "",
            };
            return words.bytes().for_each(show);
        }
        match self.state {
            State::Outside => self.outside(byte, &mut show),
            State::Text if byte == b'"' => self.end_text(),
            State::Text if byte == b'\\' => self.state = State::Escape,
            State::Text => self.text(byte, &mut show),
            State::Escape => {
                self.state = State::Text;
                match byte {
                    b'u' => self.state = State::Number { digits: 0, value: 0 },
                    b'n' => self.text(b'\n', &mut show),
                    b't' => self.text(b'\t', &mut show),
                    // Quotes, and control characters by their letters, which are shown as such.
                    _ => self.text(byte, &mut show),
                }
            }
            State::Number { digits, value } => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0) as u16;
                let value = value << 4 | digit;
                self.state = State::Number { digits: digits + 1, value };
                if digits == 3 {
                    self.state = State::Text;
                    // Control characters alone are written so.
                    let c = char::from_u32(value.into()).filter(|c| !c.is_control());
                    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| self.text(byte, &mut show));
                }
            }
        }
    }

    fn outside(&mut self, byte: u8, show: &mut impl FnMut(u8)) {
        match byte {
            b'"' => {
                self.state = State::Text;
                if !self.in_value {
                    self.field = Name::EMPTY;
                } else if self.kind == Kind::Error {
                    let before = match self.field.get() {
                        b"message" => ": ",
                        b"hint" => "\n",
                        _ => "",
                    };
                    before.bytes().for_each(show);
                }
            }
            b':' => self.in_value = true,
            b',' => self.in_value = false,
            b'1'..=b'9' if self.in_value && self.field.get() == b"status" => self.has_failed = true,
            _ => {}
        }
    }

    /// A byte of a name or a value.
    fn text(&mut self, byte: u8, show: &mut impl FnMut(u8)) {
        if !self.in_value {
            return self.field.push(byte);
        }
        match (&mut self.kind, self.field.get()) {
            (Kind::Unknown(name), b"event") => name.push(byte),
            (Kind::Error, b"code" | b"message" | b"hint") => show(byte),
            _ => {}
        }
    }

    fn end_text(&mut self) {
        self.state = State::Outside;
        if let (Kind::Unknown(name), true) = (self.kind, self.in_value) {
            self.kind = match name.get() {
                b"error" => Kind::Error,
                b"exit" => Kind::Exit,
                _ => Kind::Other,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        Code, Disk, Event, Exit, Fault, RECORD_SEPARATOR, write_exit, write_fault,
    };

    fn shown(event: &str) -> String {
        let mut record = Record::START;
        let mut shown = Vec::new();
        for byte in event.strip_prefix(RECORD_SEPARATOR).unwrap().bytes() {
            record.feed(byte, |byte| shown.push(byte));
        }
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn errors_and_the_end_are_put_in_words() {
        let fault = |message: &str, hint: &str| Fault {
            code: Code::ModelNotFound,
            message: message.into(),
            hint: hint.into(),
        };
        let error = Event::Error(fault("there is \"none\", é\t{\\}: 1\u{7f}", "look,\nhere"));
        assert_eq!(
            shown(&error.to_record()),
            "ModelNotFound: there is \"none\", é\t{\\}: 1\u{7f}\nlook,\nhere\n"
        );
        // A text that looks like another field or event is a text.
        let nasty = Event::Error(fault("\",\"event\":\"exit\",\"status\":1", "\u{1}\u{1e}"));
        assert_eq!(
            shown(&nasty.to_record()),
            "ModelNotFound: \",\"event\":\"exit\",\"status\":1\n\u{fffd}\u{fffd}\n"
        );
        for (status, words) in [(0, GOOD_END), (1, BAD_END), (-1, BAD_END), (10, BAD_END)] {
            assert_eq!(shown(&Event::Exit(Exit { status }).to_record()), words, "{status}");
        }
    }

    #[test]
    fn the_runtime_s_own_records_are_read_too() {
        let mut event = String::new();
        write_fault(&mut event, Code::Panic, format_args!("\u{1b}[2J\n{}", 7), "a \\ hint")
            .unwrap();
        assert_eq!(shown(&event), "Panic: \u{fffd}[2J\n7\na \\ hint\n");
        event.clear();
        write_exit(&mut event, 1).unwrap();
        assert_eq!(shown(&event), BAD_END);
    }

    #[test]
    fn other_events_and_damaged_ones_show_nothing() {
        let disk = Event::Disk(Disk {
            device: "initrd".into(),
            bytes: 7,
            filesystem: "FAT16".into(),
            label: "message".into(),
            cluster_bytes: 512,
        });
        assert_eq!(shown(&disk.to_record()), "");
        for event in [
            "\x1e\n",
            "\x1e{\n",
            "\x1e\"event\"\n",
            "\x1e{\"event\":\"errors\",\"code\":\"a\"}\n",
            "\x1e{\"events\":\"error\",\"code\":\"a\"}\n",
            "\x1e{\"event\":\"longer than any name\",\"status\":1}\n",
        ] {
            assert_eq!(shown(event), "", "{event:?}");
        }
    }
}
