//! The models of the server: those of the disk, and those of them that are loaded.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::api::models::{Listed, Status};
use super::api::{ApiError, ErrorKind};
use super::service::Service;
use crate::app::load::ModelFile;
use crate::app::model::report_unload;
use crate::llm::scheduler::{Counters, RequestId};

/// A model of the disk.
struct Entry {
    file: ModelFile,
    path: String,
    /// Why the last load failed.
    failure: Option<String>,
}

/// The models of the disk, and those of them that are loaded. A model's number is its place here.
pub struct Models {
    entries: Vec<Entry>,
    /// The model that the configuration names.
    configured: Option<usize>,
    /// The loaded models with their numbers, the least recently used one first.
    loaded: Vec<(usize, Service)>,
    /// The sums of the models that were unloaded.
    retired: Counters,
}

impl Models {
    /// The models of a disk, none of which is loaded.
    pub fn new(files: Vec<ModelFile>, configured: Option<usize>) -> Self {
        let entry = |file: ModelFile| Entry { path: file.path(), file, failure: None };
        let entries: Vec<Entry> = files.into_iter().map(entry).collect();
        // Swaps leave no memory behind: the list grows for none of them.
        let loaded = Vec::with_capacity(entries.len());
        Models { entries, configured, loaded, retired: Counters::default() }
    }

    /// Number of models on the disk.
    pub fn n_all(&self) -> usize {
        self.entries.len()
    }

    /// The file of a model.
    pub fn file(&self, number: usize) -> &ModelFile {
        &self.entries[number].file
    }

    /// The names of all models for clients.
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.file.name().into()).collect()
    }

    /// All models, as clients see them. `is_loading` tells which are about to be loaded.
    pub fn list(&self, is_loading: impl Fn(usize) -> bool) -> Vec<Listed<'_>> {
        let mut list = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let service = self.service(number);
            let status = match (service, &entry.failure) {
                (Some(_), _) => Status::Loaded,
                _ if is_loading(number) => Status::Loading,
                (None, Some(failure)) => Status::Failed(failure),
                (None, None) => Status::Unloaded,
            };
            let (name, path) = (entry.file.name(), &entry.path[..]);
            let (bytes, served) = (entry.file.bytes, service.map(Service::served));
            list.push(Listed { name, path, bytes, status, served });
        }
        list
    }

    /// The number of the model with this name, with or without `.gguf`.
    ///
    /// # Errors
    /// There is no such model.
    pub fn find(&self, name: &str) -> Result<usize, ApiError> {
        let found = self.entries.iter().position(|entry| entry.file.is_named(name));
        found.ok_or_else(|| {
            let names = self.names().join(", ");
            let message = format!("model `{name}` not found; the models are: {names}");
            ApiError::new(ErrorKind::NotFound, message)
        })
    }

    /// The number of the model for a request that names this one, or none.
    ///
    /// Where the disk has a single model, each name stands for it, as clients send any name.
    ///
    /// # Errors
    /// As [`Models::find`].
    pub fn choose(&self, name: &str) -> Result<usize, ApiError> {
        match name {
            _ if self.n_all() == 1 => Ok(0),
            "" => Ok(self.default_number()),
            name => self.find(name),
        }
    }

    /// The number of the model for requests that name none.
    fn default_number(&self) -> usize {
        let last = self.loaded.last().map(|&(number, _)| number);
        self.configured.or(last).unwrap_or(0)
    }

    /// The loaded model of a number.
    pub fn service(&self, number: usize) -> Option<&Service> {
        self.loaded.iter().find(|(other, _)| *other == number).map(|(_, service)| service)
    }

    /// The loaded model of a number.
    pub fn service_mut(&mut self, number: usize) -> Option<&mut Service> {
        self.loaded.iter_mut().find(|(other, _)| *other == number).map(|(_, service)| service)
    }

    /// The loaded model of a number, which is from now on the most recently used one.
    pub fn use_now(&mut self, number: usize) -> Option<&mut Service> {
        let place = self.loaded.iter().position(|&(other, _)| other == number)?;
        let used = self.loaded.remove(place);
        self.loaded.push(used);
        self.loaded.last_mut().map(|(_, service)| service)
    }

    /// The loaded models, the least recently used one first.
    pub fn loaded(&mut self) -> impl Iterator<Item = &mut Service> {
        self.loaded.iter_mut().map(|(_, service)| service)
    }

    /// The most recently used model.
    pub fn last(&self) -> Option<&Service> {
        self.loaded.last().map(|(_, service)| service)
    }

    /// Whether no model is loaded.
    pub fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Whether no request of any model runs or waits.
    pub fn is_idle(&self) -> bool {
        self.loaded.iter().all(|(_, service)| service.is_idle())
    }

    /// Adds a model that was loaded.
    pub fn add(&mut self, number: usize, service: Service) {
        self.entries[number].failure = None;
        self.loaded.push((number, service));
    }

    /// Notes why a model cannot be loaded; `None`: no reason any more.
    pub fn set_failure(&mut self, number: usize, failure: Option<String>) {
        self.entries[number].failure = failure;
    }

    /// Unloads the least recently used model of which no request runs or waits; false without one.
    pub fn unload_idle(&mut self) -> bool {
        let place = self.loaded.iter().position(|(_, service)| service.is_idle());
        place.map(|place| self.unload(place)).is_some()
    }

    /// Unloads the models that are to end, and of which no request runs or waits.
    pub fn unload_ended(&mut self) {
        let is_over = |(_, service): &(_, Service)| service.is_ending && service.is_idle();
        while let Some(place) = self.loaded.iter().position(is_over) {
            self.unload(place);
        }
    }

    fn unload(&mut self, place: usize) {
        let (number, service) = self.loaded.remove(place);
        self.retired = self.retired.plus(service.scheduler().counters());
        drop(service);
        report_unload(&self.entries[number].file.file);
    }

    /// Memory that the loaded models give back at least, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.loaded.iter().map(|(_, service)| service.memory_bytes()).sum()
    }

    /// Ends a request of any model.
    pub fn cancel(&mut self, id: RequestId) {
        self.loaded().for_each(|service| service.cancel(id));
    }

    /// The sums over all requests of all models.
    pub fn counters(&self) -> Counters {
        let all = self.loaded.iter().map(|(_, service)| service.scheduler().counters());
        all.fold(self.retired, |sum, counters| sum.plus(counters))
    }

    /// Numbers of requests that run and that wait in a model's queue.
    pub fn n_requests(&self) -> (usize, usize) {
        let all = self.loaded.iter().map(|(_, service)| service.scheduler());
        all.fold((0, 0), |(running, waiting), scheduler| {
            (running + scheduler.n_running(), waiting + scheduler.n_waiting())
        })
    }
}
