//! Wrong settings, wrong files and small machines: each run must end with the right error.

use anyhow::{Context, Result, ensure};
use harness::command::Bus;
use kernel::report::{Code, Event};

use crate::boot::boot;
use crate::check::{Check, Passed, check};
use crate::disk::{Disk, TINY, TINY_ON_DISK, tiny};
use crate::event;
use crate::expect::{Expect, pattern};
use crate::failure::Failure;
use crate::lab::Lab;
use crate::model;

/// The offset in the model of the byte that several boots damage.
pub const PLACE_IN_MODEL: u64 = 1_000_003;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    // One bit of the model changed on the disk.
    let corrupt = tiny().damaged("corrupt", |volume| {
        volume.flip(volume.start_of(TINY_ON_DISK)? + PLACE_IN_MODEL, 0)
    });
    // A text with the ending of a model.
    let no_gguf = tiny().with_files("no-gguf", |files| {
        files.push(("models/text.gguf".into(), b"This is no model.\n".to_vec()));
    });
    // Such a file does not count beside a model, and nor does the file that macOS puts beside it.
    let beside = no_gguf.with_files("beside-others", |files| {
        files.push(("models/._tiny.gguf".into(), b"This is no model.\n".to_vec()));
    });
    // A card with an exFAT volume.
    let mut exfat = vec![0; 1 << 20];
    exfat[3..11].copy_from_slice(b"EXFAT   ");
    exfat[510..512].copy_from_slice(&[0x55, 0xaa]);
    // A model that does not fit in memory: the test model with zeros behind it.
    let large = Disk::of_made("large", |out| {
        std::fs::copy(TINY, out)?;
        Ok(std::fs::File::options().write(true).open(out)?.set_len(80 << 20)?)
    });
    let boots = [
        boot("corrupt").disk(corrupt.clone()).fails(Code::ChecksumMismatch, ""),
        boot("corrupt-initrd").disk_on(Bus::Initrd, corrupt).fails(Code::ChecksumMismatch, ""),
        boot("missing-model")
            .disk(tiny())
            .set("model", "nosuch.gguf")
            .fails(Code::ModelNotFound, "nosuch"),
        boot("no-disk").fails(Code::ModelNotFound, ""),
        boot("invalid-config")
            .disk(tiny())
            .set("colour", "red")
            .fails(Code::InvalidConfig, "colour"),
        boot("no-gguf")
            .disk(no_gguf)
            .set("model", "text.gguf")
            .fails(Code::ParseError, "the file is a text, not a GGUF model"),
        boot("beside-others").disk(beside).answers(),
        boot("exfat")
            .disk(Disk::of_bytes("exfat", exfat))
            .fails(Code::ModelNotFound, "it is an exFAT volume, not a FAT volume"),
        boot("out-of-memory")
            .disk(large)
            .memory_mib(64)
            .cores(1)
            .fails(Code::OutOfMemory, "[0-9]+ MiB"),
    ];
    let mut checks: Vec<Check> = boots.into_iter().map(Check::from).collect();
    checks.push(check("memory-ladder", memory_ladder));
    checks.push(check("cache-too-large", cache_too_large));
    checks
}

/// Machines with less and less memory: each one answers, or says how much is missing.
///
/// The ladder ends where QEMU itself has no room for image and device tree.
fn memory_ladder(lab: &Lab) -> Result<Passed> {
    // "... needs 8.1 MiB (8478192 bytes), 6.9 MiB (7202816 bytes) are free"
    let sizes = pattern(r"\(([0-9]+) bytes\), .*\([0-9]+ bytes\) are free");
    let free = pattern(r"\(([0-9]+) bytes\) are free");
    let (mut run, mut refused) = (0, 0);
    for mib in [64, 32, 24, 20, 18, 16, 15, 14, 13, 12, 10, 8, 6, 5, 4] {
        let boot = boot(format!("memory-ladder-{mib}"))
            .disk(tiny())
            .memory_mib(mib)
            .cores(1)
            .cpu("cortex-a72")
            .set("max_tokens", 3);
        let seen = boot.look(lab)?;
        match seen.status {
            0 => run += 1,
            3 => {
                let said = std::fs::read_to_string(&seen.out)?;
                ensure!(said.contains("Not enough space for DTB"), "{mib} MiB: QEMU fails: {said}");
                ensure!(run >= 5 && refused >= 5, "{run} run, {refused} are refused");
                return Ok(Passed {
                    tries: run + refused + 1,
                    remark: format!("{run} run, {refused} say what is missing"),
                    ..Passed::default()
                });
            }
            _ => {
                refused += 1;
                let (sizes, free) = (sizes.clone(), free.clone());
                let says =
                    Expect::that("it says how much more it needs than is free", move |seen| {
                        let mut said = String::new();
                        let bytes = |pattern: &crate::expect::Pattern, text| -> Option<u64> {
                            pattern.group(text)?.parse().ok()
                        };
                        let holds = seen.events().any(|event| match event {
                            Event::Error(fault) if fault.code == Code::OutOfMemory => {
                                said.clone_from(&fault.message);
                                bytes(&sizes, &fault.message) > bytes(&free, &fault.message)
                            }
                            _ => false,
                        });
                        if holds { Ok(()) } else { Err(format!("{said:?}")) }
                    });
                for expected in [Expect::Exit(1, Vec::new()), says] {
                    Failure::unless(&expected, &seen).with_context(|| format!("{mib} MiB"))?;
                }
            }
        }
    }
    anyhow::bail!("QEMU takes 4 MiB: {run} run, {refused} are refused")
}

/// A KV cache that does not fit: the error names a context that does, and the model runs with it.
fn cache_too_large(lab: &Lab) -> Result<Passed> {
    let small = |name| boot(name).disk(model::long()).memory_mib(64).cores(1);
    let seen = small("cache-too-large")
        .set("context", model::LONG)
        .fails(Code::OutOfMemory, "")
        .event(event!(Error { hint ~ "lower `context` to [0-9]" }))
        .run(lab)?;
    let context = pattern("lower `context` to ([0-9]+)");
    let fitting = seen.events().find_map(|event| match event {
        Event::Error(fault) => context.group(&fault.hint).map(str::to_owned),
        _ => None,
    });
    let fitting = fitting.context("the hint names a context")?;
    small("cache-that-fits").set("context", fitting.as_str()).answers().run(lab)?;
    Ok(Passed { tries: 2, remark: format!("{fitting} positions fit"), ..Passed::default() })
}
