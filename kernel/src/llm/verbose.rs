//! Debug logs for a model that talks gibberish.
//!
//! The logs show statistics of weights, norms of activations, and the best tokens.

#![forbid(unsafe_code)]

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::llm::gguf::{Gguf, TensorInfo};
use crate::llm::model::Stage;
use crate::llm::quantize::{WeightType, dequantize_row};
use crate::llm::tokenizer::Tokenizer;
use crate::llm::{Error, kernels, with_capacity};

/// Number of best tokens that are shown.
const BEST: usize = 10;

/// Statistics of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Statistics {
    tensors: usize,
    bytes: u64,
    least: f32,
    most: f32,
    sum: f64,
    finite: u64,
    non_finite: u64,
}

impl Statistics {
    const NONE: Statistics = Statistics {
        tensors: 0,
        bytes: 0,
        least: f32::INFINITY,
        most: f32::NEG_INFINITY,
        sum: 0.0,
        finite: 0,
        non_finite: 0,
    };

    fn add(&mut self, values: &[f32]) {
        for &value in values {
            if value.is_finite() {
                self.least = self.least.min(value);
                self.most = self.most.max(value);
                self.sum += f64::from(value);
                self.finite += 1;
            } else {
                self.non_finite += 1;
            }
        }
    }

    fn mean(&self) -> f64 {
        if self.finite == 0 { 0.0 } else { self.sum / self.finite as f64 }
    }
}

/// Adds the values of one tensor, if its data is there and its type is known.
fn add_tensor(gguf: &Gguf<'_>, tensor: &TensorInfo<'_>, all: &mut Statistics) -> Result<(), Error> {
    let known = gguf.data(tensor).zip(WeightType::from_tensor_type(tensor.kind));
    let Some((data, kind)) = known else { return Ok(()) };
    // A row has no more weights than the file's bytes have room for.
    let row = tensor.dims[0] as usize;
    let mut values: Vec<f32> = with_capacity(row, "a row of weights")?;
    values.resize(row, 0.0);
    all.tensors += 1;
    all.bytes += tensor.size;
    for bytes in data.chunks_exact(kind.row_bytes(row).max(1)) {
        dequantize_row(kind, bytes, &mut values);
        all.add(&values);
    }
    Ok(())
}

/// Logs statistics of the weights by type, and warns of non-finite weights.
///
/// # Errors
/// [`Error::OutOfMemory`] if a row of weights does not fit.
pub fn log_tensors(gguf: &Gguf<'_>) -> Result<(), Error> {
    log::debug!("kernels: {}", kernels::name());
    let weights = gguf.tensors().iter().map(TensorInfo::elements).fold(0, u64::saturating_add);
    log::debug!("looking at {weights} weights, which takes a while if there are many");
    let mut by_type = BTreeMap::new();
    for tensor in gguf.tensors() {
        let all = by_type.entry(tensor.kind.name).or_insert(Statistics::NONE);
        let before = all.non_finite;
        add_tensor(gguf, tensor, all)?;
        let non_finite = all.non_finite - before;
        if non_finite > 0 {
            log::warn!(
                "{non_finite} of the {} weights in `{}` are not finite",
                tensor.elements(),
                tensor.name
            );
        }
    }
    for (name, all) in by_type {
        log::debug!(
            "{name}: {} tensors, {} weights in {} bytes, from {} to {}, mean {:.3e}, {} not finite",
            all.tensors,
            all.finite + all.non_finite,
            all.bytes,
            all.least,
            all.most,
            all.mean(),
            all.non_finite
        );
    }
    Ok(())
}

/// Logs the Euclidean norms of the states behind each layer.
pub fn log_norms(stage: Stage, states: &[f32], n_embd: usize) {
    let Stage::Layer(layer) = stage else { return };
    for state in states.chunks_exact(n_embd) {
        let norm = libm::sqrt(state.iter().map(|&x| f64::from(x) * f64::from(x)).sum());
        log::debug!("layer {layer}: norm {norm:.4}");
    }
}

/// The best tokens with their logits, the best first. NaN is left out.
fn best(logits: &[f32]) -> impl Iterator<Item = (u32, f32)> {
    let mut best = [(u32::MAX, f32::NEG_INFINITY); BEST];
    for (token, &logit) in (0..).zip(logits) {
        let place = best.partition_point(|&(_, other)| other >= logit);
        if place < best.len() && !logit.is_nan() {
            best[place..].rotate_right(1);
            best[place] = (token, logit);
        }
    }
    best.into_iter().filter(|&(token, _)| token != u32::MAX)
}

/// Logs the best tokens with logits and texts, and counts the non-finite logits.
pub fn log_best(logits: &[f32], tokenizer: &Tokenizer) {
    let mut line = String::new();
    let mut text = Vec::new();
    for (token, logit) in best(logits) {
        text.clear();
        tokenizer.push_bytes(token, &mut text);
        line += &alloc::format!("  {token} {:?} {logit:.3}", String::from_utf8_lossy(&text));
    }
    log::debug!("best:{line}");
    let non_finite = logits.iter().filter(|logit| !logit.is_finite()).count();
    if non_finite > 0 {
        log::warn!("{non_finite} of {} logits are not finite", logits.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::gguf::write::Builder;

    #[test]
    fn weights_are_counted() {
        let values = [0.5, f32::NAN, -2.0, f32::INFINITY, 3.0, 0.0];
        let file = Builder::new().tensor_f32("a", &[3, 2], &values).build();
        let gguf = Gguf::parse(&file).unwrap();
        let mut found = Statistics::NONE;
        add_tensor(&gguf, &gguf.tensors()[0], &mut found).unwrap();
        assert_eq!((found.least, found.most, found.mean()), (-2.0, 3.0, 0.375));
        assert_eq!((found.finite, found.non_finite, found.bytes), (4, 2, 24));
        let mut all = Statistics { tensors: 1, ..Statistics::NONE };
        all.add(&[-5.0, 7.5]);
        add_tensor(&gguf, &gguf.tensors()[0], &mut all).unwrap();
        assert_eq!((all.least, all.most, all.mean(), all.tensors), (-5.0, 7.5, 4.0 / 6.0, 2));
    }

    #[test]
    fn the_best_come_first() {
        let mut logits: Vec<f32> = (0..13).map(|i| (i * 7 % 13) as f32).collect();
        logits[3] = f32::NAN;
        logits[11] = f32::NEG_INFINITY;
        let found: Vec<(u32, f32)> = best(&logits).collect();
        let mut expected: Vec<(u32, f32)> =
            (0..).zip(logits).filter(|(_, x)| x.is_finite()).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(found, expected[..BEST]);
        let few: Vec<(u32, f32)> = best(&[f32::NAN, 1.0, f32::NEG_INFINITY]).collect();
        assert_eq!(few, [(1, 1.0)]);
    }
}
