//! A row of the table: a check with its name, when it is run, and what it takes.

use anyhow::Result;
use clap::ValueEnum;

use crate::boot::Boot;
use crate::lab::{Lab, Need};

/// Which checks belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// What `make test` runs.
    Quick,
    /// QEMU's Raspberry Pi 4.
    Pi4,
    /// What must hold however often it is tried, for some minutes.
    Endurance,
    /// What takes long, or much memory.
    Long,
    /// All of it, and the endurance of an hour.
    Torture,
}

/// What came of a check that passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// How often it was tried; 0 counts as once.
    pub tries: u64,
    /// A remark.
    pub remark: String,
}

impl Passed {
    /// It was tried so often.
    pub fn tries(tries: u64) -> Passed {
        Passed { tries, remark: format!("{tries} tries") }
    }

    /// With a remark.
    pub fn with(remark: impl Into<String>) -> Passed {
        Passed { tries: 1, remark: remark.into() }
    }
}

type Run = Box<dyn Fn(&Lab) -> Result<Passed> + Send + Sync>;

/// A check.
#[must_use]
pub struct Check {
    /// Its name, by which it is chosen.
    pub name: String,
    /// When it is run.
    pub groups: Vec<Group>,
    /// Whether nothing else may run beside it.
    pub alone: bool,
    /// Without which it is skipped.
    pub needs: Vec<Need>,
    run: Run,
}

/// A check that is a program of its own, in the groups `Quick` and `Torture`.
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

/// A boot that depends on what is on a disk, or on an earlier boot.
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
    /// In these groups instead.
    pub fn only_in(mut self, groups: &[Group]) -> Check {
        self.groups = groups.to_vec();
        self
    }

    /// In this group, too.
    pub fn also_in(mut self, group: Group) -> Check {
        self.groups.push(group);
        self
    }

    /// With the machine to itself.
    pub fn alone(mut self) -> Check {
        self.alone = true;
        self
    }

    /// Skipped without this.
    pub fn needs(mut self, need: Need) -> Check {
        self.needs.push(need);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, lab: &Lab) -> Result<Passed> {
        (self.run)(lab)
    }
}

/// Those that are asked for: of one of the groups and, if there are words, with one of them in the name.
/// A name that is given in full is taken whatever its group. Without groups, words choose among all
/// checks but those of the torture alone, and nothing at all means the quick ones.
pub fn chosen<'a>(table: &'a [Check], words: &[String], groups: &[Group]) -> Vec<&'a Check> {
    let in_group = |check: &Check| match (groups, words) {
        ([], []) => check.groups.contains(&Group::Quick),
        ([], _) => check.groups != [Group::Torture],
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
        assert!(names(&["none"], &[]).is_empty());
    }
}
