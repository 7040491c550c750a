//! `ci/m1n1-load.py` and `make flash-m1`, tried on a Mac that `ci/boots/m1n1/m1n1_mac.py` plays.
//!
//! Modules in `ci/boots/m1n1/clone` stand in for m1n1's. Where `M1N1_CLONE` names a clone of AsahiLinux/m1n1
//! and Python has its pyserial and construct, m1n1's own are tried as well, over a pseudo-terminal. What is
//! sent and asked must be the same either way.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::boots::make::Checkout;
use crate::check::{Check, Passed, check};
use crate::device_tree::Tree;
use crate::disk::{TINY, TINY_ON_DISK};
use crate::lab::{IMAGE, Lab, Need, m1n1_clone};
use crate::qemu::{Child, Output, command};
use crate::seen::Line;
use crate::volume::Volume;

const PLAYED: &str = "ci/boots/m1n1";
/// A model's disk that m1n1's own scripts cannot carry.
const INITRD_MIB: u64 = 1100;
/// Memory of a Mac with room for it, and of one without.
const ENOUGH_MIB: u32 = 4096;
const LITTLE_MIB: u32 = 1300;
/// Where the memory of the Mac starts.
const DRAM: u64 = 0x8_0000_0000;

/// The checks of this topic.
pub fn checks() -> Vec<Check> {
    let mut checks = of_modules("m1n1-load", false);
    checks.extend(of_modules("m1n1-load-clone", true));
    checks.extend([check("m1n1-flash", flash), check("m1n1-flash-large", flash_large)]);
    checks.into_iter().map(|check| check.needs(Need::Python)).collect()
}

/// The checks of the loader, with modules that stand in for m1n1's or with those of a clone.
fn of_modules(name: &'static str, of_clone: bool) -> Vec<Check> {
    let loads = check(format!("{name}-boots"), move |lab| {
        boots(&Loader::new(lab, &format!("{name}-boots"), of_clone, ENOUGH_MIB)?)
    });
    let refuses = |what: &str, mib: u32, tree: &'static str, message: &'static str| {
        let name = format!("{name}-{what}");
        check(name.clone(), move |lab| {
            refuses(&Loader::new(lab, &name, of_clone, mib)?, tree, message)
        })
    };
    let none = "none of the device trees is for this Mac, apple,j274";
    let checks = [
        loads,
        refuses("no-tree", ENOUGH_MIB, "j313", none),
        refuses("no-room", LITTLE_MIB, "j274", "has 1100 MiB, and this Mac's memory has room for "),
        refuses("bad-tree", ENOUGH_MIB, "damaged", "m1n1 cannot prepare the device tree"),
    ];
    let needs = |check: Check| match of_clone {
        true => check.needs(Need::M1n1).needs(Need::M1n1Modules),
        false => check,
    };
    checks.into_iter().map(needs).collect()
}

/// A device tree: of one of two Macs, or one that is no tree but for its first bytes.
fn tree(lab: &Lab, name: &str) -> Result<PathBuf> {
    lab.made(&format!("m1n1-load-{name}.dtb"), |out| {
        if name == "damaged" {
            return Ok(fs::write(out, b"\xd0\x0d\xfe\xed\0\0\0\0apple,j274\0")?);
        }
        let mac = format!("apple,{name}");
        let mut tree = Tree::default();
        tree.root.set("compatible", [mac.as_str(), "apple,t8103", "apple,arm-platform"].as_slice());
        tree.write(out)
    })
}

/// A disk of nothing but a start and an end.
fn initrd(lab: &Lab) -> Result<PathBuf> {
    lab.made("m1n1-load-initrd.img", |out| {
        let file = File::create(out)?;
        let bytes = INITRD_MIB << 20;
        file.set_len(bytes)?;
        file.write_all_at(b"The start.\n", 0)?;
        Ok(file.write_all_at(b"The end.\n", bytes - 9)?)
    })
}

/// The loader, with a Mac of its own.
struct Loader<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    of_clone: bool,
    mib: u32,
}

/// What the loader has said, and how it has ended.
struct Said {
    status: i32,
    text: String,
}

impl<'a> Loader<'a> {
    fn new(lab: &'a Lab, name: &str, of_clone: bool, mib: u32) -> Result<Loader<'a>> {
        let folder = lab.file(name);
        fs::create_dir(&folder)?;
        Ok(Loader { lab, folder, of_clone, mib })
    }

    /// Starts the loader with these trees and arguments.
    fn load(&self, trees: &[&str], arguments: &[&str]) -> Result<Said> {
        const LIMIT: Duration = Duration::from_secs(300);
        let file = |name: &str| self.folder.join(name);
        let mut modules = Path::new(PLAYED).join("clone");
        let mut port = self.folder.clone();
        let mut device = None;
        if self.of_clone {
            modules = m1n1_clone().map_err(anyhow::Error::msg)?;
            let mut mac = command("python3", [Path::new(PLAYED).join("m1n1_mac.py")]);
            mac.arg(&self.folder).arg(self.mib.to_string());
            let output = Output::Serial(file("port"), file("device.out"));
            let mut mac = Child::start(mac, output, LIMIT)?;
            mac.wait_for("its port", |lines| {
                lines.iter().any(|line| matches!(line, Line::Text(text) if text.starts_with('/')))
            })?;
            port = fs::read_to_string(file("port"))?.trim_end().into();
            // Of a run that has failed, the Mac still waits for more: it ends when nobody has it.
            device = Some(mac);
        }
        let mut loader = command("python3", ["ci/m1n1-load.py"]);
        loader.arg("--m1n1").arg(modules).args(["--kernel", IMAGE]);
        for name in trees {
            loader.arg("--dtb").arg(tree(self.lab, name)?);
        }
        loader.args(arguments).arg(initrd(self.lab)?);
        loader.envs(environment(&port, self.mib, Path::new(PLAYED)));
        let status = Child::start(loader, Output::To(file("out")), LIMIT)?.wait()?;
        drop(device);
        Ok(Said { status, text: fs::read_to_string(file("out"))? })
    }

    /// The calls that the Mac has got: a name and its arguments each.
    fn calls(&self) -> Result<Vec<(String, String)>> {
        let calls = fs::read_to_string(self.folder.join("calls")).context("there was no call")?;
        let call = |line: &str| {
            let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
            (name.to_owned(), arguments.to_owned())
        };
        Ok(calls.lines().map(call).collect())
    }

    /// The arguments of the one call of this name.
    fn called(&self, name: &str) -> Result<String> {
        let calls = self.calls()?;
        let mut found = calls.iter().filter(|call| call.0 == name);
        match (found.next(), found.next()) {
            (Some((_, arguments)), None) => Ok(arguments.clone()),
            _ => anyhow::bail!("expected: one call of {name}\nseen: {calls:?}"),
        }
    }

    /// The file must lie in the Mac's memory at this address.
    fn has(&self, file: &Path, address: u64) -> Result<()> {
        let memory = File::open(self.folder.join("memory"))?;
        let mut expected = File::open(file).with_context(|| format!("no {}", file.display()))?;
        let mut at = address.checked_sub(DRAM).context("an address below the memory")?;
        let (mut chunk, mut seen) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        loop {
            let bytes = expected.read(&mut chunk)?;
            if bytes == 0 {
                return Ok(());
            }
            memory.read_exact_at(&mut seen[..bytes], at)?;
            let other = chunk[..bytes].iter().zip(&seen).position(|(one, other)| one != other);
            if let Some(other) = other {
                anyhow::bail!(
                    "expected: {} in memory at {address:#x}\nseen: another byte at {:#x}",
                    file.display(),
                    DRAM + at + other as u64
                );
            }
            at += bytes as u64;
        }
    }

    /// Removes the memory, which is large.
    fn end(&self) -> Result<()> {
        fs::remove_file(self.folder.join("memory")).context("there is no memory")
    }
}

/// What the loader finds around it: the port, or the folder of the Mac that stands in for one.
fn environment(port: &Path, mib: u32, modules: &Path) -> [(&'static str, String); 4] {
    [
        ("M1N1DEVICE", port.display().to_string()),
        ("MAC_MIB", mib.to_string()),
        ("PYTHONPATH", modules.display().to_string()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ]
}

/// A number as the Mac writes it.
fn number(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").with_context(|| format!("{text:?} is no number"))?;
    Ok(u64::from_str_radix(digits, 16)?)
}

fn boots(loader: &Loader<'_>) -> Result<Passed> {
    let bootargs = "max_tokens=7 prompt=\"It was\"";
    let said = loader.load(&["j313", "j274"], &["--bootargs", bootargs])?;
    ensure!(said.status == 0, "expected: status 0\nseen: {}\n{}", said.status, said.text);
    let calls = loader.calls()?;
    let names: Vec<&str> = calls.iter().map(|call| call.0.as_str()).collect();
    let changes: Vec<&str> =
        names.iter().copied().filter(|name| !["dc_cvau", "ic_ivau"].contains(name)).collect();
    let expected = [
        "kboot_set_chosen",
        "kboot_set_initrd",
        "cpufreq_init",
        "smp_start_secondaries",
        "kboot_prepare_dt",
        "kboot_boot",
    ];
    ensure!(changes == expected, "expected: the calls {expected:?}\nseen: {changes:?}");
    ensure!(names.last() == Some(&"kboot_boot"), "something is asked after the start: {names:?}");
    let chosen = loader.called("kboot_set_chosen")?;
    ensure!(chosen == format!("bootargs {bootargs}"), "other boot arguments arrive: {chosen}");
    let initrd_call = loader.called("kboot_set_initrd")?;
    let (initrd_at, bytes) = initrd_call.split_once(' ').context("no size of the initrd")?;
    ensure!(number(bytes)? == INITRD_MIB << 20, "the initrd has another size: {bytes}");
    let kernel = loader.called("kboot_boot")?;
    let kernel_at = number(&kernel)?;
    ensure!(kernel_at % (2 << 20) == 0, "the image is at {kernel}");
    loader.has(Path::new(IMAGE), kernel_at)?;
    loader.has(&initrd(loader.lab)?, number(initrd_at)?)?;
    loader.has(&tree(loader.lab, "j274")?, number(&loader.called("kboot_prepare_dt")?)?)?;
    // What the image is read through must be in memory before it is.
    let place = format!("{kernel} {:#x}", fs::metadata(IMAGE)?.len());
    for operation in ["dc_cvau", "ic_ivau"] {
        let done = calls.iter().any(|(name, arguments)| name == operation && *arguments == place);
        ensure!(done, "expected: {operation} of the image, {place}\nseen: {calls:?}");
    }
    loader.end()?;
    Ok(Passed::with(format!("an initrd of {INITRD_MIB} MiB at {initrd_at}")))
}

/// The loader must fail with such a line, and start nothing.
fn refuses(loader: &Loader<'_>, tree: &str, message: &str) -> Result<Passed> {
    let said = loader.load(&[tree], &[])?;
    ensure!(said.status != 0, "the loader is content:\n{}", said.text);
    ensure!(said.text.contains(message), "expected: {message:?}\nseen:\n{}", said.text);
    let started = loader.calls()?.iter().any(|call| call.0 == "kboot_boot");
    ensure!(!started, "it starts all the same");
    loader.end()?;
    Ok(Passed::default())
}

/// What stands for m1n1: a file with the mark by which one is known.
pub fn m1n1_bin(lab: &Lab) -> Result<PathBuf> {
    lab.made("m1n1-bin.img", |out| {
        let mut bytes = vec![0; 32 << 10];
        let mark = b"##m1n1_ver##";
        bytes[..mark.len()].copy_from_slice(mark);
        Ok(fs::write(out, bytes)?)
    })
}

/// Runs `make flash-m1`, where m1n1's own script carries less than `carried_mib` MiB.
///
/// Gives the names of m1n1 and of the file that make writes, and the output of make.
fn make_flash(
    loader: &Loader<'_>,
    name: &str,
    carried_mib: u32,
) -> Result<(PathBuf, PathBuf, String)> {
    let here = std::env::current_dir()?;
    let checkout = Checkout::new(loader.lab, name)?;
    let m1n1 = here.join(m1n1_bin(loader.lab)?);
    let out = here.join(loader.lab.file(&format!("{name}.made.img")));
    let trees = ["j313", "j274"].map(|name| tree(loader.lab, name));
    let trees: Vec<String> = trees
        .into_iter()
        .map(|tree| Ok(here.join(tree?).display().to_string()))
        .collect::<Result<_>>()?;
    let modules = here.join(PLAYED);
    let mut environment: Vec<(&str, String)> =
        environment(&here.join(&loader.folder), loader.mib, &modules).into();
    environment.push(("CHAINLOAD_MIB", carried_mib.to_string()));
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let settings = [
        "MODEL=tiny.gguf".into(),
        "BOOTARGS=seed=7".into(),
        format!("M1N1={}", m1n1.display()),
        format!("DTB={}", trees.join(" ")),
        format!("USB={}", modules.join("clone").display()),
        format!("OUT={}", out.display()),
    ];
    let mut arguments = vec!["flash-m1"];
    arguments.extend(settings.iter().map(String::as_str));
    let said = checkout.make(&arguments, &environment)?;
    said.is_content()?;
    Ok((m1n1, out, said.text))
}

/// A model that m1n1's own script carries goes by that.
fn flash(lab: &Lab) -> Result<Passed> {
    let loader = Loader::new(lab, "m1n1-flash", false, ENOUGH_MIB)?;
    let (_, out, said) = make_flash(&loader, "m1n1-flash", 6)?;
    let line = format!("chainload --raw {}", out.display());
    ensure!(said.lines().any(|said| said == line), "expected: {line}\nseen:\n{said}");
    ensure!(!loader.folder.join("calls").exists(), "the loader runs");
    Ok(Passed::default())
}

/// A larger one goes by the loader.
fn flash_large(lab: &Lab) -> Result<Passed> {
    let loader = Loader::new(lab, "m1n1-flash-large", false, ENOUGH_MIB)?;
    let (m1n1, out, said) = make_flash(&loader, "m1n1-flash-large", 5)?;
    let line = format!("chainload --raw {}", m1n1.display());
    ensure!(said.lines().any(|said| said == line), "expected: {line}\nseen:\n{said}");
    let chosen = loader.called("kboot_set_chosen")?;
    ensure!(chosen == "bootargs seed=7", "other boot arguments arrive: {chosen}");
    loader.has(Path::new(IMAGE), number(&loader.called("kboot_boot")?)?)?;
    let initrd_call = loader.called("kboot_set_initrd")?;
    loader.has(&out, number(initrd_call.split(' ').next().unwrap_or_default())?)?;
    has_tiny(&Volume::read(&out)?)?;
    loader.end()?;
    Ok(Passed::default())
}

/// The volume must have the model `tiny.gguf`.
pub fn has_tiny(volume: &Volume) -> Result<()> {
    let files = volume.files()?;
    let model = files.into_iter().find(|(path, _)| path == TINY_ON_DISK);
    let (_, model) = model.with_context(|| format!("there is no {TINY_ON_DISK}"))?;
    ensure!(model == fs::read(TINY)?, "there is another model on the disk");
    Ok(())
}
