//! Conversations of clients: from messages, tools and calls to the segments of a prompt.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::tools::{ToolPlace, ToolTexts};
use super::{Segment, Template};

/// The author of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The client's program; OpenAI's `developer` too.
    System,
    /// A person.
    #[default]
    User,
    /// The model.
    Assistant,
    /// A tool: the message is the result of a call.
    Tool,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The name of this call, unique in its conversation.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments, as [`super::json::reformat`] writes an object.
    pub arguments: String,
}

/// A message of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// The text.
    pub text: String,
    /// The calls of an answer.
    pub calls: Vec<Call>,
    /// The ID of the call whose result the message is; may be empty.
    pub call_id: String,
}

impl Message {
    /// A message of this text alone.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Message { role, text: text.into(), ..Message::default() }
    }
}

/// The end of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The texts that ask for an answer: `add_generation_prompt`.
    Ask,
    /// The last message with the texts behind it.
    Close,
    /// The last message, which the answer continues: `continue_final_message`.
    Continue,
}

/// The segments of a prompt. Without a template, blank lines stand between the messages.
///
/// System messages and those of users are trimmed, as most templates do. An answer stays as it is,
/// so that its tokens are those that the KV cache holds. An empty system message counts as none.
///
/// `tools` are written by [`super::tools::ToolForm::write`]. Without [`Template::tools`], tools and
/// calls are left out, and results are messages of the user. So a caller refuses such requests.
pub fn segments<'t>(
    template: Option<&'t Template>,
    messages: &'t [Message],
    tools: &'t [String],
    ending: Ending,
) -> Vec<Segment<'t>> {
    use Segment::Template as Text;
    let mut segments = Vec::new();
    let Some(template) = template else {
        for message in messages {
            if !segments.is_empty() {
                segments.push(Text("\n\n"));
            }
            segments.push(Segment::Message(&message.text));
        }
        return segments;
    };
    let mut writer = Writer { template, tools, segments, to_come: None };
    let is_there =
        |message: &&Message| message.role != Role::System || !message.text.trim().is_empty();
    let messages: Vec<&Message> = messages.iter().filter(is_there).collect();
    writer.write(&messages);
    let mut segments = writer.segments;
    match ending {
        Ending::Ask => segments.push(Text(&template.assistant.prefix)),
        Ending::Close => {}
        Ending::Continue => drop(segments.pop()),
    }
    segments
}

/// The text of a prompt.
pub fn text(segments: &[Segment<'_>]) -> String {
    segments.iter().map(|segment| segment.text().to_string()).collect()
}

struct Writer<'t> {
    template: &'t Template,
    tools: &'t [String],
    segments: Vec<Segment<'t>>,
    /// What replaces the prefix of the message of the user that comes next.
    to_come: Option<&'t str>,
}

impl<'t> Writer<'t> {
    fn template(&mut self, text: &'t str) {
        self.segments.push(Segment::Template(text));
    }

    fn message(&mut self, text: &'t str) {
        self.segments.push(Segment::Message(text));
    }

    fn write(&mut self, messages: &[&'t Message]) {
        let template = self.template;
        self.to_come = template.first_user_prefix.as_deref();
        let texts = template.tools.as_deref();
        let given = texts.filter(|_| !self.tools.is_empty());
        let place = given.map(|texts| place_of_tools(texts, template, messages));
        for (i, message) in messages.iter().enumerate() {
            if let (Some(texts), Some(true)) = (given, place.map(|place| place == i)) {
                let system = (message.role == Role::System).then_some(&*message.text);
                self.tools(texts, system);
                if system.is_some() && texts.place != ToolPlace::LastUser {
                    continue;
                }
            }
            let next = i.checked_add(1).and_then(|i| messages.get(i));
            let before = i.checked_sub(1).and_then(|i| messages.get(i));
            match (message.role, texts) {
                (Role::Tool, Some(texts)) => {
                    let is_first = before.is_none_or(|before| before.role != Role::Tool);
                    let is_last = next.is_none_or(|next| next.role != Role::Tool);
                    self.result(texts, message, is_first);
                    if is_last {
                        let at_end = texts.last_result_suffix.as_deref();
                        let at_end = at_end.filter(|_| next.is_none());
                        self.template(at_end.unwrap_or(&texts.results.suffix));
                    }
                }
                (Role::Assistant, Some(texts)) if !message.calls.is_empty() => {
                    self.calls(texts, message);
                }
                _ => self.plain(message),
            }
        }
    }

    fn plain(&mut self, message: &'t Message) {
        let template = self.template;
        let around = match message.role {
            Role::System => &template.system,
            Role::User | Role::Tool => &template.user,
            Role::Assistant => &template.assistant,
        };
        let special = self.to_come.take().filter(|_| message.role == Role::User);
        self.template(special.unwrap_or(&around.prefix));
        match message.role {
            Role::Assistant => self.message(&message.text),
            _ => self.message(message.text.trim()),
        }
        self.template(&around.suffix);
        if message.role == Role::System {
            self.to_come = template.after_system_prefix.as_deref();
        }
    }

    /// Writes the tools, and the system message at their side.
    fn tools(&mut self, texts: &'t ToolTexts, system: Option<&'t str>) {
        let system = system.filter(|_| texts.place != ToolPlace::LastUser);
        match (texts.place, system) {
            (ToolPlace::AfterSystem, Some(system)) => {
                self.template(&texts.system.prefix);
                self.message(system.trim());
                self.template(&texts.system.suffix);
            }
            _ => self.template(&texts.tools.prefix),
        }
        for (i, tool) in self.tools.iter().enumerate() {
            if i > 0 {
                self.template(&texts.separator);
            }
            self.message(tool);
        }
        match (texts.place, system) {
            (ToolPlace::BeforeSystem, Some(system)) => {
                self.template(&texts.system.prefix);
                self.message(system.trim());
                self.template(&texts.system.suffix);
            }
            _ => self.template(&texts.tools.suffix),
        }
        if texts.place != ToolPlace::LastUser {
            // The tools are what stands before the first message.
            self.to_come = texts.user_prefix.as_deref();
        }
    }

    fn calls(&mut self, texts: &'t ToolTexts, message: &'t Message) {
        let template = self.template;
        self.to_come = None;
        self.template(&template.assistant.prefix);
        if let Some(suffix) = texts.text_suffix.as_ref().filter(|_| !message.text.is_empty()) {
            self.message(&message.text);
            self.template(suffix);
        }
        for (i, call) in message.calls.iter().enumerate() {
            let separator = texts.call_separator.as_deref().unwrap_or_default();
            self.template(if i == 0 { &texts.call.prefix } else { separator });
            self.message(&call.name);
            self.template(&texts.arguments_prefix);
            self.message(&call.arguments);
            if let Some(prefix) = &texts.id_prefix {
                self.template(prefix);
                self.message(&call.id);
            }
        }
        self.template(&texts.call.suffix);
        self.template(&template.assistant.suffix);
    }

    fn result(&mut self, texts: &'t ToolTexts, message: &'t Message, is_first: bool) {
        self.to_come = None;
        self.template(if is_first { &texts.results.prefix } else { &texts.result_separator });
        self.message(&message.text);
        if let Some(prefix) = &texts.result_id_prefix {
            self.template(prefix);
            self.message(&message.call_id);
        }
    }
}

/// The message before which the tools stand. A system message at their side is a part of theirs.
fn place_of_tools(texts: &ToolTexts, template: &Template, messages: &[&Message]) -> usize {
    if texts.place != ToolPlace::LastUser {
        return 0;
    }
    let is_user = |message: &&Message| message.role == Role::User;
    let last = messages.iter().rposition(is_user).unwrap_or(0);
    // A system message may be the start of the message behind it.
    let before = last.checked_sub(1).filter(|_| template.after_system_prefix.is_some());
    let is_system = |&i: &usize| messages.get(i).is_some_and(|it| it.role == Role::System);
    before.filter(is_system).unwrap_or(last)
}
