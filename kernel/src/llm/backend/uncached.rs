//! Generation without what the KV cache is for: to show what it saves, and that it changes nothing.

use alloc::vec::Vec;

use super::{Loaded, Shared, TransformerBackend, required};
use crate::llm::model::Context;
use crate::llm::model::scratch::Scratch;
use crate::llm::sampling::{Sampler, SamplingConfig};
use crate::llm::{Error, with_capacity};

impl TransformerBackend {
    /// The tokens of [`TransformerBackend::infer`] with the best token each time and without regard
    /// to ends of the text, the whole text being computed anew for each. The text so far is
    /// forgotten.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the text does not fit, [`Error::InvalidConfig`] if there is no
    /// model or no prompt, [`Error::OutOfMemory`].
    pub(crate) fn infer_uncached(&mut self, prompt: &str, n: usize) -> Result<Vec<u32>, Error> {
        self.reset();
        let workers = self.options.workers;
        let Loaded { shared, cache, arena, .. } = required(&mut self.loaded)?;
        let Shared { file, model, tokenizer, .. } = &**shared;
        let mut text = tokenizer.encode(prompt, true, self.parse_special);
        let n_prompt = text.len();
        if n_prompt == 0 {
            return Err(Error::InvalidConfig { what: "the prompt is empty".into() });
        }
        if n_prompt + n > cache.n_ctx() + 1 {
            return Err(Error::ContextFull { prompt: n_prompt + n, n_ctx: cache.n_ctx() });
        }
        let mut frame = arena.frame();
        let mut scratch = Scratch::take(&mut frame, model, cache.shape())?;
        let context = Context { file, workers, verbose: false };
        let mut greedy = Sampler::new(SamplingConfig::greedy());
        for _ in 0..n {
            cache.clear();
            // One by one, as what the cache saves is to show, not what batches do.
            for (i, &token) in text.iter().enumerate() {
                let wanted = usize::from(i + 1 == text.len());
                model.forward(context, &[token], wanted, cache, &mut scratch);
            }
            model.logits(context, 0, &mut scratch);
            text.push(greedy.sample(scratch.logits, scratch.candidates));
        }
        cache.clear();
        let mut tokens = with_capacity(n, "the answer")?;
        tokens.extend_from_slice(&text[n_prompt..]);
        Ok(tokens)
    }
}
