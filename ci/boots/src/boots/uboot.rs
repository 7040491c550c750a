//! U-Boot's way: from a USB stick, by `booti`.
//!
//! The commands are those that `docs/boards.md` has typed on a Mac.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;

use crate::boot::{Boot, boot};
use crate::check::{Check, Passed, check};
use crate::disk::{CARD, Disk, TINY, Table};
use crate::event;
use crate::goldens::{TOKENS, tokens};
use crate::lab::{IMAGE, Lab, Need, QEMU, uboot};
use crate::qemu::{Child, Output, command};
use crate::seen::{Line, Seen};
use crate::volume::Volume;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    [("uboot", "virt", 1_u8), ("uboot-el2", "virt,virtualization=on", 2)]
        .map(|(name, machine, level)| {
            check(name, move |lab| by_uboot(lab, name, machine, level)).needs(Need::UBoot)
        })
        .into()
}

/// What is typed. U-Boot itself replaces what begins with `$`, and `load` sets the last one of these.
fn typed() -> String {
    [
        "usb start",
        "load usb 0:1 $kernel_addr_r anchorite.img",
        "load usb 0:1 $ramdisk_addr_r model.gguf",
        "setenv initrd_high ffffffffffffffff",
        &format!("setenv bootargs max_tokens={TOKENS}"),
        "booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdtcontroladdr",
    ]
    .map(|line| format!("{line}\n"))
    .concat()
}

fn stick() -> Disk {
    let volume = Disk::new("uboot-volume", |_, out| {
        let files =
            [("anchorite.img".into(), fs::read(IMAGE)?), ("model.gguf".into(), fs::read(TINY)?)];
        Ok(fs::write(out, Volume::of_files(&files)?.bytes())?)
    });
    volume.in_partition("uboot-stick", Table::Mbr, CARD)
}

/// U-Boot must boot the image on this machine, where it runs at this exception level.
fn by_uboot(lab: &Lab, name: &str, machine: &str, level: u8) -> Result<Passed> {
    const LIMIT: Duration = Duration::from_secs(120);
    let file = |ending: &str| lab.file(&format!("{name}.{ending}"));
    let stick = lab.disk(&stick())?;
    let uboot = uboot().map_err(anyhow::Error::msg)?;
    let mut qemu = command(QEMU, ["-M", machine]);
    qemu.args("-cpu cortex-a72 -smp 2 -m 1G -nic none -display none -monitor none".split(' '))
        .args(["-serial", "stdio", "-bios"])
        .arg(uboot)
        .args(["-device", "usb-ehci", "-device", "usb-storage,drive=d", "-drive"])
        .arg(format!("if=none,id=d,format=raw,read-only=on,file={}", stick.display()))
        .stdin(Stdio::piped());
    let output = Output::Serial(file("log"), file("out"));
    let mut child = Child::start(qemu, output, LIMIT)?;
    // A key stops the countdown.
    child.wait_for("U-Boot's countdown", |lines| {
        lines.iter().any(|line| matches!(line, Line::Text(text) if text.contains("Hit any key")))
    })?;
    child.type_in(b"\n")?;
    child.type_in(typed().as_bytes())?;
    let status = child.wait()?;
    let seen = Seen { status, out: file("out"), ..Seen::read(&file("log"))? };
    expected(name, level).check(&seen)?;
    Ok(Passed::default())
}

fn expected(name: &str, level: u8) -> Boot {
    boot(name)
        .names_the_image()
        .event(event!(Hello { cores == 2usize, exception_level == level }))
        .event(event!(Disk { device == "initrd", filesystem == "GGUF" }))
        .event(event!(Result { tokens == tokens() }))
        .exits(0)
}
