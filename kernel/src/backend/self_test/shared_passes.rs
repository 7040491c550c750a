//! Texts with different prompts, lengths and samplers, alone and in shared passes.

use alloc::vec;
use alloc::vec::Vec;

use crate::llm::Error;
use crate::llm::engine::Engine;
use crate::llm::kernels::BATCH;
use crate::llm::sampling::{Sampler, SamplingConfig};
use crate::llm::session::Session;
use crate::llm::workspace::{Step, Workspace};

/// Number of texts.
pub const N_TEXTS: usize = 8;
/// Positions of the longest of them.
pub const N_CTX: usize = LENGTHS[2] + 9 + 2 * N_TEXTS;
/// Tokens of the prompts: one row, several passes, a whole pass, and one row more.
const LENGTHS: [usize; N_TEXTS] = [1, 2, 71, 7, BATCH, 13, 3, BATCH + 1];

/// A text: prompt, sampling, length.
pub struct Text {
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// The sampling of the other tokens.
    pub sampling: SamplingConfig,
    /// Number of other tokens.
    pub n: usize,
}

impl Text {
    /// The text's session, with its prompt unprocessed.
    fn start(&self, workspace: &Workspace) -> Result<Session, Error> {
        let mut session = workspace.session()?;
        session.set_sampler(Sampler::new(self.sampling));
        session.append(&self.prompt)?;
        Ok(session)
    }
}

/// The texts for a model. No two have a prompt, a length or a sampler in common.
pub fn texts(engine: &Engine) -> [Text; N_TEXTS] {
    let n_vocab = engine.metadata().n_vocab;
    let greedy = SamplingConfig::greedy();
    let penalised = SamplingConfig { repeat_penalty: 1.3, ..greedy };
    let creative = SamplingConfig { seed: 7, ..SamplingConfig::creative() };
    let wild = SamplingConfig { temperature: 1.5, top_k: 0, seed: 11, ..creative };
    let samplings = [greedy, creative, greedy, penalised, wild, greedy, creative, wild];
    core::array::from_fn(|i| Text {
        prompt: (0..LENGTHS[i]).map(|j| ((i * 4099 + j * j * 31 + 7) % n_vocab) as u32).collect(),
        sampling: samplings[i],
        n: 9 + 2 * i,
    })
}

/// The tokens that a text gives alone.
///
/// # Errors
/// As [`Session::append`] and [`Session::step`].
pub fn alone(workspace: &mut Workspace, text: &Text) -> Result<Vec<u32>, Error> {
    let mut session = text.start(workspace)?;
    (0..text.n).map(|_| session.step(workspace)).collect()
}

/// The tokens that texts give in shared passes, and the most sessions of a pass.
///
/// The texts start one pass after the other, and leave when they are done.
///
/// # Errors
/// As [`Session::append`] and [`Workspace::step`].
pub fn together(
    workspace: &mut Workspace,
    texts: &[Text],
) -> Result<(Vec<Vec<u32>>, usize), Error> {
    let mut answers = vec![Vec::new(); texts.len()];
    let mut sessions: Vec<(usize, Session)> = Vec::new();
    let (mut started, mut most) = (0, 0);
    while started < texts.len() || !sessions.is_empty() {
        if let Some(text) = texts.get(started) {
            sessions.push((started, text.start(workspace)?));
            started += 1;
        }
        most = most.max(sessions.len());
        let mut pass: Vec<&mut Session> = sessions.iter_mut().map(|(_, session)| session).collect();
        let steps = workspace.step(&mut pass)?;
        for ((i, session), step) in sessions.iter_mut().zip(steps) {
            match step {
                Step::Prefill => {}
                Step::Token(token) => answers[*i].push(token),
                Step::OutOfPages => return Err(Error::OutOfPages),
                Step::Halted(_) => return Err(workspace.find_fault(session)?),
            }
        }
        sessions.retain(|&(i, _)| answers[i].len() < texts[i].n);
    }
    Ok((answers, most))
}
