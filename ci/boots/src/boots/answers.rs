//! Machines and disks on which the model must answer as llama.cpp does.

use anyhow::ensure;
use harness::command::Bus;
use kernel::report::{Checksum, StopReason};

use crate::boot::{Boot, Verdict, boot};
use crate::check::{Check, Passed, check};
use crate::disk::{TINY_ON_DISK, fat32, tiny};
use crate::event;
use crate::expect::Expect;
use crate::goldens::{PROMPT, TOKENS, tokens};
use crate::lab::{IMAGE, image_sha256};
use crate::machine::MAX;

impl Boot {
    /// It must answer with llama.cpp's tokens, and its log must name the image that was booted.
    pub fn answers(self) -> Boot {
        self.set("max_tokens", TOKENS)
            .verdict(Verdict::Tokens(TOKENS))
            .names_the_image()
            .event(event!(Disk {}))
            .event(event!(Model {}))
            .event(event!(Result { tokens == tokens() }))
            .exits(0)
    }

    /// Its `hello` must name the SHA-256 of the image.
    pub fn names_the_image(self) -> Boot {
        let what = format!("`hello` names the SHA-256 of {IMAGE}");
        self.expect(Expect::that(what, |seen| {
            let expected = Expect::Event(event!(Hello { image_sha256 == Some(image_sha256()?) }));
            expected.check(seen).map_err(|mismatch| mismatch.seen)
        }))
    }

    /// The engine must have chosen these kernels.
    pub fn kernels(self, kernels: &'static str) -> Boot {
        self.event(event!(Hello { kernels == kernels }))
    }
}

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let on_tiny = |name| boot(name).disk(tiny());
    let machines = [
        on_tiny("virt"),
        on_tiny("one-core").cores(1).cpu("cortex-a72").gic(2).set("prompt", PROMPT).kernels("neon"),
        on_tiny("four-cores").cores(4).cpu("neoverse-n1").kernels("dotprod"),
        on_tiny("i8mm").cores(2).cpu(MAX).kernels("i8mm"),
        on_tiny("two-cores-gic3").cores(2).cpu("cortex-a72").gic(3),
        on_tiny("eight-cores-gic2").cores(8).cpu("cortex-a72").gic(2),
        on_tiny("nine-cores").cores(9).cpu("cortex-a72").gic(3),
        on_tiny("cortex-a53").cores(2).cpu("cortex-a53"),
        on_tiny("el2").cores(2).cpu("cortex-a72").el2(),
        on_tiny("el2-gic3").cores(2).cpu("max,pauth-impdef=on").el2().gic(3),
        on_tiny("memory-64M").memory_mib(64).cores(1),
        on_tiny("memory-4G").memory_mib(4096),
        on_tiny("threads").cores(4).set("threads", 2),
        on_tiny("cache-f32").set("kv_cache", "f32"),
        on_tiny("cache-q8_0").set("kv_cache", "q8_0"),
        boot("pci").disk_on(Bus::Pci, tiny()).cores(2),
        boot("mmio-legacy").disk_on(Bus::MmioLegacy, tiny()),
        boot("initrd").disk_on(Bus::Initrd, tiny()),
        boot("fat32").disk(fat32()),
    ];
    let no_sum = tiny().with_files("no-sum", |files| {
        files.retain(|(path, _)| *path != format!("{TINY_ON_DISK}.sha256"));
    });
    let others = [
        // A text that outgrows its context.
        on_tiny("context-shift")
            .set("context", 16)
            .set("context_shift", true)
            .set("max_tokens", 40)
            .verdict(Verdict::Tokens(40))
            .event(event!(Result { stop == StopReason::MaxTokens, context_shifts >= 1 }))
            .exits(0),
        // A fact that the model knows.
        on_tiny("fact")
            .set("prompt", "The capital of France is")
            .verdict(Verdict::Text("Paris".into()))
            .exits(0),
        // Without verifying, and without a sum to verify by.
        on_tiny("unverified")
            .set("verify", false)
            .set("max_tokens", 3)
            .event(event!(Model { checksum == Checksum::Skipped }))
            .exits(0),
        boot("no-sum")
            .disk(no_sum)
            .set("max_tokens", 3)
            .event(event!(Model { checksum == Checksum::Missing }))
            .exits(0),
    ];
    let boots = machines.map(Boot::answers).into_iter().chain(others).map(Check::from);
    boots.chain([unused_card(Bus::Mmio), unused_card(Bus::Pci)]).collect()
}

/// A machine answers with a network card that nobody uses, to which the harness forwards a port.
fn unused_card(bus: Bus) -> Check {
    let name = format!("card-{}", if bus == Bus::Pci { "pci" } else { "mmio" });
    check(name.clone(), move |lab| {
        let boot = boot(name.clone()).disk_on(bus, tiny()).cores(2).forward(80).answers();
        boot.run(lab)?;
        let port = boot.forwarded(lab)?.port();
        ensure!(port != 0, "expected: a port of this host\nseen: {port}");
        Ok(Passed::default())
    })
}
