//! A chat at a terminal: every key reaches the guest, and the terminal is given back.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use support::{Stage, exit, hello, log, model};

/// A terminal: the person's end and the program's.
struct Terminal {
    person: File,
    program: File,
}

impl Terminal {
    fn new() -> Terminal {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let program = File::options().read(true).write(true).open(name).unwrap();
        Terminal { person: person.into(), program }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.program).unwrap()
    }

    /// Starts the harness at this terminal and waits for the guest's prompt.
    fn chat(&mut self, stage: &Stage) -> Child {
        let mut harness = stage.harness(&["chat"]);
        harness.stdin(self.program.try_clone().unwrap());
        harness.stdout(self.program.try_clone().unwrap());
        let harness = harness.spawn().unwrap();
        self.wait_for("> ");
        harness
    }

    /// Reads what the program prints until this comes.
    fn wait_for(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(text.as_bytes()) {
            self.person.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }
}

fn greeting() -> Vec<u8> {
    log([&hello() as _, &model() as _, &"> " as _])
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
