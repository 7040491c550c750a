//! Input of the guest in a chat: keys from a terminal, or lines from a script.
//!
//! The event `chat` says when the guest waits for a line and when the guest has taken a message.
//! The guest alone decides what a line is. Keys go to the guest at once. Lines wait, each until the
//! guest waits for one, so that the transcript reads like a conversation. After the last line the
//! harness sends `/quit`.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use kernel::report::{Chat, ChatState, Event};

use crate::terminal::CTRL_C;

/// The byte of Enter, which ends a line for the guest as a newline does.
const ENTER: u8 = b'\r';
/// The line that ends the chat.
const QUIT: &[u8] = b"/quit\n";
/// The byte that drops the present line: Ctrl-U.
const DROP_LINE: &[u8] = b"\x15";

/// An event of standard input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Keys, as the terminal sent them.
    Keys(Vec<u8>),
    /// A line of a script, newline included.
    Line(Vec<u8>),
    /// The end of the input.
    End,
}

/// State of the guest, by its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// The guest starts, or works on a line.
    Busy,
    /// The guest waits for a line.
    Waits,
    /// The guest answers a message.
    Answers {
        /// Whether the answer is to stop.
        interrupted: bool,
    },
}

/// The conversation between standard input and the guest.
pub struct Conversation {
    scripted: bool,
    guest: Guest,
    pending: Option<Vec<u8>>,
    /// Time of a line that the guest waited for and has not reacted to.
    unheard: Option<Instant>,
    to_guest: Sender<Vec<u8>>,
    next_line: Sender<()>,
}

impl Conversation {
    /// The guest reads the bytes sent to `to_guest`. For each unit of the receiver that is
    /// returned, the script may send one more line.
    pub fn new(scripted: bool, to_guest: Sender<Vec<u8>>) -> (Conversation, Receiver<()>) {
        let (next_line, turns) = channel();
        let conversation = Conversation {
            scripted,
            guest: Guest::Busy,
            pending: None,
            unheard: None,
            to_guest,
            next_line,
        };
        (conversation, turns)
    }

    /// Whether the guest waits silently for a line.
    pub fn waits_for_input(&self) -> bool {
        self.guest == Guest::Waits
    }

    /// Time since which the guest owes the echo of a line.
    pub fn unheard(&self) -> Option<Instant> {
        self.unheard
    }

    /// Notes a sign of life of the guest.
    pub fn heard(&mut self) {
        self.unheard = None;
    }

    /// Whether these keys end the chat.
    ///
    /// Ctrl-C ends the chat. The first Ctrl-C during an answer only stops the answer.
    pub fn ends_with(&mut self, keys: &[u8]) -> bool {
        keys.iter().filter(|&&key| key == CTRL_C).any(|_| match &mut self.guest {
            Guest::Answers { interrupted } => std::mem::replace(interrupted, true),
            Guest::Busy | Guest::Waits => true,
        })
    }

    /// Handles an event of standard input.
    pub fn input(&mut self, input: Input) {
        match input {
            Input::Keys(keys) => {
                let owes_a_sign = self.guest == Guest::Waits && keys.contains(&ENTER);
                if owes_a_sign && self.unheard.is_none() {
                    self.unheard = Some(Instant::now());
                }
                self.send(keys);
            }
            Input::Line(line) => self.pending = Some(line),
            Input::End if self.scripted => self.pending = Some(QUIT.to_vec()),
            Input::End => self.pending = Some([DROP_LINE, QUIT].concat()),
        }
        self.go_on();
    }

    /// Handles an event of the guest.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Chat(Chat { state: ChatState::Waiting }) => self.guest = Guest::Waits,
            Event::Chat(Chat { state: ChatState::Answering }) => {
                self.guest = Guest::Answers { interrupted: false };
            }
            _ => {}
        }
        self.go_on();
    }

    /// Sends the next line if the guest waits for one.
    fn go_on(&mut self) {
        if self.guest != Guest::Waits {
            return;
        }
        let Some(line) = self.pending.take() else { return };
        self.guest = Guest::Busy;
        self.unheard = Some(Instant::now());
        self.send(line);
        if self.scripted {
            let _ = self.next_line.send(());
        }
    }

    // A receiver is gone when the guest or the script has ended. Then the bytes do not matter.
    fn send(&self, bytes: Vec<u8>) {
        let _ = self.to_guest.send(bytes);
    }
}

/// Reads standard input in a thread of its own, into `sink`.
pub fn read(scripted: bool, turns: Receiver<()>, mut sink: impl FnMut(Input) + Send + 'static) {
    thread::spawn(move || {
        if scripted {
            let mut stdin = io::stdin().lock();
            let mut text = Vec::new();
            while matches!(stdin.read_until(b'\n', &mut text), Ok(1..)) {
                for line in lines(&text) {
                    sink(Input::Line(line));
                    if turns.recv().is_err() {
                        return;
                    }
                }
                text.clear();
            }
        } else {
            let mut keys = [0; 256];
            while let Ok(n @ 1..) = io::stdin().read(&mut keys) {
                sink(Input::Keys(keys[..n].to_vec()));
            }
        }
        sink(Input::End);
    });
}

/// The lines for the guest in a text that ends at a newline.
///
/// A carriage return ends a line too. CR LF ends one line.
fn lines(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    text.split(|&byte| byte == ENTER).map(|line| [line, b"\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::report::{Code, Fault};

    fn chat(state: ChatState) -> Event {
        Event::Chat(Chat { state })
    }

    fn waiting() -> Event {
        chat(ChatState::Waiting)
    }

    fn answering() -> Event {
        chat(ChatState::Answering)
    }

    /// A conversation whose guest waits, after `scripted` or typed input.
    fn waits(scripted: bool) -> (Conversation, Receiver<()>, Receiver<Vec<u8>>) {
        let (to_guest, guest) = channel();
        let (mut conversation, turns) = Conversation::new(scripted, to_guest);
        conversation.event(&waiting());
        (conversation, turns, guest)
    }

    #[test]
    fn the_first_line_waits_for_the_guest() {
        let (to_guest, guest) = channel();
        let (mut conversation, turns) = Conversation::new(true, to_guest);
        conversation.input(Input::Line(b"Hello\n".to_vec()));
        let error = Fault { code: Code::DiskError, message: String::new(), hint: String::new() };
        conversation.event(&Event::Error(error));
        assert!(guest.try_recv().is_err() && turns.try_recv().is_err());
        assert!(!conversation.waits_for_input());
        conversation.event(&waiting());
        assert_eq!(guest.try_recv().unwrap(), b"Hello\n");
        assert!(turns.try_recv().is_ok());
    }

    #[test]
    fn each_line_is_sent_when_the_guest_waits_for_it_whatever_it_is() {
        // For the guest some of these lines are messages and some are not.
        for line in ["Hello\n", "\n", "/stats\n", "\u{3000}/stats\n", "\u{a0}\n", "\x1b[A\n"] {
            let (mut conversation, turns, guest) = waits(true);
            assert!(conversation.waits_for_input());
            conversation.input(Input::Line(line.into()));
            assert_eq!(guest.try_recv().unwrap(), line.as_bytes());
            assert!(turns.try_recv().is_ok());
            conversation.input(Input::Line(b"next\n".to_vec()));
            assert!(guest.try_recv().is_err(), "the guest has not taken {line:?}");
            assert!(!conversation.waits_for_input(), "{line:?}");
            conversation.event(&waiting());
            assert_eq!(guest.try_recv().unwrap(), b"next\n");
            assert!(turns.try_recv().is_ok() && turns.try_recv().is_err());
            conversation.event(&answering());
            assert!(!conversation.waits_for_input(), "the guest owes an answer");
        }
    }

    #[test]
    fn the_end_of_the_input_quits_and_is_not_waited_on_for_ever() {
        for (scripted, quit) in [(true, &b"/quit\n"[..]), (false, b"\x15/quit\n")] {
            let (mut conversation, _turns, guest) = waits(scripted);
            conversation.input(Input::End);
            assert_eq!(guest.try_recv().unwrap(), quit);
            assert!(!conversation.waits_for_input());
        }
    }

    #[test]
    fn keys_go_through_at_once() {
        let (to_guest, guest) = channel();
        let (mut conversation, _turns) = Conversation::new(false, to_guest);
        conversation.input(Input::Keys(b"H\x7f".to_vec()));
        assert_eq!(guest.try_recv().unwrap(), b"H\x7f");
        assert!(!conversation.waits_for_input());
        conversation.event(&waiting());
        conversation.input(Input::Keys(b"i".to_vec()));
        assert!(conversation.waits_for_input(), "a person may take any time");
    }

    #[test]
    fn what_the_guest_was_sent_must_be_heard_of() {
        for input in [Input::Line(b"Hello\n".to_vec()), Input::Keys(b"Hello\r".to_vec())] {
            let (mut conversation, _turns, _guest) = waits(matches!(input, Input::Line(_)));
            assert_eq!(conversation.unheard(), None);
            conversation.input(input);
            assert!(conversation.unheard().is_some());
            conversation.heard();
            assert_eq!(conversation.unheard(), None);
        }
        // No key but Enter must be shown, and nothing during an answer.
        let (mut conversation, _turns, _guest) = waits(false);
        conversation.input(Input::Keys(b"\x1b[A\n".to_vec()));
        assert_eq!(conversation.unheard(), None);
        conversation.event(&answering());
        conversation.input(Input::Keys(b"\r".to_vec()));
        assert_eq!(conversation.unheard(), None);
    }

    #[test]
    fn the_first_ctrl_c_of_an_answer_is_the_guests() {
        let (mut conversation, _turns, _guest) = waits(false);
        assert!(conversation.ends_with(b"\x03"), "at the prompt");
        assert!(!conversation.ends_with(b"a"));
        for _ in 0..2 {
            conversation.event(&answering());
            assert!(!conversation.ends_with(b"a"));
            assert!(!conversation.ends_with(b"\x03"));
            assert!(conversation.ends_with(b"\x03"), "the second one");
        }
        conversation.event(&waiting());
        assert!(conversation.ends_with(b"a\x03"));
        conversation.event(&answering());
        assert!(conversation.ends_with(b"\x03a\x03"), "both at once");
    }

    #[test]
    fn lines_end_where_they_do_for_the_guest() {
        for (text, expected) in [
            (&b"a\n"[..], &["a\n"][..]),
            (b"a", &["a\n"]),
            (b"a\r\n", &["a\n"]),
            (b"\n", &["\n"]),
            (b"a\rb\n", &["a\n", "b\n"]),
            (b"a\r\r\n", &["a\n", "\n"]),
            (b"\rb", &["\n", "b\n"]),
        ] {
            let lines: Vec<Vec<u8>> = lines(text).collect();
            assert_eq!(lines, expected.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
        }
    }
}
