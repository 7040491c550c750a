//! `mode=bench`: measures the disk, the hash and the engine, one `test` event for each figure.

#![forbid(unsafe_code)]

use alloc::string::ToString;

use crate::app::error::Error;
use crate::app::load::{CHUNK, disk_error};
use crate::app::os::{self, File};
use crate::app::output::{emit, say};
use crate::app::sha256::Sha256;
use crate::backend::TransformerBackend;
use crate::llm;
use crate::llm::arena::ModelBuffer;
use crate::report::{Event, Test};

fn report(name: &str, figure: f64, unit: &str) {
    say!("{name}: {figure:.1} {unit}");
    let (name, detail) = (name.to_string(), unit.to_string());
    emit(&Event::Test(Test { name, pass: true, detail, figure: Some(figure) }));
}

/// 10^6 bytes a second.
fn mb_per_s(bytes: u64, us: u64) -> f64 {
    bytes as f64 / us.max(1) as f64
}

/// Measures the rates of reads and of the hash, each alone and on one core.
///
/// Reads the model's file at the path, and as many bytes of the bare disk. The better of two rounds
/// counts, so that the host's cache is warm for both.
///
/// # Errors
/// The disk fails, or the memory does not suffice for the file.
pub fn disk(path: &str) -> Result<(), Error> {
    let size =
        File::open(path).and_then(|file| file.size()).map_err(|errno| disk_error(path, errno))?;
    let no_room = || Error::from(llm::Error::OutOfMemory { what: "the model", asked: size });
    let length = usize::try_from(size).map_err(|_| no_room())?;
    let mut buffer = ModelBuffer::try_new(length).map_err(|_| no_room())?;

    let (mut raw, mut file) = (0.0_f64, 0.0_f64);
    for _ in 0..2 {
        raw = raw.max(read_rate("/dev/disk", buffer.as_mut_slice())?);
        file = file.max(read_rate(path, buffer.as_mut_slice())?);
    }
    report("disk_read", raw, "MB/s");
    report("file_read", file, "MB/s");
    report("file_read_share", 100.0 * file / raw, "% of disk_read");

    let start_us = os::now_us();
    let mut hash = Sha256::new();
    hash.update(&buffer);
    let digest = hash.finish();
    let us = os::now_us() - start_us;
    say!("{}: {digest}", Sha256::name());
    report("hash", mb_per_s(size, us), "MB/s");
    Ok(())
}

fn read_rate(path: &str, buffer: &mut [u8]) -> Result<f64, Error> {
    let file = File::open(path).map_err(|errno| disk_error(path, errno))?;
    let size = buffer.len() as u64;
    let start_us = os::now_us();
    for chunk in buffer.chunks_mut(CHUNK) {
        file.read_full(chunk).map_err(|errno| disk_error(path, errno))?;
    }
    Ok(mb_per_s(size, os::now_us() - start_us))
}

/// Measures a prompt, a generation of `max_tokens`, and the memory in use afterwards.
///
/// # Errors Those of the engine's [`TransformerBackend::infer`].
pub fn engine(
    backend: &mut TransformerBackend,
    prompt: &str,
    max_tokens: usize,
) -> Result<(), Error> {
    let result = backend.infer(prompt, max_tokens)?;
    report("prompt", result.prompt_tokens_per_s, "tokens/s");
    report("generate", result.tokens_per_s, "tokens/s");
    report("first_token", result.first_token_us as f64 / 1e3, "ms");
    report("memory_in_use", os::memory_in_use() as f64 / 1e6, "MB");
    Ok(())
}
