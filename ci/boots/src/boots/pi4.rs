//! QEMU's Raspberry Pi 4, which starts at EL2, with the board's own device tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::command::Bus;
use kernel::report::{Code, Event};

use super::disks::{card, sector};
use crate::boot::{Boot, boot};
use crate::check::{Check, Group, Passed, check, lazy};
use crate::device_tree::Tree;
use crate::disk::{Table, tiny};
use crate::event;
use crate::expect::{Expect, pattern};
use crate::goldens::{TOKENS, tokens};
use crate::lab::{Lab, Need, Pi4};
use crate::machine::Failing;
use crate::qemu::Monitor;
use crate::screen::Screen;

impl Boot {
    fn answers_on_pi4(self) -> Check {
        let hello = event!(Hello {
            kernels == "neon",
            cores == 4usize,
            exception_level == 2,
        });
        self.raspberry_pi_4().answers().event(hello).into()
    }
}

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    // A card whose partition is gone.
    let no_partition =
        card("mbr", Table::Mbr).damaged("no-partition", |volume| volume.put(0, &[0; 512]));
    let checks = [
        boot("pi4-initrd").disk_on(Bus::Initrd, tiny()).answers_on_pi4(),
        boot("pi4-card").disk(tiny()).answers_on_pi4(),
        boot("pi4-mbr").disk(card("mbr", Table::Mbr)).answers_on_pi4(),
        boot("pi4-gpt").disk(card("gpt", Table::Gpt)).answers_on_pi4(),
        boot("pi4-no-partition")
            .raspberry_pi_4()
            .disk(no_partition)
            .fails(Code::ModelNotFound, "no disk holds")
            .into(),
        // QEMU's card reports no error for a sector that fails; the checksum shows it.
        lazy("pi4-bad-sector", |lab, boot| {
            // QEMU opens a card for writing, so that no other boot may read the same file.
            let writable = tiny().damaged("bad-sector", |_| Ok(()));
            Ok(boot
                .raspberry_pi_4()
                .failing_disk(writable, Failing::Sector(sector(lab)?))
                .fails(Code::ChecksumMismatch, "SHA-256"))
        }),
        check("pi4-screen", screen),
        check("pi4-screen-early", screen_early),
    ];
    checks.map(|check| check.needs(Need::Pi4).also_in(Group::Pi4)).into()
}

/// The screen shows what the serial line says.
fn screen(lab: &Lab) -> Result<Passed> {
    let pi4 = lab.pi4().map_err(anyhow::Error::msg)?;
    let initrd = lab.disk(&tiny())?.display().to_string();
    // The facts in their order, with commas between.
    let facts = pattern(
        "^gpio14=input,gpio15=input,.*,arm-clock=[0-9]*MHz,temperature=25C,.*,cpuectlr=0x0(,|$)",
    );
    let boot = with_screen(lab, "pi4-screen", &pi4, &pi4.device_tree, &["-initrd", &initrd])
        .event(event!(Hello { consoles == ["ns16550", "framebuffer 1280x720, text 128x36"] }))
        .event(event!(Hello {
            board ~ "^dma-ranges=0xfe340000: 0x0..0x40000000 at 0xc0000000",
        }))
        .expect(Expect::that(format!("the facts about the board match {facts:?}"), move |seen| {
            let board = seen.events().find_map(|event| match event {
                Event::Hello(hello) => Some(hello.board.join(",")),
                _ => None,
            });
            match board {
                Some(board) if facts.is_in(&board) => Ok(()),
                board => Err(board.unwrap_or_else(|| "there is no `hello`".into())),
            }
        }))
        .event(event!(Result { tokens == tokens() }))
        .event(event!(Result { board == ["temperature=25C", "throttled=0x0"] }))
        .expect(Expect::Screen(pattern("^Anchorite .* on Raspberry Pi 4 Model B: 4 × ")))
        .expect(Expect::ScreenIsLog);
    run_with_screen(lab, &boot)
}

/// A device tree that is refused before the final page tables: the screen shows the error.
fn screen_early(lab: &Lab) -> Result<Passed> {
    let pi4 = lab.pi4().map_err(anyhow::Error::msg)?;
    let broken = lab.file("broken.dtb");
    let mut tree = Tree::read(&fs::read(&pi4.device_tree)?)?;
    tree.root.child("reserved-memory").child("broken").set("reg", 1_u32);
    tree.write(&broken)?;

    const MALFORMED: &str =
        "^Unsupported: device tree: `reg` of node `broken` is missing or malformed$";
    let boot = with_screen(lab, "pi4-screen-early", &pi4, &broken, &[])
        .exits(1)
        .expect(Expect::Screen(pattern(MALFORMED)))
        .expect(Expect::Screen(pattern("^Anchorite has failed, see above.$")));
    run_with_screen(lab, &boot)
}

/// The socket of QEMU's monitor.
fn socket(lab: &Lab, name: &str) -> PathBuf {
    lab.file(&format!("{name}.qmp"))
}

/// A boot with a screen and a monitor.
fn with_screen(lab: &Lab, name: &str, pi4: &Pi4, tree: &Path, more: &[&str]) -> Boot {
    const BOARD: &str = "-M raspi4b -smp 4 -no-reboot -no-shutdown \
                         -global bcm2835-fb.xres=1280 -global bcm2835-fb.yres=720";
    let tree = tree.display().to_string();
    let monitor = Monitor::arguments(&socket(lab, name));
    let mut arguments: Vec<&str> = BOARD.split_whitespace().collect();
    arguments.extend(["-dtb", &tree]);
    arguments.extend(more);
    arguments.extend(monitor.iter().map(String::as_str));
    boot(name)
        .by_qemu(&format!("max_tokens={TOKENS}"), &arguments)
        .program(&pi4.qemu)
        .second_port()
        .limit_s(180)
}

/// Boots, takes a picture of the screen once the board is off, and checks.
fn run_with_screen(lab: &Lab, boot: &Boot) -> Result<Passed> {
    let mut child = boot.start(lab)?;
    let mut monitor = Monitor::connect(&socket(lab, &boot.name), Duration::from_secs(180))?;
    monitor.wait_for("SHUTDOWN").context("the board is not turned off")?;
    let ppm = lab.file(&format!("{}.ppm", boot.name));
    monitor.order(&format!("screendump {}", ppm.display()))?;
    monitor.quit()?;
    let status = child.wait()?;
    let screen = Screen::of_ppm(&fs::read(&ppm)?)?;
    fs::remove_file(ppm)?;
    boot.check(&boot.seen_with(lab, status, &screen)?)?;
    Ok(Passed::default())
}
