//! `image-builder sd`, checked by the system's own tools.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{
    Place, device_tree, device_tree_with_labels, kernel_elf, model, read, system_tool,
};

/// The first byte of the partition.
const PARTITION: usize = 4 << 20;

/// The names of a board with a device tree.
const BOARD: [&str; 2] = ["raspberrypi,4-model-b", "brcm,bcm2711"];

/// A folder with a kernel, a model, and the firmware's files in `fw`.
fn place() -> Place {
    let place = Place::new();
    place.write("k.elf", kernel_elf());
    place.run(["kernel", "--elf", "k.elf", "--out", "kernel8.img"]).succeeds();
    place.write("m.gguf", model(0, 1009));
    fs::create_dir_all(place.path("fw/overlays")).unwrap();
    place.write("fw/start4.elf", [b"\x7fELF", &[7; 100_003][..]].concat());
    place.write("fw/fixup4.dat", [11; 5003]);
    place.write("fw/bcm2711-rpi-4-b.dtb", device_tree_with_labels(&BOARD));
    place
}

const SD: [&str; 8] =
    ["sd", "--board", "rpi4", "--firmware", "fw", "--kernel", "kernel8.img", "--out"];

/// Reads a text from the card with mtools.
fn text(place: &Place, path: &str) -> Option<String> {
    let image = format!("{}@@{PARTITION}", place.path("sd.img").display());
    let source = format!("::{path}");
    let output = system_tool("mtype", &["-i".as_ref(), image.as_ref(), source.as_ref()])?;
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_systems_tools_like_the_card() {
    let place = place();
    let names = ["raspberrypi,400", "brcm,bcm2711"];
    place.write("fw/bcm2711-rpi-400.dtb", device_tree_with_labels(&names));
    place.write("fw/overlays/disable-bt.dtbo", device_tree(&["brcm,bcm2835"]));
    place.write("fw/LICENCE.broadcom", "Redistribution is permitted …");
    place.write("fw/start.elf", "of another board");
    let printed = place
        .run(SD.iter().chain(&["sd.img", "m.gguf", "--verify", "--bootargs", "seed=7"]))
        .succeeds()
        .stdout();
    assert!(printed.contains("PL011") && printed.contains("read back and equal"), "{printed}");
    let image = read(&place.path("sd.img"));

    let path = place.path("sd.img");
    if let Some(output) = system_tool("sfdisk", &["--json".as_ref(), path.as_ref()]) {
        let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let table = &table["partitiontable"];
        assert_eq!(table["label"], "dos");
        let partitions = table["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 1);
        assert_eq!(partitions[0]["start"], PARTITION / 512);
        assert_eq!(partitions[0]["size"], (image.len() - PARTITION) / 512);
        assert_eq!(partitions[0]["type"], "c");
    }
    if let Some(output) = system_tool("sfdisk", &["--verify".as_ref(), path.as_ref()]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let volume = place.write("volume.img", &image[PARTITION..]);
    if let Some(output) = system_tool("fsck.fat", &["-n".as_ref(), volume.as_ref()]) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.lines().count() == 2, "{text}");
    }
    assert_eq!(&image[PARTITION + 82..PARTITION + 90], b"FAT32   ");
    assert_eq!(image[PARTITION + 28..PARTITION + 32], 8192_u32.to_le_bytes());

    // All of the files, and only this board's files of the firmware.
    let listed = place.run(["inspect", "--json", "sd.img"]).succeeds().stdout();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let files = listed["files"].as_array().unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "start4.elf",
            "fixup4.dat",
            "LICENCE.broadcom",
            "bcm2711-rpi-4-b.dtb",
            "bcm2711-rpi-400.dtb",
            "overlays/disable-bt.dtbo",
            "config.txt",
            "cmdline.txt",
            "kernel8.img",
            "anchorite.toml",
            "models/m.gguf",
            "models/m.gguf.sha256",
        ]
    );
    assert_eq!(listed["volume_start"], PARTITION);
    if let Some(config) = text(&place, "config.txt") {
        for line in [
            "arm_64bit=1",
            "kernel=kernel8.img",
            "enable_uart=1",
            "dtoverlay=disable-bt",
            "init_uart_clock=48000000",
            "#uart_2ndstage=1",
            "disable_splash=1",
        ] {
            assert!(config.lines().any(|there| there == line), "no {line} in {config}");
        }
        assert_eq!(text(&place, "cmdline.txt").unwrap(), "-- seed=7\n");
        assert_eq!(
            text(&place, "anchorite.toml").unwrap().lines().last(),
            Some("model = \"m.gguf\"")
        );
    }
    let kernel = read(&place.path("kernel8.img"));
    assert!(image.windows(kernel.len()).any(|part| part == kernel));
}

#[test]
fn the_serial_port_follows_from_the_firmwares_files() {
    let place = place();
    let printed = place.run(SD.iter().chain(&["sd.img", "m.gguf"])).succeeds().stdout();
    assert!(printed.contains("mini UART"), "{printed}");
    if let Some(config) = text(&place, "config.txt") {
        assert!(!config.contains("disable-bt"), "{config}");
        assert_eq!(text(&place, "cmdline.txt").unwrap(), "--\n");
    }
    place
        .run(SD.iter().chain(&["sd.img", "m.gguf", "--uart", "pl011"]))
        .fails(1, "lacks overlays/disable-bt.dtbo");
    place.write("fw/overlays/disable-bt.dtbo", device_tree(&["brcm,bcm2835"]));
    place.run(SD.iter().chain(&["sd.img", "m.gguf", "--uart", "mini"])).succeeds();
    if let Some(config) = text(&place, "config.txt") {
        assert!(!config.contains("disable-bt"), "{config}");
    }
}

#[test]
fn no_overlay_is_claimed_that_does_not_apply() {
    let place = place();
    place.write("fw/overlays/disable-bt.dtbo", device_tree(&["brcm,bcm2835"]));
    let sd = |more: &[&str]| place.run(SD.iter().chain(&["sd.img", "m.gguf"]).chain(more));
    assert!(!sd(&[]).succeeds().stderr().contains("overlay"));
    // One of the trees has no labels.
    for (name, compatible) in [
        ("bcm2711-rpi-400.dtb", ["raspberrypi,400", "brcm,bcm2711"]),
        ("bcm2711-rpi-4-b.dtb", BOARD),
    ] {
        let path = format!("fw/{name}");
        place.write(&path, device_tree(&compatible));
        for uart in ["auto", "mini"] {
            let outcome = sd(&["--uart", uart]).succeeds();
            let warned = format!("warning: no overlay applies to {name}: built without");
            assert!(outcome.stderr().contains(&warned), "{}", outcome.stderr());
            assert!(outcome.stdout().contains("serial port: mini UART"), "{}", outcome.stdout());
            if let Some(config) = text(&place, "config.txt") {
                assert!(!config.contains("disable-bt"), "{config}");
            }
        }
        let image = read(&place.path("sd.img"));
        let refusal = format!("overlays/disable-bt.dtbo does not apply to {name}: built");
        sd(&["--uart", "pl011"]).fails(1, &refusal);
        assert_eq!(read(&place.path("sd.img")), image);
        place.write(&path, device_tree_with_labels(&compatible));
    }
}

#[test]
fn the_firmwares_build_is_printed() {
    let place = place();
    let sd = || place.run(SD.iter().chain(&["sd.img", "m.gguf"])).succeeds().stdout();
    assert!(sd().contains("firmware: start4.elf has no date\n"), "{}", sd());
    let date = "\x7fELF\0VC_BUILD_ID_TIME: 14:03:16\0VC_BUILD_ID_TIME: Aug 26 2022\0";
    place.write("fw/start4.elf", date);
    assert!(sd().contains("firmware: of 2022-08-26\n"), "{}", sd());
    let version = "VC_BUILD_ID_VERSION: 102f1e848393c2112206fadffaaf86db04e98326 (clean)\0";
    place.write("fw/start4.elf", [date, version].concat());
    assert!(sd().contains("firmware: of 2022-08-26, version 102f1e848393\n"), "{}", sd());
}

#[test]
fn a_missing_or_wrong_file_is_named_with_its_source() {
    let place = place();
    let refuses = |says: &str| {
        let printed = place.run(SD.iter().chain(&["sd.img", "m.gguf"])).fails(1, says).stderr();
        assert!(!place.path("sd.img").exists(), "{printed}");
        printed
    };
    let tree = read(&place.path("fw/bcm2711-rpi-4-b.dtb"));
    for (name, bytes, says) in [
        ("start4.elf", &b""[..], "start4.elf is damaged"),
        ("start4.elf", b"<html>404</html>", "start4.elf is damaged"),
        ("fixup4.dat", b"", "fixup4.dat is damaged"),
        ("bcm2711-rpi-4-b.dtb", b"<html>", "is no device tree"),
        ("bcm2711-rpi-4-b.dtb", &tree[..tree.len() - 1], "is cut short"),
        ("bcm2711-rpi-4-b.dtb", &device_tree(&["raspberrypi,5"]), "is for another machine"),
    ] {
        let path = format!("fw/{name}");
        let right = read(&place.path(&path));
        place.write(&path, bytes);
        assert!(refuses(says).contains("raspberrypi/firmware"), "{says}");
        place.write(&path, right);
    }
    for name in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"] {
        let path = format!("fw/{name}");
        let right = read(&place.path(&path));
        fs::remove_file(place.path(&path)).unwrap();
        let printed = refuses(&format!("fw lacks {name}"));
        assert!(
            printed.contains("raspi-firmware") && printed.contains("linux-image-arm64"),
            "{printed}"
        );
        place.write(&path, right);
    }
    let kernel = read(&place.path("kernel8.img"));
    let mut damaged = kernel.clone();
    damaged[0x1000] ^= 1;
    place.write("kernel8.img", damaged);
    refuses("ChecksumMismatch");
    place.write("kernel8.img", "no kernel");
    refuses("is no kernel image");
    place.write("kernel8.img", kernel);

    let sd = |more: &[&str]| place.run(SD.iter().chain(&["sd.img", "m.gguf"]).chain(more));
    sd(&["--size", "511M"]).fails(1, "--size 512M");
    sd(&["--bootargs", "sede=7"]).fails(2, "there is no setting `sede`");
    sd(&["--bootargs", "seed=\"7"]).fails(2, "not closed");
    sd(&["--bootargs", "prompt_file=p.txt"]).fails(1, "--bootargs asks for the prompt_file p.txt");
    sd(&["--yes"]).fails(2, "--device");
    place.write("config.txt", "a prompt");
    sd(&["--prompt-file", "config.txt"]).fails(1, "the board's config.txt");
    place.write("fw/overlays/disable-bt.dtbo", device_tree(&["brcm,bcm2835"]));
    place.write("Overlays", "a prompt");
    sd(&["--prompt-file", "Overlays"]).fails(1, "the board's Overlays");
    assert!(!place.path("sd.img").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn only_a_disk_is_written() {
    let place = place();
    place.write("file", "no disk");
    let sd = |device: &str| {
        place.run(SD.iter().chain(&["sd.img", "m.gguf", "--yes", "--device", device]))
    };
    sd("file").fails(1, "is no disk");
    sd("/dev/null").fails(1, "is no disk");
    sd("/dev/none-such").fails(1, "cannot find");
    assert_eq!(read(&place.path("file")), b"no disk");
    assert!(!place.path("sd.img").exists());
}

/// A loop device over a file, as a disk.
///
/// Only root can make one, and not in every container.
#[cfg(target_os = "linux")]
struct Loop(PathBuf);

#[cfg(target_os = "linux")]
impl Loop {
    fn over(file: &Path) -> Option<Loop> {
        let output = Command::new("/usr/sbin/losetup").args(["-f", "--show"]).arg(file).output();
        let output = output.ok().filter(|output| output.status.success());
        let Some(output) = output else {
            eprintln!("SKIPPED: there is no loop device for {}", file.display());
            return None;
        };
        Some(Loop(String::from_utf8(output.stdout).unwrap().trim().into()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("/usr/sbin/losetup").arg("-d").arg(&self.0).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_card_is_written_after_a_yes_and_read_back() {
    use std::io::Write;
    use std::process::Stdio;

    let place = place();
    let card = |mib: u64| {
        let path = place.path("card");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        Loop::over(&path)
    };
    let sd = |card: &Loop, more: &[&str], answer: &str| {
        let device = card.0.to_str().unwrap();
        let rest = ["sd.img", "m.gguf", "--device", device];
        let mut command = place.command(SD.iter().chain(&rest).chain(more));
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // A command that refuses does not read the answer.
        let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
        super::common::Outcome::of(child.wait_with_output().unwrap())
    };
    let Some(small) = card(515) else { return };
    sd(&small, &["--any-disk", "--yes"], "").fails(1, "is too small: it has 515 MiB");
    drop(small);
    let Some(card) = card(521) else { return };
    sd(&card, &["--yes"], "").fails(1, "does not look like a card");
    for answer in ["no\n", "y\n", ""] {
        sd(&card, &["--any-disk"], answer).fails(1, "the answer was not yes");
    }
    assert!(!place.path("sd.img").exists());
    assert!(read(&place.path("card")).iter().all(|&byte| byte == 0));

    let printed = sd(&card, &["--any-disk"], "yes\n").succeeds().stdout();
    assert!(printed.contains("written, read back and equal"), "{printed}");
    drop(card);
    let (image, written) = (read(&place.path("sd.img")), read(&place.path("card")));
    assert!(written.starts_with(&image));
    assert!(written[image.len()..].iter().all(|&byte| byte == 0));
}
