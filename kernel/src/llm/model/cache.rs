//! The KV cache that a model needs, and what becomes of it when the text outgrows the context.

use alloc::format;

use super::scratch::Scratch;
use super::{Model, batch};
use crate::llm::Error;
use crate::llm::kv_cache::{CacheShape, CacheType, KvCache};
use crate::llm::quantize::BLOCK;

impl Model {
    /// The shape of a cache for `n_ctx` positions, with keys and values of this type. A layer with a
    /// window keeps what the tokens of a batch see together, or, if the cache is to slide
    /// ([`Model::slide`]), all positions.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the model's heads are no whole blocks of that type, or if its
    /// positions cannot slide.
    pub fn cache_shape(
        &self,
        kind: CacheType,
        n_ctx: usize,
        slides: bool,
    ) -> Result<CacheShape, Error> {
        let head_size = self.shape.head_size;
        if kind == CacheType::Q8_0 && !head_size.is_multiple_of(BLOCK) {
            let what = format!(
                "`kv_cache` is {kind}, which takes heads whose width {BLOCK} divides; those of this \
                 model have {head_size}: take f16"
            );
            return Err(Error::InvalidConfig { what });
        }
        if slides && self.position_embd.is_some() {
            let what = format!(
                "`context_shift` is on, but a model of the architecture `{}` has learned its \
                 positions one by one: they cannot shift",
                self.architecture
            );
            return Err(Error::InvalidConfig { what });
        }
        let kept = self.layers.iter().map(|layer| match layer.attn.window {
            Some(window) if !slides => (window + batch(n_ctx) - 1).min(n_ctx),
            _ => n_ctx,
        });
        let n_head_kv = self.shape.n_head_kv;
        Ok(CacheShape { kind, n_ctx, n_head_kv, head_size, kept: kept.collect() })
    }

    /// Makes room in the cache: keeps the first `n_keep` positions, drops half of those behind them
    /// and moves the rest up, its keys rotated back by as many positions. So does llama.cpp's
    /// `--context-shift`.
    ///
    /// # Panics
    /// The cache's shape was made for one that does not slide, or it has fewer positions in use.
    pub fn slide(&self, cache: &mut KvCache, n_keep: usize, scratch: &mut Scratch<'_>) {
        let n_dropped = (cache.len() - n_keep) / 2;
        cache.drop_positions(n_keep..n_keep + n_dropped);
        let Scratch { angles, qkv, .. } = scratch;
        for (rope, angles) in self.ropes.iter().zip(self.split_angles(angles)) {
            rope.angles_back(n_dropped, cache.n_ctx(), angles);
        }
        let keys = &mut qkv[..self.shape.n_embd_kv()];
        let spread = cache.shape().spread();
        for (i, layer) in self.layers.iter().enumerate() {
            let Some((rope, angles)) = self.rope(&layer.attn, angles) else { continue };
            for position in n_keep..cache.len() {
                cache.change_keys(i, position, keys, |keys| {
                    spread.keys(keys);
                    let heads = keys.chunks_exact_mut(self.shape.head_size);
                    heads.for_each(|head| rope.rotate(head, angles));
                    spread.keys(keys);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use crate::llm::gguf::Gguf;
    use crate::llm::kernels::self_test::Noise;
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
            let model = Architecture::of(&gguf).unwrap().model(&gguf, n_vocab).unwrap();
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
