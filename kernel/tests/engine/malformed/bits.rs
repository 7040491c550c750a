//! Files that are cut off or have wrong bytes, at every place.
//!
//! No file may cause a panic or a large allocation.

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, Plan, TransformerBackend};
use kernel::llm::Error;
use kernel::llm::gguf::Gguf;
use kernel::llm::sampling::{Mirostat, SamplingConfig};
use kernel::llm::workers::SingleThread;

use super::file::{At, File};
use super::{bound, load, measured, model, models, vocabulary};

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for file in [model("llama"), vocabulary::byte_level()] {
        let written = file.write();
        let (bytes, data) = (&written.bytes, written.byte(At::Data));
        for len in 0..bytes.len() {
            match load(&bytes[..len], None) {
                Err(Error::ParseError { what, at }) => {
                    assert!(
                        what.contains("the file ends inside") || what.contains("left can hold"),
                        "{len}: {what}"
                    );
                    assert!(at <= data.min(len as u64), "{len}: byte {at}");
                }
                // Of nothing it is said that it is nothing.
                Err(Error::NotAModel { .. }) if len == 0 => {}
                other => panic!("{len} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }
}

/// Loads a file with each byte of its header changed.
fn change_each_byte(file: &File, change: impl Fn(u8) -> Vec<u8>) {
    let written = file.write();
    let (mut bytes, data) = (written.bytes.clone(), written.byte(At::Data) as usize);
    let (mut refused, mut tried) = (0, 0);
    for at in 0..data {
        for value in change(written.bytes[at]) {
            bytes[at] = value;
            tried += 1;
            refused += u32::from(load(&bytes, None).is_err());
            // The same of a file that says to be larger than any: its data cannot be missing.
            let prefix = &bytes[..data];
            let (judged, peak) =
                measured(|| Plan::read(prefix, 1 << 62)?.needed(ContextOptions::default()));
            if judged.is_err() {
                assert!(peak <= bound(data), "{peak}: {judged:?}");
            }
        }
        bytes[at] = written.bytes[at];
    }
    // Most bytes are lengths, types and names.
    assert!(refused > tried / 3, "{refused} of {tried}");
}

#[test]
fn no_wrong_byte_of_a_header_makes_the_engine_panic() {
    for (_, file) in models() {
        change_each_byte(&file, |byte| vec![!byte, byte ^ 1]);
    }
}

#[test]
fn no_flipped_bit_of_a_vocabulary_makes_the_engine_panic() {
    for file in [model("llama"), vocabulary::byte_level()] {
        change_each_byte(&file, |byte| (0..8).map(|bit| byte ^ 1 << bit).collect());
    }
}

#[test]
fn weights_that_are_no_numbers_make_no_panic() {
    let creative = SamplingConfig {
        typical_p: 0.9,
        repeat_penalty: 1.1,
        dry_multiplier: 0.8,
        top_n_sigma: 2.0,
        xtc_probability: 0.5,
        ..SamplingConfig::creative()
    };
    let mirostat = SamplingConfig { mirostat: Some(Mirostat::DEFAULT), ..creative };
    for (name, file) in models() {
        let sound = file.write().bytes;
        let gguf = Gguf::parse(&sound).unwrap();
        for tensor in gguf.tensors() {
            for byte in [0, 0x7b, 0x7f, 0x80, 0xff] {
                let mut bytes = sound.clone();
                bytes[gguf.range(tensor).unwrap()].fill(byte);
                let context = ContextOptions::default();
                let options = BackendOptions { context, workers: &SingleThread, now_us: || 0 };
                let mut backend = TransformerBackend::with_options(options);
                backend.load_bytes(ModelBuffer::from(&bytes[..])).unwrap();
                for sampling in [SamplingConfig::greedy(), creative, mirostat] {
                    backend.set_sampling_config(sampling);
                    let answer = backend.infer("abc", 3);
                    let is_said = matches!(answer, Ok(_) | Err(Error::NotFinite { .. }));
                    assert!(is_said, "{name}, {byte:#x} in {}: {answer:?}", tensor.name);
                }
            }
        }
    }
}
