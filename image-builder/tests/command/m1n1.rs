//! `image-builder m1n1`, as a user runs it.
//!
//! The command's unit tests read its output with a reader that follows m1n1's.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::common::{Place, device_tree, kernel_elf, model, read, system_tool};

fn place() -> Place {
    let place = Place::new();
    place.write("k.elf", kernel_elf());
    place.run(["kernel", "--elf", "k.elf", "--out", "k.img"]).succeeds();
    place.write("m.gguf", model(0, 1009));
    let mut m1n1 = vec![0x5a; 32 << 10];
    m1n1[77..89].copy_from_slice(b"##m1n1_ver##");
    place.write("m1n1.bin", m1n1);
    place.write("a.dtb", device_tree(&["apple,j274", "apple,t8103", "apple,arm-platform"]));
    place.write("b.dtb", device_tree(&["apple,j313", "apple,t8103", "apple,arm-platform"]));
    place
}

const M1N1: [&str; 9] =
    ["m1n1", "--m1n1", "m1n1.bin", "--dtb", "a.dtb", "--dtb", "b.dtb", "--kernel", "k.img"];

#[test]
fn the_payloads_follow_m1n1() {
    let place = place();
    let printed = place
        .run(M1N1.iter().chain(&[
            "--verify",
            "--bootargs",
            "seed=7",
            "--out",
            "boot.bin",
            "m.gguf",
        ]))
        .succeeds()
        .stdout();
    assert!(printed.contains("read back and equal"), "{printed}");
    assert!(printed.contains("apple,j274") && printed.contains("apple,j313"), "{printed}");
    let boot = read(&place.path("boot.bin"));
    let m1n1 = read(&place.path("m1n1.bin"));
    assert!(boot.starts_with(&m1n1));
    assert_eq!(boot[m1n1.len()..][..2], [0x1f, 0x8b]);
    assert!(boot.ends_with(&[0; 4]));
    let find = |wanted: &[u8]| boot.windows(wanted.len()).position(|part| part == wanted).unwrap();
    assert!(find(b"chosen.bootargs=seed=7") < find(b"apple,j274"));
    let header = find(b"m1n1_initramfs");
    let volume = header + 18;
    assert_eq!(volume % (16 << 10), 0);
    let bytes = u32::from_le_bytes(boot[header + 14..volume].try_into().unwrap()) as usize;
    assert_eq!(volume + bytes + 4, boot.len());
    let path = place.write("volume.img", &boot[volume..][..bytes]);
    if let Some(output) = system_tool("fsck.fat", &["-n".as_ref(), path.as_ref()]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let listed = place.run(["inspect", "volume.img"]).succeeds().stdout();
    assert!(listed.contains("models/m.gguf") && listed.contains("anchorite.toml"), "{listed}");

    // The system's gzip unpacks the kernel as it was.
    let packed = place.write("k.gz", &boot[m1n1.len()..find(b"chosen.bootargs")]);
    if let Some(output) = system_tool("gzip", &["-dc".as_ref(), packed.as_ref()]) {
        assert!(output.stdout == read(&place.path("k.img")));
    }
}

#[test]
fn what_m1n1_could_not_boot_is_refused() {
    let place = place();
    let run = |more: &[&str]| {
        let outcome = place.run(M1N1.iter().chain(&["--out", "boot.bin", "m.gguf"]).chain(more));
        assert!(!place.path("boot.bin").exists());
        outcome
    };
    place.write("rpi.dtb", device_tree(&["raspberrypi,4-model-b"]));
    run(&["--dtb", "rpi.dtb"]).fails(1, "is for another machine: raspberrypi,4-model-b");
    run(&["--dtb", "m.gguf"]).fails(1, "is no device tree");
    run(&["--bootargs", "quiet"]).fails(2, "key=value");
    run(&["--bootargs", "model=n.gguf"]).fails(1, "--bootargs asks for the model n.gguf");
    run(&["--bootargs", &format!("prompt={}", "x".repeat(1024))]).fails(1, "use anchorite.toml");
    run(&["--size", "4G"]).fails(1, "less than 4 GiB");
    // Two models that fit alone, but not together.
    for name in ["one.gguf", "two.gguf"] {
        let path = place.write(name, model(0, 7));
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(5 << 29).unwrap();
        file.write_all_at(&[1], (5 << 29) - 1).unwrap();
    }
    run(&["one.gguf", "two.gguf"]).fails(1, "take fewer or smaller models");

    let m1n1 = read(&place.path("m1n1.bin"));
    for (bytes, says) in [
        (&b"no m1n1"[..], "is not m1n1"),
        (&[&[0xcf, 0xfa, 0xed, 0xfe], &m1n1[4..]].concat(), "Mach-O"),
        (&[&m1n1[..], b"payload"].concat(), "not m1n1 alone"),
    ] {
        place.write("m1n1.bin", bytes);
        run(&[]).fails(1, says);
    }
}
