//! The guest's settings: flags from the kernel's table of settings, and words `KEY=VALUE`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use kernel::settings::{Config, KEYS, Key, Mode, of_make};

use super::{Action, Cli, Environment};

/// A setting: its key and its value. `None`: make's name was given without a value.
pub type Word = Option<(&'static str, String)>;

/// The settings of the guest.
#[derive(Debug)]
pub struct Settings {
    /// The guest's mode; `None` if the disk decides.
    pub mode: Option<Mode>,
    /// The port of a server.
    pub port: u16,
    /// The boot arguments.
    pub boot_arguments: Vec<(String, String)>,
}

/// Flags for the settings of the guest.
#[derive(Debug)]
pub struct Guest {
    /// Settings by their keys, in the table's order.
    given: Vec<(&'static str, String)>,
    /// Settings that nobody has checked.
    unchecked: Vec<(String, String)>,
}

const HEADING: &str = "What the guest does";
const UNCHECKED: &str = "set";

impl Args for Guest {
    fn augment_args(mut command: Command) -> Command {
        // Names of flags live as long as the program.
        let name = |text: String| -> &'static str { text.leak() };
        for key in KEYS {
            let mut flag = Arg::new(key.name)
                .long(name(key.flag()))
                .help(key.short_help())
                .long_help(key.long_help())
                .help_heading(HEADING)
                .value_name("VALUE")
                .allow_negative_numbers(true);
            if let Some(other) = key.other_flag() {
                flag = flag.visible_alias(name(other));
            }
            if key.is_boolean() {
                flag = flag.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command = command.arg(flag);
            if let Some(off) = key.off_flag() {
                let off = name(off);
                let help = format!("The same as --{}=false", key.flag());
                let flag = Arg::new(off).long(off).action(ArgAction::SetTrue).help(help);
                command = command.arg(flag.help_heading(HEADING).conflicts_with(key.name));
            }
        }
        let unchecked = Arg::new(UNCHECKED)
            .long(UNCHECKED)
            .value_name("KEY=VALUE")
            .value_parser(unchecked)
            .action(ArgAction::Append)
            .help("A setting as the guest is to get it, unchecked; may be repeated")
            .help_heading(HEADING);
        command.arg(unchecked)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Guest::augment_args(command)
    }
}

impl FromArgMatches for Guest {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Guest, Error> {
        let value = |key: &Key| {
            let is_off = key.off_flag().is_some_and(|off| matches.get_flag(&off));
            let given = || matches.get_one::<String>(key.name).cloned();
            Some((key.name, if is_off { "false".into() } else { given()? }))
        };
        let unchecked = matches.get_many(UNCHECKED).into_iter().flatten().cloned();
        Ok(Guest { given: KEYS.iter().filter_map(value).collect(), unchecked: unchecked.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Guest::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads a setting that is given as a word.
pub fn word(text: &str) -> Result<Word, String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok(of_make(name, value)?.map(|(key, value)| (key.name, value)))
}

fn unchecked(text: &str) -> Result<(String, String), String> {
    let is_key = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    match text.split_once('=') {
        Some((key, value)) if is_key(key) => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

impl Cli {
    /// The guest's settings.
    ///
    /// Settings are checked as the guest will check them. What `--set` gives is not: so it can be
    /// seen what the guest says.
    ///
    /// # Errors
    /// A sentence for the user: what is wrong and what to do.
    pub(super) fn settings(&self, environment: &Environment) -> Result<Settings, String> {
        let mut given = self.guest.given.clone();
        given.extend(self.words.iter().flatten().cloned());
        let has_mode = given.iter().any(|(key, _)| *key == "mode");
        let own = match self.action {
            Action::Run => None,
            Action::Chat => Some(Mode::Chat),
            Action::Serve => Some(Mode::Serve),
        };
        if let Some(mode) = own.filter(|_| !has_mode) {
            given.insert(0, ("mode", mode.name().into()));
        }
        let unchecked = self.guest.unchecked.iter().map(|(key, _)| key.as_str());
        let mut keys = given.iter().map(|(key, _)| *key).chain(unchecked);
        let has_prompt = keys.any(|key| key == "prompt" || key == "prompt_file");
        if let Some(prompt) = environment.prompt.as_ref().filter(|_| !has_prompt) {
            let Some(prompt) = prompt.to_str() else {
                return Err("PROMPT in the environment is not UTF-8 text".into());
            };
            given.push(("prompt", prompt.into()));
        }

        let words: Vec<String> =
            given.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let words = || words.iter().map(String::as_str);
        let mut config = Config::default();
        config.apply_arguments(words()).map_err(|error| error.to_string())?;
        if let Some(mode) = own.filter(|&mode| config.mode != mode) {
            return Err(format!("`{mode}` and another --mode exclude each other"));
        }
        let mode = (own.is_some() || has_mode).then_some(config.mode);
        if mode.is_some() {
            config.refuse_unused(words()).map_err(|error| error.to_string())?;
        }

        let mut settings: Vec<(String, String)> =
            given.into_iter().map(|(key, value)| (key.into(), value)).collect();
        for (key, value) in &self.guest.unchecked {
            if settings.iter().any(|(given, _)| given == key) {
                return Err(format!("the guest's setting `{key}` is given twice"));
            }
            settings.push((key.clone(), value.clone()));
        }
        Ok(Settings { mode, port: config.port, boot_arguments: settings })
    }
}
