//! Boot arguments, checked as the kernel will.

use anyhow::{Result, anyhow, ensure};
use kernel::app::config::Config;
use kernel::runtime::entry::args;

/// Reads boot arguments from the command line of this program.
///
/// # Errors
/// The kernel would not take them, or they are not one line.
pub fn parse(text: &str) -> Result<String> {
    ensure!(!text.contains(['\n', '\r', '\0']), "boot arguments are one line");
    let words = args::split(text).map_err(|e| anyhow!("{e}"))?;
    Config::default().apply_arguments(&words).map_err(|e| anyhow!("{e} ({})", e.hint()))?;
    Ok(text.trim().to_owned())
}
