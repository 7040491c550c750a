//! Foreign files: unusual models that run, and files that are no model or disk.

use std::path::Path;

use kernel::llm::gguf::Gguf;
use kernel::llm::gguf::write::{Description, header, put_string};

use crate::common::{Place, model, read};

/// The small chat model with one value replaced or added.
///
/// The value is given as bytes, from its type on.
fn chat_model(key: &str, value: &[u8]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test_models/chat");
    let file = read(&folder.join("model.gguf"));
    let gguf = Gguf::parse(&file).unwrap();
    let others = gguf.raw_metadata().filter(|(other, _)| *other != key);
    let entries: Vec<(&str, &[u8])> = others.chain([(key, value)]).collect();
    let tensors = gguf.tensors().iter().map(|tensor| Description {
        name: tensor.name,
        dims: &tensor.dims[..tensor.n_dims],
        kind: tensor.kind,
        size: tensor.size,
    });
    let mut out = header(gguf.version(), &entries, tensors, gguf.alignment());
    out.resize(out.len().next_multiple_of(gguf.alignment() as usize), 0);
    out.extend(&file[gguf.data_offset() as usize..]);
    out
}

fn text(value: &[u8]) -> Vec<u8> {
    let mut bytes = 8_u32.to_le_bytes().to_vec();
    put_string(&mut bytes, value);
    bytes
}

/// An array of one string.
fn texts(value: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [9_u32, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(1_u64.to_le_bytes());
    put_string(&mut bytes, value);
    bytes
}

#[test]
fn what_only_people_read_may_be_odd() {
    let place = Place::new();
    for (key, value, warning) in [
        ("general.name", text(b"Caf\xE9"), None),
        ("tokenizer.chat_template", text(b"caf\xE9 {{ messages }}"), Some("must be UTF-8 text")),
        ("tokenizer.chat_template", texts(b"<|im_start|>"), Some("an array of 1 strings")),
    ] {
        place.write("m.gguf", chat_model(key, &value));
        let outcome = place.run(["disk", "--out", "m.img", "m.gguf"]).succeeds();
        let (said, printed) = (outcome.stderr(), outcome.stdout());
        assert!(printed.contains("models/m.gguf: ") && printed.contains("runs in"), "{printed}");
        assert!(!said.contains("will not run"), "{said}");
        let found = said.contains("warning: the chat template of m.gguf: ");
        assert_eq!(found, warning.is_some(), "{said}");
        assert!(said.contains(warning.unwrap_or_default()), "{said}");
        let shown = place.run(["inspect", "m.gguf"]).succeeds().stdout();
        assert!(shown.contains("Runs in "), "{shown}");
        assert!(shown.contains(warning.unwrap_or("Caf\u{FFFD}")), "{shown}");
    }
}

#[test]
fn what_is_no_model_is_named() {
    let place = Place::new();
    for (start, says) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "but a Git LFS pointer: "),
        (b"<html><title>Sign in", "but an HTML page: "),
        (b"PK\x03\x04", "but a ZIP archive or a PyTorch checkpoint: unpack it first"),
        (b"\0\x05\x16\x07\0\x02\0\0", "(AppleDouble): take the file whose name does not start"),
        (&[0; 4096], "but zeros where it should start: "),
        (b"", "but empty: get the model again"),
    ] {
        place.write("m.gguf", start);
        let expected = format!("m.gguf is no GGUF file, {}", says.trim_start_matches('('));
        let says = if says.starts_with('(') { says } else { &expected };
        place.run(["disk", "--out", "m.img", "m.gguf"]).fails(1, says);
    }
    // GGUF files that are not models.
    for (key, value, says) in [
        ("general.type", "adapter", "the file is a LoRA adapter, not a GGUF model: merge"),
        ("general.architecture", "clip", "the file is a projector for images or sounds (mmproj)"),
    ] {
        place.write("m.gguf", chat_model(key, &text(value.as_bytes())));
        let said = place.run(["disk", "--out", "m.img", "m.gguf"]).succeeds().stderr();
        assert!(said.contains("warning: the kernel will not run m.gguf: "), "{said}");
        assert!(said.contains(says), "{said}");
        let shown = place.run(["inspect", "m.gguf"]).succeeds().stdout();
        assert!(shown.contains(says), "{shown}");
    }
}

#[test]
fn what_is_no_fat_volume_is_named() {
    let place = Place::new();
    let mut volume = vec![0; 1 << 20];
    volume[3..11].copy_from_slice(b"EXFAT   ");
    volume[510..512].copy_from_slice(&[0x55, 0xAA]);
    place.write("bare.img", &volume);
    let mut card = vec![0; 64 << 10];
    card[446 + 4] = 0x07;
    card[446 + 8..446 + 12].copy_from_slice(&128_u32.to_le_bytes());
    card[446 + 12..446 + 16].copy_from_slice(&2048_u32.to_le_bytes());
    card[510..512].copy_from_slice(&[0x55, 0xAA]);
    card.extend_from_slice(&volume);
    place.write("card.img", &card);
    for name in ["bare.img", "card.img"] {
        place.run(["inspect", name]).fails(1, "but an exFAT volume: format it as FAT32");
    }
    place.write("packed.img", b"\x1f\x8b\x08\0\0\0\0\0");
    place.run(["inspect", "packed.img"]).fails(1, "but compressed with gzip: unpack it first");
    // An unknown file has the general message.
    place.write("noise", [0xC3; 1024]);
    let refused = place.run(["inspect", "noise"]).fails(1, "no GGUF model, no kernel and no disk");
    assert!(!refused.stderr().contains("but "), "{}", refused.stderr());
}

#[test]
fn texts_that_are_no_utf8_are_told_with_their_place() {
    let place = Place::new();
    place.write("m.gguf", model(0, 7));
    place.write("c.toml", b"# one\nprompt = \"caf\xE9\"\n");
    place.write("p.txt", b"caf\xE9");
    for (option, says) in [
        (["--config", "c.toml"], "c.toml is not UTF-8: line 2 has the byte 0xE9 in column 14"),
        (["--prompt-file", "p.txt"], "p.txt is not UTF-8: line 1 has the byte 0xE9 in column 4"),
    ] {
        place.run(["disk", "--out", "m.img", "m.gguf"].iter().chain(&option)).fails(1, says);
    }
}
