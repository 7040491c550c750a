//! Standard output and standard error, without panics.
//!
//! `println!` and its siblings panic when they cannot write. The functions here do not:
//!
//! - A reader that has gone (`| head`) is no error, since nobody misses the text.
//! - Every other failure ends the command with a status that is not 0.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::panic;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

/// Exit status of a command that succeeded, but could not print something.
const LOST: u8 = 1;

/// Whether a write to standard error has failed.
static STDERR_FAILED: AtomicBool = AtomicBool::new(false);

/// Prints a line on standard output.
///
/// # Errors
/// Standard output cannot be written for another reason than that its reader has gone.
pub fn print_line(text: impl Display) -> io::Result<()> {
    print(format!("{text}\n"))
}

/// Prints on standard output, and flushes it.
///
/// # Errors
/// As for [`print_line`].
pub fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    stream(text).map(drop)
}

/// Prints as [`print`] does; breaks off once the reader has gone.
///
/// # Errors
/// As for [`print_line`].
pub fn stream(text: impl AsRef<[u8]>) -> io::Result<ControlFlow<()>> {
    let mut stdout = io::stdout().lock();
    on_stdout(stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()))
}

fn on_stdout(result: io::Result<()>) -> io::Result<ControlFlow<()>> {
    unless_gone(result)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot write to standard output: {e}")))
}

/// Turns a broken pipe into a break.
fn unless_gone(result: io::Result<()>) -> io::Result<ControlFlow<()>> {
    match result {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(e) => Err(e),
    }
}

/// Prints a line on standard error.
///
/// A failure cannot be shown anywhere: [`status`] takes it into account.
pub fn say(text: impl Display) {
    show(format!("{text}\n"));
}

/// Prints on standard error without a newline: see [`say`].
pub fn show(text: impl AsRef<[u8]>) {
    let mut stderr = io::stderr().lock();
    let result = stderr.write_all(text.as_ref()).and_then(|()| stderr.flush());
    if unless_gone(result).is_err() {
        STDERR_FAILED.store(true, Ordering::Relaxed);
    }
}

/// Asks on standard error, and returns a line of standard input.
///
/// # Errors
/// The question cannot be shown, or the answer cannot be read. A reader that has gone counts here.
pub fn ask(question: impl Display) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question}").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer)
}

/// The exit status of a command at its end.
///
/// The result is `status`, unless `status` is 0 and a write to standard error failed.
pub fn status(status: u8) -> ExitCode {
    match status {
        0 if STDERR_FAILED.load(Ordering::Relaxed) => LOST.into(),
        status => status.into(),
    }
}

/// Reads the command line.
///
/// # Errors
/// The exit status, after the help or the mistake in the command line was printed.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    end_on_panic();
    C::try_parse().map_err(|end| {
        let shown = end.print().and_then(|()| io::stdout().flush());
        let wanted = u8::try_from(end.exit_code()).unwrap_or(LOST);
        match on_stdout(shown) {
            Ok(_) => status(wanted),
            Err(e) => {
                say(format_args!("error: {e}"));
                status(wanted.max(LOST))
            }
        }
    })
}

/// Ends the process when any thread panics, behind the panic's message.
///
/// The profile for development unwinds, as the tests' threads must. A command does not go on without a
/// thread that has panicked.
fn end_on_panic() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        show(info);
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, thread};

    use super::*;

    #[test]
    fn a_panic_in_a_thread_ends_the_command() {
        // The test starts itself again, as the command.
        const COMMAND: &str = "A_PANIC_IN_A_THREAD_ENDS_THE_COMMAND";
        if env::var_os(COMMAND).is_some() {
            end_on_panic();
            let _ = thread::spawn(|| panic!("as it must")).join();
            return;
        }
        let output = process::Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "console::tests::a_panic_in_a_thread_ends_the_command",
            ])
            .env(COMMAND, "1")
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("as it must"), "{output:?}");
    }
}
