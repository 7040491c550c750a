//! Logits of a file's model along given tokens.

use std::sync::Arc;

use kernel::llm::arena::ModelBuffer;
use kernel::llm::engine::Engine;
use kernel::llm::plan::ContextOptions;
use kernel::llm::session::Session;
use kernel::llm::workers::{SingleThread, Workers};
use kernel::llm::workspace::Workspace;

/// A model, ready for one text.
pub fn start(
    file: &[u8],
    context: ContextOptions,
    workers: &'static dyn Workers,
) -> (Workspace, Session) {
    let engine = Engine::from_file(ModelBuffer::from(file), &SingleThread).unwrap();
    let workspace = Workspace::try_new(Arc::new(engine), context, 1, workers).unwrap();
    let session = workspace.session().unwrap();
    (workspace, session)
}

/// The logits behind each of the tokens from `wanted` on.
pub fn logits(
    (workspace, session): &mut (Workspace, Session),
    tokens: &[u32],
    wanted: usize,
) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    let mut on_logits = |i: usize, logits: &[f32]| {
        assert_eq!(i, wanted + all.len());
        all.push(logits.to_vec());
    };
    workspace.evaluate(session, tokens, wanted..tokens.len(), &mut on_logits).unwrap();
    assert_eq!(all.len(), tokens.len() - wanted);
    all
}
