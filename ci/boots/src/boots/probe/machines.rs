//! Machines on which all trials that hold everywhere must hold, and what one machine is for.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use kernel::report::{Code, Event, Exit};
use kernel::trials::Trial;

use super::{A72, ALL, Machine, everywhere, probe, virt, word, words_of};
use crate::check::{Check, Passed, check};
use crate::device_tree::Tree;
use crate::event;
use crate::expect::{Expect, literal, pattern};
use crate::lab::{Lab, Need};
use crate::seen::Line;

/// The machines, and the boot arguments that are none.
pub fn checks() -> Vec<Check> {
    let virt = |cpu, cores, memory, options: &[&str]| {
        options.iter().fold(virt(cpu, cores, memory), |machine, option| machine.option(option))
    };
    let el2 = "virtualization=on";
    let machines = [
        ("one-core", virt(A72, 1, "64M", &[])),
        ("gic2", virt(A72, 4, "128M", &["gic-version=2"])),
        ("gic3", virt("neoverse-n1", 4, "1G", &["gic-version=3"])),
        ("max", virt(ALL, 2, "4G", &["gic-version=3"])),
        ("el2-gic2", virt("cortex-a53", 3, "128M", &["gic-version=2", el2])),
        ("el2-gic3", virt(ALL, 3, "128M", &["gic-version=3", el2])),
        ("twelve-cores", virt(A72, 12, "128M", &["gic-version=3"])),
    ];
    machines.into_iter().map(|(name, machine)| works(name, &machine).into()).collect()
}

/// All trials that hold everywhere must hold.
pub fn works(name: &str, machine: &Machine) -> crate::boot::Boot {
    let trials = everywhere();
    probe(name, &words_of(&trials), machine).holds(&trials).exits(0)
}

/// The first thread runs on the boot core or, where cores are of several kinds, on the fastest.
pub fn first_core() -> Vec<Check> {
    let machine = virt(A72, 4, "128M").option("gic-version=3");
    let boot_core = probe("boot-core", &word(Trial::FirstCore, 0), &machine);
    vec![
        boot_core.holds(&[Trial::FirstCore]).exits(0).into(),
        check("probe-fast-core", move |lab| fast_core(lab, machine.clone())),
    ]
}

/// Cores of three kinds: the first thread runs on the fastest, and others on the boot core too.
fn fast_core(lab: &Lab, machine: Machine) -> Result<Passed> {
    let mut tree = Tree::of_machine(&machine.arguments(), &lab.file("probe-virt.dtb"))?;
    for (core, capacity) in [400_u32, 400, 1024, 760].into_iter().enumerate() {
        let core = tree.root.child("cpus").child(&format!("cpu@{core}"));
        core.set("capacity-dmips-mhz", capacity);
    }
    let file = lab.file("probe-fast-core.dtb");
    tree.write(&file)?;
    let trials = [Trial::FirstCore, Trial::Memory, Trial::Threads, Trial::Futex, Trial::Sleep];
    let words = format!("{} {}", word(trials[0], 2), words_of(&trials[1..]));
    let machine = machine.with(["-dtb", &file.display().to_string()]);
    probe("fast-core", &words, &machine).holds(&trials).exits(0).run(lab)?;
    Ok(Passed::default())
}

/// The words of the boot arguments, and those that are none.
pub fn words() -> Vec<Check> {
    let one = virt(A72, 1, "64M");
    let words = probe("words", r#"echo="a \"b\" \\ c"  echo= echo=d"#, &one)
        .line(&format!("^{}$", literal(r#"echo: [a "b" \ c]"#)))
        .line(&format!("^{}$", literal("echo: []")))
        .line(&format!("^{}$", literal("echo: [d]")))
        .exits(0);
    let open_quote = probe("open-quote", r#"echo="a"#, &virt(A72, 3, "64M"))
        .event(event!(Error {
            code == Code::InvalidConfig,
            message ~ "^the boot arguments hold a double quote at byte 5",
        }))
        .expect(Expect::Events(1, event!(Error {})))
        .exits(1);
    vec![words.into(), open_quote.into()]
}

/// Lines that four cores print at once: 23 of each core, all whole.
pub fn whole_lines() -> Check {
    let whole = pattern("^<(a{61}|b{61}|c{61}|d{61})>$");
    let all = Expect::that("92 lines of 61 equal letters are whole", move |seen| {
        match seen.texts().filter(|line| whole.is_in(line)).count() {
            92 => Ok(()),
            lines => Err(format!("{lines} lines are")),
        }
    });
    let boot = probe("whole-lines", Trial::WholeLines.name(), &virt(A72, 4, "64M"));
    boot.holds(&[Trial::WholeLines]).expect(all).exits(0).into()
}

/// A status of its own.
pub fn status() -> Check {
    probe("status", &word(Trial::Exit, 7), &virt(A72, 1, "64M")).exits(7).into()
}

/// A restart at the end: the machine runs again and again, where it would be turned off without that.
pub fn reboot() -> Check {
    check("probe-reboot", |lab| {
        let words = format!("{} {}", Trial::Reboot.name(), word(Trial::Exit, 3));
        let mut child = probe("reboot", &words, &virt(A72, 1, "64M")).start(lab)?;
        let ended = |line: &&Line| matches!(line, Line::Event(Event::Exit(Exit { status: 3 })));
        child.wait_for("the third end of the run", |lines| {
            lines.iter().filter(ended).count() == 3
        })?;
        Ok(Passed::default())
    })
}

/// A machine that waits for input leaves the host alone: less than a tenth of a core's time.
pub fn idle() -> Check {
    const SETTLED: Duration = Duration::from_secs(4);
    const WATCHED: Duration = Duration::from_secs(4);
    let run = |lab: &Lab| {
        let boot = probe("idle", Trial::Input.name(), &virt(A72, 4, "64M"))
            .open_input()
            .holds(&[Trial::Input])
            .exits(0);
        let mut child = boot.start(lab)?;
        child.wait_for("the `hello` event", |lines| {
            lines.iter().any(|line| matches!(line, Line::Event(Event::Hello(_))))
        })?;
        // The application starts behind `hello`; nothing shows that it waits.
        thread::sleep(SETTLED);
        let before = child.processor_time()?;
        thread::sleep(WATCHED);
        let used = child.processor_time()? - before;
        ensure!(
            used < WATCHED / 10,
            "expected: less than a tenth of a core's time\nseen: {used:?} in {WATCHED:?}"
        );
        child.type_in(b"ab q")?;
        let status = child.wait()?;
        boot.check(&boot.seen(lab, status)?)?;
        Ok(Passed::with(format!("{used:?} in {WATCHED:?}, {before:?} before")))
    };
    // Others would slow the start down, into the time that is watched.
    check("probe-idle", run).needs(Need::Proc).alone()
}
