//! The terminal as a serial terminal: every key goes to the guest as it is pressed.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Stdin};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// What Ctrl-C sends while the terminal is in this state.
pub const CTRL_C: u8 = 0x03;

/// Holds the terminal in that state and gives it back when dropped.
pub struct KeyByKey {
    stdin: Stdin,
    before: Termios,
}

impl KeyByKey {
    /// Switches the terminal at standard input; `None` if there is none.
    ///
    /// The guest echoes and edits, so the terminal must not; it still turns the newlines of what
    /// is printed into line ends.
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
        // What was typed for a guest that is gone is not for the shell.
        let _ = tcsetattr(&self.stdin, OptionalActions::Flush, &self.before);
    }
}
