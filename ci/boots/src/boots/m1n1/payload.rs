//! m1n1's own payload parser reads what `image-builder m1n1` makes, where `M1N1_CLONE` names a clone of
//! AsahiLinux/m1n1.
//!
//! Its `src/payload.c`, `src/tinf` and `src/libfdt` are built for this computer. What they call is played by
//! `ci/boots/m1n1/payload/parse.c`. Where there is a `build/m1n1.bin`, the payloads stand behind that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{has_tiny, m1n1_bin};
use crate::check::{Check, Passed, check};
use crate::device_tree::Tree;
use crate::disk::TINY;
use crate::expect::pattern;
use crate::lab::{BUILDER, IMAGE, Lab, Need, m1n1_clone};
use crate::qemu::{Child, Output, command};
use crate::volume::Volume;

const SOURCES: &str = "ci/boots/m1n1/payload";
const BOOTARGS: &str = "max_tokens=7 prompt=\"It was\"";
/// Macs, the last one without a tree.
const MACS: [&str; 4] = ["j274", "j313", "j456", "j293"];

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let checks = MACS.map(|mac| {
        let name = format!("m1n1-payload-{mac}");
        check(name.clone(), move |lab| match mac == MACS[3] {
            true => no_tree(lab, &name, mac),
            false => parsed(lab, &name, mac),
        })
    });
    checks.map(|check| check.needs(Need::M1n1)).into()
}

/// The parser, beside headers for this computer in place of those for an M1.
fn parser(lab: &Lab) -> Result<PathBuf> {
    lab.made("m1n1-parser", |out| {
        let clone = m1n1_clone().map_err(anyhow::Error::msg)?;
        // The sources include `../build/build_cfg.h`.
        let folder = lab.file("m1n1-payload");
        let (sources, build) = (folder.join("src"), folder.join("build"));
        fs::create_dir_all(&sources)?;
        fs::create_dir_all(&build)?;
        fs::copy(clone.join("src/payload.c"), sources.join("payload.c"))?;
        for header in ["utils.h", "smp.h", "display.h"] {
            fs::copy(Path::new(SOURCES).join(header), sources.join(header))?;
        }
        for generated in ["build_cfg.h", "build_tag.h"] {
            fs::write(build.join(generated), "")?;
        }
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-O1", "-g", "-w", "-o"]).arg(out);
        for folder in [&sources, &clone.join("src")] {
            cc.arg("-I").arg(folder);
        }
        cc.arg(sources.join("payload.c")).arg(Path::new(SOURCES).join("parse.c"));
        for library in ["src/tinf", "src/libfdt"] {
            for entry in clone.join(library).read_dir()? {
                let file = entry?.path();
                if file.extension().is_some_and(|ending| ending == "c") {
                    cc.arg(file);
                }
            }
        }
        let said = cc.output().context("cannot start cc")?;
        ensure!(said.status.success(), "cc fails:\n{}", String::from_utf8_lossy(&said.stderr));
        Ok(())
    })
}

/// What the payloads stand behind.
fn m1n1(lab: &Lab) -> Result<PathBuf> {
    let built = m1n1_clone().map_err(anyhow::Error::msg)?.join("build/m1n1.bin");
    if built.exists() { Ok(built) } else { m1n1_bin(lab) }
}

/// The file with the payloads.
fn made(lab: &Lab) -> Result<PathBuf> {
    lab.made("m1n1-payload.img", |out| {
        let mut builder = Command::new(BUILDER);
        builder.arg("m1n1").arg("--m1n1").arg(m1n1(lab)?);
        // Names of odd lengths, so that what follows them would not be aligned by itself.
        for mac in &MACS[..3] {
            let tree = lab.made(&format!("m1n1-payload-{mac}.dtb"), |out| {
                let mut tree = Tree::default();
                let compatible = format!("apple,{mac}");
                tree.root
                    .set("compatible", [compatible.as_str(), "apple,t8103"].as_slice())
                    .set("model", format!("A Mac, {}", &mac[1..]).as_str());
                tree.write(out)
            })?;
            builder.arg("--dtb").arg(tree);
        }
        builder.args(["--kernel", IMAGE, "--bootargs", BOOTARGS, "--out"]).arg(out);
        let said = builder.args(["--verify", TINY]).output()?;
        ensure!(said.status.success(), "{BUILDER}: {}", String::from_utf8_lossy(&said.stderr));
        Ok(fs::write(lab.file("m1n1-payload.made"), said.stdout)?)
    })
}

/// What the parser has made of the file on a Mac of this type.
struct Parsed {
    status: i32,
    said: String,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Parsed {
    fn has_line(&self, line: &str) -> Result<()> {
        let found = self.said.lines().any(|said| said.trim_end() == line);
        ensure!(found, "expected: {line}\nseen:\n{}", self.said);
        Ok(())
    }
}

fn parse(lab: &Lab, name: &str, mac: &str) -> Result<Parsed> {
    let file = |ending: &str| lab.file(&format!("{name}.{ending}"));
    let (kernel, initrd) = (file("kernel.img"), file("initrd.img"));
    let mut parser = command(parser(lab)?, [made(lab)?]);
    parser.arg(fs::metadata(m1n1(lab)?)?.len().to_string());
    parser.arg(mac.to_uppercase()).args([&kernel, &initrd]);
    let limit = Duration::from_secs(60);
    let status = Child::start(parser, Output::To(file("out")), limit)?.wait()?;
    Ok(Parsed { status, said: fs::read_to_string(file("out"))?, kernel, initrd })
}

/// The parser must find all as it was put in, and the tree of this Mac.
fn parsed(lab: &Lab, name: &str, mac: &str) -> Result<Passed> {
    let parsed = parse(lab, name, mac)?;
    ensure!(parsed.status == 0, "expected: status 0\nseen: {}\n{}", parsed.status, parsed.said);
    parsed.has_line(&format!("tree: apple,{mac}"))?;
    // m1n1 takes blanks behind them along.
    parsed.has_line(&format!("chosen: bootargs={BOOTARGS}"))?;
    parsed.has_line("boots")?;
    ensure!(fs::read(parsed.kernel)? == fs::read(IMAGE)?, "the kernel is another one");
    // The volume, before a word of zeros.
    let said = fs::read_to_string(lab.file("m1n1-payload.made"))?;
    let volume_at = pattern(" from byte ([0-9]+) on");
    let volume_at: usize = volume_at.group(&said).context("where is the volume?")?.parse()?;
    let whole = fs::read(made(lab)?)?;
    let initrd = fs::read(&parsed.initrd)?;
    ensure!(initrd == whole[volume_at..whole.len() - 4], "the initrd is another one");
    has_tiny(&Volume::read(&parsed.initrd)?)?;
    Ok(Passed::default())
}

/// A Mac that the file has no tree for.
fn no_tree(lab: &Lab, name: &str, mac: &str) -> Result<Passed> {
    let parsed = parse(lab, name, mac)?;
    ensure!(parsed.status != 0, "the parser is content:\n{}", parsed.said);
    let message = format!("Kernel found but no devicetree for apple,{mac}");
    ensure!(parsed.said.contains(&message), "expected: {message}\nseen:\n{}", parsed.said);
    Ok(Passed::default())
}
