//! What `ARCHITECTURE.md` names exists: the test of each invariant, and the file of each link.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Adds the text of all Rust files below `folder` to `all`.
fn read_sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The names in backticks of `text`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Finds invariants without a test, and tests that do not exist.
fn faults(document: &str, sources: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for line in document.lines().filter(|line| line.starts_with("**Invariant:**")) {
        let tests = line.rsplit_once(": ").map_or("", |(_, tests)| tests);
        if names(tests).next().is_none() {
            faults.push(format!("no test: {line}"));
        }
        let is_there = |name: &str| match name.contains('/') {
            true => exists(name),
            false => sources.contains(&format!("#[test]\nfn {name}(")),
        };
        faults.extend(names(tests).filter(|name| !is_there(name)).map(str::to_owned));
    }
    for link in document.split("](").skip(1) {
        let (target, _) = link.split_once(')').unwrap();
        if !target.starts_with('#') && !target.starts_with("http") && !exists(target) {
            faults.push(target.to_owned());
        }
    }
    faults
}

#[test]
fn invariants_name_tests_and_links_lead_to_files() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut sources = String::new();
    for folder in ["kernel/src", "kernel/tests", "host-io/src", "qemu", "image-builder", "ci/boots"]
    {
        read_sources(&root().join(folder), &mut sources);
    }
    // A test in a module is indented.
    let sources = sources.replace("    ", "");
    assert!(document.matches("**Invariant:**").count() > 15);
    let exists = |path: &str| root().join(path.split('#').next().unwrap()).exists();
    assert_eq!(faults(&document, &sources, exists), [""; 0]);
}

#[test]
fn a_missing_test_is_found() {
    let sources = "#[test]\nfn it_holds() {}\nfn helper() {}";
    let faults = |document| faults(document, sources, |path| path == "a/b.rs");
    assert_eq!(faults("**Invariant:** All is well: `it_holds`, `a/b.rs`."), [""; 0]);
    assert_eq!(faults("**Invariant:** All is well: `helper`, `a/c.rs`."), ["helper", "a/c.rs"]);
    assert_eq!(faults("**Invariant:** All is well."), ["no test: **Invariant:** All is well."]);
    assert_eq!(faults("[b](a/b.rs), [c](a/c.rs), [d](#d)"), ["a/c.rs"]);
}
