//! Boot arguments, checked as the kernel checks them.

use anyhow::{Result, anyhow, ensure};
use kernel::runtime::entry::args;
use kernel::settings::Config;

/// Parses boot arguments from this program's command line.
///
/// # Errors
/// The kernel would refuse the boot arguments, or they are not one line.
pub fn parse(text: &str) -> Result<String> {
    ensure!(!text.contains(['\n', '\r', '\0']), "boot arguments are one line");
    let words = args::split(text).map_err(|e| anyhow!("{e}"))?;
    Config::default().apply_arguments(&words).map_err(|e| anyhow!("{e} ({})", e.hint()))?;
    Ok(text.trim().to_owned())
}
