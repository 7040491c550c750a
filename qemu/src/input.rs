//! What goes to the guest in a chat: keys from a terminal, or lines from a script.
//!
//! The guest says when it waits for a line and when it has taken a message (the event `chat`). Only
//! that counts here: what is a line is the guest's affair. Keys go to the guest at once. Lines wait, each until the guest waits for one, so that the transcript reads like
//! a conversation. At the end of the lines the guest is told to quit.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use kernel::report::{Chat, ChatState, Event};

use crate::terminal::CTRL_C;

/// What Enter sends, and what ends a line for the guest as a newline does.
const ENTER: u8 = b'\r';
/// What ends the chat.
const QUIT: &[u8] = b"/quit\n";
/// What drops the line that is being typed: Ctrl-U.
const DROP_LINE: &[u8] = b"\x15";

/// What standard input gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Keys, as the terminal sent them.
    Keys(Vec<u8>),
    /// A line of a script, newline included.
    Line(Vec<u8>),
    /// Nothing more will come.
    End,
}

/// What the guest does, as its events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// It starts, or works on a line that it was sent.
    Busy,
    /// It waits for a line.
    Waits,
    /// It answers a message.
    Answers {
        /// It was told to stop.
        interrupted: bool,
    },
}

/// The conversation between standard input and the guest.
pub struct Conversation {
    scripted: bool,
    guest: Guest,
    pending: Option<Vec<u8>>,
    /// When the guest was sent a line that it waited for, and has said nothing since.
    unheard: Option<Instant>,
    to_guest: Sender<Vec<u8>>,
    next_line: Sender<()>,
}

impl Conversation {
    /// What is sent to `to_guest` is what the guest reads; for each unit that the receiver
    /// returned gives, the script may send one more line.
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

    /// Whether the guest has no reason to say anything before it is spoken to.
    pub fn waits_for_input(&self) -> bool {
        self.guest == Guest::Waits
    }

    /// Since when the guest owes a sign of a line: it shows what it reads.
    pub fn unheard(&self) -> Option<Instant> {
        self.unheard
    }

    /// Takes note that the guest said something.
    pub fn heard(&mut self) {
        self.unheard = None;
    }

    /// Whether these keys are to end the chat.
    ///
    /// Ctrl-C does, but for the first one during an answer, by which the guest stops that answer.
    pub fn ends_with(&mut self, keys: &[u8]) -> bool {
        keys.iter().filter(|&&key| key == CTRL_C).any(|_| match &mut self.guest {
            Guest::Answers { interrupted } => std::mem::replace(interrupted, true),
            Guest::Busy | Guest::Waits => true,
        })
    }

    /// Takes what standard input gave.
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

    /// Takes note of what the guest said.
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

    /// Sends the line that there is if the guest waits for one.
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

    // Both receivers are gone when the guest or the script is: then nobody needs what is sent.
    fn send(&self, bytes: Vec<u8>) {
        let _ = self.to_guest.send(bytes);
    }
}

/// Reads standard input in a thread of its own and hands it to `sink`.
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

/// The lines for the guest in a text up to a newline.
///
/// A carriage return ends a line too, and both together end only one.
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
        // To the guest some of these are messages and some are not.
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
