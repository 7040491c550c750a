//! A loaded model, and the requests that need it.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::api::ollama::{self, Reply};
use super::api::request::tokens;
use super::api::{self, ApiError, Defaults, Ids, JSON, SamplingDefaults, Served, models};
use super::front::{Front, Job};
use super::http::{Request, Response};
use super::router::Route;
use crate::app::error::Error;
use crate::app::load::{Figures, ModelFile};
use crate::app::model::report_model;
use crate::app::output::say;
use crate::app::sha256::Digest;
use crate::app::{chat, os};
use crate::llm;
use crate::llm::chat::Template;
use crate::llm::engine::Engine;
use crate::llm::scheduler::{RequestId, Scheduler, SchedulerOptions};
use crate::llm::workspace::Workspace;
use crate::settings::Config;

/// Requests that wait for a slot, at most.
const QUEUE: usize = 64;
/// Bits of the number of a request in its scheduler. The bits above number the loads.
const REQUEST_BITS: u32 = 32;

/// A loaded model: its scheduler, and what requests need to know.
pub struct Service {
    scheduler: Scheduler,
    engine: Arc<Engine>,
    name: String,
    path: String,
    bytes: u64,
    digest: Option<Digest>,
    template: Option<Template>,
    defaults: Defaults,
    n_ctx: usize,
    parallel: usize,
    /// The date of the load: see [`os::date`].
    began: u64,
    /// Whether the model is unloaded once no request runs or waits.
    pub is_ending: bool,
}

impl Service {
    /// A service of a model that was loaded as the `n`th one, and the report of the model.
    ///
    /// # Errors
    /// The memory does not suffice.
    pub fn new(
        n: u64,
        file: &ModelFile,
        config: &Config,
        workspace: Workspace,
        figures: &Figures,
    ) -> Result<Self, Error> {
        let engine = workspace.engine().clone();
        let n_ctx = workspace.state_shape().n_ctx;
        report_model(figures, &workspace);
        let options =
            SchedulerOptions { parallel: config.parallel, queue: QUEUE, now_us: os::now_us };
        let scheduler = Scheduler::try_new(workspace, options)?.numbered_after(n << REQUEST_BITS);
        let (template, line) = chat::template(config, &file.file, &engine.metadata().chat);
        say!("{line}");
        let sampling = SamplingDefaults {
            config: config.sampling(|| 0),
            mirostat: config.mirostat,
            breakers: config.dry_breakers.clone(),
            seed: config.seed,
        };
        Ok(Service {
            scheduler,
            engine,
            name: file.name().to_owned(),
            path: file.path(),
            bytes: file.bytes,
            digest: figures.sha256,
            template,
            defaults: Defaults { sampling, max_tokens: usize::MAX },
            n_ctx,
            parallel: config.parallel,
            began: os::date(),
            is_ending: false,
        })
    }

    /// The model's name for clients.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Positions of a request's context.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The scheduler, for its figures.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Memory that is free again once the model is unloaded, in bytes: a lower bound.
    pub fn memory_bytes(&self) -> u64 {
        let workspace = self.scheduler.workspace();
        self.bytes + (workspace.kv_cache().bytes() + workspace.arena_bytes()) as u64
    }

    /// Whether no request runs or waits.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Ends a request, if the request is one of this model.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    /// The model as requests see it.
    pub fn served(&self) -> Served<'_> {
        Served {
            model: &self.name,
            path: &self.path,
            bytes: self.bytes,
            digest: self.digest,
            metadata: self.engine.metadata(),
            tokenizer: self.engine.tokenizer(),
            template: self.template.as_ref(),
            defaults: &self.defaults,
            n_ctx: self.n_ctx,
            parallel: self.parallel,
            max_answers: QUEUE,
        }
    }

    /// Runs one forward pass, if there is something to run.
    ///
    /// # Errors
    /// The engine has no scratch memory.
    pub fn step(&mut self, front: &Mutex<Front>) -> Result<(), llm::Error> {
        if self.scheduler.is_idle() {
            return Ok(());
        }
        let tokenizer = self.engine.tokenizer();
        self.scheduler.step(&mut || front.lock().poll_in_pass(), &mut |id, update| {
            front.lock().on_update(id, update, tokenizer);
        })
    }

    /// Answers a request, or starts its answer.
    pub fn take(&mut self, job: Job, front: &mut Front) {
        let Job { client, route, request } = job;
        let ids = ids(front.now_us());
        match route {
            Route::Generate(endpoint) => {
                let job = api::generate(endpoint, &request.body, &self.served(), &ids);
                self.start_answer(client, job, front);
            }
            Route::Ollama(call) => {
                match ollama::reply(call, &request.body, &self.served(), self.began, &ids) {
                    Ok(Reply::Job { job, unloads }) => {
                        self.start_answer(client, Ok(*job), front);
                        self.is_ending |= unloads;
                    }
                    Ok(Reply::Text { text, unloads }) => {
                        self.is_ending |= unloads;
                        front.answer(
                            client,
                            Ok(Response::new(200).with_body(JSON, text.into_bytes())),
                        );
                    }
                    Err(error) => front.answer(client, Err(error)),
                }
            }
            route => front.answer(client, self.answer(route, &request)),
        }
    }

    /// Answers what the state of the scheduler or the tokenizer alone answers.
    fn answer(&self, route: Route, request: &Request) -> Result<Response, ApiError> {
        let (served, body) = (self.served(), &request.body[..]);
        let text = match route {
            Route::Props => models::props(&served),
            Route::Slots => models::slots(&served, self.scheduler.slots()),
            Route::Tokenize => tokens::tokenize(body, &served)?,
            Route::Detokenize => tokens::detokenize(body, &served)?,
            Route::ApplyTemplate => tokens::apply_template(body, &served)?,
            Route::CountTokens => tokens::count_tokens(body, &served)?,
            // The others concern no single model.
            _ => return Err(ApiError::not_found()),
        };
        Ok(Response::new(200).with_body(JSON, text.into_bytes()))
    }

    /// Starts an answer of the model.
    fn start_answer(&mut self, client: u64, job: Result<api::Job, ApiError>, front: &mut Front) {
        let now_us = front.now_us();
        let started = job.and_then(|job| {
            let n_prompt = job.requests.iter().map(|request| request.tokens.len()).sum();
            let mut requests = Vec::with_capacity(job.requests.len());
            for request in job.requests {
                match self.scheduler.submit(request) {
                    Ok(id) => requests.push(id),
                    Err(error) => {
                        requests.into_iter().for_each(|id| self.scheduler.cancel(id));
                        return Err(error.into());
                    }
                }
            }
            Ok((job.answer, requests, n_prompt))
        });
        let Some((access, client)) = front.client(client) else { return };
        match started {
            Ok((answer, requests, n_prompt)) => client.start(answer, requests, n_prompt, now_us),
            Err(error) => {
                client.refuse(access, &error, now_us);
                client.connection.flush(now_us);
            }
        }
    }
}

/// What makes the answer to a request that is taken now different from others.
fn ids(now_us: u64) -> Ids {
    Ids {
        id: u128::from(os::entropy()) << 64 | u128::from(os::entropy()),
        seed: os::entropy(),
        created: os::date(),
        now_us,
    }
}
