//! Instructions a token while eight clients are served.
//!
//! With `-icount`, the guest's clock counts instructions. The server's own times of an answer then
//! hold them.
//!
//! - Seven streams run. The eighth is measured, from its first token to its last one. All eight get
//!   a token in each forward pass. So a token takes an eighth of a pass, with all that the machine
//!   does meanwhile.
//! - A prompt token is one of the last [`CHUNK`] of a prompt: the difference of two prompts, alone.
//! - The output layer is that of a token alone. It takes the instructions of the GEMV loop for each
//!   weight.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use kernel::llm::gguf::Gguf;
use serde::{Deserialize, Serialize};

use super::SILENCE;
use super::client::{Answer, Client, Request, ask, text};
use super::machine::{Files, Side, Size};
use crate::cycles::{self, Extension};
use crate::disks;
use crate::guest::Build;
use crate::shape::{Cpu, ShapeName};

/// Clients at once.
const CLIENTS: usize = 8;
/// Rows of a forward pass.
const CHUNK: usize = 32;
/// Tokens of the longer prompt, whose last chunk is measured.
const PROMPT: usize = 3 * CHUNK;
/// Bytes in which a model's header ends.
const HEADER: u64 = 16 << 20;

/// Instructions in millions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// For each token of eight streams.
    pub token: f64,
    /// For each token of a stream alone.
    pub alone: f64,
    /// For each token of a prompt.
    pub prompt: f64,
    /// For the output layer of a token.
    pub output: f64,
}

impl Counted {
    /// A token of eight streams, over a prompt token with its output layer.
    pub fn ratio(&self) -> f64 {
        self.token / (self.prompt + self.output)
    }
}

/// Counts one model on one processor.
///
/// # Errors
/// The server fails, or the output layer's kernel is not found.
pub fn measure(
    build: &Build,
    files: &Files,
    shape: ShapeName,
    cpu: Cpu,
    tokens: usize,
) -> Result<Counted> {
    let output = output_millions(build, shape, cpu)?;
    let size = Size { cores: 1, memory_mib: 1024, slots: CLIENTS, counted: true };
    let mut running = files.start(Side::Ours, size)?;
    running.wait(SILENCE)?;
    let server = running.server;
    let millions = |ms: f64, of: usize| ms / of as f64;

    let prompt_ms = |n_tokens| {
        let request = Request { prompt: text(50, n_tokens), tokens: 1, cache: false };
        let timings = ask(server, &request, SILENCE)?.timings;
        ensure!(timings.prompt_n == n_tokens, "a prompt of {} tokens", timings.prompt_n);
        anyhow::Ok(timings.prompt_ms)
    };
    let prompt = millions(prompt_ms(PROMPT)? - prompt_ms(PROMPT - CHUNK)?, CHUNK);

    let request = |number, tokens| Request { prompt: text(number, CHUNK), tokens, cache: false };
    let alone = ask(server, &request(60, tokens), SILENCE)?.timings;
    let alone = millions(alone.predicted_ms, alone.predicted_n - 1);

    let token = thread::scope(|scope| {
        let (begun, has_begun) = mpsc::channel();
        let others: Vec<_> = (1..CLIENTS)
            .map(|number| {
                let begun = begun.clone();
                let request = request(number as u32, tokens + 4 * CLIENTS);
                scope.spawn(move || {
                    let mut first = Some(begun);
                    let on_text = || {
                        if let Some(begun) = first.take() {
                            let _ = begun.send(());
                        }
                    };
                    Client::open(server, SILENCE)?.ask_with(&request, on_text)
                })
            })
            .collect();
        drop(begun);
        // The iterator ends when all have begun, or one has failed.
        let n_begun = has_begun.iter().count();
        let measured = ask(server, &request(0, tokens), SILENCE);
        let last = |answer: &Answer| answer.arrivals.last().copied();
        let mut n_behind = 0;
        for other in others {
            let other = other.join().expect("a client does not panic")?;
            n_behind += usize::from(last(&other) > measured.as_ref().ok().and_then(last));
        }
        let timings = measured?.timings;
        let n_others = CLIENTS - 1;
        ensure!((n_begun, n_behind) == (n_others, n_others), "fewer than {CLIENTS} streams ran");
        anyhow::Ok(millions(timings.predicted_ms, (timings.predicted_n - 1) * CLIENTS))
    })?;
    Ok(Counted { token, alone, prompt, output })
}

/// Millions of instructions for the output layer of a token that is generated alone.
fn output_millions(build: &Build, shape: ShapeName, cpu: Cpu) -> Result<f64> {
    let path = disks::model(build, shape)?;
    let mut header = Vec::new();
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = file.metadata()?.len();
    file.take(HEADER).read_to_end(&mut header)?;
    let gguf = Gguf::parse_header(&header, bytes).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    // Models without an output of their own multiply with the embedding.
    let output = gguf.tensor("output.weight").or_else(|| gguf.tensor("token_embd.weight"));
    let output = output.context("a model without an output")?;
    let name = output.kind.name;
    let kernel = if name.ends_with("_K") { "gemv_k_quant" } else { "gemv_simple" };
    let extension = match cpu {
        Cpu::CortexA72 => Extension::Neon,
        Cpu::NeoverseN1 | Cpu::Max => Extension::Dotprod,
    };
    let each = cycles::instructions(&build.elf(), &format!("{kernel}<{name}>"), extension)?;
    Ok(each * output.elements() as f64 / 1e6)
}
