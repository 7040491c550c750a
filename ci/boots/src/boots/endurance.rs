//! Repeated and long runs: equal boots, one text for a seed on all machines, an endless text.
//!
//! The self-tests have a thousand inferences in one boot.

use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use kernel::report::StopReason;

use crate::boot::{Boot, Verdict, boot};
use crate::check::{Check, Group, Passed, check};
use crate::disk::tiny;
use crate::event;
use crate::expect::Expect;
use crate::lab::{BUILDER, IMAGE, Lab, Need};
use crate::machine::MAX;
use crate::script::say;

/// The number of tokens of a text.
const TOKENS: usize = 48;
/// The token that ends a text.
pub const END: u32 = 2;
/// The positions of the context, and how many a context shift removes.
const CONTEXT: usize = 256;
const FORGOTTEN: usize = CONTEXT / 2;

/// The text of the first boot of a run; all other boots must give the same.
type Text = Arc<Mutex<Option<Vec<u32>>>>;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    const BOTH: [Group; 2] = [Group::Endurance, Group::Torture];
    let text = Text::default();
    let mut checks = vec![
        again(10, text.clone()).only_in(&[Group::Endurance]),
        again(200, text.clone()).only_in(&[Group::Torture]),
        slides(1000).only_in(&[Group::Endurance]),
        slides(10_000).only_in(&[Group::Torture]),
    ];
    for (short, cpu) in [("cortex-a72", "cortex-a72"), ("neoverse-n1", "neoverse-n1"), ("max", MAX)]
    {
        for cores in [1, 2, 4, 8] {
            let text = text.clone();
            let seed = check(format!("seed-{short}-{cores}"), move |lab| {
                let boot = boot(format!("seed-{short}-{cores}")).cores(cores).cpu(cpu);
                boot.gives(&text, lab)
            });
            checks.push(seed.only_in(&BOTH));
        }
    }
    let same = text.clone();
    let pi4 = check("seed-pi4", move |lab| boot("seed-pi4").raspberry_pi_4().gives(&same, lab));
    checks.push(pi4.only_in(&BOTH).needs(Need::Pi4));
    checks.push(check("seed-debug", move |lab| debug(&text, lab)).only_in(&BOTH).alone());
    checks
}

impl Boot {
    /// Samples with a fixed seed, and never samples the end-of-sequence token.
    fn drawn(self, tokens: usize) -> Boot {
        self.disk(tiny())
            .set("max_tokens", tokens)
            .set("seed", 7)
            .set("temperature", 0.9)
            .set("logit_bias", format!("{END}:-inf"))
            .event(event!(Result { stop == StopReason::MaxTokens }))
            .exits(0)
    }

    /// Expects the text of the first boot of this run.
    fn gives(self, text: &Text, lab: &Lab) -> Result<Passed> {
        let boot = self.drawn(TOKENS);
        let seen = boot.run(lab)?;
        let answers = seen.answers();
        let [this] = &answers[..] else { anyhow::bail!("{} answers", answers.len()) };
        ensure!(this.len() == TOKENS, "expected: {TOKENS} tokens\nseen: {this:?}");
        let expected = {
            let mut text = text.lock().expect("nobody panics while holding it");
            text.get_or_insert_with(|| this.clone()).clone()
        };
        crate::failure::Failure::unless(&Expect::Answers(vec![expected]), &seen)?;
        Ok(Passed::default())
    }
}

/// Boots the same machine again and again.
fn again(boots: u64, text: Text) -> Check {
    check(format!("boots-{boots}"), move |lab| {
        for number in 1..=boots {
            let one = boot(format!("boots-{boots}")).cores(2).cpu("cortex-a72");
            one.gives(&text, lab).with_context(|| format!("boot {number}"))?;
        }
        Ok(Passed::tries(boots))
    })
}

/// The engine with debug assertions and overflow checks.
fn debug(text: &Text, lab: &Lab) -> Result<Passed> {
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let said = say(Command::new(program).args(arguments), &lab.file("debug.out"))?;
        said.is_content().with_context(|| program.to_owned())
    };
    run("ci/toolchain.sh", &["bare", "build", "-p", "kernel", "--bin", "anchorite"])?;
    let image = lab.file("debug.img");
    let elf = "target/bare/aarch64-unknown-none/debug/anchorite";
    run(BUILDER, &["kernel", "--elf", elf, "--out", &image.display().to_string()])?;
    ensure!(std::fs::read(&image)? != std::fs::read(IMAGE)?, "the image is that of the release");
    boot("seed-debug").image(image).cpu("cortex-a72").gives(text, lab)
}

/// A text that outgrows its context many times: context shift.
fn slides(tokens: usize) -> Check {
    let name = format!("sliding-context-{tokens}");
    let shifts = (tokens - CONTEXT) / FORGOTTEN;
    let boot = boot(name)
        .drawn(tokens)
        .set("context", CONTEXT)
        .set("context_shift", true)
        .limit_s(3600)
        .verdict(Verdict::Tokens(tokens))
        .event(event!(Result { context_shifts >= shifts, context_shifts <= shifts + 1 }));
    Check::from(boot)
}
