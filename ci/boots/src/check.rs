//! A row of the table: a check with its name, its groups and its needs.

use anyhow::Result;
use clap::ValueEnum;

use crate::boot::Boot;
use crate::lab::{Lab, Need};

/// Groups of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// `make test` runs these.
    Quick,
    /// QEMU's Raspberry Pi 4.
    Pi4,
    /// Repeated and long runs, of some minutes.
    Endurance,
    /// Checks that build the kernel again, or take much memory.
    Long,
    /// All checks, with attacks, long endurance and the fuzz targets: `make torture`.
    Torture,
    /// A real model, which is fetched: `make test-real`.
    Real,
}

/// The result of a check that passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// The number of tries; 0 counts as one.
    pub tries: u64,
    /// A remark.
    pub remark: String,
    /// Lines with figures, shown below the name.
    pub figures: Vec<String>,
}

impl Passed {
    /// So many tries.
    pub fn tries(tries: u64) -> Passed {
        Passed { tries, remark: format!("{tries} tries"), ..Passed::default() }
    }

    /// One try, and a remark.
    pub fn with(remark: impl Into<String>) -> Passed {
        Passed { tries: 1, remark: remark.into(), ..Passed::default() }
    }
}

type Run = Box<dyn Fn(&Lab) -> Result<Passed> + Send + Sync>;

/// A check of the table.
#[must_use]
pub struct Check {
    /// The name; a part of it chooses the check.
    pub name: String,
    /// The groups of the check.
    pub groups: Vec<Group>,
    /// Whether the check needs the machine to itself.
    pub alone: bool,
    /// The check is skipped without these.
    pub needs: Vec<Need>,
    run: Run,
}

/// A check that is a function, in the groups `Quick` and `Torture`.
pub fn check(
    name: impl Into<String>,
    run: impl Fn(&Lab) -> Result<Passed> + Send + Sync + 'static,
) -> Check {
    Check {
        name: name.into(),
        groups: vec![Group::Quick, Group::Torture],
        alone: false,
        needs: Vec::new(),
        run: Box::new(run),
    }
}

/// A boot whose expectations depend on what is on a disk.
pub fn lazy(
    name: &'static str,
    boot: impl Fn(&Lab, Boot) -> Result<Boot> + Send + Sync + 'static,
) -> Check {
    check(name, move |lab| {
        boot(lab, crate::boot::boot(name))?.run(lab)?;
        Ok(Passed::default())
    })
}

impl From<Boot> for Check {
    fn from(boot: Boot) -> Check {
        check(boot.name.clone(), move |lab| {
            boot.run(lab)?;
            Ok(Passed::default())
        })
    }
}

impl Check {
    /// Moves the check to these groups.
    pub fn only_in(mut self, groups: &[Group]) -> Check {
        self.groups = groups.to_vec();
        self
    }

    /// Adds the check to a group.
    pub fn also_in(mut self, group: Group) -> Check {
        self.groups.push(group);
        self
    }

    /// Runs the check with the machine to itself.
    pub fn alone(mut self) -> Check {
        self.alone = true;
        self
    }

    /// Skips the check without this.
    pub fn needs(mut self, need: Need) -> Check {
        self.needs.push(need);
        self
    }

    /// Runs the check.
    ///
    /// # Errors
    /// The check fails.
    pub fn run(&self, lab: &Lab) -> Result<Passed> {
        (self.run)(lab)
    }
}

/// The checks that are asked for: in one of the groups, and with one of the words in the name.
///
/// A full name chooses its check whatever the group. Words without groups choose among all checks
/// but those of the torture or of a real model alone. Without both, the quick checks are chosen.
pub fn chosen<'a>(table: &'a [Check], words: &[String], groups: &[Group]) -> Vec<&'a Check> {
    let in_group = |check: &Check| match (groups, words) {
        ([], []) => check.groups.contains(&Group::Quick),
        ([], _) => check.groups != [Group::Torture] && check.groups != [Group::Real],
        _ => check.groups.iter().any(|group| groups.contains(group)),
    };
    let named =
        |check: &Check| words.is_empty() || words.iter().any(|word| check.name.contains(word));
    let in_full = |check: &Check| words.contains(&check.name);
    table.iter().filter(|check| in_full(check) || (in_group(check) && named(check))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<Check> {
        let passes = |_: &Lab| Ok(Passed::default());
        vec![
            check("pci", passes),
            check("pi4-card", passes).also_in(Group::Pi4),
            check("long-pci", passes).only_in(&[Group::Torture]),
            check("real-pci", passes).only_in(&[Group::Real]),
        ]
    }

    fn names(words: &[&str], groups: &[Group]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        chosen(&table(), &words, groups).iter().map(|check| check.name.clone()).collect()
    }

    #[test]
    fn words_and_groups_choose() {
        assert_eq!(names(&[], &[]), ["pci", "pi4-card"]);
        assert_eq!(names(&["p"], &[]), ["pci", "pi4-card"]);
        assert_eq!(names(&["pc", "card"], &[]), ["pci", "pi4-card"]);
        assert_eq!(names(&["card"], &[Group::Quick]), ["pi4-card"]);
        assert_eq!(names(&[], &[Group::Pi4]), ["pi4-card"]);
        assert_eq!(names(&["pci"], &[Group::Torture]), ["pci", "long-pci"]);
        assert_eq!(names(&["long-pci"], &[]), ["long-pci"]);
        assert_eq!(names(&[], &[Group::Real]), ["real-pci"]);
        assert_eq!(names(&["real-pci"], &[]), ["real-pci"]);
        assert!(names(&["none"], &[]).is_empty());
    }
}
