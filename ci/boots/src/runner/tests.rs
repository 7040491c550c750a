//! Order, counts and output of the runner.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::boot::boot;
use crate::check::check;
use crate::lab::Need;

fn run_all(checks: &[Check], jobs: usize, lab: &Lab) -> (Vec<Done>, String) {
    let checks: Vec<&Check> = checks.iter().collect();
    let mut out = Vec::new();
    let done = run(&checks, jobs, lab, &mut out);
    (done, String::from_utf8(out).unwrap())
}

#[test]
fn what_passes_fails_and_is_skipped_is_counted() {
    let lab = Lab::without_pi4("target", "no such QEMU");
    let checks = [
        check("good", |_| Ok(Passed::tries(7))),
        check("bad", |_| anyhow::bail!("expected: 1\nseen: 2")),
        check("board", |_| unreachable!("it is skipped")).needs(Need::Pi4),
        check("better", |_| {
            Ok(Passed { figures: vec!["all: 1".into(), "best: 2".into()], ..Passed::default() })
        }),
    ];
    let (done, told) = run_all(&checks, 1, &lab);
    assert_eq!(
        told,
        "ok        0 s  good (7 tries)\n\
         FAILED    0 s  bad\n    expected: 1\n    seen: 2\n\
         skipped        board: no such QEMU\n\
         ok        0 s  better\n        all: 1\n        best: 2\n"
    );
    assert_eq!(
        summary(&done),
        "FAILED: bad\nskipped: board: no such QEMU\nboots: 2 passed, 1 failed, 1 skipped\n"
    );
    assert_eq!(summary(&done[3..]), "boots: 1 passed, 0 failed\n");
    let table = table(&done);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["good", "7", "as", "it", "must"]);
    assert_eq!(rows[2], ["bad", "1", "FAILED"]);
    assert_eq!(rows[3], ["board", "0", "skipped"]);
    assert_eq!(table.lines().last(), Some("4 checks, 9 tries"));
}

#[test]
fn two_run_at_a_time_and_some_alone() {
    let both = Arc::new(Barrier::new(2));
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let shared = |name: &str| {
        let (both, running, most) = (both.clone(), running.clone(), most.clone());
        check(name, move |_| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Neither gets any further unless the other one runs too.
            both.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(Passed::default())
        })
    };
    let beside = running.clone();
    let alone = check("alone", move |_| {
        anyhow::ensure!(beside.load(Ordering::SeqCst) == 0, "another one runs");
        Ok(Passed::default())
    });
    let checks = [shared("a"), alone.alone(), shared("b"), shared("c"), shared("d")];
    let (done, told) = run_all(&checks, 2, &Lab::default());
    assert_eq!(summary(&done), "boots: 5 passed, 0 failed\n");
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(done[1].name, "alone", "they are given in the order of the table");
    assert!(told.ends_with("alone\n"), "{told}");
}

/// `echo` plays QEMU: its arguments are the serial line.
#[test]
fn a_boot_that_does_not_hold_shows_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(folder.path());
    let echo = |name: &str| boot(name).by_qemu("max_tokens=3", &["-m", "64M"]).program("echo");
    echo("good").line("-append max_tokens=3 -m 64M$").run(&lab).unwrap();
    let failure = echo("bad").line("64M$").exits(0).run(&lab).unwrap_err().to_string();
    for part in [
        "expected: one `exit` event, with status 0",
        "no event",
        "the serial log ends",
        "| -nic none -display none -monitor none -serial stdio -kernel target/anchorite.img",
    ] {
        assert!(failure.contains(part), "{part:?} in {failure}");
    }
}
