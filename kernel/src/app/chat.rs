//! Chat: prompts from the console, answers streamed to it.

#![forbid(unsafe_code)]

use alloc::string::String;

use crate::app::error::Error;
use crate::app::generate::{answer, summary};
use crate::app::line_editor::{Edit, LineEditor};
use crate::app::os;
use crate::app::output::{emit, say};
use crate::llm::backend::{StopReason, TransformerBackend};
use crate::report::Event;

const PROMPT: &str = "> ";
const HELP: &str = "Type a text for the model to go on from. /reset forgets what was said, /stats \
     shows the last answer's figures, /quit powers off.";

/// Answers prompts until the person leaves.
///
/// # Errors
/// The console or the engine fails. A prompt that does not fit is no such failure: it is reported
/// and the chat goes on.
pub fn chat(backend: &mut TransformerBackend, max_tokens: usize) -> Result<(), Error> {
    say!("{HELP}");
    let mut editor = LineEditor::new(PROMPT);
    let mut last = None;
    // Whether the next line starts a text of its own.
    let mut fresh = true;
    while let Some(line) = read_line(&mut editor)? {
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say!("{HELP}"),
            "/reset" => {
                fresh = true;
                say!("forgotten");
            }
            "/stats" => match &last {
                Some(result) => say!("{}", summary(result)),
                None => say!("there is no answer yet"),
            },
            command if command.starts_with('/') => {
                say!("there is no command {command}: /reset, /stats, /quit, /help");
            }
            _ => match answer(backend, &line, max_tokens, fresh) {
                Ok(result) => {
                    fresh = false;
                    if result.stop == StopReason::ContextFull {
                        say!("(the context is full: /reset starts anew)");
                    }
                    last = Some(result);
                }
                Err(error @ Error::Engine(crate::llm::Error::ContextFull { .. })) => {
                    emit(&Event::Error(error.fault()));
                    say!(
                        "(that does not fit into what is left of the context: /reset starts anew)"
                    );
                }
                Err(error) => return Err(error),
            },
        }
    }
    Ok(())
}

/// A line from the console; `None` at the end of the input.
fn read_line(editor: &mut LineEditor) -> Result<Option<String>, Error> {
    let mut echo = |text: &str| os::write_console(text.as_bytes());
    echo(PROMPT);
    loop {
        let mut byte = [0];
        if os::read_console(&mut byte).map_err(Error::Console)? == 0 {
            return Ok(None);
        }
        match editor.feed(byte[0], &mut echo) {
            Edit::More => {}
            Edit::Line(line) => return Ok(Some(line)),
            Edit::End => return Ok(None),
        }
    }
}
