//! Input of a chat: lines, and keys during an answer.

#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use alloc::string::String;

use crate::app::error::Error;
use crate::app::line_editor::{CTRL_C, Edit, LineEditor, MAX_LINE};
use crate::app::os;
use crate::app::output::emit;
use crate::report::{Chat, ChatState, Event};

/// Limit of the bytes that are kept for the next lines.
const MAX_AHEAD: usize = MAX_LINE;

/// The console's input, line by line.
pub struct Keyboard {
    prompt: &'static str,
    editor: LineEditor,
    /// Keys typed during an answer.
    ahead: VecDeque<u8>,
}

impl Keyboard {
    /// A keyboard that shows `prompt` before each line.
    pub fn new(prompt: &'static str) -> Self {
        Keyboard { prompt, editor: LineEditor::new(prompt), ahead: VecDeque::new() }
    }

    /// Sends the event `waiting` and reads a line; `None` at the end of the input.
    ///
    /// # Errors
    /// The console fails, or the line is too long.
    pub fn read_line(&mut self) -> Result<Option<String>, Error> {
        let mut echo = |text: &str| os::write_console(text.as_bytes());
        // One event for each line: a script that sends lines counts on this.
        emit(&Event::Chat(Chat { state: ChatState::Waiting }));
        echo(self.prompt);
        loop {
            let byte = match self.ahead.pop_front() {
                Some(byte) => byte,
                None => {
                    let mut byte = [0];
                    if os::read_console(&mut byte).map_err(Error::Console)? == 0 {
                        return Ok(None);
                    }
                    byte[0]
                }
            };
            match self.editor.feed(byte, &mut echo) {
                Edit::More => {}
                Edit::Line(line) => return Ok(Some(line)),
                Edit::TooLong => return Err(Error::LineTooLong),
                Edit::End => return Ok(None),
            }
        }
    }

    /// Whether Ctrl-C was typed since the last call.
    ///
    /// Other keys are kept for the next lines. As on a terminal, Ctrl-C drops the keys before it.
    pub fn is_interrupted(&mut self) -> bool {
        let mut is_interrupted = false;
        while self.ahead.len() < MAX_AHEAD && os::console_has_input() {
            let mut byte = [0];
            match os::read_console(&mut byte) {
                Ok(1..) if byte[0] == CTRL_C => {
                    self.ahead.clear();
                    is_interrupted = true;
                }
                Ok(1..) => self.ahead.push_back(byte[0]),
                // The next read of a line reports the error.
                Ok(0) | Err(_) => break,
            }
        }
        is_interrupted
    }
}
