//! Runs checks, several at a time, and says what came of each.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check::{Check, Passed};
use crate::lab::Lab;

/// What came of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All holds.
    Passed(Passed),
    /// Something does not: what was expected and what was seen.
    Failed(String),
    /// It was not tried: why.
    Skipped(String),
}

/// A check that is done.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
}

impl Done {
    /// How often it was tried.
    pub fn tries(&self) -> u64 {
        match &self.outcome {
            Outcome::Passed(passed) => passed.tries.max(1),
            Outcome::Failed(_) => 1,
            Outcome::Skipped(_) => 0,
        }
    }
}

/// Runs checks, `jobs` side by side, and afterwards those that need the machine to themselves.
///
/// Each result goes to `out` as it comes. The results are given in the order of `checks`.
pub fn run(checks: &[&Check], jobs: usize, lab: &Lab, out: &mut dyn Write) -> Vec<Done> {
    let mut done: Vec<Option<Done>> = vec![None; checks.len()];
    let mut take = |number: usize, one: Done| {
        // The checks go on without a reader (`| head`).
        let _ = out.write_all(line(&one).as_bytes()).and_then(|()| out.flush());
        done[number] = Some(one);
    };
    let (shared, alone): (Vec<usize>, Vec<usize>) =
        (0..checks.len()).partition(|&number| !checks[number].alone);

    let waiting = Mutex::new(shared.into_iter());
    let (sender, ended) = channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            let waiting = &waiting;
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().expect("nobody panics while holding it").next();
                    let Some(number) = next else { return };
                    if sender.send((number, run_one(checks[number], lab))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, one) in ended {
            take(number, one);
        }
    });
    for number in alone {
        take(number, run_one(checks[number], lab));
    }
    done.into_iter().flatten().collect()
}

fn run_one(check: &Check, lab: &Lab) -> Done {
    let started = Instant::now();
    let missing = check.needs.iter().find_map(|need| lab.has(*need).err());
    let outcome = match missing {
        Some(why) => Outcome::Skipped(why),
        None => match check.run(lab) {
            Ok(passed) => Outcome::Passed(passed),
            Err(e) => Outcome::Failed(format!("{e:#}")),
        },
    };
    Done { name: check.name.clone(), outcome, time: started.elapsed() }
}

fn line(done: &Done) -> String {
    let (name, seconds) = (&done.name, done.time.as_secs());
    match &done.outcome {
        Outcome::Passed(Passed { remark, figures, .. }) => {
            let mut text = format!("ok      {seconds:3} s  {name}");
            if !remark.is_empty() {
                text += &format!(" ({remark})");
            }
            figures.iter().for_each(|figure| text += &format!("\n        {figure}"));
            text + "\n"
        }
        Outcome::Skipped(why) => format!("skipped        {name}: {why}\n"),
        Outcome::Failed(why) => {
            let mut text = format!("FAILED  {seconds:3} s  {name}\n");
            why.lines().for_each(|line| text += &format!("    {line}\n"));
            text
        }
    }
}

/// The last lines: what failed, what was skipped, and how many there were.
pub fn summary(done: &[Done]) -> String {
    let mut text = String::new();
    let count = |wanted: fn(&Outcome) -> bool| done.iter().filter(|d| wanted(&d.outcome)).count();
    for Done { name, outcome, .. } in done {
        match outcome {
            Outcome::Failed(_) => text += &format!("FAILED: {name}\n"),
            Outcome::Skipped(why) => text += &format!("skipped: {name}: {why}\n"),
            Outcome::Passed(_) => {}
        }
    }
    let passed = count(|outcome| matches!(outcome, Outcome::Passed(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    text += &format!("boots: {passed} passed, {failed} failed");
    if skipped > 0 {
        text += &format!(", {skipped} skipped");
    }
    text + "\n"
}

/// What came of a check, in a word.
fn outcome(done: &Done) -> &'static str {
    match done.outcome {
        Outcome::Passed(_) => "as it must",
        Outcome::Failed(_) => "FAILED",
        Outcome::Skipped(_) => "skipped",
    }
}

/// The table for programs.
pub fn table_json(done: &[Done]) -> serde_json::Value {
    let row =
        |one: &Done| json!({ "check": one.name, "tries": one.tries(), "outcome": outcome(one) });
    done.iter().map(row).collect()
}

/// A table of what was tried, how often, and what came of it.
pub fn table(done: &[Done]) -> String {
    let mut text = format!("{:40} {:>9}  outcome\n", "what is tried", "tries");
    for one in done {
        text += &format!("{:40} {:>9}  {}\n", one.name, one.tries(), outcome(one));
    }
    let tries: u64 = done.iter().map(Done::tries).sum();
    text + &format!("{} checks, {tries} tries\n", done.len())
}

#[cfg(test)]
mod tests;
