use std::io::Write;

use super::*;

/// A device tree for `machine`, `size` bytes long.
fn tree(machine: &str) -> Vec<u8> {
    // Devicetree Specification 0.4, chapter 5: header, no reserved memory, a root with one
    // property.
    let mut names = machine.as_bytes().to_vec();
    names.push(0);
    let length = names.len() as u32;
    names.resize(names.len().next_multiple_of(4), 0);
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
    let mut structure = words(&[1, 0, 3, length, 0]);
    structure.extend(names);
    structure.extend(words(&[2, 9]));
    let strings = b"compatible\0";
    let strings_at = 56 + structure.len() as u32;
    let total = strings_at + strings.len() as u32;
    let mut out = words(&[
        0xd00d_feed,
        total,
        56,
        strings_at,
        40,
        17,
        16,
        0,
        strings.len() as u32,
        structure.len() as u32,
    ]);
    out.extend([0; 16]);
    out.extend(structure);
    out.extend(strings);
    out
}

fn parts() -> Parts {
    let mut m1n1 = vec![0x5a; 2 * PAGE];
    m1n1[100..112].copy_from_slice(VERSION_MARK);
    let mut kernel: Vec<u8> = (0..100_003_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    kernel[0x10..0x18].copy_from_slice(&131_072_u64.to_le_bytes());
    kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let trees = vec![tree("apple,j274"), tree("apple,j313"), tree("apple,j4567")];
    Parts { m1n1, kernel, bootargs: "seed=7".into(), trees }
}

fn file_of(bytes: &[u8]) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn m1n1_finds_what_was_put_together() {
    let parts = parts();
    let mut bytes = parts.join(3).unwrap();
    let volume = bytes.len() as u64;
    assert_eq!(volume % PAGE as u64, 0);
    bytes.extend(b"abc");
    bytes.extend(END);
    let found = payloads::read(&mut file_of(&bytes), parts.m1n1.len() as u64).unwrap();
    let mut found = found.into_iter();
    assert_eq!(
        found.next(),
        Some((parts.m1n1.len() as u64, Payload::Kernel(parts.kernel.clone())))
    );
    let Some((_, Payload::Variable(line))) = found.next() else { panic!("no variable") };
    assert_eq!(line.trim_end(), "chosen.bootargs=seed=7");
    for expected in &parts.trees {
        let Some((at, Payload::Tree(tree))) = found.next() else { panic!("no tree") };
        assert_eq!(at % 8, 0);
        assert_eq!(
            device_tree::compatible(&tree).unwrap(),
            device_tree::compatible(expected).unwrap()
        );
    }
    assert_eq!(found.next(), Some((volume, Payload::Initramfs { bytes: 3 })));
    assert_eq!(found.next(), None);
}

/// All parts are aligned, whatever their lengths.
#[test]
fn gaps_are_filled_whatever_the_lengths() {
    for extra in 0..17 {
        let mut parts = parts();
        parts.bootargs = "seed=".to_owned() + &"1".repeat(extra);
        let size = parts.trees[0].len() + extra;
        device_tree::grow(&mut parts.trees[0], size);
        let mut bytes = parts.join(0).unwrap();
        assert_eq!(bytes.len() % PAGE, 0, "{extra}");
        bytes.extend(END);
        let found = payloads::read(&mut file_of(&bytes), parts.m1n1.len() as u64).unwrap();
        let trees = found.iter().filter(|(_, payload)| matches!(payload, Payload::Tree(_)));
        assert_eq!(trees.filter(|(at, _)| at % 8 == 0).count(), 3, "{extra}");
    }
}

#[test]
fn boot_arguments_are_as_long_as_m1n1_reads() {
    let mut parts = parts();
    for (length, fits) in [(1016, true), (1024, false)] {
        parts.bootargs = format!("prompt={}", "x".repeat(length - 7));
        let joined = parts.join(0);
        assert_eq!(joined.is_ok(), fits, "{length}");
        let Ok(mut bytes) = joined else { continue };
        bytes.extend(END);
        let found = payloads::read(&mut file_of(&bytes), parts.m1n1.len() as u64).unwrap();
        let expected = format!("{BOOTARGS}{}", parts.bootargs);
        let is_there = |payload: &Payload| matches!(payload, Payload::Variable(line) if line.trim_end() == expected);
        assert!(found.iter().any(|(_, payload)| is_there(payload)), "{length}");
    }
}

#[test]
fn what_m1n1_does_not_know_is_told() {
    let mut kernel = GzEncoder::new(Vec::new(), Compression::fast());
    kernel.write_all(&[7; 0x40]).unwrap();
    let kernel = kernel.finish().unwrap();
    let mut long = vec![b'x'; 65];
    long.extend(b"=1\n\0\0\0\0");
    let cut = tree("apple,j274");
    for (bytes, says) in [
        (&b"rubbish"[..], "no payload that m1n1 knows"),
        (b"", "no payload that m1n1 knows"),
        (b"a=b\n\0\0\0", "no payload that m1n1 knows"),
        (b"a=b", "no payload that m1n1 knows"),
        (&long, "no payload that m1n1 knows"),
        (b"m1n1_initramfs\0", "without its length"),
        (b"m1n1_initramfs\x09\0\0\0", "no payload that m1n1 knows"),
        (&cut[..cut.len() - 1], "cut short"),
        (&kernel, "no kernel"),
        (&[&[b'x'; 0x38][..], b"ARM\x64=1\n\0\0\0\0"].concat(), "the last payload"),
    ] {
        let error = payloads::read(&mut file_of(bytes), 0).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(says), "no {says:?} in: {error}");
    }
    assert_eq!(payloads::read(&mut file_of(&[0; 4]), 0).unwrap(), []);
}
