//! The table of settings as commands and documents use it, on the host only.
//!
//! `README.md` holds [`readme`] between two marks, and [`MAKE_FILE`] is [`make_file`]. A test
//! compares both with the table. With `UPDATE_SETTINGS=1` in the environment the test writes the
//! files instead:
//!
//! ```text
//! UPDATE_SETTINGS=1 ci/toolchain.sh host test -p kernel --lib settings::docs
//! ```

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Group, Initial, KEYS, Key, Takes, Variable};

/// The generated file of the Makefile, in the project's folder.
pub const MAKE_FILE: &str = "ci/settings.mk";

/// Width of a line of help, in characters.
const WIDTH: usize = 100;

impl Key {
    /// The setting of this name.
    pub fn by_name(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The command line's flag for the setting, without dashes before it: `top-k`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// A second flag, after `make`'s name for the setting: `tokens` for `max_tokens`.
    pub fn other_flag(&self) -> Option<String> {
        let flag = self.variable()?.to_lowercase().replace('_', "-");
        (flag != self.flag()).then_some(flag)
    }

    /// The flag that takes a setting back which is on by default: `no-verify`.
    pub fn off_flag(&self) -> Option<String> {
        let is_on = self.is_boolean() && self.default == Initial::Value("true");
        is_on.then(|| format!("no-{}", self.flag()))
    }

    /// Whether the setting is `true` or `false`.
    pub fn is_boolean(&self) -> bool {
        matches!(self.takes, Takes::Boolean(_))
    }

    /// `make`'s name for the setting.
    pub fn variable(&self) -> Option<&'static str> {
        match self.variable {
            Variable::None => None,
            Variable::Guest(name) | Variable::Disk(name) => Some(name),
        }
    }

    /// The first sentence of the help, with the default behind it.
    pub fn short_help(&self) -> String {
        let first = self.help.split_once(". ").map_or(self.help, |(first, _)| first);
        self.with_default(first)
    }

    /// The help, the values and the default.
    pub fn long_help(&self) -> String {
        self.with_default(&format!("{} Takes {}.", self.help, self.takes))
    }

    fn with_default(&self, text: &str) -> String {
        let (Initial::Value(default) | Initial::Words(default)) = self.default;
        format!("{} [default: {default}]", text.trim_end_matches('.').replace('`', ""))
    }
}

/// The setting that `NAME=VALUE` of `make`'s gives, by the setting's own or `make`'s name.
///
/// `make`'s names take 0 and 1 for booleans, and an empty value as none, but for texts. The result
/// is empty for such a value.
///
/// # Errors
/// A sentence for the user: the name is none of a setting.
pub fn of_make(name: &str, value: &str) -> Result<Option<(&'static Key, String)>, String> {
    if let Some(key) = Key::by_name(name) {
        return Ok(Some((key, value.to_owned())));
    }
    let Some(key) = KEYS.iter().find(|key| key.variable() == Some(name)) else {
        let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        return Err(format!("there is no setting `{name}`; the settings are {}", names.join(", ")));
    };
    let value = match value {
        "" if !matches!(key.takes, Takes::Text(_)) => return Ok(None),
        "0" if key.is_boolean() => "false",
        "1" if key.is_boolean() => "true",
        value => value,
    };
    Ok(Some((key, value.to_owned())))
}

/// The tables of settings for the README, one for each group.
pub fn readme() -> String {
    let mut text = String::from(
        "\n`make run key=value` takes each key; the column `make` has a second name. By the second \
         name, 0 and\n1 are `false` and `true`, and an empty value that is no text counts as not \
         given.\n",
    );
    for (group, title) in GROUPS {
        text += &format!("\n{title}:\n\n| key | what it does | takes | default | `make` |\n");
        text += "|---|---|---|---|---|\n";
        for key in KEYS.iter().filter(|key| key.group == *group) {
            let takes = match &key.takes {
                Takes::Choice(words, _) => format!("`{}`", words.join("`, `")),
                takes => format!("{takes}"),
            };
            let default = match key.default {
                Initial::Value(value) => format!("`{value}`"),
                Initial::Words(words) => words.into(),
            };
            let variable = match key.variable {
                Variable::None => String::new(),
                Variable::Guest(name) => format!("`{name}`"),
                Variable::Disk(name) => format!("`{name}`, a path: the file goes on the disk"),
            };
            let cells = [&format!("`{}`", key.name), key.help, &takes, &default, &variable];
            text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    text
}

/// Titles of the groups, in the documents' order.
const GROUPS: &[(Group, &str)] = &[
    (Group::Task, "Mode, model and prompt"),
    (Group::Context, "Length and context"),
    (Group::Sampler, "Sampler, with the names of llama.cpp"),
    (Group::Chat, "Chats"),
    (Group::Network, "Network"),
    (Group::Machine, "Machine and self-tests"),
];

/// The Makefile's part: the names of all settings, and the lines that `make help` shows.
pub fn make_file() -> String {
    let mut text = String::from(
        "# Written from kernel/src/settings/keys.rs by a test, see kernel/src/settings/docs.rs.\n\n\
         # Settings by their own names.\nkeys := \\\n",
    );
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    text += &wrap(&names.join(" "), "    ", " \\\n");
    text += "\n# Their second names.\n";
    for key in KEYS {
        if let Variable::Guest(name) = key.variable {
            text += &format!("variable.{} := {name}\n", key.name);
        }
    }
    text +=
        "\n#:\n#: Settings of what the guest does, by either name (make run TOKENS=40 top_k=20):\n";
    for (group, title) in GROUPS {
        text += &format!("#:\n#:   {title}\n");
        for key in KEYS.iter().filter(|key| key.group == *group) {
            let names = match key.variable() {
                Some(variable) => format!("{} {variable}", key.name),
                None => key.name.into(),
            };
            text += &format!("#:     {names}\n");
            text += &wrap(&key.short_help(), "#:         ", "\n");
        }
    }
    text
}

/// The words of a text in lines of at most [`WIDTH`] characters behind an indent.
fn wrap(text: &str, indent: &str, end: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() + end.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    format!("{}\n", lines.join(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// A file of the project.
    fn path(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
    }

    /// Compares a file with what belongs there; with `UPDATE_SETTINGS` in the environment, writes
    /// the file.
    #[track_caller]
    fn check(name: &str, expected: &str) {
        if std::env::var_os("UPDATE_SETTINGS").is_some() {
            fs::write(path(name), expected).unwrap();
        }
        let is = fs::read_to_string(path(name)).unwrap_or_default();
        let differs = is.lines().zip(expected.lines()).find(|(is, expected)| is != expected);
        assert!(
            is == expected,
            "{name} is not up to date: {differs:?}; update it by\n    \
             UPDATE_SETTINGS=1 ci/toolchain.sh host test -p kernel --lib settings::docs"
        );
    }

    #[test]
    fn the_readme_has_the_table() {
        let (begin, end) = ("<!-- settings: written from", "<!-- end of settings -->");
        let readme_now = fs::read_to_string(path("README.md")).unwrap();
        let (before, rest) = readme_now.split_once(begin).expect("the mark before the table");
        let (mark, _) = rest.split_once('\n').unwrap();
        let (_, after) = rest.split_once(end).expect("the mark behind the table");
        check("README.md", &format!("{before}{begin}{mark}\n{}\n{end}{after}", readme()));
    }

    #[test]
    fn the_makefile_has_the_names_and_the_help() {
        check(MAKE_FILE, &make_file());
    }

    #[test]
    fn each_setting_can_be_given_by_both_names() {
        let given = |name, value| {
            of_make(name, value).map(|given| given.map(|(key, value)| (key.name, value)))
        };
        assert_eq!(given("top_k", "40"), Ok(Some(("top_k", "40".into()))));
        assert_eq!(given("TOKENS", "8"), Ok(Some(("max_tokens", "8".into()))));
        assert_eq!(given("VERIFY", "0"), Ok(Some(("verify", "false".into()))));
        assert_eq!(given("CONTEXT_SHIFT", "1"), Ok(Some(("context_shift", "true".into()))));
        assert_eq!(given("CONTEXT_SHIFT", "2"), Ok(Some(("context_shift", "2".into()))));
        // By its own name nothing is changed.
        assert_eq!(given("verify", "0"), Ok(Some(("verify", "0".into()))));
        assert_eq!(given("top_k", ""), Ok(Some(("top_k", "".into()))));
        assert_eq!(given("TOKENS", ""), Ok(None));
        assert_eq!(given("PROMPT", ""), Ok(Some(("prompt", "".into()))));
        assert_eq!(given("SYSTEM", ""), Ok(Some(("system", "".into()))));
        assert!(given("top_kk", "1").unwrap_err().starts_with("there is no setting `top_kk`; "));
    }

    #[test]
    fn flags_follow_from_the_names() {
        let flags = |name| {
            let key = Key::by_name(name).unwrap();
            (key.flag(), key.other_flag(), key.off_flag())
        };
        assert_eq!(flags("max_tokens"), ("max-tokens".into(), Some("tokens".into()), None));
        assert_eq!(flags("kv_cache"), ("kv-cache".into(), None, None));
        assert_eq!(flags("verify"), ("verify".into(), None, Some("no-verify".into())));
        assert_eq!(flags("context_shift"), ("context-shift".into(), None, None));
    }
}
