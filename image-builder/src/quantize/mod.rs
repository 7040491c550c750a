//! `image-builder quantize`: quantises a model's weights to fewer bits.
//!
//! The file equals that of llama.cpp's quantiser, byte for byte: the same types, and tensors in the
//! same order. This holds for a llama.cpp without fused multiply-add, as built for x86-64.

mod mix;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::slice;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use host_io::console::print_line;
use host_io::files::{Output, Target};
use kernel::llm::gguf::write::{self, Description, scalar};
use kernel::llm::gguf::{Gguf, TensorInfo, TensorType, ValueType};
use kernel::llm::quantize::{WeightType, dequantize_row};

use crate::model::ModelFile;
use crate::progress::Progress;
use crate::size;
use mix::FileType;

/// The maximum number of weights in memory at a time, unless a row is longer.
const CHUNK: u64 = 8 << 20;
/// ggml's version number of these block layouts.
const QUANTIZATION_VERSION: u32 = 2;
/// Keys of the weights' format, and of a split model's part.
const REPLACED: [&str; 5] = [
    "general.quantization_version",
    "general.file_type",
    "split.no",
    "split.count",
    "split.tensors.count",
];

/// Command-line options of `image-builder quantize`.
#[derive(clap::Args)]
pub struct Options {
    /// The model, with weights in F32, F16 or BF16
    #[arg(value_name = "IN.gguf")]
    input: PathBuf,
    /// The model to write
    #[arg(value_name = "OUT.gguf")]
    output: PathBuf,
    /// Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_0, Q4_1, Q4_K_S, Q4_K_M, Q5_0, Q5_1, Q5_K_S, Q5_K_M, Q6_K,
    /// Q8_0, F16, BF16 or F32. Q4_K_M is the usual choice, Q8_0 the one that loses almost nothing
    #[arg(value_name = "TYPE", value_parser = mix::parse)]
    file_type: FileType,
    /// Use one type for all weights, the output's too; without this, some weights get more bits, as
    /// llama.cpp chooses
    #[arg(long)]
    pure: bool,
}

/// Writes the model, and prints its new size and types.
pub fn run(options: &Options) -> Result<()> {
    let output = Target::new(&options.output, slice::from_ref(&options.input))?;
    let model = ModelFile::open(&options.input)?;
    let shown = options.input.display();
    let file_type = if options.pure { options.file_type.pure() } else { options.file_type };
    let plan =
        Plan::new(&model.gguf(), file_type).with_context(|| format!("cannot quantise {shown}"))?;
    let bytes = output.write(|file| plan.write(&model, file))?;
    print_line(format_args!(
        "{}: {} from {} ({})",
        options.output.display(),
        size::human(bytes),
        size::human(model.bytes),
        plan.summary()
    ))?;
    Ok(())
}

/// The tensors of the file to write, in order, with their new types.
struct Plan<'a> {
    file_type: FileType,
    tensors: Vec<(TensorInfo<'a>, TensorType)>,
}

impl<'a> Plan<'a> {
    fn new(gguf: &Gguf<'a>, file_type: FileType) -> Result<Plan<'a>> {
        let mut tensors: Vec<&TensorInfo<'_>> = gguf.tensors().iter().collect();
        tensors.sort_by_key(|tensor| (layer(tensor.name), tensor.name));
        let kinds = mix::choose(gguf, &tensors, file_type)?;
        for (tensor, &kind) in tensors.iter().zip(&kinds) {
            let plain = [TensorType::F32, TensorType::F16, TensorType::BF16];
            if tensor.kind != kind && !plain.contains(&tensor.kind) {
                bail!(
                    "`{}` is {} already, and would lose more precision: start from the model in F16",
                    tensor.name,
                    tensor.kind
                );
            }
        }
        Ok(Plan { file_type, tensors: tensors.into_iter().cloned().zip(kinds).collect() })
    }

    /// The new header, padded to the start of the data.
    fn header(&self, gguf: &Gguf<'_>) -> Result<Vec<u8>> {
        let kept = gguf.raw_metadata().filter(|(key, _)| !REPLACED.contains(key));
        let added = [(REPLACED[0], QUANTIZATION_VERSION), (REPLACED[1], self.file_type.number)];
        let added = added.map(|(key, number)| (key, scalar(ValueType::U32, &number.to_le_bytes())));
        let kept = kept.map(|(key, value)| (key, value.to_vec()));
        let entries: Vec<_> = kept.chain(added).collect();
        let mut tensors = Vec::new();
        for (tensor, kind) in &self.tensors {
            let n_dims = tensor.dims.iter().rposition(|&dim| dim > 1).map_or(1, |last| last + 1);
            tensors.push(Description {
                name: tensor.name,
                dims: &tensor.dims[..n_dims],
                kind: *kind,
                size: kind.size_of(tensor.elements()).context("a tensor is too large")?,
            });
        }
        let alignment = gguf.alignment();
        let mut out = write::header(3, &entries, tensors.into_iter(), alignment);
        out.resize(out.len().next_multiple_of(alignment as usize), 0);
        Ok(out)
    }

    /// Writes the file and returns its size.
    fn write(&self, model: &ModelFile, file: &mut Output) -> Result<u64> {
        let gguf = model.gguf();
        let alignment = u64::from(gguf.alignment());
        let mut out = BufWriter::new(file);
        let header = self.header(&gguf)?;
        out.write_all(&header)?;
        let mut written = header.len() as u64;
        let what = format!("quantising {}", model.path.display());
        let mut progress = Progress::new(what, model.bytes - gguf.data_offset());
        let mut chunk = Chunk::default();
        for (tensor, kind) in &self.tensors {
            let name = tensor.name;
            let mut input = &model.file;
            input.seek(SeekFrom::Start(gguf.data_offset() + tensor.offset))?;
            let columns = tensor.dims[0];
            let mut rows = tensor.elements() / columns;
            while rows > 0 {
                let n = rows.min((CHUNK / columns).max(1));
                let read = chunk.read(input, tensor.kind, n * columns);
                progress.add(read.with_context(|| format!("cannot read `{name}`"))?);
                let data = chunk.convert(tensor.kind, *kind, columns as usize);
                let data = data.map_err(|fault| anyhow!("`{name}` {fault}"))?;
                out.write_all(data)?;
                written += data.len() as u64;
                rows -= n;
            }
            let padding = vec![0; (written.next_multiple_of(alignment) - written) as usize];
            out.write_all(&padding)?;
            written += padding.len() as u64;
        }
        out.flush()?;
        Ok(written)
    }

    /// The number of tensors of each type, as a text.
    fn summary(&self) -> String {
        let mut uses = BTreeMap::new();
        for (_, kind) in &self.tensors {
            *uses.entry(kind.name).or_insert(0_usize) += 1;
        }
        let uses: Vec<String> = uses.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        uses.join(", ")
    }
}

/// The layer of a tensor.
///
/// llama.cpp orders tensors by layer, `None` first, then by name.
fn layer(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("blk.")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Some rows of a tensor, before and after the conversion.
#[derive(Default)]
struct Chunk {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Chunk {
    /// Reads `weights` weights, and returns their bytes.
    fn read(&mut self, file: &File, kind: TensorType, weights: u64) -> Result<usize> {
        let bytes = kind.size_of(weights).context("no whole blocks")?;
        self.input.resize(bytes as usize, 0);
        (&*file).read_exact(&mut self.input)?;
        Ok(self.input.len())
    }

    /// Converts the weights to another type; equal types need no conversion.
    fn convert(
        &mut self,
        from: TensorType,
        to: TensorType,
        columns: usize,
    ) -> Result<&[u8], &'static str> {
        if from == to {
            return Ok(&self.input);
        }
        let format = |kind| WeightType::from_tensor_type(kind).expect("planned types are known");
        let (from, to) = (format(from), format(to));
        let (row_in, row_out) = (from.row_bytes(columns), to.row_bytes(columns));
        let rows = self.input.len() / row_in;
        self.output.resize(rows * row_out, 0);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = rows.div_ceil(cores).max(1);
        let inputs = self.input.chunks(share * row_in);
        let shares = inputs.zip(self.output.chunks_mut(share * row_out));
        thread::scope(|scope| {
            let workers: Vec<_> = shares
                .map(|(input, output)| {
                    scope.spawn(move || {
                        let mut weights = vec![0.0; columns];
                        let mut rows = input.chunks(row_in).zip(output.chunks_mut(row_out));
                        rows.try_for_each(|(input, output)| {
                            quantize((from, input), (to, output), &mut weights)
                        })
                    })
                })
                .collect();
            let results = workers.into_iter().map(|w| w.join().expect("a worker does not panic"));
            results.collect::<Result<(), _>>()
        })?;
        Ok(&self.output)
    }
}

/// Converts a row of weights.
fn quantize(
    (from, input): (WeightType, &[u8]),
    (to, output): (WeightType, &mut [u8]),
    weights: &mut [f32],
) -> Result<(), &'static str> {
    let quantizer = to.quantizer().expect("planned types can be made");
    dequantize_row(from, input, weights);
    if !weights.iter().all(|x| x.is_finite()) {
        return Err("has a weight that is no finite number");
    }
    quantizer(weights, output);
    dequantize_row(to, output, weights);
    if !weights.iter().all(|x| x.is_finite()) {
        return Err("has a weight that is too large for this type: take BF16 or F32");
    }
    Ok(())
}
