//! Helpers of the command's tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, io};

use kernel::llm::gguf::write::Builder;

/// A temporary folder, in which the command runs.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The names of all files in the folder, hidden ones included.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the command.
    pub fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Outcome {
        Outcome(self.command(arguments).output().unwrap())
    }

    /// The command, ready to run.
    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-builder"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }
}

/// The result of a run of the command.
pub struct Outcome(Output);

impl Outcome {
    /// The result of a command that was run in another way.
    pub fn of(output: Output) -> Outcome {
        Outcome(output)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Asserts that the command succeeded.
    #[track_caller]
    pub fn succeeds(self) -> Outcome {
        assert_eq!(self.0.status.code(), Some(0), "{}", String::from_utf8_lossy(&self.0.stderr));
        self
    }

    /// Asserts that the command ended with this status and this message.
    #[track_caller]
    pub fn fails(self, status: i32, says: &str) -> Outcome {
        let stderr = String::from_utf8_lossy(&self.0.stderr);
        assert_eq!(self.0.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(says), "no {says:?} in: {stderr}");
        self
    }
}

/// A small model of `weights` weights, which count up from `first`.
pub fn model(first: usize, weights: usize) -> Vec<u8> {
    let values: Vec<f32> = (first..first + weights).map(|i| i as f32).collect();
    Builder::new()
        .string("general.architecture", "llama")
        .u32("llama.block_count", 7)
        .string("tokenizer.ggml.model", "llama\x1b[2J")
        .tensor_f32("output.weight", &[weights as u64], &values)
        .build()
}

/// A line of `sha256sum`.
pub fn sum_line(bytes: &[u8], name: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}  {name}\n")
}

/// Runs one of the system's tools over an image.
///
/// If the tool is not installed, the result is `None`, with a message. In CI it must be installed.
pub fn system_tool(name: &str, arguments: &[&OsStr]) -> Option<Output> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> =
        env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    let result = Command::new(name)
        .args(arguments)
        .env("PATH", env::join_paths(folders).unwrap())
        .env("MTOOLS_SKIP_CHECK", "1")
        // Names that are not ASCII are to be shown unchanged.
        .env("LC_ALL", "C.UTF-8")
        .output();
    match result {
        Ok(output) => Some(output),
        Err(e) if e.kind() == io::ErrorKind::NotFound && env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {name} is not installed (make setup)");
            None
        }
        Err(e) => panic!("{name}: {e}"),
    }
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// An ELF file of a kernel.
pub fn kernel_elf() -> Vec<u8> {
    super::kernel::good()
}

/// A device tree whose root has only the property `compatible`.
///
/// Source: Devicetree Specification 0.4, chapter 5.
pub fn device_tree(compatible: &[&str]) -> Vec<u8> {
    tree(compatible, &[])
}

/// The same tree with an empty node `__symbols__`, as `dtc -@` makes it.
pub fn device_tree_with_labels(compatible: &[&str]) -> Vec<u8> {
    tree(compatible, &[&[0, 0, 0, 1], &b"__symbols__\0"[..], &[0, 0, 0, 2]].concat())
}

fn tree(compatible: &[&str], children: &[u8]) -> Vec<u8> {
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    let mut names: Vec<u8> =
        compatible.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
    let mut structure = words(&[1, 0, 3, names.len() as u32, 0]);
    names.resize(names.len().next_multiple_of(4), 0);
    structure.extend(names);
    structure.extend(children);
    structure.extend(words(&[2, 9]));
    let strings = b"compatible\0";
    let strings_at = 56 + structure.len() as u32;
    let (total, n) = (strings_at + strings.len() as u32, structure.len() as u32);
    let mut tree =
        words(&[0xd00d_feed, total, 56, strings_at, 40, 17, 16, 0, strings.len() as u32, n]);
    tree.extend([0; 16]);
    tree.extend(structure);
    tree.extend(strings);
    tree
}
