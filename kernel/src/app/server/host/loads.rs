//! Loads of the models that requests wait for.

use alloc::format;
use alloc::sync::Arc;

use super::{Host, Waiting};
use crate::app::error::Error;
use crate::app::load::{Loaded, Meanwhile};
use crate::app::model::load_model;
use crate::app::os;
use crate::app::server::api::{ApiError, ErrorKind};
use crate::app::server::service::Service;
use crate::llm;
use crate::llm::engine::Engine;
use crate::llm::plan::{ContextOptions, WorkspaceOptions};
use crate::llm::workspace::Workspace;
use crate::report::Code;

/// Positions of the context if none are configured, where model and memory have so many.
const DEFAULT_N_CTX: usize = 4096;
/// The smallest context that a server without a configured one falls back to.
const LEAST_N_CTX: usize = 256;

impl Host<'_> {
    /// Loads the models that requests wait for, and gives the requests to them.
    ///
    /// # Errors
    /// The engine has no scratch memory.
    pub fn serve_waiting(&mut self) -> Result<(), Error> {
        while let Some(&Waiting { number, .. }) = self.waiting.front() {
            match self.models.service(number) {
                // It is unloaded behind its last request, and loaded again.
                Some(service) if service.is_ending => return Ok(()),
                Some(_) => self.give_waiting(number),
                None => {
                    let result = self.load(number);
                    if let Some(fault) = self.fault.take() {
                        return Err(fault);
                    }
                    match result {
                        Ok(()) => self.give_waiting(number),
                        Err(error) => self.note_failure(number, &error),
                    }
                }
            }
            if self.ends_us.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives a model the requests that wait for it.
    fn give_waiting(&mut self, number: usize) {
        let mutex = self.front;
        let mut front = mutex.lock();
        let is_for_it = |waiting: &Waiting| waiting.number == number;
        while let Some(place) = self.waiting.iter().position(is_for_it) {
            let job = self.waiting.remove(place).and_then(|waiting| waiting.job);
            if let (Some(job), Some(service)) = (job, self.models.use_now(number)) {
                service.take(job, &mut front);
            }
        }
    }

    /// Tells all that wait for a model why it cannot be loaded.
    fn note_failure(&mut self, number: usize, error: &Error) {
        let name = self.models.file(number).name();
        let (error, failure) = match error {
            Error::LoadGivenUp => {
                let message = format!("the load of model `{name}` was given up");
                (ApiError::new(ErrorKind::Unavailable, message), None)
            }
            error => {
                let fault = error.fault();
                let message = format!("{} ({})", fault.message, fault.code);
                log::warn!("model `{name}` failed to load: {message}");
                let shown = format!("model `{name}` failed to load: {message}");
                let kind = match fault.code {
                    Code::ModelNotFound => ErrorKind::NotFound,
                    _ => ErrorKind::Server,
                };
                (ApiError::new(kind, shown), Some(message))
            }
        };
        self.models.set_failure(number, failure);
        let mutex = self.front;
        self.refuse_waiting(number, &error, &mut mutex.lock());
    }

    /// Loads a model, and runs rounds meanwhile.
    ///
    /// # Errors
    /// The model cannot be loaded. [`Error::LoadGivenUp`]: the server ends, or a client wants the
    /// model unloaded.
    pub fn load(&mut self, number: usize) -> Result<(), Error> {
        (self.loading, self.gives_up) = (Some(number), false);
        let result = self.try_load(number);
        (self.loading, self.needs_room) = (None, false);
        self.models.add(number, result?);
        Ok(())
    }

    fn try_load(&mut self, number: usize) -> Result<Service, Error> {
        let path = self.models.file(number).path();
        let (mutex, config, pool) = (self.front, self.config, self.pool);
        let look = || {
            let mut front = mutex.lock();
            front.poll_in_pass();
            front.has_news()
        };
        let Loaded { plan, weights, figures } = loop {
            let mut between = || self.between();
            let meanwhile = Meanwhile { look: &look, between: &mut between };
            match load_model(&path, config, pool, meanwhile) {
                Err(Error::OutOfMemory { needed, .. }) if self.may_fit(needed) => {
                    self.make_room()?;
                }
                result => break result?,
            }
        };
        self.go_on()?;
        let engine = Arc::new(Engine::new(plan, [weights], pool)?);
        let workspace = self.workspace(&engine)?;
        self.go_on()?;
        self.n_loads += 1;
        let file = self.models.file(number);
        Service::new(self.n_loads - 1, file, config, workspace, &figures)
    }

    /// The workspace for the configured context, or for the largest one that there is memory for.
    ///
    /// The context is the same whatever other models are loaded: they are unloaded before the
    /// context gets smaller.
    fn workspace(&mut self, engine: &Arc<Engine>) -> Result<Workspace, Error> {
        let config = self.config;
        let mut n_ctx = config.context.unwrap_or(DEFAULT_N_CTX.min(engine.metadata().n_ctx_train));
        loop {
            let context = ContextOptions { n_ctx: Some(n_ctx), ..config.context_options() };
            let options = WorkspaceOptions {
                shares_prefixes: true,
                ..WorkspaceOptions::new(context, config.parallel)
            };
            let made = Workspace::with_options(engine.clone(), options, self.pool);
            let asked = match &made {
                Ok(_) if os::memory_available() >= self.reserve_bytes => return Ok(made?),
                Ok(_) => 0,
                Err(llm::Error::OutOfMemory { asked, .. }) => *asked,
                Err(_) => return Ok(made?),
            };
            if self.may_fit(asked) {
                drop(made);
                self.make_room()?;
            } else if config.context.is_some() || n_ctx <= LEAST_N_CTX {
                return Ok(made?);
            } else {
                n_ctx = (n_ctx / 2).max(LEAST_N_CTX);
            }
        }
    }

    /// Whether so much memory may be free once other models are unloaded.
    fn may_fit(&self, needed: u64) -> bool {
        let free = os::memory_available().saturating_add(self.models.memory_bytes());
        !self.models.is_empty() && needed <= free
    }

    /// Unloads the least recently used model that is idle, and waits until one is.
    ///
    /// # Errors
    /// [`Error::LoadGivenUp`].
    fn make_room(&mut self) -> Result<(), Error> {
        while !self.models.unload_idle() && !self.models.is_empty() {
            self.needs_room = true;
            self.go_on()?;
        }
        self.needs_room = false;
        Ok(())
    }
}
