//! What all boots of a run share: folder of the logs, image, disks, installed programs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result, bail};
use image_builder::kernel_image;

use crate::disk::Disk;

/// The image that `ci/build.sh` makes.
pub const IMAGE: &str = "target/anchorite.img";
/// The harness.
pub const HARNESS: &str = "target/debug/anchorite-qemu";
/// The image builder's command.
pub const BUILDER: &str = "target/debug/image-builder";
/// The image of the probe.
pub const PROBE: &str = "target/probe.img";
/// The ELF file of the probe.
pub const PROBE_ELF: &str = "target/bare/aarch64-unknown-none/release/probe";
/// The program that plays m1n1.
pub const M1N1_STUB: &str = "target/bare/aarch64-unknown-none/release/m1n1-stub";
/// QEMU where the harness is not what starts it.
pub const QEMU: &str = "qemu-system-aarch64";

/// The result of making a file, once.
type Made = Arc<OnceLock<Result<(), String>>>;

/// What all boots of a run share.
#[derive(Default)]
pub struct Lab {
    folder: PathBuf,
    files: Mutex<HashMap<String, Made>>,
    pi4: OnceLock<Result<Pi4, String>>,
}

/// A QEMU with a Raspberry Pi 4, and that board's device tree.
#[derive(Clone, Debug)]
pub struct Pi4 {
    /// The QEMU.
    pub qemu: PathBuf,
    /// The device tree.
    pub device_tree: PathBuf,
}

/// Something without which a check is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A QEMU with a Raspberry Pi 4, and its device tree.
    Pi4,
    /// Linux's `/proc`, which tells how long a process has run.
    Proc,
    /// U-Boot for QEMU.
    UBoot,
    /// Python 3.
    Python,
    /// A clone of m1n1's sources, named by `M1N1_CLONE`.
    M1n1,
    /// What m1n1's own Python modules import.
    M1n1Modules,
    /// The Python packages `openai` and `ollama`, in a virtual environment.
    Clients,
    /// The Python package `litellm`, in a virtual environment of its own.
    LiteLlm,
    /// A browser, its driver, and the virtual environment that uses them.
    Browser,
}

/// The folder that `M1N1_CLONE` names: a clone of AsahiLinux/m1n1.
///
/// # Errors
/// It names none.
pub fn m1n1_clone() -> Result<PathBuf, String> {
    let folder =
        std::env::var_os("M1N1_CLONE").ok_or("M1N1_CLONE names no clone of AsahiLinux/m1n1")?;
    let folder = PathBuf::from(folder);
    match folder.join("src/payload.c").exists() {
        true => Ok(folder),
        false => Err(format!("{} is no clone of AsahiLinux/m1n1", folder.display())),
    }
}

/// U-Boot for QEMU, where Debian's u-boot-qemu or Fedora's uboot-images-armv8 puts it.
///
/// # Errors
/// It is not installed.
pub fn uboot() -> Result<PathBuf, String> {
    let folders = ["/usr/lib/u-boot", "/usr/share/uboot"];
    let files = folders.map(|folder| Path::new(folder).join("qemu_arm64/u-boot.bin"));
    let found = files.into_iter().find(|file| file.exists());
    found.ok_or_else(|| "no U-Boot for QEMU (u-boot-qemu)".into())
}

/// The Python of a virtual environment that `ci/setup.sh` makes.
pub fn environment_python(name: &str) -> PathBuf {
    Path::new("target/tools").join(name).join("bin/python")
}

/// Whether there is a program of this name.
fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Whether Python runs this.
fn python(program: &str) -> bool {
    let ended = Command::new("python3").args(["-c", program]).output();
    ended.is_ok_and(|said| said.status.success())
}

impl Lab {
    /// A run whose logs and disks go to `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Lab {
        Lab { folder: folder.into(), ..Lab::default() }
    }

    /// A run without a Raspberry Pi 4, for this reason.
    #[cfg(test)]
    pub fn without_pi4(folder: impl Into<PathBuf>, why: &str) -> Lab {
        Lab { pi4: OnceLock::from(Err(why.to_owned())), ..Lab::new(folder) }
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file of this run; the first caller has it made.
    ///
    /// # Errors
    /// The file could not be made.
    pub fn made(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let made = {
            let mut files = self.files.lock().expect("nobody panics while holding it");
            Arc::clone(files.entry(name.to_owned()).or_default())
        };
        let path = self.file(name);
        match made.get_or_init(|| make(&path).map_err(|e| format!("{e:#}"))) {
            Ok(()) => Ok(path),
            Err(e) => bail!("cannot make {name}: {e}"),
        }
    }

    /// The file that holds this disk.
    ///
    /// # Errors
    /// It could not be made.
    pub fn disk(&self, disk: &Disk) -> Result<PathBuf> {
        self.made(&disk.file_name(), |path| disk.make(self, path))
    }

    /// The QEMU with a Raspberry Pi 4; why there is none.
    ///
    /// # Errors
    /// What `ci/boards.sh` says: there is none.
    pub fn pi4(&self) -> Result<Pi4, String> {
        let find = || {
            let found = Command::new("ci/boards.sh").output().map_err(|e| e.to_string())?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            match found.status.success() {
                true => Ok(Pi4 {
                    qemu: text(&found.stdout).into(),
                    device_tree: "target/boards/bcm2711-rpi-4-b.dtb".into(),
                }),
                false => {
                    let said = text(&found.stderr);
                    let last = said.lines().last().unwrap_or("ci/boards.sh fails");
                    Err(format!("no QEMU with a Raspberry Pi 4: {last}"))
                }
            }
        };
        self.pi4.get_or_init(find).clone()
    }

    /// Checks that something is installed.
    ///
    /// # Errors
    /// The reason why a check without it is skipped.
    pub fn has(&self, need: Need) -> Result<(), String> {
        match need {
            Need::Pi4 => self.pi4().map(drop),
            Need::Proc => match Path::new("/proc/self/stat").exists() {
                true => Ok(()),
                false => Err("no /proc".into()),
            },
            Need::UBoot => uboot().map(drop),
            Need::Python => python("").then_some(()).ok_or_else(|| "no python3".into()),
            Need::M1n1 => m1n1_clone().map(drop),
            Need::M1n1Modules => python("import serial, construct")
                .then_some(())
                .ok_or_else(|| "no Python modules pyserial and construct".into()),
            Need::Clients => environment_python("clients")
                .exists()
                .then_some(())
                .ok_or_else(|| "no Python packages openai and ollama (ci/setup.sh test)".into()),
            Need::LiteLlm => environment_python("litellm")
                .exists()
                .then_some(())
                .ok_or_else(|| "no Python package litellm (ci/setup.sh litellm)".into()),
            Need::Browser => {
                let has_all = program("chromium") && program("chromedriver");
                (has_all && environment_python("page").exists())
                    .then_some(())
                    .ok_or_else(|| "no browser, or no selenium (ci/setup.sh page)".into())
            }
        }
    }

    /// Removes the large files: disks and models. The logs stay.
    pub fn clean(&self) -> Result<()> {
        for entry in self.folder.read_dir().context("the folder of the logs")? {
            let path = entry?.path();
            let ending = path.extension().unwrap_or_default();
            if ending == "img" || ending == "gguf" || ending == "qmp" {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The SHA-256 in the image, in hexadecimal; every log must name it.
///
/// # Errors
/// The image is not there, or is damaged.
pub fn image_sha256() -> Result<String, String> {
    static SHA256: OnceLock<Result<String, String>> = OnceLock::new();
    let read = || {
        let image = kernel_image::read(Path::new(IMAGE)).map_err(|e| format!("{e:#}"))?;
        let sum = kernel_image::sum_in(&image);
        sum.map(|sum| sum.to_string()).ok_or_else(|| format!("{IMAGE} has no SHA-256 in it"))
    };
    SHA256.get_or_init(read).clone()
}

/// `PATH` with the folders of the administrator's commands, where `sfdisk` is.
pub fn path_with_sbin() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
