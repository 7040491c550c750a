//! Rewrites a GGUF file with another alignment of tensors.
//!
//! The tensors can be as far apart as one likes. The gaps take no room on a disk whose files can
//! have holes.
//!
//! ```text
//! cargo run -p kernel --example align -- 67108864 test_models/tiny.gguf far-apart.gguf
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use kernel::llm::gguf::write::{self, Description, scalar};
use kernel::llm::gguf::{ALIGNMENT_KEY, Gguf, ValueType};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [alignment, from, to] = &arguments[..] else {
        return Err("expected ALIGNMENT FROM TO".into());
    };
    let alignment: u32 = alignment.parse()?;
    if !alignment.is_power_of_two() {
        return Err("an alignment is a power of two".into());
    }
    let bytes = fs::read(from)?;
    let gguf = Gguf::parse(&bytes).map_err(|error| format!("{from}: {error}"))?;

    let mut entries: Vec<_> =
        gguf.raw_metadata().filter(|(key, _)| *key != ALIGNMENT_KEY).collect();
    let value = scalar(ValueType::U32, &alignment.to_le_bytes());
    entries.push((ALIGNMENT_KEY, &value));
    let tensors = gguf.tensors().iter().map(|tensor| Description {
        name: tensor.name,
        dims: &tensor.dims[..tensor.n_dims],
        kind: tensor.kind,
        size: tensor.size,
    });
    let header = write::header(gguf.version(), &entries, tensors, alignment);

    let alignment = alignment.into();
    let file = File::create(to)?;
    file.write_all_at(&header, 0)?;
    let mut at = header.len() as u64;
    for tensor in gguf.tensors() {
        at = at.next_multiple_of(alignment);
        let data = gguf.data(tensor).ok_or("the file is all in memory")?;
        file.write_all_at(data, at)?;
        at += tensor.size;
    }
    Ok(())
}
