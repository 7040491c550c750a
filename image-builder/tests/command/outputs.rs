//! The outputs of each command, and its failures to write.
//!
//! The tests put files, pipes and devices in the output's place, and name inputs in all ways. They
//! also run commands with standard streams that are full or gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use kernel::llm::gguf::write::Builder;

use super::common::{
    Outcome, Place, device_tree, device_tree_with_labels, kernel_elf, read, sum_line,
};

/// The commands that write a file `OUT`, with the files that they read.
const COMMANDS: [(&[&str], &[&str]); 5] = [
    (&["kernel", "--elf", "k.elf", "--out", "OUT"], &["k.elf"]),
    (
        &["disk", "--config", "c.toml", "--prompt-file", "p.txt", "--out", "OUT", "m.gguf"],
        &["c.toml", "p.txt", "m.gguf", "m.gguf.sha256"],
    ),
    (
        &[
            "sd",
            "--board",
            "rpi4",
            "--firmware",
            "fw",
            "--kernel",
            "k.img",
            "--config",
            "c.toml",
            "--out",
            "OUT",
            "m.gguf",
        ],
        &[
            "k.img",
            "c.toml",
            "m.gguf",
            "m.gguf.sha256",
            "fw/start4.elf",
            "fw/fixup4.dat",
            "fw/LICENCE.broadcom",
            "fw/bcm2711-rpi-4-b.dtb",
            "fw/bcm2711-rpi-400.dtb",
            "fw/overlays/disable-bt.dtbo",
        ],
    ),
    (
        &[
            "m1n1", "--m1n1", "m1n1.bin", "--dtb", "a.dtb", "--kernel", "k.img", "--out", "OUT",
            "m.gguf",
        ],
        &["m1n1.bin", "a.dtb", "k.img", "m.gguf", "m.gguf.sha256"],
    ),
    (&["quantize", "m.gguf", "OUT", "F16"], &["m.gguf"]),
];

/// A folder with all files that these commands read.
fn place() -> Place {
    let place = Place::new();
    place.write("k.elf", kernel_elf());
    place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).succeeds();
    let bytes = Builder::new()
        .string("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.attention.head_count", 1)
        .tensor_f32("token_embd.weight", &[32, 7], &[0.5; 224])
        .build();
    place.write("m.gguf", &bytes);
    place.write("m.gguf.sha256", sum_line(&bytes, "m.gguf"));
    place.write("c.toml", "seed = 7\n");
    place.write("p.txt", "Once");
    let mut m1n1 = vec![0x5a; 32 << 10];
    m1n1[77..89].copy_from_slice(b"##m1n1_ver##");
    place.write("m1n1.bin", m1n1);
    place.write("a.dtb", device_tree(&["apple,j274"]));
    fs::create_dir_all(place.path("fw/overlays")).unwrap();
    place.write("fw/start4.elf", b"\x7fELF");
    place.write("fw/fixup4.dat", "fixup");
    place.write("fw/LICENCE.broadcom", "Redistribution is permitted …");
    place.write("fw/bcm2711-rpi-4-b.dtb", device_tree_with_labels(&["raspberrypi,4-model-b"]));
    place.write("fw/bcm2711-rpi-400.dtb", device_tree_with_labels(&["raspberrypi,400"]));
    place.write("fw/overlays/disable-bt.dtbo", device_tree(&["brcm,bcm2835"]));
    place
}

fn run(place: &Place, command: &[&str], out: &str) -> Outcome {
    place.run(command.iter().map(|&word| if word == "OUT" { out } else { word }))
}

/// The bytes of all files in a folder, by path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.to_str().unwrap().to_owned(), read(&path));
        }
    }
    found
}

#[test]
fn no_command_writes_over_its_inputs() {
    let place = place();
    for (command, inputs) in COMMANDS {
        for input in inputs {
            fs::hard_link(place.path(input), place.path("hard")).unwrap();
            symlink(input, place.path("soft")).unwrap();
            symlink(place.path("soft"), place.path("softer")).unwrap();
            let before = files(&place.path(""));
            let roundabout = format!("fw/overlays/../../{input}");
            let absolute = place.path(input);
            for out in [input, "hard", "soft", "softer", &roundabout, absolute.to_str().unwrap()] {
                let outcome = run(&place, command, out).fails(1, "would be replaced");
                let printed = outcome.stderr();
                let says = format!("{out} would be replaced, and it is the input {input}: give");
                assert!(printed.contains(&says), "{printed}");
                assert!(outcome.stdout().is_empty() || command[0] == "sd", "{}", outcome.stdout());
            }
            assert!(files(&place.path("")) == before, "{} {input}", command[0]);
            for link in ["hard", "soft", "softer"] {
                fs::remove_file(place.path(link)).unwrap();
            }
        }
        // A copy of an input is another file, and may be overwritten.
        fs::copy(place.path(inputs[0]), place.path("copy")).unwrap();
        run(&place, command, "copy").succeeds();
        assert!(read(&place.path("copy")) != read(&place.path(inputs[0])));
    }
}

#[test]
fn only_files_are_written() {
    let place = place();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    symlink("/dev/full", place.path("full")).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    // Only root can make block devices, and not in every container. No driver has this number.
    let made = Command::new("mknod").arg(place.path("disk")).args(["b", "7", "255"]).status();
    let has_disk = made.is_ok_and(|status| status.success());
    let before = place.names();
    for (command, _) in COMMANDS {
        run(&place, command, "full").fails(1, "full is a character device: name a file");
        run(&place, command, "pipe").fails(1, "pipe is a pipe: name a file");
        run(&place, command, "folder").fails(1, "folder is a folder: name a file in it");
        if has_disk {
            let says =
                "disk is a disk: name a file. `image-builder sd --device disk` writes a card";
            run(&place, command, "disk").fails(1, says);
        } else {
            eprintln!("SKIPPED: cannot make a block device");
        }
        assert_eq!(place.names(), before, "{}", command[0]);
    }
    let kind = |name: &str| fs::symlink_metadata(place.path(name)).unwrap().file_type();
    assert!(kind("full").is_symlink() && kind("pipe").is_fifo());
    assert!(!has_disk || kind("disk").is_block_device());

    // A link to a file, or to no file yet, stays a link.
    for (command, _) in COMMANDS {
        place.write("there", "old");
        fs::create_dir(place.path("new")).unwrap();
        symlink("there", place.path("old link")).unwrap();
        symlink("new/file", place.path("new link")).unwrap();
        for (link, file) in [("old link", "there"), ("new link", "new/file")] {
            run(&place, command, link).succeeds();
            assert!(kind(link).is_symlink(), "{} {link}", command[0]);
            assert!(fs::metadata(place.path(file)).unwrap().len() > 100, "{} {link}", command[0]);
            fs::remove_file(place.path(link)).unwrap();
        }
        fs::remove_dir_all(place.path("new")).unwrap();
    }
}

/// The standard output of each command that prints.
fn printing(place: &Place) -> Vec<Vec<&'static str>> {
    let put_out = |command: &&[&'static str]| {
        command.iter().map(|&word| if word == "OUT" { "out" } else { word }).collect()
    };
    run(place, COMMANDS[1].0, "m.img").succeeds();
    let mut commands: Vec<Vec<_>> =
        COMMANDS.iter().map(|(command, _)| command).map(put_out).collect();
    for file in ["m.gguf", "m.img", "k.img"] {
        commands.extend([vec!["inspect", file], vec!["inspect", "--json", file]]);
    }
    commands.extend([vec!["--help"], vec!["--version"], vec!["disk", "--help"]]);
    commands
}

#[cfg(target_os = "linux")]
#[test]
fn text_that_cannot_be_printed_is_a_failure() {
    let place = place();
    for command in printing(&place) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(&command).stdout(full).output().unwrap();
        Outcome::of(output).fails(1, "cannot write to standard output: No space left on device");
    }
    // A lost warning changes the status, though no message can say so.
    for command in [&COMMANDS[1].0.to_vec(), &vec!["disk"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = place.command(command).stderr(full).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(if command.len() > 1 { 1 } else { 2 }), "{command:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let place = place();
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for command in printing(&place) {
        let output = place.command(&command).stdout(gone()).output().unwrap();
        let outcome = Outcome::of(output).succeeds();
        assert!(!outcome.stderr().contains("standard output"), "{}", outcome.stderr());
        let both = place.command(&command).stdout(gone()).stderr(gone()).status().unwrap();
        assert_eq!(both.code(), Some(0), "{command:?}");
        // The output file is written nevertheless.
        if command.contains(&"out") {
            assert!(fs::metadata(place.path("out")).unwrap().len() > 100, "{command:?}");
            fs::remove_file(place.path("out")).unwrap();
        }
    }
    for (command, status) in [(&["disk"][..], 2), (&["inspect", "c.toml"], 1)] {
        let ended = place.command(command).stderr(gone()).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{command:?}");
    }
}

/// A full disk leaves no incomplete model.
#[test]
fn a_full_disk_is_an_error_with_the_name_of_the_output() {
    let place = place();
    let large = Builder::new().tensor_f32("t", &[1 << 20], &vec![1.0; 1 << 20]);
    place.write("large.gguf", large.build());
    let before = place.names();
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" disk --out m.img large.gguf";
    limited.args(["-c", script, env!("CARGO_BIN_EXE_image-builder")]);
    let output = limited.current_dir(place.path("")).output().unwrap();
    let message = Outcome::of(output).fails(1, "cannot write m.img: File too large").stderr();
    assert!(message.starts_with("image-builder: cannot write m.img: "), "{message}");
    assert_eq!(place.names(), before);
}
