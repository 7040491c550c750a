//! What goes to the guest in a chat: keys from a terminal, or lines from a script.
//!
//! Keys go to the guest at once. Lines wait: the first one until the model is loaded, and each
//! next one until the question before it is answered, so that the transcript reads like a
//! conversation. At the end of the lines the guest is told to quit.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use kernel::report::Event;

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

/// The conversation between standard input and the guest.
pub struct Conversation {
    scripted: bool,
    /// The model is loaded.
    ready: bool,
    /// The guest has something to do before it waits for input again.
    busy: bool,
    pending: Option<Vec<u8>>,
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
            ready: false,
            busy: false,
            pending: None,
            to_guest,
            next_line,
        };
        (conversation, turns)
    }

    /// Whether the guest has no reason to say anything before it is spoken to.
    pub fn waits_for_input(&self) -> bool {
        self.ready && !self.busy && self.pending.is_none()
    }

    /// Takes what standard input gave.
    pub fn input(&mut self, input: Input) {
        match input {
            Input::Keys(keys) => self.send(keys),
            Input::Line(line) => self.pending = Some(line),
            Input::End => self.pending = Some(b"/quit\n".to_vec()),
        }
        self.go_on();
    }

    /// Takes note of what the guest said.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Model(_) => self.ready = true,
            // In a chat, an error answers the question as well: it was too long, say.
            Event::Result(_) | Event::Error(_) if self.busy => {
                self.busy = false;
                self.next_turn();
            }
            _ => {}
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if !self.ready || self.busy {
            return;
        }
        let Some(line) = self.pending.take() else { return };
        let words = line.trim_ascii();
        let command = words.starts_with(b"/");
        self.busy = words == b"/quit" || !(command || words.is_empty());
        self.send(line);
        if !self.busy {
            self.next_turn();
        }
    }

    // Both receivers are gone when the guest or the script is: then nobody needs what is sent.
    fn send(&self, bytes: Vec<u8>) {
        let _ = self.to_guest.send(bytes);
    }

    fn next_turn(&self) {
        if self.scripted {
            let _ = self.next_line.send(());
        }
    }
}

/// Reads standard input in a thread of its own and hands it to `sink`.
pub fn read(scripted: bool, turns: Receiver<()>, mut sink: impl FnMut(Input) + Send + 'static) {
    thread::spawn(move || {
        if scripted {
            let mut stdin = io::stdin().lock();
            let mut line = Vec::new();
            while matches!(stdin.read_until(b'\n', &mut line), Ok(1..)) {
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                sink(Input::Line(std::mem::take(&mut line)));
                if turns.recv().is_err() {
                    return;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::report::{Code, Fault};

    fn answered() -> Event {
        Event::Error(Fault { code: Code::ContextFull, message: String::new(), hint: String::new() })
    }

    /// A conversation whose model is loaded, without the model.
    fn loaded(scripted: bool) -> (Conversation, Receiver<()>, Receiver<Vec<u8>>) {
        let (to_guest, guest) = channel();
        let (mut conversation, turns) = Conversation::new(scripted, to_guest);
        conversation.ready = true;
        (conversation, turns, guest)
    }

    #[test]
    fn the_first_line_waits_for_the_model() {
        let (mut conversation, _turns, guest) = loaded(true);
        conversation.ready = false;
        conversation.input(Input::Line(b"Hello\n".to_vec()));
        assert!(guest.try_recv().is_err());
        assert!(!conversation.waits_for_input());
        conversation.ready = true;
        conversation.event(&answered());
        assert_eq!(guest.try_recv().unwrap(), b"Hello\n");
    }

    #[test]
    fn each_next_line_waits_for_the_answer() {
        let (mut conversation, turns, guest) = loaded(true);
        assert!(conversation.waits_for_input());
        conversation.input(Input::Line(b"Hello\n".to_vec()));
        assert_eq!(guest.try_recv().unwrap(), b"Hello\n");
        assert!(!conversation.waits_for_input(), "the guest owes an answer");
        assert!(turns.try_recv().is_err());

        conversation.event(&answered());
        assert!(turns.try_recv().is_ok());
        assert!(conversation.waits_for_input());
        conversation.event(&answered());
        assert!(turns.try_recv().is_err(), "one turn for one line");
    }

    #[test]
    fn commands_and_empty_lines_have_no_answer_to_wait_for() {
        for line in ["/stats\n", "\n", "  /reset\n"] {
            let (mut conversation, turns, guest) = loaded(true);
            conversation.input(Input::Line(line.into()));
            assert_eq!(guest.try_recv().unwrap(), line.as_bytes());
            assert!(turns.try_recv().is_ok(), "{line:?}");
            assert!(conversation.waits_for_input(), "{line:?}");
        }
    }

    #[test]
    fn the_end_of_the_input_quits_and_is_not_waited_on_for_ever() {
        let (mut conversation, _turns, guest) = loaded(true);
        conversation.input(Input::End);
        assert_eq!(guest.try_recv().unwrap(), b"/quit\n");
        assert!(!conversation.waits_for_input());
    }

    #[test]
    fn keys_go_through_at_once() {
        let (mut conversation, _turns, guest) = loaded(false);
        conversation.ready = false;
        conversation.input(Input::Keys(b"H\x7f".to_vec()));
        assert_eq!(guest.try_recv().unwrap(), b"H\x7f");
        conversation.ready = true;
        conversation.input(Input::Keys(b"\r".to_vec()));
        assert!(conversation.waits_for_input(), "a person may take any time");
    }
}
