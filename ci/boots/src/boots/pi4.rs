//! A Raspberry Pi 4, where there is a QEMU that has one: from EL2, with the board's own device tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::command::Bus;
use kernel::report::Code;

use super::disks::{card, sector};
use crate::boot::{Boot, boot, no_garbled_line};
use crate::check::{Check, Group, Passed, check, lazy};
use crate::disk::{Table, tiny};
use crate::event;
use crate::expect::{Expect, pattern};
use crate::failure::Failure;
use crate::goldens::{TOKENS, tokens};
use crate::lab::{IMAGE, Lab, Need};
use crate::machine::Failing;
use crate::qemu::{Child, Monitor, Output, command};
use crate::screen::Screen;
use crate::seen::Seen;

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
        // QEMU's card tells nobody of a sector that cannot be read; the checksum does.
        lazy("pi4-bad-sector", |lab, boot| {
            // A card can be written, so QEMU takes none that others read.
            let writable = tiny().damaged("bad-sector", |_| Ok(()));
            Ok(boot
                .raspberry_pi_4()
                .failing_disk(writable, Failing::Sector(sector(lab)?))
                .fails(Code::ChecksumMismatch, "SHA-256"))
        }),
        check("pi4-screen", screen),
        check("pi4-screen-early", screen_early).needs(Need::Dtc),
    ];
    checks.map(|check| check.needs(Need::Pi4).also_in(Group::Pi4)).into()
}

/// What the serial line says, on the board's screen as well.
fn screen(lab: &Lab) -> Result<Passed> {
    let tree = lab.pi4().map_err(anyhow::Error::msg)?.device_tree;
    let initrd = lab.disk(&tiny())?.display().to_string();
    let seen = with_screen(lab, "pi4-screen", &tree, &["-initrd", &initrd])?;
    let board = |pattern: &'static str| Expect::Event(event!(Hello { board ~ pattern }));
    let mut expected = vec![
        no_garbled_line(),
        Expect::Event(event!(Hello {
            consoles == ["ns16550", "framebuffer 1280x720, text 128x36"],
        })),
        Expect::Event(event!(Result { tokens == tokens() })),
        Expect::Event(event!(Result { board == ["temperature=25C", "throttled=0x0"] })),
        Expect::Screen(pattern("^Anchorite .* on Raspberry Pi 4 Model B: 4 × ")),
        Expect::ScreenIsLog,
    ];
    expected.extend(
        [
            "^gpio14=input$",
            "^gpio15=input$",
            "^arm-clock=[0-9]*MHz$",
            "^temperature=25C$",
            "^cpuectlr=0x0$",
            "^dma-ranges=0xfe340000: 0x0..0x40000000 at 0xc0000000",
        ]
        .map(board),
    );
    expected.iter().try_for_each(|expected| Failure::unless(expected, &seen))?;
    Ok(Passed::default())
}

/// A tree that is refused, before the final map of the memory.
fn screen_early(lab: &Lab) -> Result<Passed> {
    let tree = lab.pi4().map_err(anyhow::Error::msg)?.device_tree;
    let source = Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(tree).output()?;
    let mut source = source.stdout;
    source.extend_from_slice(b"/ { reserved-memory { broken { reg = <1>; }; }; };\n");
    let (dts, broken) = (lab.file("broken.dts"), lab.file("broken.dtb"));
    fs::write(&dts, source)?;
    let status = Command::new("dtc")
        .args(["-q", "-I", "dts", "-O", "dtb", "-o"])
        .args([&broken, &dts])
        .status()?;
    ensure!(status.success(), "dtc fails");

    let seen = with_screen(lab, "pi4-screen-early", &broken, &[])?;
    let expected = [
        no_garbled_line(),
        Expect::Exit(1, Vec::new()),
        Expect::Screen(pattern(
            "^Unsupported: device tree: `reg` of node `broken` is missing or malformed$",
        )),
        Expect::Screen(pattern("^Anchorite has failed, see above.$")),
    ];
    expected.iter().try_for_each(|expected| Failure::unless(expected, &seen))?;
    Ok(Passed::default())
}

/// Boots with a screen, which QEMU's monitor takes a picture of when the board is off.
fn with_screen(lab: &Lab, name: &str, tree: &Path, more: &[&str]) -> Result<Seen> {
    const LIMIT: Duration = Duration::from_secs(180);
    let file = |ending: &str| lab.file(&format!("{name}.{ending}"));
    let (log, out, ppm) = (file("log"), file("out"), file("ppm"));
    let socket = file("qmp");
    let qemu: PathBuf = lab.pi4().map_err(anyhow::Error::msg)?.qemu;
    let mut command = command(
        qemu,
        "-M raspi4b -smp 4 -display none -no-reboot -no-shutdown -serial null -serial stdio \
         -global bcm2835-fb.xres=1280 -global bcm2835-fb.yres=720"
            .split_whitespace(),
    );
    command
        .args(["-kernel", IMAGE, "-append", &format!("max_tokens={TOKENS}"), "-dtb"])
        .arg(tree)
        .args(more)
        .args(Monitor::arguments(&socket));
    let mut child = Child::start(command, Output::Serial(log.clone(), out.clone()), LIMIT)?;
    let mut monitor = Monitor::connect(&socket, LIMIT)?;
    monitor.wait_for("SHUTDOWN").context("the board is not turned off")?;
    monitor.order(&format!("screendump {}", ppm.display()))?;
    monitor.quit()?;
    let status = child.wait()?;
    let screen = Screen::of_ppm(&fs::read(&ppm)?)?;
    fs::remove_file(ppm)?;
    fs::write(file("png"), screen.png()?)?;
    let screen = screen.lines();
    fs::write(file("screen"), screen.join("\n"))?;
    let seen = Seen { status, out, screen, ..Seen::read(&log)? };
    Failure::unless(&Expect::Status(0), &seen)?;
    Ok(seen)
}
