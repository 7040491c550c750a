//! Chat: prompts from the console, answers streamed to it.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;

use crate::app::config::{ChatTemplate, Config};
use crate::app::error::Error;
use crate::app::generate::{Prompt, answer, summary};
use crate::app::line_editor::{Edit, LineEditor};
use crate::app::os;
use crate::app::output::{emit, say};
use crate::backend::{InferenceResult, StopReason, TransformerBackend};
use crate::llm;
use crate::llm::chat::{Declared, Known, Template};
use crate::report::Event;

const PROMPT: &str = "> ";
const COMMANDS: &str =
    "/reset forgets what was said, /stats shows the last answer's figures, /quit powers off.";

/// The template to talk to the model with, and how it was found; `None`: a plain text goes on.
fn template(config: &Config, declared: &Declared) -> (Option<Template>, String) {
    let known = |known: &Known| Some(known.template(&declared.bos, &declared.eos));
    match (&config.chat_template, declared.known) {
        (ChatTemplate::Texts, _) => {
            (Some(config.chat_texts.clone()), "chat template: as configured".into())
        }
        (ChatTemplate::Known(chosen), _) => {
            (known(chosen), format!("chat template: {}, as configured", chosen.name))
        }
        (ChatTemplate::Auto, Some(found)) => {
            (known(found), format!("chat template: the model's, recognised as {}", found.name))
        }
        (ChatTemplate::Plain, _) => (None, "no chat template, as configured".into()),
        (ChatTemplate::Auto, None) if !declared.has_template => {
            (None, "no chat template: the model has none".into())
        }
        (ChatTemplate::Auto, None) => {
            match &declared.problem {
                Some(problem) => log::warn!(
                    "the model's chat template cannot be used: {problem}; set `chat_template`"
                ),
                None => log::warn!(
                    "the model's chat template is none that is known: make the disk with \
                     `image-builder disk`, which runs it, or set `chat_template`"
                ),
            }
            (None, "no chat template".into())
        }
    }
}

/// A conversation with the model: what stands around the messages, and how far it has come.
struct Conversation {
    /// `None`: a plain text that goes on.
    template: Option<Template>,
    system: String,
    /// Whether there is nothing yet.
    is_new: bool,
}

impl Conversation {
    /// Answers a message.
    fn answer(
        &mut self,
        backend: &mut TransformerBackend,
        message: &str,
        max_tokens: usize,
    ) -> Result<InferenceResult, Error> {
        let result = match &self.template {
            None if self.is_new && !self.system.is_empty() => {
                let text = format!("{}\n\n{message}", self.system);
                answer(backend, Prompt::Anew(&text), max_tokens)
            }
            None if self.is_new => answer(backend, Prompt::Anew(message), max_tokens),
            None => answer(backend, Prompt::GoOn(message), max_tokens),
            // Most templates take blanks around a message away.
            Some(template) => {
                let turn = match self.is_new {
                    true => template.open(self.system.trim(), message.trim()),
                    false => template.go_on(message.trim()),
                };
                answer(backend, Prompt::Turn(&turn), max_tokens)
            }
        }?;
        self.is_new = false;
        Ok(result)
    }
}

/// Answers prompts until the person leaves.
///
/// # Errors
/// The console or the engine fails. A prompt that does not fit is no such failure: it is reported
/// and the chat goes on.
pub fn chat(backend: &mut TransformerBackend, config: &Config) -> Result<(), Error> {
    let declared = backend.model_metadata().map(|model| model.chat.clone()).unwrap_or_default();
    let (template, found) = template(config, &declared);
    say!("{found}");
    let help = match &template {
        Some(_) => format!("Type a message to the model. {COMMANDS}"),
        None => format!("Type a text for the model to go on from. {COMMANDS}"),
    };
    say!("{help}");
    let mut conversation = Conversation { template, system: config.system.clone(), is_new: true };
    let mut editor = LineEditor::new(PROMPT);
    let mut last = None;
    while let Some(line) = read_line(&mut editor)? {
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say!("{help}"),
            "/reset" => {
                backend.reset();
                conversation.is_new = true;
                say!("forgotten");
            }
            "/stats" => match &last {
                Some(result) => say!("{}", summary(result)),
                None => say!("there is no answer yet"),
            },
            command if command.starts_with('/') => {
                say!("there is no command {command}: /reset, /stats, /quit, /help");
            }
            _ => match conversation.answer(backend, &line, config.max_tokens) {
                Ok(result) => {
                    if result.stop == StopReason::ContextFull {
                        say!("(the context is full: /reset starts anew)");
                    }
                    last = Some(result);
                }
                Err(error @ Error::Engine(llm::Error::ContextFull { .. })) => {
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
