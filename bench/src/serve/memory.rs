//! The smallest machine that a server works in.
//!
//! Memory in use cannot be compared: Linux fills what is free with files, and counts in another
//! way. QEMU's `-m` is the same for both.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host_io::console;

use super::client::{Request, text, together};
use super::machine::{Files, Side, Size};

/// Slots, and requests at once.
const SLOTS: usize = 4;
/// Memory that is enough for each model, in MiB.
const ENOUGH_MIB: u64 = 1024;
/// Memory that is too little for each model, in MiB.
const TOO_LITTLE_MIB: u64 = 8;
/// Time for the machine with enough memory.
const LIMIT: Duration = Duration::from_secs(300);

/// The smallest memory in MiB with which a server answers four requests at once.
///
/// A server that takes more than twice its time with enough memory does not count. Such a server
/// reads the model from the disk again and again.
///
/// # Errors
/// QEMU cannot be started, or the server does not work with enough memory.
pub fn smallest_mib(files: &Files, side: Side, tokens: usize) -> Result<u64> {
    let started = Instant::now();
    trial(files, side, tokens, ENOUGH_MIB, LIMIT)?
        .with_context(|| format!("{} with {ENOUGH_MIB} MiB", side.name()))?;
    let limit = 2 * started.elapsed() + Duration::from_secs(1);
    bisect(TOO_LITTLE_MIB, ENOUGH_MIB, |mib| {
        let works = trial(files, side, tokens, mib, limit)?.is_ok();
        let can = if works { "works" } else { "fails" };
        console::say(format_args!("serve: {} {can} with {mib} MiB", side.name()));
        Ok(works)
    })
}

/// Whether a server answers `SLOTS` requests at once in time. The outer error is not the server's.
fn trial(
    files: &Files,
    side: Side,
    tokens: usize,
    memory_mib: u64,
    limit: Duration,
) -> Result<Result<()>> {
    let size = Size { cores: 2, memory_mib, slots: SLOTS, counted: false };
    let mut running = files.start(side, size)?;
    let requests: Vec<Request> = (0..SLOTS as u32)
        .map(|number| Request { prompt: text(number, 32), tokens, cache: true })
        .collect();
    Ok(running.wait(limit).and_then(|()| {
        together(running.server, &requests, limit)?;
        let time = running.started.elapsed();
        ensure!(time <= limit, "{time:?}");
        Ok(())
    }))
}

/// The smallest number that works, to 3 % or 1.
///
/// `no` does not work, `yes` does.
fn bisect(mut no: u64, mut yes: u64, mut works: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    while yes - no > (yes / 32).max(1) {
        // The middle of their logarithms: small numbers are as likely as large ones.
        let middle = ((no * yes) as f64).sqrt() as u64;
        let middle = middle.clamp(no + 1, yes - 1);
        match works(middle)? {
            true => yes = middle,
            false => no = middle,
        }
    }
    Ok(yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_memory_is_found_in_few_trials() {
        for smallest in [9, 23, 47, 64, 181, 500, 1023, 1024] {
            let mut trials = 0;
            let found = bisect(8, 1024, |mib| {
                trials += 1;
                Ok(mib >= smallest)
            });
            let found = found.unwrap();
            let allowed = smallest..=smallest + (smallest / 31);
            assert!(allowed.contains(&found) && trials <= 10, "{smallest}: {found} by {trials}");
        }
    }

    #[test]
    fn a_trial_that_cannot_be_made_ends_the_search() {
        assert!(bisect(8, 1024, |_| anyhow::bail!("no QEMU")).is_err());
    }
}
