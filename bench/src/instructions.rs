//! Instrument 1: instructions of the guest for a token.
//!
//! QEMU's `-icount shift=0` lets each instruction take one nanosecond of the guest's clock, so the
//! guest's own timings count instructions, the same on each host and each time. The first
//! generated token comes from the prompt's logits and is counted with the prompt.

#![forbid(unsafe_code)]

use anyhow::Result;
use kernel::report::Outcome;
use serde::{Deserialize, Serialize};

use crate::disks;
use crate::guest::{House, Run};
use crate::results::{Row, digits, table};
use crate::shape::{Cpu, ShapeName};

/// Tokens in the prompt.
const PROMPT: usize = 32;

/// Instructions for a token, in millions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instructions {
    /// The model.
    pub shape: ShapeName,
    /// The processor, and with it the kernels.
    pub cpu: Cpu,
    /// For each token that is generated.
    pub generate_millions: f64,
    /// For each token of a prompt of 32.
    pub prompt_millions: f64,
}

/// Measures one shape on one processor.
///
/// # Errors
/// The run fails.
pub fn measure(house: &House, shape: ShapeName, cpu: Cpu) -> Result<Instructions> {
    let disk = disks::disk(house, shape)?;
    let what = format!("instructions: {} on {}", shape.title(), cpu.name());
    let run = Run {
        disk: &disk,
        cpu,
        cores: 1,
        counted: true,
        mode: "generate",
        verify: false,
        prompt_tokens: PROMPT,
        // A token more costs a large model seconds; each gives nearly the same count.
        tokens: if shape == ShapeName::TinyLlama { 3 } else { 9 },
    };
    Ok(count(shape, cpu, house.run(&what, &run)?.result()?))
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

/// What a count is compared with, in millions of instructions.
#[derive(Clone, Copy, Debug, Default)]
struct Yardstick {
    generate: f64,
    prompt: f64,
}

/// llama.cpp's counts, and what is to be reached; see the README. None for what was not measured.
fn yardsticks(shape: ShapeName, cpu: Cpu) -> (Option<Yardstick>, Option<Yardstick>) {
    let of = |generate, prompt| Some(Yardstick { generate, prompt });
    match (shape, cpu) {
        (ShapeName::Tiny, Cpu::CortexA72) => (of(10.1, 6.23), of(4.0, 2.2)),
        (ShapeName::Tiny, Cpu::NeoverseN1) => (of(3.95, 1.37), of(2.8, 1.05)),
        (ShapeName::Tiny, Cpu::Max) => (of(4.60, 1.27), of(2.8, 0.95)),
        (ShapeName::Gpt2, Cpu::CortexA72) => (of(131.0, 82.2), of(51.9, 29.0)),
        (ShapeName::Gpt2, Cpu::NeoverseN1) => (of(66.4, 15.3), of(47.1, 11.7)),
        (ShapeName::TinyLlama, Cpu::CortexA72) => (of(988.0, 882.0), of(395.0, 310.0)),
        (ShapeName::TinyLlama, Cpu::NeoverseN1) => (of(314.0, 131.0), of(226.0, 120.0)),
        (ShapeName::Gpt2 | ShapeName::TinyLlama, Cpu::Max) => (None, None),
    }
}

impl Row for Instructions {
    const NAME: &'static str = "instructions";
    type Key = (ShapeName, Cpu);

    fn key(&self) -> Self::Key {
        (self.shape, self.cpu)
    }

    fn table(rows: &[Self]) -> String {
        let header = [
            "shape",
            "processor",
            "generate",
            "goal",
            "llama.cpp",
            "prompt of 32",
            "goal",
            "llama.cpp",
        ];
        let rows: Vec<[String; 8]> = rows
            .iter()
            .map(|row| {
                let (peer, goal) = yardsticks(row.shape, row.cpu);
                let shown = |yardstick: Option<f64>| yardstick.map_or("–".into(), digits);
                [
                    row.shape.title().into(),
                    row.cpu.name().into(),
                    format!("**{}**", digits(row.generate_millions)),
                    shown(goal.map(|goal| goal.generate)),
                    shown(peer.map(|peer| peer.generate)),
                    format!("**{}**", digits(row.prompt_millions)),
                    shown(goal.map(|goal| goal.prompt)),
                    shown(peer.map(|peer| peer.prompt)),
                ]
            })
            .collect();
        table(header, &rows)
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
