//! Generation without the KV cache, as the reference for the cache.
//!
//! It shows the cache's speed-up, and that the cache changes no token.

#![forbid(unsafe_code)]

use alloc::vec::Vec;

use crate::llm::session::Session;
use crate::llm::workspace::Workspace;
use crate::llm::{Error, with_capacity};

/// The best `n` tokens after a prompt. End tokens do not end the text.
///
/// The whole text is processed again for each token, one row at a time. The session's text is
/// forgotten.
///
/// # Errors
/// [`Error::ContextFull`] if the text does not fit, [`Error::InvalidConfig`] if there is no prompt,
/// [`Error::NotFinite`] if the model computes NaN or infinity, [`Error::OutOfMemory`].
pub(crate) fn generate_uncached(
    workspace: &mut Workspace,
    session: &mut Session,
    prompt: &[u32],
    n: usize,
) -> Result<Vec<u32>, Error> {
    if prompt.is_empty() {
        return Err(Error::InvalidConfig { what: "the prompt is empty".into() });
    }
    if prompt.len() + n > session.n_ctx() + 1 {
        return Err(Error::ContextFull { prompt: prompt.len() + n, n_ctx: session.n_ctx() });
    }
    let mut text = with_capacity(prompt.len() + n, "the answer")?;
    text.extend_from_slice(prompt);
    for _ in 0..n {
        session.clear();
        // Row by row, to measure the savings of the cache and not of batches.
        let (last, before) = text.split_last().unwrap_or((&0, &[]));
        for token in before {
            session.append(core::slice::from_ref(token))?;
            workspace.process(session)?;
        }
        session.append(core::slice::from_ref(last))?;
        let next = session.step(workspace)?;
        text.push(next);
    }
    session.clear();
    Ok(text.split_off(prompt.len()))
}
