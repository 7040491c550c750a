//! `mode=test`: the image tests itself on the machine it runs on, one `test` event for each.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::app::error::Error;
use crate::app::os;
use crate::app::output::{emit, say};
use crate::app::sha256;
use crate::llm;
use crate::llm::workers::Workers;
use crate::report::{Event, Test};

/// What a test found: what it saw, or why it failed.
type Verdict = Result<String, String>;

/// Runs every test that needs no model.
///
/// # Errors
/// Some failed.
pub fn run(workers: &dyn Workers) -> Result<(), Error> {
    let mut failed = 0;
    let mut report = |name: &str, verdict: Verdict| {
        let pass = verdict.is_ok();
        failed += usize::from(!pass);
        let (Ok(detail) | Err(detail)) = verdict;
        say!("{} {name}: {detail}", if pass { "pass" } else { "FAIL" });
        emit(&Event::Test(Test { name: name.to_string(), pass, detail, figure: None }));
    };
    report("clock", clock());
    report("sha256", sha256());
    report("team", team(workers));
    for (name, outcome) in llm::self_tests() {
        report(&name, outcome);
    }
    if failed == 0 { Ok(()) } else { Err(Error::TestsFailed(failed)) }
}

fn clock() -> Verdict {
    let mut last = os::now_us();
    let end = last + 2_000;
    let mut steps = 0;
    while last < end {
        let now = os::now_us();
        if now < last {
            return Err(format!("went back from {last} to {now} µs"));
        }
        steps += u32::from(now > last);
        last = now;
    }
    Ok(format!("{steps} steps in 2 ms"))
}

fn sha256() -> Verdict {
    match sha256::self_test() {
        Ok(name) => Ok(format!("{name} equals the portable one")),
        Err(length) => Err(format!("{} differs at length {length}", sha256::Sha256::name())),
    }
}

fn team(workers: &dyn Workers) -> Verdict {
    const ROUNDS: usize = 997;
    let members = workers.count();
    let seen: alloc::vec::Vec<AtomicUsize> = (0..members).map(|_| AtomicUsize::new(0)).collect();
    for round in 0..ROUNDS {
        workers.run(&|member| {
            seen[member].fetch_add(round, Ordering::Relaxed);
        });
        // Every member has taken part exactly once when a round is over.
        let sum = round * (round + 1) / 2;
        if let Some(late) = seen.iter().position(|count| count.load(Ordering::Relaxed) != sum) {
            return Err(format!("member {late} of {members} missed round {round}"));
        }
    }
    Ok(format!("{ROUNDS} rounds of {members}"))
}
