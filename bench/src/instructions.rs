//! Instrument 1: the guest's instructions for a token.
//!
//! With QEMU's `-icount shift=0`, each instruction takes one nanosecond of the guest's clock. The
//! guest's own timings then count instructions, the same on each host and each time. The first
//! generated token comes from the prompt's logits, and is counted with the prompt.

#![forbid(unsafe_code)]

use anyhow::Result;
use kernel::report::Outcome;
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{Build, Run};
use crate::results::{Column, Row, cell, digits, table};
use crate::shape::{Cpu, ShapeName};

/// The number of tokens in the prompt.
const PROMPT: usize = 32;

/// Instructions for a token, in millions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instructions {
    /// The model.
    pub shape: ShapeName,
    /// The processor, which decides on the kernels.
    pub cpu: Cpu,
    /// Millions for each generated token.
    pub generate_millions: f64,
    /// Millions for each token of a prompt of 32.
    pub prompt_millions: f64,
}

/// Measures one shape on one processor.
///
/// # Errors
/// The run fails.
pub fn measure(build: &Build, shape: ShapeName, cpu: Cpu) -> Result<Instructions> {
    let disk = disks::disk(build, shape)?;
    let what = format!("instructions: {} on {}", shape.title(), cpu.name());
    let run = Run {
        disk: &disk,
        cpu,
        cores: 1,
        counted: true,
        mode: "generate",
        verify: false,
        prompt_tokens: PROMPT,
        // Another token costs a large model seconds, and has nearly the same count.
        tokens: if shape == ShapeName::TinyLlama { 3 } else { 9 },
    };
    Ok(count(shape, cpu, build.run(&what, &run)?.result()?))
}

fn count(shape: ShapeName, cpu: Cpu, result: &Outcome) -> Instructions {
    // 1 µs is 1000 instructions.
    let millions = |us: u64, tokens: usize| us as f64 / 1e3 / tokens as f64;
    let generate_us = result.latency_us - result.first_token_us;
    Instructions {
        shape,
        cpu,
        generate_millions: millions(generate_us, result.tokens_emitted - 1),
        prompt_millions: millions(result.first_token_us, result.prompt_tokens),
    }
}

/// A count to compare with, in millions of instructions.
#[derive(Clone, Copy, Debug, Default)]
struct Reference {
    generate: f64,
    prompt: f64,
}

impl Instructions {
    /// llama.cpp's counts: see bench/README.md. `None` if they were not measured.
    fn peer(&self) -> Option<Reference> {
        let (generate, prompt) = match (self.shape, self.cpu) {
            (ShapeName::Tiny, Cpu::CortexA72) => (10.1, 6.23),
            (ShapeName::Tiny, Cpu::NeoverseN1) => (3.95, 1.37),
            (ShapeName::Tiny, Cpu::Max) => (4.60, 1.27),
            (ShapeName::Gpt2, Cpu::CortexA72) => (131.0, 82.2),
            (ShapeName::Gpt2, Cpu::NeoverseN1) => (66.4, 15.3),
            (ShapeName::TinyLlama, Cpu::CortexA72) => (988.0, 882.0),
            (ShapeName::TinyLlama, Cpu::NeoverseN1) => (314.0, 131.0),
            (ShapeName::SmolLm2, _) | (_, Cpu::Max) => return None,
        };
        Some(Reference { generate, prompt })
    }

    /// The project's goal, if there is one.
    fn goal(&self) -> Option<Reference> {
        let (generate, prompt) = match (self.shape, self.cpu) {
            (ShapeName::Tiny, Cpu::CortexA72) => (4.0, 2.2),
            (ShapeName::Tiny, Cpu::NeoverseN1) => (2.8, 1.05),
            (ShapeName::Tiny, Cpu::Max) => (2.8, 0.95),
            (ShapeName::Gpt2, Cpu::CortexA72) => (51.9, 29.0),
            (ShapeName::Gpt2, Cpu::NeoverseN1) => (47.1, 11.7),
            (ShapeName::TinyLlama, Cpu::CortexA72) => (395.0, 310.0),
            (ShapeName::TinyLlama, Cpu::NeoverseN1) => (226.0, 120.0),
            (ShapeName::SmolLm2, _) | (_, Cpu::Max) => return None,
        };
        Some(Reference { generate, prompt })
    }
}

impl Row for Instructions {
    const NAME: &'static str = "instructions";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let columns: &[Column<Self>] = &[
            ("shape", |row| row.shape.title().into()),
            ("processor", |row| row.cpu.name().into()),
            ("generate", |row| format!("**{}**", digits(row.generate_millions))),
            ("goal", |row| cell(row.goal().map(|goal| goal.generate))),
            ("llama.cpp", |row| cell(row.peer().map(|peer| peer.generate))),
            ("prompt of 32", |row| format!("**{}**", digits(row.prompt_millions))),
            ("goal", |row| cell(row.goal().map(|goal| goal.prompt))),
            ("llama.cpp", |row| cell(row.peer().map(|peer| peer.prompt))),
        ];
        table(columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use kernel::report::StopReason;

    use super::*;

    #[test]
    fn the_first_token_belongs_to_the_prompt() {
        let result = Outcome {
            prompt_tokens: 32,
            tokens_emitted: 5,
            output: String::new(),
            tokens: vec![],
            stop: StopReason::MaxTokens,
            context_shifts: 0,
            latency_us: 84_000,
            first_token_us: 64_000,
            prompt_tokens_per_s: 0.0,
            tokens_per_s: 0.0,
            arena_bytes: 0,
            arena_peak_bytes: 0,
            board: vec![],
        };
        let count = count(ShapeName::Tiny, Cpu::Max, &result);
        assert_eq!((count.prompt_millions, count.generate_millions), (2.0, 5.0));
        let line = "| tiny | max | **5.00** | 2.80 | 4.60 | **2.00** | 0.95 | 1.27 |";
        assert!(Instructions::table(&[count]).ends_with(&format!("{line}\n")));
    }
}
