//! The probe, started as other boot loaders than QEMU start an image.
//!
//! `kernel/src/bin/probe/loaders.s` has their code, which is cut out of the probe's ELF file.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::kernel_image::memory_bytes;
use kernel::trials::Trial;
use object::{Object, ObjectSection, ObjectSymbol};

use super::machines::works;
use super::{A72, Machine, probe, virt, words_of};
use crate::check::{Check, Passed, check};
use crate::event;
use crate::lab::{Lab, Need, PROBE, PROBE_ELF, QEMU};
use crate::qemu::{Child, Monitor, Output, command};

/// The code of a boot loader with these words as its parameters.
fn loader(lab: &Lab, check: &str, name: &str, parameters: &[u64]) -> Result<PathBuf> {
    let elf = fs::read(PROBE_ELF).with_context(|| format!("cannot read {PROBE_ELF}"))?;
    let elf = object::File::parse(&*elf)?;
    let symbol = |name: String| {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(&name));
        symbol.with_context(|| format!("the probe has no {name}"))
    };
    let start = symbol(format!("loader_{name}"))?;
    let end = symbol(format!("loader_{name}_end"))?.address();
    let section = elf.section_by_index(start.section_index().context("no section")?)?;
    let code = section.data_range(start.address(), end - start.address())?;
    let mut code = code.context("the boot loader is not in the file")?.to_vec();
    let parameters: Vec<u8> = parameters.iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = code.len().checked_sub(parameters.len()).context("too many parameters")?;
    ensure!(code[at..].iter().all(|byte| *byte == 0), "the parameters do not fit");
    code[at..].copy_from_slice(&parameters);
    let file = lab.file(&format!("{check}.img"));
    std::fs::write(&file, code)?;
    Ok(file)
}

/// The probe's image at this address.
fn at(machine: Machine, address: u64) -> Machine {
    machine.with(["-device", &format!("loader,file={PROBE},addr={address:#x},force-raw=on")])
}

/// Image and tree elsewhere, and no tree at all.
pub fn checks() -> Vec<Check> {
    let moves = |name: &'static str, image: u64, tree: u64, machine: fn() -> Machine| {
        check(format!("probe-{name}"), move |lab| {
            let bytes = memory_bytes(&fs::read(PROBE)?).context("the probe has no header")?;
            ensure!(
                !(image..image + bytes).contains(&tree),
                "the tree at {tree:#x} lies in the image, which takes {bytes:#x} bytes"
            );
            let loader = loader(lab, &format!("probe-{name}"), "moves", &[image, tree])?;
            // The trials touch all of the memory, which the host has to clear.
            works(name, &at(machine(), image)).image(loader).limit_s(180).run(lab)?;
            Ok(Passed::default())
        })
        // Gigabytes of the host's memory.
        .alone()
    };
    vec![
        check("probe-early-fault", early_fault),
        moves("end-of-a-gib", 0x7fe0_0000, 0xbff8_0000, || virt(A72, 2, "3G")),
        // The tree starts behind the image, in the same block of 2 MiB.
        moves("one-block", 0xc000_0000, 0xc01f_0000, || {
            virt(A72, 2, "3G").option("virtualization=on")
        }),
        moves("above-4-gib", 0x1_8000_0000, 0x1_3fff_f008, || virt(A72, 2, "6G")),
    ]
}

/// A fault before there is a console: there is no memory at the address of the device tree.
///
/// The read of the tree's size is an external abort. The core stops, and its registers hold the syndrome
/// and the places.
fn early_fault(lab: &Lab) -> Result<Passed> {
    const LIMIT: Duration = Duration::from_secs(60);
    const IMAGE_AT: u64 = 0x4c00_0000;
    const NOWHERE: u64 = 0x8_0000_0000;
    // X0: the syndrome; X1: the instruction, in the image; X2: the address that it has read.
    const EXPECTED: [&str; 2] = ["X00=0000000096000010 X01=000000004c0", "X02=0000000800000004"];
    let loader = loader(lab, "probe-early-fault", "without_tree", &[IMAGE_AT, NOWHERE])?;
    let socket = lab.file("probe-early-fault.qmp");
    let machine = at(virt(A72, 1, "256M"), IMAGE_AT)
        .with(["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "none"])
        .with(["-kernel", &loader.display().to_string()])
        .with(Monitor::arguments(&socket));
    let out = lab.file("probe-early-fault.out");
    let mut child = Child::start(command(QEMU, machine.arguments()), Output::To(out), LIMIT)?;
    let mut monitor = Monitor::connect(&socket, LIMIT)?;
    // A core that stops tells nobody.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let registers = monitor.order("info registers")?;
        if EXPECTED.iter().all(|expected| registers.contains(expected)) {
            break;
        }
        if Instant::now() > deadline {
            bail!("expected: registers with {EXPECTED:?}\nseen:\n{registers}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    monitor.quit()?;
    ensure!(child.wait()? == 0, "QEMU fails");
    Ok(Passed::default())
}

/// Boots with rubbish in the registers that reset leaves UNKNOWN.
///
/// QEMU clears these registers. So a boot loader fills them on each core, each with values of its
/// own, before the image starts. QEMU's Raspberry Pi 4 starts all cores in that boot loader.
pub fn rubbish() -> Check {
    const IMAGE_AT: u64 = 0x40_0000;
    let run = |lab: &Lab| {
        let pi4 = lab.pi4().map_err(anyhow::Error::msg)?;
        let loader = loader(lab, "probe-rubbish", "rubbish", &[IMAGE_AT])?;
        let trials = [Trial::Threads, Trial::Futex, Trial::Sleep, Trial::Quiet];
        let machine = Machine { kind: "raspi4b".into(), arguments: Vec::new() }
            .with(["-smp", "4", "-no-reboot"])
            .with(["-dtb", &pi4.device_tree.display().to_string()]);
        probe("rubbish", &words_of(&trials), &at(machine, IMAGE_AT))
            .program(pi4.qemu)
            .second_port()
            .image(loader)
            .event(event!(Hello { cores == 4usize, exception_level == 2 }))
            .holds(&trials)
            .exits(0)
            .run(lab)?;
        Ok(Passed::default())
    };
    check("probe-rubbish", run).needs(Need::Pi4)
}
