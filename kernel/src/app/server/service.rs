//! The engine's side of the server: the model, and the requests that need it.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::api::ollama::Reply;
use super::api::request::tokens;
use super::api::{
    self, ApiError, Defaults, Ids, JSON, METRICS, SamplingDefaults, Served, metrics, models, ollama,
};
use super::front::{Front, Job};
use super::http::{Request, Response};
use super::router::Route;
use crate::app::chat;
use crate::app::error::Error;
use crate::app::load::Loaded;
use crate::app::model::{load_model, report_model};
use crate::app::os;
use crate::app::output::say;
use crate::app::sha256::Digest;
use crate::app::thread_pool::ThreadPool;
use crate::llm;
use crate::llm::chat::Template;
use crate::llm::engine::Engine;
use crate::llm::plan::{ContextOptions, WorkspaceOptions};
use crate::llm::scheduler::{Counters, RequestId, Scheduler, SchedulerOptions};
use crate::llm::workspace::Workspace;
use crate::settings::Config;

/// Positions of the context if none are configured, where model and memory have so many.
const DEFAULT_N_CTX: usize = 4096;
/// The smallest context that a server without a configured one falls back to.
const LEAST_N_CTX: usize = 256;
/// Memory that the KV cache leaves for sockets, requests and answers, in bytes.
const RESERVE_BYTES: u64 = 32 << 20;
/// Requests that wait for a slot, at most.
const QUEUE: usize = 64;

/// The model, its scheduler, and what requests need to know.
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
    /// The date at which the server began: see [`os::date`].
    began: u64,
    /// The counters at the last answer to `GET /metrics`.
    last_reading: Counters,
}

impl Service {
    /// Loads the model at a path of the disk, and calls `meanwhile` now and then.
    ///
    /// # Errors
    /// The model cannot be loaded, or the memory does not suffice.
    pub fn start(
        path: &str,
        config: &Config,
        pool: &'static ThreadPool,
        meanwhile: &(dyn Fn() + Sync),
    ) -> Result<Self, Error> {
        let Loaded { plan, weights, figures } = load_model(path, config, pool, meanwhile)?;
        let engine = Arc::new(Engine::new(plan, [weights], pool)?);
        let workspace = workspace(&engine, config, pool)?;
        report_model(&figures, &workspace);
        let n_ctx = workspace.state_shape().n_ctx;
        let options =
            SchedulerOptions { parallel: config.parallel, queue: QUEUE, now_us: os::now_us };
        let scheduler = Scheduler::try_new(workspace, options)?;
        let (template, line) = chat::template(config, &engine.metadata().chat);
        say!("{line}");
        let file = path.rsplit('/').next().unwrap_or(path);
        let sampling = SamplingDefaults {
            config: config.sampling(|| 0),
            mirostat: config.mirostat,
            breakers: config.dry_breakers.clone(),
            seed: config.seed,
        };
        Ok(Service {
            scheduler,
            engine,
            name: file.strip_suffix(".gguf").unwrap_or(file).to_owned(),
            path: path.to_owned(),
            bytes: figures.bytes,
            digest: figures.sha256,
            template,
            defaults: Defaults { sampling, max_tokens: usize::MAX },
            n_ctx,
            parallel: config.parallel,
            began: os::date(),
            last_reading: Counters::default(),
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

    /// Requests that run at once.
    pub fn parallel(&self) -> usize {
        self.parallel
    }

    /// Whether no request runs or waits.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Ends a request.
    pub fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    fn served(&self) -> Served<'_> {
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
        let ids = ids();
        let result = match route {
            Route::Generate(endpoint) => {
                let job = api::generate(endpoint, &request.body, &self.served(), &ids);
                return self.start_answer(client, job, front);
            }
            Route::Ollama(call) => {
                match ollama::reply(call, &request.body, &self.served(), self.began, &ids) {
                    Ok(Reply::Job(job)) => return self.start_answer(client, Ok(*job), front),
                    Ok(Reply::Text(content_type, text)) => {
                        Ok(Response::new(200).with_body(content_type, text.into_bytes()))
                    }
                    Err(error) => Err(error),
                }
            }
            route => self.answer(route, &request),
        };
        let Some((access, client)) = front.client(client) else { return };
        match result {
            Ok(response) => client.respond(access, response, os::now_us()),
            Err(error) => client.refuse(access, &error, os::now_us()),
        }
        client.connection.flush(os::now_us());
    }

    /// Answers what the state of the server or the tokenizer alone answers.
    fn answer(&mut self, route: Route, request: &Request) -> Result<Response, ApiError> {
        if route == Route::Metrics {
            return Ok(self.metrics());
        }
        let (served, body) = (self.served(), &request.body[..]);
        let text = match route {
            Route::Models => models::models(&served, self.began),
            Route::Props => models::props(&served),
            Route::Slots => models::slots(&served, self.scheduler.slots()),
            Route::Tokenize => tokens::tokenize(body, &served)?,
            Route::Detokenize => tokens::detokenize(body, &served)?,
            Route::ApplyTemplate => tokens::apply_template(body, &served)?,
            Route::CountTokens => tokens::count_tokens(body, &served)?,
            Route::Page
            | Route::Health
            | Route::Metrics
            | Route::Generate(_)
            | Route::Ollama(_) => {
                return Err(ApiError::not_found());
            }
        };
        Ok(Response::new(200).with_body(JSON, text.into_bytes()))
    }

    /// Answers `GET /metrics`. The rates are those since the last reading.
    fn metrics(&mut self) -> Response {
        let total = self.scheduler.counters();
        let text = metrics::metrics(&metrics::Metrics {
            total,
            window: &total.since(&self.last_reading),
            n_running: self.scheduler.n_running(),
            n_waiting: self.scheduler.n_waiting(),
            resident_bytes: os::memory_in_use(),
        });
        self.last_reading = *total;
        Response::new(200)
            .header("Process-Start-Time-Unix", &self.began.to_string())
            .with_body(METRICS, text.into_bytes())
    }

    /// Starts an answer of the model.
    fn start_answer(&mut self, client: u64, job: Result<api::Job, ApiError>, front: &mut Front) {
        let now_us = os::now_us();
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
fn ids() -> Ids {
    Ids {
        id: u128::from(os::entropy()) << 64 | u128::from(os::entropy()),
        seed: os::entropy(),
        created: os::date(),
        now_us: os::now_us(),
    }
}

/// The workspace for the configured context, or for the largest one that there is memory for.
fn workspace(
    engine: &Arc<Engine>,
    config: &Config,
    pool: &'static ThreadPool,
) -> Result<Workspace, llm::Error> {
    let mut n_ctx = config.context.unwrap_or(DEFAULT_N_CTX.min(engine.metadata().n_ctx_train));
    loop {
        let context = ContextOptions { n_ctx: Some(n_ctx), ..config.context_options() };
        let options = WorkspaceOptions {
            shares_prefixes: true,
            ..WorkspaceOptions::new(context, config.parallel)
        };
        let made = Workspace::with_options(engine.clone(), options, pool);
        let fits = match &made {
            Ok(_) => os::memory_available() >= RESERVE_BYTES,
            Err(error) => !matches!(error, llm::Error::OutOfMemory { .. }),
        };
        if fits || config.context.is_some() || n_ctx <= LEAST_N_CTX {
            return made;
        }
        n_ctx = (n_ctx / 2).max(LEAST_N_CTX);
    }
}
