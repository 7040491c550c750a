//! A harness whose QEMU is a shell script that plays a canned serial log.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kernel::report::{
    Chat, ChatState, Checksum, Code, Event, Exit, Fault, Hello, Model, Outcome, StopReason,
};
use rustix::process::Pid;

/// No run in these tests takes longer; one that does is ended and fails its test.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Where in the folder the harness may put temporary files.
const TEMPORARY: &str = "tmp";

/// A test's folder, with a kernel image, a disk, and the script that is QEMU.
pub struct Stage {
    folder: tempfile::TempDir,
}

/// What a run of the harness showed.
pub struct Shown {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Stage {
    /// `script` is run by a shell in the folder; `log` is there as the file of that name.
    pub fn new(script: &str, log: &[u8]) -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        stage.put("script", script.as_bytes());
        stage.put("log", log);
        std::fs::create_dir(stage.path(TEMPORARY)).unwrap();
        stage.put("image", b"an image");
        stage.put("disk,1", b"a disk");
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap()).into_owned()
    }

    /// The bytes of all files in the folder.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// The harness with the fake as its QEMU and these arguments, not yet started.
    pub fn harness(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anchorite-qemu"));
        command.args(arguments).arg("--kernel").arg(self.path("image"));
        self.set_up(&mut command);
        command
    }

    /// Gives a command the environment in which the harness finds the fake.
    pub fn set_up(&self, command: &mut Command) {
        let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-qemu");
        command
            .env("ANCHORITE_QEMU", fake)
            .env("FAKE_QEMU", self.folder.path())
            .env("TMPDIR", self.path(TEMPORARY))
            .env_remove("PROMPT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Runs the harness to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Shown {
        self.end_of(self.harness(arguments).spawn().unwrap())
    }

    /// Waits for the end of the harness, which must leave nothing behind: neither the process that
    /// it started, nor a temporary file.
    #[track_caller]
    pub fn end_of(&self, harness: Child) -> Shown {
        let shown = Shown::of(harness);
        if self.path("pid").exists() {
            self.assert_no_qemu_left();
        }
        let left = std::fs::read_dir(self.path(TEMPORARY)).unwrap().count();
        assert_eq!(left, 0, "temporary files were left behind");
        shown
    }

    /// The process of the fake, once it runs.
    pub fn qemu(&self) -> Pid {
        self.wait_for("pid");
        Pid::from_raw(self.read("pid").trim().parse().unwrap()).unwrap()
    }

    /// Waits until the script has made this file.
    pub fn wait_for(&self, name: &str) {
        let start = Instant::now();
        while !self.path(name).exists() {
            assert!(start.elapsed() < TIMEOUT, "no {name}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails if the fake is still there.
    #[track_caller]
    pub fn assert_no_qemu_left(&self) {
        let qemu = self.qemu();
        let start = Instant::now();
        while is_alive(qemu) {
            assert!(start.elapsed() < Duration::from_secs(2), "QEMU was left behind");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the process runs; one that has ended but was not waited for does not.
fn is_alive(process: Pid) -> bool {
    if rustix::process::test_kill_process(process).is_err() {
        return false;
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid()));
    !stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

impl Shown {
    /// Waits for the harness; ends it if it takes too long.
    fn of(mut harness: Child) -> Shown {
        let reader = |stream: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.map(|mut stream| stream.read_to_end(&mut bytes));
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = reader(harness.stdout.take().map(|s| Box::new(s) as _));
        let stderr = reader(harness.stderr.take().map(|s| Box::new(s) as _));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = harness.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > TIMEOUT {
                harness.kill().unwrap();
                panic!("the harness did not end");
            }
            thread::sleep(Duration::from_millis(5));
        };
        Shown { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }

    /// Fails unless the harness ended with this status and said this.
    #[track_caller]
    pub fn assert(&self, status: i32, said: &str) {
        assert_eq!(self.status.code(), Some(status), "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(said), "{said:?} in {}", self.stderr);
    }
}

/// A serial log: text as it is, events as records.
pub fn log<'a>(parts: impl IntoIterator<Item = &'a dyn Part>) -> Vec<u8> {
    parts.into_iter().flat_map(|part| part.bytes()).collect()
}

/// Something on the serial line.
pub trait Part {
    fn bytes(&self) -> Vec<u8>;
}

impl Part for &str {
    fn bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Part for &[u8] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Part for Event {
    fn bytes(&self) -> Vec<u8> {
        self.to_record().into_bytes()
    }
}

pub fn hello() -> Event {
    Event::Hello(Hello {
        version: "0.1.0".into(),
        image_sha256: Some("ab".repeat(32)),
        machine: "linux,dummy-virt".into(),
        cpu: "Cortex-A72".into(),
        cpu_features: vec!["neon".into()],
        kernels: "neon".into(),
        cores: 3,
        exception_level: 1,
        consoles: vec!["pl011".into()],
        board: vec![],
        memory_bytes: 67 << 20,
        memory_free_bytes: 61 << 20,
        boot_us: 7,
    })
}

pub fn model() -> Event {
    Event::Model(Model {
        file: "tiny.gguf".into(),
        name: "tiny".into(),
        architecture: "llama".into(),
        quantization: "Q4_0".into(),
        parameters: 7,
        n_layer: 5,
        n_embd: 11,
        n_head: 3,
        n_head_kv: 1,
        n_ff: 13,
        n_vocab: 17,
        n_ctx: 19,
        bytes: 23_000_000,
        sha256: None,
        checksum: Checksum::Missing,
        load_us: 500_000,
        read_us: 29,
        hash_us: 31,
        load_mb_per_s: 46.0,
        kv_cache_bytes: 37,
    })
}

pub fn result(output: &str, tokens: &[u32]) -> Event {
    Event::Result(Outcome {
        prompt_tokens: 3,
        tokens_emitted: tokens.len(),
        output: output.into(),
        tokens: tokens.into(),
        stop: StopReason::MaxTokens,
        context_shifts: 0,
        latency_us: 11,
        first_token_us: 7,
        prompt_tokens_per_s: 41.0,
        tokens_per_s: 43.0,
        arena_bytes: 17,
        arena_peak_bytes: 19,
        board: vec![],
    })
}

pub fn chat(state: ChatState) -> Event {
    Event::Chat(Chat { state })
}

pub fn error(code: Code, message: &str) -> Event {
    Event::Error(Fault { code, message: message.into(), hint: "try this".into() })
}

pub fn exit(status: i32) -> Event {
    Event::Exit(Exit { status })
}

/// A path as a word of the command line.
pub fn word(path: &impl AsRef<OsStr>) -> &str {
    path.as_ref().to_str().unwrap()
}
