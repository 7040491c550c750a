//! Scripts and other commands that run to their end: exit status and output.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The output of a command, both streams, and its status.
pub struct Said {
    status: Option<i32>,
    /// What it has said.
    pub text: String,
}

/// Runs a command to its end; its output goes to `log` too.
///
/// # Errors
/// The command cannot be started, or the log cannot be written.
pub fn say(command: &mut Command, log: &Path) -> Result<Said> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Ok(Said { status: status.code(), text })
}

impl Said {
    /// It must have ended with this status.
    pub fn ends_with(&self, status: i32) -> Result<()> {
        let Said { status: seen, text } = self;
        ensure!(*seen == Some(status), "expected: status {status}\nseen: {seen:?}\n{text}");
        Ok(())
    }

    /// It must have ended well.
    pub fn is_content(&self) -> Result<()> {
        self.ends_with(0)
    }

    /// It must have failed.
    pub fn has_failed(&self) -> Result<()> {
        let Said { status, text } = self;
        ensure!(*status != Some(0), "expected: a failure\nseen: status 0\n{text}");
        Ok(())
    }

    /// It must have said this.
    pub fn holds(&self, part: &str) -> Result<()> {
        ensure!(self.text.contains(part), "expected: it says {part:?}\nseen:\n{}", self.text);
        Ok(())
    }
}

/// Writes a script that can be run.
pub fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
