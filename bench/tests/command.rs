//! The command as a user runs it, without a measurement.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

/// A folder with results, and a README without their tables.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    fs::create_dir(&results).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("results")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), results.join(entry.file_name())).unwrap();
    }
    let readme = "# Results\n\n<!-- rates -->\n<!-- /rates -->\n";
    fs::write(folder.path().join("README.md"), readme).unwrap();
    folder
}

/// Runs the command with `--show`, changed by `set_up`.
fn show(folder: &tempfile::TempDir, set_up: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anchorite-bench"));
    command.args(["--show", "--results"]).arg(folder.path().join("results"));
    set_up(&mut command);
    command.output().unwrap()
}

/// A pipe that nobody reads.
fn gone() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn results_are_shown_and_written_into_the_readme() {
    let folder = place();
    let output = show(&folder, |command| command);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let readme = fs::read_to_string(folder.path().join("README.md")).unwrap();
    let table = readme.split_once("<!-- rates -->\n").unwrap().1;
    let table = table.split_once("<!-- /rates -->\n").unwrap().0;
    assert!(table.len() > 100 && shown.contains(&format!("rates\n\n{table}")), "{shown}");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let folder = place();
    let set_ups: [fn(&mut Command) -> &mut Command; 3] = [
        |command| command.stdout(gone()),
        |command| command.stdout(gone()).stderr(gone()),
        |command| command.arg("--help").stdout(gone()),
    ];
    for set_up in set_ups {
        let output = show(&folder, set_up);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    }
    let output = show(&folder, |command| command.arg("--nonsense").stderr(gone()));
    assert_eq!(output.status.code(), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn text_that_cannot_be_printed_is_a_failure() {
    let folder = place();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&[][..], &["--help"], &["--version"]] {
        let output = show(&folder, |command| command.args(arguments).stdout(full()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("cannot write to standard output: No space left"), "{errors}");
    }
}

/// A README that cannot be written whole stays as it was.
#[test]
fn a_full_disk_spares_what_is_there() {
    let folder = place();
    let readme = folder.path().join("README.md");
    let before = fs::read(&readme).unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" --show --results \"$1\""]);
    limited.arg(env!("CARGO_BIN_EXE_anchorite-bench")).arg(folder.path().join("results"));
    let output = limited.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("cannot write ") && errors.contains("README.md: File too large"),
        "{errors}"
    );
    assert!(fs::read(&readme).unwrap() == before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
