//! Comparison with llama.cpp on Linux, in the same emulated machine.
//!
//! `bench/peer/build.sh` builds the peer: a Linux kernel, and for the processor a program that runs
//! the model. The program is the guest's only process. The unikernel and the peer take turns
//! on two cores. Ratios are taken within each round, so that the host's noise hits both.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kernel::runtime::fs::cpio;
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{Build, Run, wait};
use crate::host::Host;
use crate::rates::Pair;
use crate::results::{Column, Row, digits, median, table};
use crate::shape::{Cpu, ShapeName};

/// The number of cores of either guest.
const CORES: u32 = 2;
/// The number of tokens in the prompt.
const PROMPT: usize = 32;

/// One shape on one processor, as medians of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The model.
    pub shape: ShapeName,
    /// The processor.
    pub cpu: Cpu,
    /// The host before the first round.
    pub host: Host,
    /// The number of rounds behind the medians.
    pub rounds: usize,
    /// The unikernel's tokens a second: of the prompt, and generated.
    pub ours: Pair,
    /// llama.cpp's tokens a second.
    pub peer: Pair,
    /// The medians of a round's ratios, `ours` over `peer`.
    pub ratio: Pair,
}

/// Measures one shape on one processor.
///
/// # Errors
/// The peer cannot be built, or a run fails.
pub fn measure(build: &Build, shape: ShapeName, cpu: Cpu, rounds: usize) -> Result<Peer> {
    let disk = disks::disk(build, shape)?;
    let folder = self::build(build, "init", cpu)?;
    let initramfs = folder.join("initramfs");
    let files = [
        ("init".to_owned(), folder.join(format!("init-{}", cpu.name()))),
        ("model.gguf".into(), disks::model(build, shape)?),
    ];
    write_initramfs(&initramfs, &files)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    let run = Run {
        disk: &disk,
        cpu,
        cores: CORES,
        counted: false,
        mode: "generate",
        verify: false,
        prompt_tokens: PROMPT,
        tokens: shape.tokens(),
    };
    let host = Host::now();
    let (mut ours, mut peer) = (vec![], vec![]);
    for round in 1..=rounds {
        let of =
            format!("{} on {CORES} x {}, round {round} of {rounds}", shape.title(), cpu.name());
        let report = build.run(&format!("peer: {of}, ours"), &run)?;
        let result = report.result()?;
        ours.push((result.prompt_tokens_per_s, result.tokens_per_s));
        let log = folder.join("log");
        let mut command = command(&run, &folder, &log);
        wait(&format!("peer: {of}, llama.cpp"), &mut command)?;
        let text = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        peer.push(rates(&text).with_context(|| format!("llama.cpp gave no figures:\n{text}"))?);
    }
    fs::remove_file(&initramfs)?;
    let ratios = || ours.iter().zip(&peer).map(|(a, b)| (a.0 / b.0, a.1 / b.1));
    let ratio = medians(&ratios().collect::<Vec<_>>());
    Ok(Peer { shape, cpu, host, rounds, ours: medians(&ours), peer: medians(&peer), ratio })
}

/// Builds a program of the peer's for this processor, and returns the folder that it is in.
///
/// # Errors
/// The program cannot be built.
pub fn build(build: &Build, program: &str, cpu: Cpu) -> Result<PathBuf> {
    let folder = build.bench().join("peer");
    let mut compile = Command::new("bench/peer/build.sh");
    compile.arg(&folder).args([program, cpu.name()]);
    wait("building llama.cpp for Linux", &mut compile)?;
    Ok(folder)
}

/// The median of each of both numbers.
pub fn medians(pairs: &[Pair]) -> Pair {
    let of = |pick: fn(&Pair) -> f64| median(pairs.iter().map(pick).collect());
    (of(|pair| pair.0), of(|pair| pair.1))
}

/// The command that runs the peer, with its serial port in `log`.
fn command(run: &Run<'_>, folder: &Path, log: &Path) -> Command {
    let mut command = Command::new("qemu-system-aarch64");
    command
        .args(["-M", "virt", "-m", "4G", "-nic", "none", "-display", "none", "-monitor", "none"]);
    command.args(["-cpu", run.cpu.qemu(), "-smp", &run.cores.to_string(), "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", log.display()));
    command.arg("-kernel").arg(folder.join("Image"));
    command.arg("-initrd").arg(folder.join("initramfs"));
    command.arg("-append").arg(format!(
        "console=ttyAMA0 quiet threads={} prompt={} tokens={}",
        run.cores, run.prompt_tokens, run.tokens
    ));
    command
}

/// The rates that the peer printed, if it printed any.
fn rates(log: &str) -> Option<Pair> {
    let words = log.lines().find_map(|line| line.strip_prefix("peer "))?;
    let number = |key: &str| {
        let word = words.split_whitespace().find_map(|word| word.strip_prefix(key))?;
        word.parse().ok()
    };
    Some((number("prompt_per_s=")?, number("generate_per_s=")?))
}

/// Writes a cpio archive of executable `files`.
///
/// The format is "newc": Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
///
/// # Errors
/// A file cannot be read, or the archive cannot be written.
pub fn write_initramfs(path: &Path, files: &[(String, PathBuf)]) -> Result<()> {
    const EXECUTABLE_FILE: u32 = 0o100_755;
    let mut out = BufWriter::new(File::create(path)?);
    for (name, from) in files {
        let mut from = File::open(from).with_context(|| format!("reading {}", from.display()))?;
        let bytes = u32::try_from(from.metadata()?.len()).context("a file of 4 GiB or more")?;
        out.write_all(&cpio::header(name, EXECUTABLE_FILE, 1, bytes))?;
        io::copy(&mut from, &mut out)?;
        out.write_all(&[0; 4][..(bytes.next_multiple_of(4) - bytes) as usize])?;
    }
    out.write_all(&cpio::trailer())?;
    Ok(out.flush()?)
}

impl Row for Peer {
    const NAME: &'static str = "peer";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<Self>] = &[
            ("shape", |row| row.shape.title().into()),
            ("processor", |row| row.cpu.name().into()),
            ("generate, tokens/s", |row| digits(row.ours.1)),
            ("llama.cpp", |row| digits(row.peer.1)),
            ("ratio", |row| format!("**{:.2} ×**", row.ratio.1)),
            ("prompt, tokens/s", |row| digits(row.ours.0)),
            ("llama.cpp", |row| digits(row.peer.0)),
            ("ratio", |row| format!("**{:.2} ×**", row.ratio.0)),
            ("host's load", |row| row.host.shown()),
        ];
        table(columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_s_figures_are_found_in_what_linux_prints() {
        let log =
            "[    0.1] Linux\r\n\r\npeer prompt_per_s=62.5 generate_per_s=1.25\r\n[    9.1] off";
        assert_eq!(rates(log), Some((62.5, 1.25)));
        assert_eq!(rates("peer failed\r\n"), None);
    }

    #[test]
    fn an_archive_is_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, [7; 13]).unwrap();
        let archive = folder.path().join("archive");
        write_initramfs(&archive, &[("init".into(), file.clone()), ("b".into(), file)]).unwrap();
        let bytes = fs::read(&archive).unwrap();
        // A header of 110 bytes with the name, then the file, each padded to a multiple of four.
        let starts = [0, 116 + 16, 116 + 16 + 112 + 16];
        for (start, name) in starts.into_iter().zip(["init\0", "b\0", "TRAILER!!!\0"]) {
            assert_eq!(bytes[start..start + 6], *b"070701");
            assert_eq!(bytes[start + 110..start + 110 + name.len()], *name.as_bytes());
        }
        assert_eq!(bytes[116..116 + 13], [7; 13]);
        assert_eq!(bytes[54..62], *b"0000000D");
        assert_eq!(bytes.len(), starts[2] + 124);
    }
}
