//! Scripts that `make torture` runs besides: the advisories of the crates, the fuzz targets.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::check::{Check, Group, Passed, check};
use crate::expect::pattern;
use crate::goldens::root;
use crate::lab::Lab;
use crate::script::say;

/// How long each fuzz target runs, in seconds.
const FUZZ_SECONDS: u32 = 60;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let deny = check("deny", |lab| script(lab, "deny", &["ci/deny.sh"]).map(|_| Passed::default()));
    let mut checks = vec![deny];
    for target in fuzz_targets() {
        let name = format!("fuzz-{target}");
        checks.push(check(name.clone(), move |lab| {
            let said = script(lab, &name, &["ci/fuzz.sh", &FUZZ_SECONDS.to_string(), &target])?;
            let runs = pattern(&format!("^{target}: ([0-9]+) runs in "));
            let runs = said.lines().find_map(|line| runs.group(line)?.parse().ok());
            let tries =
                runs.with_context(|| format!("ci/fuzz.sh says no number of runs:\n{said}"))?;
            let remark = format!("{tries} runs in {FUZZ_SECONDS} s");
            Ok(Passed { tries, remark, ..Passed::default() })
        }));
    }
    checks.into_iter().map(|check| check.only_in(&[Group::Torture])).collect()
}

/// The fuzz targets by name.
fn fuzz_targets() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml"))
        .expect("the fuzz targets have a manifest");
    let path = pattern("^path = \"fuzz_targets/(.*)\\.rs\"$");
    manifest.lines().filter_map(|line| Some(path.group(line)?.to_owned())).collect()
}

/// Runs a script, which must be content; what it says.
fn script(lab: &Lab, name: &str, command: &[&str]) -> Result<String> {
    let log = lab.file(&format!("{name}.out"));
    let said = say(Command::new(command[0]).args(&command[1..]), &log)?;
    said.is_content().with_context(|| format!("{command:?}"))?;
    Ok(said.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fuzz_target_is_a_check() {
        let targets = fuzz_targets();
        let there = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap().count();
        assert_eq!(targets.len(), there, "{targets:?}");
        assert!(targets.iter().any(|target| target == "gguf"));
    }
}
