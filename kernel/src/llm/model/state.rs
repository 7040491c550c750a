//! The shape of a model's state, and the context shift.

use alloc::format;

use super::scratch::Scratch;
use super::{Mixer, Model, batch};
use crate::llm::Error;
use crate::llm::kv_cache::{CacheType, KvShape};
use crate::llm::quantize::BLOCK;
use crate::llm::state::{KvMemory, LayerShape, State, StateShape};

impl Model {
    /// The shape of the state of a text in a context of `n_ctx` positions.
    ///
    /// A layer with a window keeps the positions that the rows of a batch see together. If the
    /// context shifts ([`Model::shift`]), each layer keeps all positions.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model's heads are no whole blocks of the KV cache's type, or
    /// if its positions cannot shift.
    pub fn state_shape(
        &self,
        kv_cache: CacheType,
        n_ctx: usize,
        shifts: bool,
    ) -> Result<StateShape, Error> {
        let head_size = self.shape.head_size;
        if kv_cache == CacheType::Q8_0 && !head_size.is_multiple_of(BLOCK) {
            let what = format!(
                "`kv_cache` is {kv_cache}, which takes heads whose width {BLOCK} divides; those of \
                 this model have {head_size}: take f16"
            );
            return Err(Error::InvalidConfig { what });
        }
        if shifts && self.position_embd.is_some() {
            let what = format!(
                "`context_shift` is on, but a model of the architecture `{}` has learned its \
                 positions one by one: they cannot shift",
                self.architecture
            );
            return Err(Error::InvalidConfig { what });
        }
        let layers = self.layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(attn) => {
                let kept = match attn.window {
                    Some(window) if !shifts => (window + batch(n_ctx) - 1).min(n_ctx),
                    _ => n_ctx,
                };
                let window = attn.window.unwrap_or(n_ctx).min(kept);
                let n_head_kv = self.shape.n_head_kv;
                LayerShape::Kv(KvShape { kind: kv_cache, n_head_kv, head_size, kept, window })
            }
        });
        Ok(StateShape { n_ctx, kv_cache, layers: layers.collect() })
    }

    /// Context shift, as llama.cpp's `--context-shift`.
    ///
    /// Drops half of the positions behind `n_keep`.
    ///
    /// The other positions move up, and their keys are rotated back. Returns the number of dropped
    /// positions.
    ///
    /// # Errors
    /// [`Error::OutOfPages`] if a shared page must be copied and no page is free.
    ///
    /// # Panics
    /// The state's shape was made for a context that does not shift, or `n_keep` positions are not
    /// in use.
    pub fn shift(
        &self,
        state: &mut State,
        memory: &mut KvMemory,
        n_keep: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<usize, Error> {
        let n_dropped = (state.len() - n_keep) / 2;
        state.drop_positions(memory, n_keep..n_keep + n_dropped)?;
        let Scratch { angles, qkv, .. } = scratch;
        for (rope, angles) in self.ropes.iter().zip(self.split_angles(angles)) {
            rope.angles_back(n_dropped, state.n_ctx(), angles);
        }
        let keys = &mut qkv[..self.shape.n_embd_kv()];
        for (i, layer) in self.layers.iter().enumerate() {
            let Mixer::Attention(attn) = &layer.mixer;
            let LayerShape::Kv(shape) = &state.shape().layers[i];
            let rotation = shape.rotation();
            let Some((rope, angles)) = self.rope(attn, angles) else { continue };
            for position in n_keep..state.len() {
                state.change_keys(memory, i, position, keys, |keys| {
                    rotation.keys(keys);
                    let heads = keys.chunks_exact_mut(self.shape.head_size);
                    heads.for_each(|head| rope.rotate(head, angles));
                    rotation.keys(keys);
                });
            }
        }
        Ok(n_dropped)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use crate::llm::arena::ModelBytes;
    use crate::llm::gguf::Gguf;
    use crate::llm::kernels::fixtures::Noise;
    use crate::llm::model::Architecture;

    #[test]
    fn keys_rotated_back_are_those_of_an_earlier_position() {
        // Factors for each frequency, linear scaling, YaRN, two ways in one model, LongRoPE.
        for file in [
            &include_bytes!("../../../../test_models/architectures/llama-Q8_0.gguf")[..],
            include_bytes!("../../../../test_models/architectures/llama-biased-Q8_0.gguf"),
            include_bytes!("../../../../test_models/architectures/qwen2-Q8_0.gguf"),
            include_bytes!("../../../../test_models/architectures/gemma3-Q8_0.gguf"),
            include_bytes!("../../../../test_models/architectures/phi3-Q8_0.gguf"),
        ] {
            let gguf = Gguf::parse(file).unwrap();
            let n_vocab = gguf.tensor("token_embd.weight").unwrap().dims[1] as usize;
            let architecture = Architecture::of(&gguf).unwrap();
            let mut model = architecture.model(&[gguf], n_vocab, |_| false).unwrap();
            model.bind(&[ModelBytes::from(file)]);
            for rope in &model.ropes {
                let key = Noise::new(31).floats(model.shape.head_size);
                let mut angles = vec![0.0; rope.n_rot()];
                let mut at = |position, back| {
                    let mut key = key.clone();
                    rope.angles(position, 101, &mut angles);
                    rope.rotate(&mut key, &angles);
                    rope.angles_back(back, 101, &mut angles);
                    rope.rotate(&mut key, &angles);
                    key
                };
                let (actual, expected) = (at(83, 47), at(83 - 47, 0));
                for (a, e) in actual.iter().zip(&expected) {
                    assert!((a - e).abs() < 1e-4, "{}: {a}, expected {e}", model.architecture());
                }
                assert_ne!(at(83, 46), expected);
            }
        }
    }
}
