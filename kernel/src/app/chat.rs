//! Chat: prompts from the console, answers streamed to the console.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::app::error::Error;
use crate::app::generate::{Prompt, answer, summary};
use crate::app::keyboard::Keyboard;
use crate::app::load::{self, ModelFile};
use crate::app::model::{load_into, report_unload};
use crate::app::output::{emit, say, write_text};
use crate::backend::{InferenceResult, StopReason, TransformerBackend};
use crate::llm;
use crate::llm::chat::{Declared, Known, Template};
use crate::llm::workers::Workers;
use crate::report::{Chat, ChatState, Event};
use crate::settings::{ChatTemplate, Config};

const PROMPT: &str = "> ";
const COMMANDS: &str = "/reset forgets what was said, /stats shows the last answer's figures, \
     /models lists the models, /model NAME changes to another one, /quit powers off, Ctrl-C stops \
     an answer. Write // for a message that begins with /.";

/// The chat template of the model in `file`, and a line for people about its source.
///
/// `None`: the chat is plain text. Configured texts belong to the configured model, if there is one.
pub fn template(config: &Config, file: &str, declared: &Declared) -> (Option<Template>, String) {
    let (bos, eos) = (&declared.bos, &declared.eos);
    let known = |known: &Known| Some(known.template(bos, eos));
    let is_other = config.model.as_deref().is_some_and(|model| model != file);
    let chosen = match &config.chat_template {
        ChatTemplate::Texts if is_other => &ChatTemplate::Auto,
        chosen => chosen,
    };
    match (chosen, declared.known) {
        (ChatTemplate::Texts, _) => {
            (Some(config.chat_texts.clone()), "chat template: as configured".into())
        }
        (ChatTemplate::Known(chosen), _) => {
            (known(chosen), format!("chat template: {}, as configured", chosen.name))
        }
        (ChatTemplate::Auto, Some(found)) => {
            let tools = declared.tools.map(|known| known.texts().into());
            let template = Template { tools, ..found.template(bos, eos) };
            let line = format!("chat template: the model's, recognised as {}", found.name);
            (Some(template), line)
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

/// A conversation with the model: the template and the state.
struct Conversation {
    /// `None`: plain text.
    template: Option<Template>,
    system: String,
    /// Whether the conversation is empty.
    is_new: bool,
}

impl Conversation {
    /// Answers a message.
    fn answer(
        &mut self,
        backend: &mut TransformerBackend,
        message: &str,
        max_tokens: usize,
        is_stopped: &mut dyn FnMut() -> bool,
    ) -> Result<InferenceResult, Error> {
        let mut answer = |prompt| answer(backend, prompt, max_tokens, is_stopped);
        let result = match &self.template {
            None if self.is_new && !self.system.is_empty() => {
                answer(Prompt::Anew(&format!("{}\n\n{message}", self.system)))
            }
            None if self.is_new => answer(Prompt::Anew(message)),
            None => answer(Prompt::GoOn(message)),
            // Most templates trim messages.
            Some(template) => {
                let turn = match self.is_new {
                    true => template.open(self.system.trim(), message.trim()),
                    false => template.go_on(message.trim()),
                };
                answer(Prompt::Turn(&turn))
            }
        }?;
        self.is_new = false;
        Ok(result)
    }
}

/// A conversation between the keyboard and the engine.
struct Session<'a> {
    backend: &'a mut TransformerBackend,
    /// The path of the model.
    path: String,
    keyboard: Keyboard,
    conversation: Conversation,
    max_tokens: usize,
    /// The last answer.
    last: Option<InferenceResult>,
}

impl Session<'_> {
    /// Answers a message. A message that does not fit is reported, and changes nothing.
    fn reply(&mut self, message: &str) -> Result<(), Error> {
        emit(&Event::Chat(Chat { state: ChatState::Answering }));
        let keyboard = &mut self.keyboard;
        let is_stopped = &mut || keyboard.is_interrupted();
        match self.conversation.answer(self.backend, message, self.max_tokens, is_stopped) {
            Ok(result) => {
                match result.stop {
                    StopReason::ContextFull => say!("(the context is full: /reset starts anew)"),
                    StopReason::Cancelled => say!("(stopped)"),
                    StopReason::EndOfSequence | StopReason::MaxTokens => {}
                }
                self.last = Some(result);
            }
            Err(error @ Error::Engine(llm::Error::ContextFull { .. })) => {
                emit(&Event::Error(error.fault()));
                say!("(that does not fit into what is left of the context: /reset starts anew)");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A line of help, which depends on the template.
fn help(template: Option<&Template>) -> String {
    match template {
        Some(_) => format!("Type a message to the model. {COMMANDS}"),
        None => format!("Type a text for the model to go on from. {COMMANDS}"),
    }
}

/// The name of a file at a path.
fn file_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Session<'_> {
    /// Starts a conversation with the loaded model, and says which template it has.
    fn begin(&mut self, config: &Config) {
        let declared = self.backend.model_metadata().map(|model| model.chat.clone());
        let (template, found) =
            template(config, file_of(&self.path), &declared.unwrap_or_default());
        say!("{found}");
        self.conversation = Conversation { template, system: config.system.clone(), is_new: true };
        self.last = None;
    }

    /// The models of the disk. A disk that fails is reported.
    fn models(&self) -> Vec<ModelFile> {
        load::list_models(Some(file_of(&self.path))).unwrap_or_else(|error| {
            emit(&Event::Error(error.fault()));
            Vec::new()
        })
    }

    /// Lists the models of the disk.
    fn list(&self) {
        for model in self.models() {
            let is_loaded = model.path() == self.path;
            let mark = if is_loaded { " (loaded)" } else { "" };
            say!("{}, {:.1} MB{mark}", model.name(), model.bytes as f64 / 1e6);
        }
    }

    /// Changes to another model of the disk. A model that cannot be loaded is reported.
    ///
    /// # Errors
    /// Neither the other model nor the present one can be loaded.
    fn change(&mut self, name: &str, config: &Config, pool: &dyn Workers) -> Result<(), Error> {
        let models = self.models();
        let Some(model) = models.iter().find(|model| model.is_named(name)) else {
            let names: Vec<&str> = models.iter().map(ModelFile::name).collect();
            say!("there is no model {name} on the disk: {}", names.join(", "));
            return Ok(());
        };
        if model.path() == self.path {
            say!("{} is loaded already: /reset starts anew", model.name());
            return Ok(());
        }
        self.backend.unload();
        report_unload(file_of(&self.path));
        match load_into(self.backend, &model.path(), config, pool) {
            Ok(()) => self.path = model.path(),
            Err(error) => {
                emit(&Event::Error(error.fault()));
                say!("{} stays: the conversation begins anew", file_of(&self.path));
                load_into(self.backend, &self.path, config, pool)?;
            }
        }
        self.begin(config);
        Ok(())
    }
}

/// Answers the `first` message, then typed messages, until `/quit` or the end of the input.
///
/// The backend has the model at `path`.
///
/// # Errors
/// The console or the engine fails. A message that does not fit is reported, and the chat goes on.
pub fn chat(
    backend: &mut TransformerBackend,
    path: &str,
    config: &Config,
    pool: &dyn Workers,
    first: Option<&str>,
) -> Result<(), Error> {
    let mut session = Session {
        backend,
        path: path.to_owned(),
        keyboard: Keyboard::new(PROMPT),
        conversation: Conversation { template: None, system: String::new(), is_new: true },
        max_tokens: config.max_tokens,
        last: None,
    };
    session.begin(config);
    say!("{}", help(session.conversation.template.as_ref()));
    // The prompt counts as typed, but is a message even if a slash starts it.
    if let Some(message) = first.filter(|message| !message.trim().is_empty()) {
        write_text(&format!("{PROMPT}{message}\n"));
        session.reply(message)?;
    }
    loop {
        let line = match session.keyboard.read_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error @ Error::LineTooLong) => {
                emit(&Event::Error(error.fault()));
                continue;
            }
            Err(error) => return Err(error),
        };
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say!("{}", help(session.conversation.template.as_ref())),
            "/reset" => {
                session.backend.reset();
                session.conversation.is_new = true;
                say!("forgotten");
            }
            "/stats" => match &session.last {
                Some(result) => say!("{}", summary(result)),
                None => say!("there is no answer yet"),
            },
            "/models" => session.list(),
            "/model" => say!("/model NAME changes to another model; /models lists them"),
            message if message.starts_with("//") => session.reply(&line.replacen('/', "", 1))?,
            command if command.starts_with('/') => match command.split_once(char::is_whitespace) {
                Some(("/model", name)) => session.change(name.trim(), config, pool)?,
                _ => say!(
                    "there is no command {command}: /reset, /stats, /models, /model NAME, /quit, \
                     /help; write // for a message that begins with /"
                ),
            },
            _ => session.reply(&line)?,
        }
    }
}
