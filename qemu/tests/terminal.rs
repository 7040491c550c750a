//! A chat at a terminal: every key reaches the guest, and the terminal is given back.

mod support;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use kernel::report::ChatState;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use support::{Stage, TIMEOUT, chat, exit, hello, log, model};

/// A terminal: the person's end and the program's.
struct Terminal {
    person: File,
    program: File,
    /// What the program prints, as it comes.
    printed: Receiver<u8>,
}

impl Terminal {
    fn new() -> Terminal {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let program = File::options().read(true).write(true).open(name).unwrap();
        let person = File::from(person);
        let (sender, printed) = channel();
        let screen = person.try_clone().unwrap();
        thread::spawn(move || {
            for byte in BufReader::new(screen).bytes().map_while(Result::ok) {
                if sender.send(byte).is_err() {
                    return;
                }
            }
        });
        Terminal { person, program, printed }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.program).unwrap()
    }

    /// Starts the harness at this terminal and waits for the guest's prompt.
    fn chat(&mut self, stage: &Stage) -> Child {
        self.chat_with(stage, &[])
    }

    fn chat_with(&mut self, stage: &Stage, arguments: &[&str]) -> Child {
        let mut harness = stage.harness(&[&["chat"], arguments].concat());
        harness.stdin(self.program.try_clone().unwrap());
        harness.stdout(self.program.try_clone().unwrap());
        let harness = harness.spawn().unwrap();
        self.wait_for("> ");
        harness
    }

    /// Reads what the program prints until this comes.
    fn wait_for(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !seen.ends_with(text.as_bytes()) {
            let byte = self.printed.recv_timeout(TIMEOUT);
            seen.push(byte.unwrap_or_else(|_| panic!("no {text:?} in {:?}", seen.escape_ascii())));
        }
    }
}

fn greeting() -> Vec<u8> {
    log([&hello() as _, &model() as _, &chat(ChatState::Waiting) as _, &"> " as _])
}

fn local(modes: &Termios) -> LocalModes {
    modes.local_modes
}

#[test]
fn each_key_reaches_the_guest_and_the_terminal_is_given_back() {
    // Two keys, of which one is no line's end, then Enter, which must come as it is.
    let script = "cat log; dd bs=1 count=3 of=keys 2>dd.log; cat end";
    let stage = Stage::new(script, &greeting());
    stage.put("end", &log([&"bye\n" as _, &exit(0) as _]));
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let harness = terminal.chat(&stage);
    assert!(!local(&terminal.modes()).contains(LocalModes::ICANON));
    assert!(!local(&terminal.modes()).contains(LocalModes::ECHO));

    terminal.person.write_all(b"a\x7f\r").unwrap();
    terminal.wait_for("bye\r\n");
    stage.end_of(harness).assert(0, "");
    assert_eq!(stage.read("keys"), "a\x7f\r");
    assert_eq!(local(&terminal.modes()), local(&before));
    assert_eq!(terminal.modes().input_modes, before.input_modes);
}

#[test]
fn ctrl_c_stops_an_answer_and_then_ends_the_chat() {
    // An answer to each of two keys; the first answer ends on Ctrl-C.
    let script = "cat log; dd bs=1 count=2 of=keys 2>dd.log; cat answering; printf Once; \
        dd bs=1 count=1 of=stop 2>dd.log; echo; cat log; dd bs=1 count=2 of=keys 2>dd.log; \
        cat answering; printf Twice; exec sleep 1000";
    let stage = Stage::new(script, &greeting());
    // As Enter is echoed, the event starts a line.
    stage.put("answering", &log([&"\n" as _, &chat(ChatState::Answering) as _]));
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let harness = terminal.chat(&stage);
    terminal.person.write_all(b"a\r").unwrap();
    terminal.wait_for("Once");
    terminal.person.write_all(b"\x03").unwrap();
    terminal.wait_for("> ");
    assert_eq!(stage.read("stop"), "\x03", "the guest's to stop");
    terminal.person.write_all(b"b\r").unwrap();
    terminal.wait_for("Twice");
    // A guest that does not stop does not hold the person.
    terminal.person.write_all(b"\x03").unwrap();
    terminal.person.write_all(b"\x03").unwrap();
    stage.end_of(harness).assert(0, "");
    assert_eq!(local(&terminal.modes()), local(&before));
}

#[test]
fn a_key_that_nobody_takes_ends_the_chat_with_an_error() {
    let stage = Stage::new("cat log; exec sleep 1000", &greeting());
    let mut terminal = Terminal::new();
    let harness = terminal.chat_with(&stage, &["--idle-timeout", "0.5"]);
    terminal.person.write_all(b"Hello\r").unwrap();
    stage.end_of(harness).assert(4, "has its console an input?");
}

#[test]
fn ctrl_c_ends_the_chat_in_order() {
    let stage = Stage::new("cat log; exec sleep 1000", &greeting());
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let harness = terminal.chat(&stage);
    terminal.person.write_all(b"\x03").unwrap();
    stage.end_of(harness).assert(0, "");
    assert_eq!(local(&terminal.modes()), local(&before));
}

#[test]
fn a_terminal_is_given_back_after_a_failure_too() {
    let stage = Stage::new("cat log; read -r line; kill -KILL $$", &greeting());
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let harness = terminal.chat(&stage);
    terminal.person.write_all(b"\n").unwrap();
    stage.end_of(harness).assert(3, "by signal 9");
    assert_eq!(local(&terminal.modes()), local(&before));
}
