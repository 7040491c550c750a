//! `image-builder sd`: makes an SD card that a board boots from.
//!
//! A Raspberry Pi 4's boot loader lies in the board's own flash. It looks on the card's first FAT
//! partition for these files:
//!
//! - the firmware: `start4.elf`, `fixup4.dat`;
//! - the firmware's settings: `config.txt`;
//! - the device tree;
//! - the boot arguments: `cmdline.txt`;
//! - the kernel.
//!
//! Source: Raspberry Pi documentation, "The config.txt file" and "Raspberry Pi boot folder
//! contents".

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use host_io::console::print_line;
use host_io::files::{Output, Target};

use crate::contents::{self, BootFile, Contents, VolumeSize, Written};
use crate::device;
use crate::{bootargs, device_tree, fat, firmware, kernel_image, mbr, size};

/// Command-line options of `image-builder sd`.
#[derive(clap::Args)]
pub struct Options {
    /// The board
    #[arg(long)]
    board: Board,
    /// Folder with the board's firmware: start4.elf, fixup4.dat, bcm2711-rpi-4-b.dtb, and best also
    /// overlays/disable-bt.dtbo
    #[arg(long, value_name = "DIR")]
    firmware: PathBuf,
    /// The kernel's image
    #[arg(long, value_name = "IMAGE")]
    kernel: PathBuf,
    /// The serial port on the board's pins; `auto`: pl011 if the firmware has
    /// overlays/disable-bt.dtbo and device trees that the overlay applies to
    #[arg(long, default_value = "auto")]
    uart: Uart,
    /// Settings for the kernel, as in "max_tokens=20 seed=7"; they override anchorite.toml
    #[arg(long, value_name = "TEXT", value_parser = bootargs::parse)]
    bootargs: Option<String>,
    /// The card's image to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    contents: contents::ContentOptions,
    #[command(flatten)]
    device: device::DeviceOptions,
}

/// The boards that cards can be made for.
#[derive(Clone, Copy, ValueEnum)]
enum Board {
    /// Raspberry Pi 4 Model B, Raspberry Pi 400, Compute Module 4
    Rpi4,
}

/// The serial port on the pins.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Uart {
    /// The PL011 if the firmware's files allow it, else the mini UART
    Auto,
    /// The PL011, which has a clock of its own; Bluetooth is off
    Pl011,
    /// The mini UART, whose clock is the processor's bus clock
    Mini,
}

/// Where to get the firmware.
const WHERE: &str = "get it from the repository raspberrypi/firmware (its folder boot/), or from \
                     Debian's packages raspi-firmware and linux-image-arm64 (ci/firmware.sh rpi4)";
/// The reason why an overlay does not apply, and what to do.
const NO_LABELS: &str = "built without `__symbols__`; the trees of raspberrypi/firmware and of \
                         Linux 6.5 and later have that node";
/// The overlay that connects the PL011 to the pins.
const DISABLE_BT: &str = "overlays/disable-bt.dtbo";
/// The firmware.
const START: &str = "start4.elf";
/// The kernel's name on the card.
const KERNEL: &str = "kernel8.img";
/// The maximum size of a firmware file. Real files are much smaller.
const LARGEST: u64 = 64 << 20;
/// The start of the machine's name in a device tree.
const MACHINE: &str = "raspberrypi,4";

/// Makes the card's image, and writes the image to a card if one is named.
pub fn build(options: &Options) -> Result<()> {
    let Board::Rpi4 = options.board;
    let device = options.device.open()?;
    let boot_files = boot_files(options)?;
    let mut inputs = options.contents.inputs();
    inputs.extend(boot_files.iter().filter_map(|file| file.source.clone()));
    let target = Target::new(&options.out, &inputs)?;
    let contents = Contents::open(&options.contents, boot_files, options.bootargs.as_deref())?;
    let layout = lay_out(&contents, &options.contents)?;
    let card_bytes = mbr::PARTITION_START + layout.geometry.bytes;
    if let Some(device) = &device {
        device.confirm(card_bytes)?;
    }
    target.write(|file| {
        let written = contents.write(file, mbr::PARTITION_START, &layout)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&mbr::sector(layout.geometry.bytes, layout.id))?;
        if options.contents.verify {
            verify(file, &written)?;
        }
        Ok(())
    })?;
    print_line(format_args!(
        "{}: {}, a partition of {} with {}, clusters of {}{}",
        options.out.display(),
        size::human(card_bytes),
        size::human(layout.geometry.bytes),
        layout.geometry.kind,
        size::human(layout.geometry.cluster.into()),
        if options.contents.verify { ", read back and equal" } else { "" }
    ))?;
    contents.describe_models()?;
    if let Some(device) = device {
        device.write(&options.out)?;
    }
    Ok(())
}

/// Lays out a volume of FAT32, as the boot loader's documentation requires.
fn lay_out(contents: &Contents, options: &contents::ContentOptions) -> Result<fat::Layout> {
    let sectors_before = (mbr::PARTITION_START / 512) as u32;
    if let VolumeSize::Bytes(bytes) = options.size {
        ensure!(
            bytes >= fat::FAT32_FROM,
            "a board boots from FAT32, which takes at least --size {}M",
            fat::FAT32_FROM >> 20
        );
    }
    let lay_out = |size| contents.lay_out(size, options.label, sectors_before);
    let layout = lay_out(options.size)?;
    if layout.geometry.bytes < fat::FAT32_FROM {
        return lay_out(VolumeSize::Bytes(fat::FAT32_FROM));
    }
    Ok(layout)
}

/// Compares the card's image with `written`, starting from the partition table.
fn verify(file: &Output, written: &[Written]) -> Result<()> {
    let mut file = file.read_back()?;
    let mut sector = [0; 512];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut sector)?;
    let (start, bytes) =
        mbr::first_partition(&sector).context("the partition does not read back")?;
    ensure!(
        start + bytes == file.metadata()?.len(),
        "the partition does not read back as it was written"
    );
    contents::verify(file, start, written)
}

/// The files for the firmware, the kernel included.
fn boot_files(options: &Options) -> Result<Vec<BootFile>> {
    let folder = &options.firmware;
    ensure!(folder.is_dir(), "{} is no folder; {WHERE}", folder.display());
    let mut files = Vec::new();
    let mut missing = Vec::new();
    for (name, is_right, needed) in [
        (START, is_elf as fn(&[u8]) -> bool, true),
        ("fixup4.dat", is_any, true),
        // The licence of both files, which must go with them.
        ("LICENCE.broadcom", is_any, false),
    ] {
        let path = folder.join(name);
        match read(&path)? {
            Some(bytes) if is_right(&bytes) => {
                if name == START {
                    print_build(&bytes)?;
                }
                files.push(BootFile::read(name, path, bytes));
            }
            Some(_) => bail!("{} is damaged; {WHERE}", path.display()),
            None if needed => missing.push(name),
            None => {}
        }
    }
    let mut without_labels = Vec::new();
    for (name, needed) in [
        ("bcm2711-rpi-4-b.dtb", true),
        ("bcm2711-rpi-400.dtb", false),
        ("bcm2711-rpi-cm4.dtb", false),
        ("bcm2711-rpi-cm4s.dtb", false),
    ] {
        let path = folder.join(name);
        if path.exists() {
            let bytes = device_tree::read(&path, MACHINE).context(WHERE)?;
            if !device_tree::has_labels(&bytes) {
                without_labels.push(name);
            }
            files.push(BootFile::read(name, path, bytes));
        } else if needed {
            missing.push(name);
        }
    }
    let overlay = read(&folder.join(DISABLE_BT))?;
    let applies = without_labels.is_empty();
    let pl011 = match options.uart {
        Uart::Auto => overlay.is_some() && applies,
        Uart::Pl011 => true,
        Uart::Mini => false,
    };
    if pl011 && overlay.is_none() {
        missing.push(DISABLE_BT);
    }
    ensure!(missing.is_empty(), "{} lacks {}; {WHERE}", folder.display(), missing.join(", "));
    if !applies {
        let trees = without_labels.join(", ");
        ensure!(!pl011, "{DISABLE_BT} does not apply to {trees}: {NO_LABELS}");
        crate::say(&format!(
            "warning: no overlay applies to {trees}: {NO_LABELS}. The firmware may set up another \
             serial port than the tree names"
        ));
    }
    if let Some(bytes) = overlay.filter(|_| pl011) {
        let path = folder.join(DISABLE_BT);
        let size = device_tree::total_size(&bytes);
        ensure!(size == Some(bytes.len()), "{} is damaged; {WHERE}", path.display());
        files.push(BootFile::read(DISABLE_BT, path, bytes));
    }
    let port = if pl011 { "PL011 (Bluetooth off)" } else { "mini UART" };
    print_line(format_args!("serial port: {port}"))?;

    files.push(BootFile::made("config.txt", config_txt(pl011)));
    let words = format!("-- {}", options.bootargs.as_deref().unwrap_or_default());
    let words = format!("{}\n", words.trim_end());
    files.push(BootFile::made("cmdline.txt", words));
    let kernel = kernel_image::read(&options.kernel)?;
    files.push(BootFile::read(KERNEL, options.kernel.clone(), kernel));
    Ok(files)
}

/// Prints the build of the firmware. A board refuses firmware that is too old.
fn print_build(start4: &[u8]) -> Result<()> {
    match firmware::build(start4) {
        Some(firmware::Build { date, version }) if version.is_empty() => {
            print_line(format_args!("firmware: of {date}"))?;
        }
        Some(firmware::Build { date, version }) => {
            print_line(format_args!("firmware: of {date}, version {version}"))?;
        }
        None => print_line("firmware: start4.elf has no date")?,
    }
    Ok(())
}

fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

fn is_any(bytes: &[u8]) -> bool {
    !bytes.is_empty()
}

/// Reads the file at `path`, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let cannot_read = || format!("cannot read {}", path.display());
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(cannot_read),
        Ok(metadata) => {
            ensure!(metadata.is_file(), "{} is no file", path.display());
            ensure!(metadata.len() <= LARGEST, "{} is too large; {WHERE}", path.display());
        }
    }
    Ok(Some(fs::read(path).with_context(cannot_read)?))
}

/// The firmware's settings.
///
/// - `kernel_address`: the kernel needs a boundary of 2 MiB, and older firmware has another
///   default.
/// - `arm_boost` and `force_turbo`: the full clock, which otherwise only an operating system
///   requests. They also keep the clock of the mini UART constant.
/// - `init_uart_clock`: the default, which the kernel relies on when it sets up the PL011 itself.
fn config_txt(pl011: bool) -> String {
    let uart = if pl011 {
        "# The pins' port is the PL011, which Bluetooth has otherwise.\ndtoverlay=disable-bt\n"
    } else {
        "# The pins' port is the mini UART, as long as Bluetooth has the PL011.\n"
    };
    format!(
        "# Anchorite on a Raspberry Pi 4. Settings of the model are in anchorite.toml; in\n\
         # cmdline.txt they stand behind the `--`.\n\
         arm_64bit=1\n\
         kernel={KERNEL}\n\
         kernel_address=0x200000\n\
         # The serial port on pins 8 (TXD) and 10 (RXD): 115200 baud, 8 bits, no parity, 1 stop bit.\n\
         enable_uart=1\n\
         {uart}\
         # The PL011's clock.\n\
         init_uart_clock=48000000\n\
         # Without its `#`, the firmware itself talks on these pins while it starts the board.\n\
         #uart_2ndstage=1\n\
         # No rainbow on HDMI.\n\
         disable_splash=1\n\
         # The full clock from the start.\n\
         arm_boost=1\n\
         force_turbo=1\n"
    )
}
