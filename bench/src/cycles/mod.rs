//! Instrument 3: cycles of the kernels' inner loops on models of real cores.
//!
//! The input is the kernel's ELF file that is built.
//!
//! 1. `llvm-objdump` disassembles the file.
//! 2. [`loops`] finds the innermost loops that multiply bytes.
//! 3. `llvm-symbolizer` names the kernel that each loop was inlined from.
//! 4. `llvm-mca` simulates the cycles of an iteration, with all data in the caches.
//!
//! The table also has the cycles in which the memory delivers as many weights. If the loop takes
//! fewer cycles, a faster kernel would only wait for the memory.

#![forbid(unsafe_code)]

mod disassembly;
mod loops;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use host_io::console;
use kernel::llm::gguf::TensorType;
use serde::{Deserialize, Serialize};

use crate::results::{Column, Row, cell, digits, table};
use disassembly::Instruction;

/// The extensions beyond Armv8.0 that kernels use.
const EXTENSIONS: &str = "--mattr=+dotprod,+i8mm";
/// The number of simulated iterations: enough to make the first ones negligible.
const ITERATIONS: u64 = 200;

/// A real processor with its memory.
struct Chip {
    /// LLVM's name for the core.
    core: &'static str,
    /// The number of cores that share the memory.
    cores: f64,
    /// The clock in GHz.
    ghz: f64,
    /// The memory's bandwidth in 10^9 bytes a second.
    gb_per_s: f64,
    /// Whether the cores have dot products.
    dotprod: bool,
}

/// The processors of the table. The README has the sources of the figures.
const CHIPS: [Chip; 3] = [
    Chip { core: "cortex-a72", cores: 4.0, ghz: 1.5, gb_per_s: 5.5, dotprod: false },
    Chip { core: "apple-m1", cores: 4.0, ghz: 3.2, gb_per_s: 68.0, dotprod: true },
    Chip { core: "neoverse-n1", cores: 64.0, ghz: 2.5, gb_per_s: 204.8, dotprod: true },
];

/// The instructions that a kernel multiplies with, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// The instructions of every Armv8.0 core.
    Neon,
    /// `sdot`.
    Dotprod,
    /// `smmla`.
    I8mm,
}

/// The cycles of a kernel's inner loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cycles {
    /// The function that the loop was inlined from.
    name: String,
    /// The instructions that the loop multiplies with.
    extension: Extension,
    /// Products of a weight with one token's activation, in an iteration.
    products: u64,
    /// The number of instructions in an iteration.
    instructions: usize,
    /// The bytes of 32 weights; `None` if the name does not have their type.
    bytes: Option<f64>,
    /// Cycles for 32 products on each of [`CHIPS`]; `None` without the instructions.
    cycles: [Option<f64>; CHIPS.len()],
}

/// Measures all kernels of the ELF file.
///
/// # Errors
/// LLVM's tools are missing or refuse the code, or no kernel is found.
pub fn measure(elf: &Path) -> Result<Vec<Cycles>> {
    let (loops, names) = kernels(elf)?;
    let mut kernels: Vec<Cycles> = vec![];
    console::say(format_args!("cycles: simulating {} loops", loops.len()));
    for (body, name) in loops.iter().zip(names) {
        let kernel = simulate_loop(body, name)?;
        // Of equal loops the shortest is kept, as a kernel may have another for the remainder.
        match kernels.iter_mut().find(|known| known.key() == kernel.key()) {
            Some(known) if known.instructions > kernel.instructions => *known = kernel,
            Some(_) => {}
            None => kernels.push(kernel),
        }
    }
    ensure!(!kernels.is_empty(), "{} holds no loop that multiplies bytes", elf.display());
    Ok(kernels)
}

/// The instructions that a product takes in the kernel `name` with `extension`.
///
/// # Errors
/// LLVM's tools are missing or refuse the code, or there is no such kernel.
pub fn instructions(elf: &Path, name: &str, extension: Extension) -> Result<f64> {
    let (loops, names) = kernels(elf)?;
    let found = loops.iter().zip(names).filter(|(body, of)| of == name && extension == used(body));
    let each = found.map(|(body, _)| body.len() as f64 / loops::products(body) as f64);
    each.reduce(f64::min).with_context(|| format!("there is no {name} with {extension:?}"))
}

/// The innermost loops that multiply bytes, and the kernel that each belongs to.
fn kernels(elf: &Path) -> Result<(Vec<loops::Loop>, Vec<String>)> {
    let mut objdump = Command::new("llvm-objdump");
    objdump.args(["--disassemble", "--no-show-raw-insn", EXTENSIONS]).arg(elf);
    let listing = output(&mut objdump, "")?;
    let loops: Vec<_> = disassembly::parse(&listing).iter().flat_map(loops::innermost).collect();
    let names = names(elf, &loops)?;
    Ok((loops, names))
}

/// The name of the kernel that each loop belongs to.
fn names(elf: &Path, loops: &[loops::Loop]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Place {
        symbol: Vec<Frame>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Frame {
        function_name: String,
    }

    let mut symbolizer = Command::new("llvm-symbolizer");
    symbolizer.args(["--inlining", "--functions=short", "--output-style=JSON", "--obj"]).arg(elf);
    let mut addresses = String::new();
    for body in loops {
        let product = body.iter().find(|instruction| instruction.products() > 0);
        let address = product.context("a loop without products")?.address;
        addresses += &format!("{address:#x}\n");
    }
    let text = output(&mut symbolizer, &addresses)?;
    let places: Result<Vec<Place>, _> = text.lines().map(serde_json::from_str).collect();
    let places = places.context("cannot read llvm-symbolizer's output")?;
    ensure!(places.len() == loops.len(), "llvm-symbolizer named {} loops", places.len());
    let name_of = |place: &Place| {
        let mut frames = place.symbol.iter().map(|frame| frame.function_name.as_str());
        // The innermost function for one type of weights, or else the outermost function.
        let outermost = place.symbol.last().map_or("?", |frame| base_name(&frame.function_name));
        frames.find_map(kernel_name).unwrap_or_else(|| outermost.into())
    };
    Ok(places.iter().map(name_of).collect())
}

/// The last name of a path: `gemv` of `a::b::gemv<[u8; 17], c::D>`.
///
/// A hash is left out: `gemv` of `a::b::gemv::h0123456789abcdef`.
fn base_name(function: &str) -> &str {
    let path = function.split('<').next().unwrap_or_default();
    let mut parts = path.rsplit("::");
    let last = parts.next().unwrap_or_default();
    let is_hash = last.len() == 17 && last[1..].bytes().all(|c| c.is_ascii_hexdigit());
    if is_hash { parts.next().unwrap_or(last) } else { last }
}

/// A short name of a function with its type of weights, if it has one.
///
/// The type is in the function's name (`dot_q4_0`) or in its parameters (`dot<a::Q4_0>`).
fn kernel_name(function: &str) -> Option<String> {
    // A closure has the parameters of the functions around it.
    if function.contains("closure") {
        return None;
    }
    let name = base_name(function);
    if weight_type(name).is_some() {
        return Some(name.into());
    }
    let parameters = function.split_once('<')?.1.split([',', '<', '>', ' ']);
    let mut names = parameters.filter_map(|parameter| parameter.rsplit("::").next());
    let kind = names.find_map(|name| {
        TensorType::ALL.iter().find(|kind| {
            let plain = |text: &str| text.replace('_', "").to_ascii_lowercase();
            plain(kind.name) == plain(name)
        })
    })?;
    Some(format!("{name}<{}>", kind.name))
}

/// The type of weights in a function's name.
fn weight_type(name: &str) -> Option<TensorType> {
    let named = TensorType::ALL.iter().filter(|kind| {
        let words = format!("_{}_", name.to_ascii_lowercase().replace(['<', '>'], "_"));
        words.contains(&format!("_{}_", kind.name.to_ascii_lowercase()))
    });
    // The longest name wins: `IQ4_NL`, and no shorter name within it.
    named.max_by_key(|kind| kind.name.len()).copied()
}

/// The extension that a loop uses.
fn used(body: &[Instruction]) -> Extension {
    let has = |word| body.iter().any(|instruction| instruction.mnemonic.ends_with(word));
    match (has("mmla"), has("dot")) {
        (true, _) => Extension::I8mm,
        (false, true) => Extension::Dotprod,
        (false, false) => Extension::Neon,
    }
}

/// The cycles of a loop on all chips, by LLVM's models.
fn simulate_loop(body: &[Instruction], name: String) -> Result<Cycles> {
    let extension = used(body);
    let products = loops::products(body);
    let code: String = body.iter().map(|instruction| instruction.assembly() + "\n").collect();
    let mut cycles = [None; CHIPS.len()];
    for (chip, cycles) in CHIPS.iter().zip(&mut cycles) {
        if chip.dotprod || extension == Extension::Neon {
            let each = simulate(chip.core, &code).with_context(|| format!("the loop of {name}"))?;
            *cycles = Some(each * 32.0 / products as f64);
        }
    }
    let bytes =
        weight_type(&name).map(|kind| 32.0 * kind.block_bytes as f64 / kind.block_weights as f64);
    Ok(Cycles { name, extension, products, instructions: body.len(), bytes, cycles })
}

/// The cycles of one iteration.
fn simulate(core: &str, code: &str) -> Result<f64> {
    let mut mca = Command::new("llvm-mca");
    mca.args(["-march=aarch64", EXTENSIONS, "-instruction-info=0", "-resource-pressure=0"]);
    mca.arg(format!("-mcpu={core}")).arg(format!("-iterations={ITERATIONS}"));
    let text = output(&mut mca, code)?;
    let total = text.lines().find_map(|line| line.strip_prefix("Total Cycles:"));
    let total: f64 =
        total.and_then(|n| n.trim().parse().ok()).context("llvm-mca gave no cycles")?;
    Ok(total / ITERATIONS as f64)
}

/// Runs a command of LLVM's on `input` and returns its output.
fn output(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}; install it: ci/setup.sh bench"))?;
    let mut stdin = child.stdin.take().context("the program has no standard input")?;
    let output = std::thread::scope(|scope| {
        // A thread writes the input, as the program may write before it has read all.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    })?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), anyhow!("{program}: {}", errors.trim()));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Cycles {
    /// Cycles in which the memory of chip `i` delivers 32 weights.
    fn memory_cycles(&self, i: usize) -> Option<f64> {
        let Chip { cores, ghz, gb_per_s, .. } = CHIPS[i];
        self.bytes.map(|bytes| bytes * ghz * cores / gb_per_s)
    }

    /// The cell of the cycles on chip `i`: bold if the memory takes as long or longer.
    fn cycles_cell(&self, i: usize) -> String {
        match (self.cycles[i], self.memory_cycles(i)) {
            (Some(cycles), Some(memory)) if cycles <= memory => format!("**{}**", digits(cycles)),
            (cycles, _) => cell(cycles),
        }
    }
}

impl Row for Cycles {
    const NAME: &'static str = "cycles";
    type Key = (String, Extension, u64);

    fn key(&self) -> Self::Key {
        (self.name.clone(), self.extension, self.products)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<Self>] = &[
            ("kernel", |row| format!("`{}`", row.name)),
            ("with", |row| format!("{:?}", row.extension).to_lowercase()),
            ("products", |row| row.products.to_string()),
            ("instructions", |row| row.instructions.to_string()),
            ("A72", |row| row.cycles_cell(0)),
            ("memory", |row| cell(row.memory_cycles(0))),
            ("M1", |row| row.cycles_cell(1)),
            ("memory", |row| cell(row.memory_cycles(1))),
            ("N1", |row| row.cycles_cell(2)),
            ("memory", |row| cell(row.memory_cycles(2))),
        ];
        table(columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_type_of_weights() {
        let hashed = "kernel::llm::kernels::neon::multiply_q4_0::h21291bd0e0835e8e";
        assert_eq!(base_name(hashed), "multiply_q4_0");
        assert_eq!(base_name("gemv<[u8; 17], a::B<u8>>"), "gemv");
        let short = |function| kernel_name(function).unwrap_or_default();
        assert_eq!(short("a::one<b::isa::DotProd, b::formats::Q6K>"), "one<Q6_K>");
        assert_eq!(short("a::one<b::isa::DotProd, b::formats::Iq4Nl>"), "one<IQ4_NL>");
        assert_eq!(short(hashed), "multiply_q4_0");
        assert_eq!(short("gemv<[u8; 17], a::BlockQ8_0>"), "");
        assert_eq!(short("try_from_fn<a::one::{closure_env#2}<a::Q6K>>"), "");
        let kind = |name| weight_type(name).map(|kind| kind.name);
        assert_eq!(kind("one<Q6_K>"), Some("Q6_K"));
        assert_eq!(kind("multiply_q4_0"), Some("Q4_0"));
        assert_eq!(kind("iq4_nl_by_rows"), Some("IQ4_NL"));
        assert_eq!(kind("gemv"), None);
        assert_eq!(kind("sq4_0"), None);
    }

    #[test]
    fn the_memory_is_the_limit_where_cycles_are_fewer() {
        let kernel = |cycles| Cycles {
            name: "multiply_q4_0".into(),
            extension: Extension::Neon,
            products: 128,
            instructions: 64,
            bytes: Some(18.0),
            cycles,
        };
        // The Pi's memory delivers 18 bytes in 3.3 ns. Four cores have 19.6 cycles in that time.
        let table = Cycles::table(&[kernel([Some(20.0), Some(3.0), None])]);
        let line =
            "| `multiply_q4_0` | neon | 128 | 64 | 20.0 | 19.6 | **3.00** | 3.39 | – | 14.1 |";
        assert!(table.ends_with(&format!("{line}\n")), "{table}");
    }

    #[test]
    fn a_tool_that_is_missing_is_named_with_what_to_do() {
        let error = output(&mut Command::new("llvm-nonsense"), "").unwrap_err().to_string();
        assert!(error.contains("llvm-nonsense") && error.contains("ci/setup.sh"), "{error}");
        let error =
            output(Command::new("sh").args(["-c", "echo odd >&2; exit 1"]), "").unwrap_err();
        assert!(error.to_string().contains("sh: odd"), "{error}");
    }
}
