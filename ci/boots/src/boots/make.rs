//! Settings of `make` that reach the harness, the disk and QEMU.
//!
//! Most checks run `make` in a copy of the scripts, with files of their own. A few start QEMU.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image_builder::volume::{Notes, Volume};

use crate::check::{Check, Passed, check};
use crate::disk::TINY;
use crate::event;
use crate::expect::Expect;
use crate::failure::Failure;
use crate::files::copy_folder;
use crate::goldens::PROMPT;
use crate::lab::Lab;
use crate::script::{Said, say, write_script};
use crate::seen::Seen;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    vec![
        check("make-texts", texts),
        check("make-names", names),
        check("make-files", files),
        check("make-unused", unused),
        check("make-unused-in-guest", |lab| {
            Checkout::new(lab, "make-unused-in-guest")?.refuses(
                "`system` does nothing in mode generate, only in chat",
                &["run", "SYSTEM=a"],
            )?;
            Ok(Passed::default())
        }),
        // These build in the project's own folder.
        check("make", make).alone(),
        check("make-cargo", cargo).alone(),
        check("make-board-report", board_report).alone(),
        check("make-missing-model", missing_model).alone(),
    ]
}

/// A copy of the scripts, in which set-up and build do nothing.
pub struct Checkout {
    folder: PathBuf,
    log: PathBuf,
}

impl Checkout {
    pub fn new(lab: &Lab, name: &str) -> Result<Checkout> {
        let folder = lab.file(&format!("{name}.checkout"));
        fs::create_dir(&folder)?;
        copy_folder(Path::new("ci"), &folder.join("ci"), &[])?;
        for script in ["ci/setup.sh", "ci/build.sh"] {
            write_script(&folder.join(script), "#!/bin/sh\n")?;
        }
        let here = std::env::current_dir()?;
        for part in ["target", "test_models", "Makefile"] {
            symlink(here.join(part), folder.join(part))?;
        }
        Ok(Checkout { folder, log: lab.file(&format!("{name}.out")) })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn make(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Said> {
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.folder).args(arguments).envs(environment.iter().copied());
        say(&mut make, &self.log).with_context(|| format!("make {arguments:?}"))
    }

    /// Runs make, which must end with status 0.
    fn made(&self, arguments: &[&str]) -> Result<Said> {
        let said = self.make(arguments, &[])?;
        said.is_content().with_context(|| format!("make {arguments:?}"))?;
        Ok(said)
    }

    /// Runs make, which must end with status 2 and say this.
    fn refuses(&self, message: &str, arguments: &[&str]) -> Result<()> {
        let said = self.make(arguments, &[])?;
        let refused = said.ends_with(2).and_then(|()| said.holds(message));
        refused.with_context(|| format!("make {arguments:?}"))
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Texts reach QEMU unchanged, by both names of a setting and from the environment.
fn texts(lab: &Lab) -> Result<Passed> {
    let checkout = Checkout::new(lab, "make-texts")?;
    let texts = [" lead", "\ttab", "\nline", "   ", "two\nlines\n", "$x \"q\" `y`"];
    for text in texts {
        let shown = text.replace('"', "\\\"");
        let set = |key: &str| format!("{key}={text}");
        let said =
            checkout.made(&["run", "ARGS=--print", &set("PROMPT"), &set("SYSTEM"), "MODE=chat"])?;
        said.holds(&format!("prompt=\"{shown}\""))?;
        said.holds(&format!("system=\"{shown}\""))?;
        let own = [set("prompt"), set("system")];
        let said = checkout.made(&["run", "ARGS=--print", &own[0], &own[1], "mode=chat"])?;
        said.holds(&format!("mode=chat prompt=\"{shown}\" system=\"{shown}\""))?;
        let said = checkout.make(&["run", "ARGS=--print"], &[("PROMPT", text)])?;
        said.is_content()?;
        said.holds(&format!("prompt=\"{shown}\""))?;
    }
    checkout
        .made(&["run", "ARGS=--print", "PROMPT=", "SYSTEM=", "MODE=chat"])?
        .holds("prompt=\"\" system=\"\"")?;
    checkout.made(&["run", "ARGS=--print", "PROMPT= a", "PROMPT=b"])?.holds("prompt=b")?;
    Ok(Passed::tries(3 * texts.len() as u64 + 2))
}

/// File names that begin with a minus, in a boot.
fn names(lab: &Lab) -> Result<Passed> {
    let checkout = Checkout::new(lab, "make-names")?;
    fs::copy(TINY, checkout.file("-x.gguf"))?;
    fs::write(checkout.file("-p.txt"), format!("{PROMPT}\n"))?;
    fs::write(checkout.file("-c.toml"), "max_tokens = 3\n")?;
    checkout.made(&[
        "run",
        "MODEL=-x.gguf",
        "PROMPT_FILE=-p.txt",
        "CONFIG=-c.toml",
        "LOG=-l",
        "REPORT=-r",
    ])?;
    ensure!(fs::metadata(checkout.file("-r"))?.len() > 0, "the report is empty");
    let log = lab.file("make-names.log");
    fs::copy(checkout.file("-l"), &log)?;
    let seen = Seen { out: checkout.log.clone(), ..Seen::read(&log)? };
    let expected = [
        Expect::Event(event!(Model { file == "-x.gguf" })),
        Expect::Event(event!(Result { prompt_tokens == 5usize, tokens_emitted == 3usize })),
    ];
    expected.iter().try_for_each(|expected| Failure::unless(expected, &seen))?;
    remove_disks("-x-")?;
    Ok(Passed::default())
}

/// Removes the disks that `make` keeps for a model of this name.
fn remove_disks(start: &str) -> Result<()> {
    for entry in fs::read_dir("target/disks")? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Files with one name in two folders, and a file that replaces another one.
fn files(lab: &Lab) -> Result<Passed> {
    let checkout = Checkout::new(lab, "make-files")?;
    let model = fs::read(TINY)?;
    for folder in ["one", "two"] {
        fs::create_dir(checkout.file(folder))?;
        fs::write(checkout.file(&format!("{folder}/p.txt")), format!("{folder}\n"))?;
        fs::write(checkout.file(&format!("{folder}/m.gguf")), &model)?;
    }
    let (one, two) = (checkout.file("one/m.gguf"), checkout.file("two/m.gguf"));
    // The second model has other bytes, but the same name, size and time.
    let mut other = model.clone();
    other[1_000_003] = 1;
    ensure!(other != model, "the byte is 1 already");
    fs::write(&two, &other)?;
    let time = fs::metadata(&one)?.modified()?;
    let set_time = |path: &Path| fs::File::options().write(true).open(path)?.set_modified(time);
    set_time(&two)?;

    // The disk on QEMU's command line.
    let disk_of = |folder: &str| -> Result<PathBuf> {
        let (model, prompt) =
            (format!("MODEL={folder}/m.gguf"), format!("PROMPT_FILE={folder}/p.txt"));
        let said = checkout.made(&["run", "ARGS=--print", &model, &prompt])?;
        let (_, rest) = said.text.split_once("file.filename=").context("QEMU is given no disk")?;
        Ok(checkout.file(rest.split([' ', '\n']).next().unwrap_or_default()))
    };
    let holds = |disk: &Path, path: &str, expected: &[u8]| -> Result<()> {
        let notes = Notes::default();
        let volume = Volume::mount_at(fs::File::open(disk)?, 0, &notes)?;
        let mut bytes = Vec::new();
        volume.read_file(path, |part| bytes.extend_from_slice(part))?;
        ensure!(bytes == expected, "{} has another {path}", disk.display());
        Ok(())
    };
    let disk_one = disk_of("one")?;
    let disk_two = disk_of("two")?;
    holds(&disk_one, "models/m.gguf", &model)?;
    holds(&disk_two, "models/m.gguf", &other)?;
    holds(&disk_one, "p.txt", b"one\n")?;
    holds(&disk_two, "p.txt", b"two\n")?;
    ensure!(disk_of("one")? == disk_one, "a disk is not found again");
    ensure!(disk_one != disk_two, "both have the same disk");
    fs::copy(&two, &one)?;
    set_time(&one)?;
    ensure!(disk_of("one")? != disk_one, "a disk of the old model is taken");
    remove_disks("m-")?;
    Ok(Passed::default())
}

/// Settings that do not exist, are given twice or wrongly, or have no effect.
fn unused(lab: &Lab) -> Result<Passed> {
    let checkout = Checkout::new(lab, "make-unused")?;
    fs::create_dir(checkout.file("one"))?;
    fs::write(checkout.file("one/p.txt"), "one\n")?;
    let refused: [(&str, &[&str]); 12] = [
        ("does nothing with PROMPT", &["flash-pi4", "PROMPT=a"]),
        ("does nothing with BOOTARGS", &["run", "BOOTARGS=a"]),
        ("does nothing with MODEL", &["build", "MODEL=tiny.gguf"]),
        ("does nothing with top_k", &["build", "top_k=3"]),
        ("there is no setting top_kk: did you mean top_k?", &["run", "top_kk=3"]),
        ("there is no setting TOKEN: did you mean TOKENS?", &["run", "TOKEN=3"]),
        ("`max_tokens` is given twice", &["run", "TOKENS=3", "max_tokens=3"]),
        ("`top_k` takes a whole number", &["run", "top_k=many"]),
        ("model and MODEL are one setting", &["run", "MODEL=tiny.gguf", "model=tiny.gguf"]),
        ("exclude each other", &["run", "PROMPT=", "PROMPT_FILE=one/p.txt"]),
        ("`prompt` does nothing in mode test", &["run", "PROMPT=a", "MODE=test"]),
        ("cortex-a15 is a processor of 32 bits", &["run", "CPU=cortex-a15"]),
    ];
    for (message, arguments) in refused {
        checkout.refuses(message, arguments)?;
    }
    Ok(Passed::tries(refused.len() as u64))
}

/// The project's own `make run`, with set-up and build.
fn make(lab: &Lab) -> Result<Passed> {
    let text = "He said \"it costs $5, is it?\" \\ and that is `$(true)`";
    let said = say(
        Command::new("make")
            .args(["run", "TOKENS=3", "MEM=333M", "ARGS=--print"])
            .arg(format!("PROMPT={text}")),
        &lab.file("make.out"),
    )?;
    said.is_content()?;
    ensure!(
        said.text.lines().any(|line| line.contains("costs $5") && line.contains("`$(true)`")),
        "expected: the prompt, letter by letter\nseen:\n{}",
        said.text
    );
    said.holds("333")?;
    Ok(Passed::default())
}

/// Settings of cargo for other projects change nothing: nothing is compiled again.
fn cargo(lab: &Lab) -> Result<Passed> {
    let log = lab.file("make-cargo.out");
    let elsewhere = std::env::current_dir()?.join(lab.file("elsewhere"));
    // A small package stands for all commands of the host.
    for arguments in [
        &["bare", "build", "-p", "kernel", "--bin", "anchorite", "--release"][..],
        &["host", "build", "-p", "host-io"],
    ] {
        let mut command = Command::new("ci/toolchain.sh");
        say(command.args(arguments), &log)?.is_content()?;
        command
            .env("CARGO_TARGET_DIR", &elsewhere)
            .env("CARGO_BUILD_TARGET", "wasm32-unknown-unknown");
        // Flags for the host would compile everything for the host again.
        if arguments[0] == "bare" {
            command.env("RUSTFLAGS", "--cfg=other");
        }
        let said = say(&mut command, &log)?;
        said.is_content()?;
        ensure!(!said.text.contains("Compiling"), "it is built again:\n{}", said.text);
    }
    ensure!(!elsewhere.exists(), "something is built in {}", elsewhere.display());
    Ok(Passed::default())
}

fn board_report(lab: &Lab) -> Result<Passed> {
    const RECORDED: &str = "image-builder/src/board_report/testdata/raspi4b.log";
    let log = lab.file("make-board-report.out");
    let make = |arguments: &[&str]| {
        let mut make = Command::new("make");
        say(make.arg("board-report").args(arguments).env_remove("LOG"), &log)
    };
    let said = make(&[&format!("LOG={RECORDED}")])?;
    said.is_content()?;
    ensure!(
        said.text.lines().any(|line| line == "## Anchorite on Raspberry Pi 4 Model B"),
        "there is no report:\n{}",
        said.text
    );
    let said = make(&[])?;
    said.has_failed()?;
    said.holds("Name the log")?;
    Ok(Passed::default())
}

fn missing_model(lab: &Lab) -> Result<Passed> {
    let log = lab.file("make-missing-model.out");
    let said = say(Command::new("make").args(["run", "MODEL=missing.gguf"]), &log)?;
    said.has_failed()?;
    said.holds("no model missing.gguf")?;
    Ok(Passed::default())
}
