//! The terminal in raw mode: every key goes to the guest at once.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Stdin};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// The byte of Ctrl-C in raw mode.
pub const CTRL_C: u8 = 0x03;

/// Guard of raw mode, which restores the terminal when dropped.
pub struct KeyByKey {
    stdin: Stdin,
    before: Termios,
}

impl KeyByKey {
    /// Switches the terminal at standard input to raw mode; `None` without a terminal.
    ///
    /// The guest echoes and edits, so the terminal must not. The terminal still turns printed
    /// newlines into line ends.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn enter() -> io::Result<Option<KeyByKey>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut keys = before.clone();
        keys.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        keys.input_modes -=
            InputModes::ICRNL | InputModes::INLCR | InputModes::IXON | InputModes::ISTRIP;
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &keys)?;
        Ok(Some(KeyByKey { stdin, before }))
    }
}

impl Drop for KeyByKey {
    fn drop(&mut self) {
        // Keys for a guest that is gone must not reach the shell.
        let _ = tcsetattr(&self.stdin, OptionalActions::Flush, &self.before);
    }
}
