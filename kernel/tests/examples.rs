//! The example that generates text, with and without a working standard output.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The example; `None` with a message where it is not built.
fn generate() -> Option<Command> {
    // This program lies in `deps`, beside `examples`.
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("examples");
    path.push("generate");
    if !path.exists() && std::env::var_os("CI").is_none() {
        eprintln!("SKIPPED: there is no {} (cargo build --example generate)", path.display());
        return None;
    }
    let mut command = Command::new(path);
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../test_models/tiny.gguf");
    command.args(["--tokens", "3", "--threads", "1", model, "Once upon a"]);
    Some(command)
}

/// A pipe without a reader.
fn gone() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn text_is_generated() {
    let Some(mut command) = generate() else { return };
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"Once upon a time"), "{:?}", output.stdout);
}

#[test]
fn readers_that_have_gone_end_in_silence() {
    for more in [&[][..], &["--help"]] {
        let Some(mut command) = generate() else { return };
        let output = command.args(more).stdout(gone()).stderr(Stdio::piped()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        assert!(!message.contains("standard output"), "{message}");
        let status = command.stderr(gone()).status().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn text_that_cannot_be_shown_is_a_failure() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for more in [&[][..], &["--help"]] {
        let Some(mut command) = generate() else { return };
        let output = command.args(more).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("cannot write to standard output: No space left"), "{message}");
    }
}

#[test]
fn each_setting_of_the_engine_has_an_option() {
    use kernel::settings::{Group, Initial, KEYS};

    let Some(mut command) = generate() else { return };
    let output = command.arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let has = |key: &&kernel::settings::Key| matches!(key.group, Group::Context | Group::Sampler);
    for key in KEYS.iter().filter(has) {
        let (Initial::Value(default) | Initial::Words(default)) = key.default;
        let option = format!("  --{}", key.flag());
        let mut lines = help.lines().skip_while(|line| !line.starts_with(&option));
        assert!(lines.next().is_some(), "{} is not in the help", key.name);
        let line = lines.next().unwrap();
        assert!(line.ends_with(&format!("[default: {default}]")), "{}: {line}", key.name);
    }
    for (words, message) in [
        (&["--top-k", "many"][..], "`top_k` takes a whole number from 0 on"),
        (&["--perplexity"], "`max_tokens` does nothing in mode perplexity"),
        (&["--tokens"], "--tokens needs a value"),
        (&["--top-kk", "3"], "there is no option --top-kk"),
    ] {
        let Some(mut command) = generate() else { return };
        let output = command.args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(message), "{said}");
    }
}
