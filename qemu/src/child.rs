//! QEMU as a child process that cannot be left behind.
//!
//! QEMU leads a process group of its own: a Ctrl-C at the terminal reaches only the harness, and
//! the run ends in order. QEMU never outlives the harness: the guard ends QEMU when dropped. On
//! Linux the kernel kills QEMU when the harness is killed.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Timeout of SIGTERM before SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks at an ending process.
const POLL: Duration = Duration::from_millis(5);

/// A running QEMU.
pub struct Qemu {
    child: Child,
}

/// The harness's ends of QEMU's standard streams.
pub struct Pipes {
    /// Input of the serial line; `None` without input.
    pub input: Option<ChildStdin>,
    /// Output of the serial line.
    pub serial: ChildStdout,
    /// QEMU's own messages.
    pub stderr: ChildStderr,
}

impl Qemu {
    /// Starts `program`. Its standard input is a pipe with `input`, else empty.
    ///
    /// # Errors Those of the operating system; `NotFound` if the program does not exist.
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

    /// Waits until QEMU has ended by itself, at most for `limit`.
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

    /// Ends QEMU by SIGTERM, after a timeout by SIGKILL. Does nothing if QEMU has ended.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // The child keeps its number until someone waits for it, so the signal hits no other group.
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
        // If the harness was killed before that call, no signal comes.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec, `hook` makes two plain system calls; it allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(hook) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
