//! QEMU, or another program that boots something, as a child process.
//!
//! [`Child`] has a deadline, and awaits lines of the serial line. A process ends when its [`Child`]
//! is dropped. [`Monitor`] is a connection to QEMU's monitor, by QMP.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::seen::{Line, lines};

/// Messages of the threads around a child.
enum Message {
    Output(Vec<u8>),
    Ended(ExitStatus),
}

/// A program that runs.
pub struct Child {
    pid: Pid,
    input: Option<ChildStdin>,
    messages: Receiver<Message>,
    deadline: Instant,
    limit: Duration,
    /// All that came on its standard output.
    output: Vec<u8>,
    log: Option<File>,
    status: Option<ExitStatus>,
}

/// Where the output of a child goes.
pub enum Output {
    /// Both streams to this file; nothing can be awaited.
    To(PathBuf),
    /// Standard output, which is a serial line, to the first file and to whoever awaits something;
    /// standard error to the second one.
    Serial(PathBuf, PathBuf),
}

impl Child {
    /// Starts `command`, which must end within `limit`.
    ///
    /// # Errors
    /// The program cannot be started, or a file cannot be written.
    pub fn start(mut command: Command, output: Output, limit: Duration) -> Result<Child> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        // The environment may not change what is generated.
        for name in ["PROMPT", "SYSTEM", "ANCHORITE_QEMU"] {
            command.env_remove(name);
        }
        let log = match &output {
            Output::To(file) => {
                let file = create(file)?;
                command.stdout(file.try_clone()?).stderr(file);
                None
            }
            Output::Serial(log, out) => {
                command.stdout(Stdio::piped()).stderr(create(out)?);
                Some(create(log)?)
            }
        };
        let shown = command.get_program().to_owned();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", shown.display()))?;
        let pid = Pid::from_child(&child);
        let (sender, messages) = channel();
        let input = child.stdin.take();
        let stdout = child.stdout.take();
        thread::spawn(move || {
            // All output comes before the end.
            if let Some(stdout) = stdout {
                read(stdout, &sender);
            }
            if let Ok(status) = child.wait() {
                let _ = sender.send(Message::Ended(status));
            }
        });
        let deadline = Instant::now() + limit;
        let output = Vec::new();
        Ok(Child { pid, input, messages, deadline, limit, output, log, status: None })
    }

    /// Writes to the standard input, which stays open.
    ///
    /// # Errors
    /// The program has no input, or takes none.
    pub fn type_in(&mut self, text: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("the program has no input")?;
        input.write_all(text).and_then(|()| input.flush()).context("the program takes no input")
    }

    /// Waits until `is_there` holds of the lines on the standard output; `what` names that.
    ///
    /// # Errors
    /// The program ends before that, or its time is over.
    pub fn wait_for(&mut self, what: &str, is_there: impl Fn(&[Line]) -> bool) -> Result<()> {
        while !is_there(&lines(&self.output)) {
            if !self.step()? {
                bail!("the program ended before {what}");
            }
        }
        Ok(())
    }

    /// Sends SIGINT to the program, as Ctrl-C at a terminal does.
    ///
    /// # Errors
    /// The program has ended.
    pub fn interrupt(&self) -> Result<()> {
        kill_process(self.pid, Signal::INT).context("the program cannot be interrupted")
    }

    /// Sends SIGINT to the only child of the program: to what `make` has started.
    ///
    /// # Errors
    /// The program has no child, or has more than one.
    pub fn interrupt_child(&self) -> Result<()> {
        let pid = self.pid.as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.trim().parse().ok().and_then(Pid::from_raw);
        let child = child.with_context(|| format!("its children are {children:?}"))?;
        kill_process(child, Signal::INT).context("the child cannot be interrupted")
    }

    /// Stops the program for this time. Clocks of the host go on.
    ///
    /// # Errors
    /// The program has ended.
    pub fn pause(&self, time: Duration) -> Result<()> {
        kill_process(self.pid, Signal::STOP).context("the program cannot be stopped")?;
        thread::sleep(time);
        kill_process(self.pid, Signal::CONT).context("the program cannot go on")
    }

    /// The processor time of the program's threads, in Linux's unit of 10 ms.
    ///
    /// # Errors
    /// The program has ended, or the system has no such figure.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()))?;
        // The name may hold blanks. Behind it, `utime` and `stime` are the 12th and 13th field.
        let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
        let fields = fields.split_whitespace().skip(11).take(2);
        let hundredths: u64 = fields.map(|field| field.parse::<u64>().unwrap_or_default()).sum();
        Ok(Duration::from_millis(hundredths * 10))
    }

    /// Waits for the end of the program; gives its status, 128 + N for signal N.
    ///
    /// # Errors
    /// The deadline passes.
    pub fn wait(&mut self) -> Result<i32> {
        while self.step()? {}
        let status = self.status.context("the program has no status")?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// Takes the next message; false behind the last one.
    fn step(&mut self) -> Result<bool> {
        if self.status.is_some() {
            return Ok(false);
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left) {
            Ok(Message::Output(bytes)) => {
                if let Some(log) = &mut self.log {
                    log.write_all(&bytes).context("cannot write the serial log")?;
                }
                self.output.extend(bytes);
                Ok(true)
            }
            Ok(Message::Ended(status)) => {
                self.status = Some(status);
                Ok(false)
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("the program still ran after {} s", self.limit.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the program is lost"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
            self.deadline = Instant::now() + Duration::from_secs(10);
            let _ = self.wait();
        }
    }
}

fn read(mut from: impl Read, to: &Sender<Message>) {
    let mut chunk = [0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        if to.send(Message::Output(chunk[..n].to_vec())).is_err() {
            return;
        }
    }
}

/// QEMU's monitor, by QMP over a socket.
pub struct Monitor {
    lines: BufReader<UnixStream>,
    socket: UnixStream,
}

impl Monitor {
    /// QEMU's arguments for a monitor at this socket.
    ///
    /// The machine starts once [`Monitor::connect`] has connected.
    pub fn arguments(socket: &Path) -> [String; 2] {
        let _ = std::fs::remove_file(socket);
        ["-qmp".into(), format!("unix:{},server=on,wait=on", socket.display())]
    }

    /// Connects to the monitor of a QEMU that was just started.
    ///
    /// # Errors
    /// There is none within ten seconds, or it is no QMP.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Monitor> {
        // QEMU makes the socket; nothing announces that.
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > deadline => bail!("QEMU has no monitor: {e}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(limit))?;
        let mut monitor = Monitor { lines: BufReader::new(stream.try_clone()?), socket: stream };
        monitor.next()?;
        monitor.execute(json!({ "execute": "qmp_capabilities" }))?;
        Ok(monitor)
    }

    fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).context("QEMU's monitor says nothing")?;
        if bytes == 0 {
            bail!("QEMU's monitor has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn execute(&mut self, order: Value) -> Result<Value> {
        // One write: QEMU may run a command, and end, before it has the newline.
        self.socket.write_all(format!("{order}\n").as_bytes())?;
        loop {
            let said = self.next()?;
            match (said.get("return"), said.get("error")) {
                (Some(value), _) => return Ok(value.clone()),
                (None, Some(error)) => bail!("QEMU's monitor: {error}"),
                // An event.
                (None, None) => {}
            }
        }
    }

    /// Runs a command of the human monitor; gives its output.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn order(&mut self, line: &str) -> Result<String> {
        let order = json!({
            "execute": "human-monitor-command", "arguments": { "command-line": line }
        });
        Ok(self.execute(order)?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for an event of QEMU: `SHUTDOWN` when the guest is off.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn wait_for(&mut self, event: &str) -> Result<()> {
        while self.next()?.get("event").and_then(Value::as_str) != Some(event) {}
        Ok(())
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// It has ended.
    pub fn quit(&mut self) -> Result<()> {
        self.execute(json!({ "execute": "quit" })).map(drop)
    }
}

/// A command with these arguments.
pub fn command<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (tempfile::TempDir, Child) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("sh", ["-c", script]);
        command.stdin(Stdio::piped());
        let output = Output::Serial(folder.path().join("log"), folder.path().join("out"));
        (folder, Child::start(command, output, limit).unwrap())
    }

    fn is(text: &str) -> impl Fn(&[Line]) -> bool {
        move |lines| lines.contains(&Line::Text(text.into()))
    }

    #[test]
    fn what_a_program_says_is_awaited_and_answered() {
        let script = "echo ready; read line; echo \"heard $line\"; echo noise >&2; exit 7";
        let (folder, mut child) = shell(script, Duration::from_secs(60));
        child.wait_for("a prompt", is("ready")).unwrap();
        child.type_in(b"a word\n").unwrap();
        child.wait_for("the answer", is("heard a word")).unwrap();
        assert!(child.wait_for("more", is("nothing")).is_err(), "it ends before that");
        assert_eq!(child.wait().unwrap(), 7);
        let log = std::fs::read(folder.path().join("log")).unwrap();
        assert_eq!(log, b"ready\nheard a word\n");
        assert_eq!(std::fs::read(folder.path().join("out")).unwrap(), b"noise\n");
    }

    #[test]
    fn a_program_that_runs_on_is_ended() {
        let (_folder, mut child) = shell("echo $$; exec sleep 600", Duration::from_millis(500));
        let late = child.wait_for("more", is("nothing")).unwrap_err().to_string();
        assert!(late.contains("still ran"), "{late}");
        let pid = child.pid;
        drop(child);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
    }

    #[test]
    fn a_signal_is_a_status_of_its_own() {
        let (_folder, mut child) = shell("kill -TERM $$", Duration::from_secs(60));
        assert_eq!(child.wait().unwrap(), 128 + 15);
    }
}
