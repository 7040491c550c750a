//! A model in memory: immutable, and shared by any number of sessions.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Deref;

use spin::Once;

use crate::llm::Error;
use crate::llm::arena::{ModelBuffer, ModelBytes};
use crate::llm::gguf::Gguf;
use crate::llm::grammar::TokenIndex;
use crate::llm::model::tensors::Place;
use crate::llm::model::{Model, Repacked};
use crate::llm::plan::{ModelMetadata, Plan};
use crate::llm::tokenizer::Tokenizer;
use crate::llm::workers::Workers;

/// The bytes of a model's source: in the file's layout, or repacked.
#[derive(Debug)]
pub enum Weights {
    /// In the file's layout.
    Raw(ModelBuffer),
    /// Repacked by the plan's [`Plan::repack`].
    Repacked(Repacked),
}

impl From<ModelBuffer> for Weights {
    fn from(bytes: ModelBuffer) -> Self {
        Weights::Raw(bytes)
    }
}

impl From<Repacked> for Weights {
    fn from(repacked: Repacked) -> Self {
        Weights::Repacked(repacked)
    }
}

impl Deref for Weights {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Weights::Raw(bytes) => bytes,
            Weights::Repacked(repacked) => repacked,
        }
    }
}

/// A model in memory: weights, tokenizer, metadata.
#[derive(Debug)]
pub struct Engine {
    pub(super) sources: Vec<ModelBytes>,
    pub(super) model: Model,
    pub(super) tokenizer: Tokenizer,
    metadata: ModelMetadata,
    /// Made for the first grammar.
    token_index: Once<Arc<TokenIndex>>,
}

impl Engine {
    /// The model of a plan, with the bytes of its sources in the plan's order.
    ///
    /// The bytes stay in place. `workers` repack the raw sources.
    ///
    /// # Errors
    /// [`Error::ParseError`] if the sources are not as large as the plan says.
    pub fn new(
        plan: Plan,
        weights: impl IntoIterator<Item = Weights>,
        workers: &dyn Workers,
    ) -> Result<Self, Error> {
        let mut sources = Vec::new();
        for (i, weights) in weights.into_iter().enumerate() {
            let (is, planned) = (weights.len() as u64, plan.source_bytes.get(i).copied());
            if planned != Some(is) {
                let what = format!("file {} has {is} bytes, not {planned:?}", i + 1);
                return Err(Error::ParseError { what, at: is });
            }
            let repacked = match weights {
                Weights::Raw(bytes) => plan.repack(i).all(bytes, workers),
                Weights::Repacked(repacked) => repacked,
            };
            sources.push(repacked.finish());
        }
        if sources.len() != plan.source_bytes.len() {
            let what = format!("{} of {} files", sources.len(), plan.source_bytes.len());
            return Err(Error::ParseError { what, at: 0 });
        }
        let Plan { mut model, tokenizer, metadata, .. } = plan;
        model.bind(&sources);
        Ok(Engine { sources, model, tokenizer, metadata, token_index: Once::new() })
    }

    /// The model in one file.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn from_file(file: ModelBuffer, workers: &dyn Workers) -> Result<Self, Error> {
        let plan = Plan::read(&file, file.len() as u64)?;
        Engine::new(plan, [file.into()], workers)
    }

    /// The model's name and sizes.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vocabulary in the order of the tokens' bytes, for grammars.
    ///
    /// The first call sorts the vocabulary.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn token_index(&self) -> Result<Arc<TokenIndex>, Error> {
        let make = || Ok(Arc::new(TokenIndex::try_new(&self.tokenizer)?));
        self.token_index.try_call_once(make).cloned()
    }

    /// The tensors that hold NaN or infinity: names, and counts of non-finite values.
    ///
    /// All weights are dequantised, which takes long.
    ///
    /// # Errors
    /// [`Error::ParseError`] cannot happen: the headers were read before.
    pub fn non_finite_tensors(&self) -> Result<Vec<(String, usize)>, Error> {
        let files = self.sources.iter().map(|source| Gguf::parse(source));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let name = |place: &Place| {
            let starts = |tensor: &&_| {
                files[place.source].range(tensor).is_some_and(|range| range.start == place.start)
            };
            let tensor = files[place.source].tensors().iter().find(starts);
            tensor.map_or_else(String::new, |tensor| tensor.name.to_string())
        };
        let mut found = Vec::new();
        let mut add = |place: &Place, n: usize| {
            if n > 0 && !found.iter().any(|(other, _)| *other == name(place)) {
                found.push((name(place), n));
            }
        };
        for vector in self.model.vectors() {
            let values =
                vector.values(&self.sources).iter().map(|&bytes| f32::from_le_bytes(bytes));
            add(vector.place(), values.filter(|value| !value.is_finite()).count());
        }
        for matrix in self.model.matrices() {
            let mut row = vec![0.0_f32; matrix.columns()];
            let mut n = 0;
            for i in 0..matrix.rows() {
                matrix.dequantize_row(&self.sources, i, &mut row);
                n += row.iter().filter(|value| !value.is_finite()).count();
            }
            add(matrix.place(), n);
        }
        Ok(found)
    }
}
