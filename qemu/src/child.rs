//! QEMU as a child process that cannot be left behind.
//!
//! It leads a process group of its own, so that a Ctrl-C at the terminal reaches only us and the
//! run ends in order. Whatever way we go, it goes too: the guard ends it when dropped, and where
//! the kernel can (Linux), it is killed with us when we are killed.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long QEMU has to obey SIGTERM.
const TERM_PATIENCE: Duration = Duration::from_secs(2);

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A running QEMU.
pub struct Qemu {
    child: Child,
}

/// The ends of QEMU's standard streams on our side.
pub struct Pipes {
    /// Input of the serial line; `None` if it has none.
    pub input: Option<ChildStdin>,
    /// Output of the serial line.
    pub serial: ChildStdout,
    /// QEMU's own messages.
    pub stderr: ChildStderr,
}

impl Qemu {
    /// Starts `program`; with `input`, its standard input is a pipe, else it is empty.
    ///
    /// # Errors
    /// Those of the operating system; `NotFound` if there is no such program.
    pub fn start(program: &Path, arguments: &[OsString], input: bool) -> io::Result<(Qemu, Pipes)> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(if input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let (input, serial, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let qemu = Qemu { child };
        match (serial, stderr) {
            (Some(serial), Some(stderr)) => Ok((qemu, Pipes { input, serial, stderr })),
            _ => Err(io::Error::other("a pipe is missing")),
        }
    }

    /// Waits until QEMU has ended by itself, but no longer than `limit`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            match self.child.try_wait()? {
                None if start.elapsed() < limit => sleep(POLL),
                status => return Ok(status),
            }
        }
    }

    /// Ends QEMU, and with force if it does not listen. Does nothing if it has ended.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Until it is waited for, the child keeps its number: it can't hit another's group.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        if !matches!(self.wait(TERM_PATIENCE), Ok(Some(_))) {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Were we killed before that call, nobody would send the signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec, `hook` makes two plain system calls; it allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(hook) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
