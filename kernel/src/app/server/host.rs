//! The host of the models: one round of everything, and the loads of models meanwhile.
//!
//! One load runs at a time. Between two slices of the load, the host runs a round. A round polls the
//! front, takes its requests, and runs a pass of each loaded model.

#![forbid(unsafe_code)]

mod loads;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use core::ops::ControlFlow;

use spin::Mutex;

use super::api::ollama::{self, Call, Found};
use super::api::request::model;
use super::api::{ApiError, ErrorKind, JSON, METRICS, metrics, models};
use super::front::{Front, Job, MAX_CLIENTS};
use super::http::Response;
use super::models::Models;
use super::network::{Addresses, Announced};
use super::router::Route;
use super::service::Service;
use crate::app::error::Error;
use crate::app::os;
use crate::app::output::say;
use crate::app::thread_pool::ThreadPool;
use crate::llm::scheduler::Counters;
use crate::settings::Config;

/// The shortest slice of a load while requests run, in µs.
const LEAST_SLICE_US: u64 = 5_000;
/// The longest slice of a load while requests run, in µs: the delay of a token.
const MOST_SLICE_US: u64 = 50_000;

/// A request whose model is not loaded.
struct Waiting {
    /// The number of the model.
    number: usize,
    /// The request of a client; `None`: the load was all that was asked for.
    job: Option<Job>,
}

/// The models, their loads, and the loop's state.
pub struct Host<'a> {
    config: &'a Config,
    pool: &'static ThreadPool,
    front: &'a Mutex<Front>,
    models: Models,
    /// Requests whose model is not loaded, in the order of their arrival.
    waiting: VecDeque<Waiting>,
    /// The model that is being loaded.
    loading: Option<usize>,
    /// Whether the load waits until a model is idle, whose memory it needs.
    ///
    /// New requests for text wait meanwhile, so that the model becomes idle.
    needs_room: bool,
    /// Whether the present load is to be given up.
    gives_up: bool,
    /// The error that ended a round during a load.
    fault: Option<Error>,
    /// Number of loads so far.
    n_loads: u64,
    /// Memory that a load leaves, in bytes.
    reserve_bytes: u64,
    addresses: Addresses,
    /// Whether the addresses are announced.
    pub announces: bool,
    /// The time at which the server ends, after Ctrl-C.
    ends_us: Option<u64>,
    /// The date at which the server began: see [`os::date`].
    began: u64,
    /// The counters at the last answer to `GET /metrics`.
    last_reading: Counters,
}

impl<'a> Host<'a> {
    /// A host of `models`. Each load leaves `reserve_bytes` bytes of memory.
    pub fn new(
        config: &'a Config,
        pool: &'static ThreadPool,
        front: &'a Mutex<Front>,
        models: Models,
        reserve_bytes: u64,
    ) -> Self {
        Host {
            config,
            pool,
            front,
            models,
            waiting: VecDeque::with_capacity(MAX_CLIENTS),
            loading: None,
            needs_room: false,
            gives_up: false,
            fault: None,
            n_loads: 0,
            reserve_bytes,
            addresses: Addresses::new(config.port),
            announces: false,
            ends_us: None,
            began: os::date(),
            last_reading: Counters::default(),
        }
    }

    /// Number of models on the disk.
    pub fn n_models(&self) -> usize {
        self.models.n_all()
    }

    /// Polls the front, takes its requests, and runs a pass of each model.
    ///
    /// With `may_wait`, waits for the front if nothing is to be done. `Break`: the server ends.
    ///
    /// # Errors
    /// The engine has no scratch memory.
    pub fn round(&mut self, may_wait: bool) -> Result<ControlFlow<()>, Error> {
        let mutex = self.front;
        let mut front = mutex.lock();
        if self.is_over(&front) {
            return Ok(ControlFlow::Break(()));
        }
        // A pass or a load may have polled the front too.
        let is_busy = front.has_news() || !self.waiting.is_empty() || !self.models.is_idle();
        let is_idle = may_wait && !is_busy;
        let wait_us = if is_idle { self.addresses.wait_us() } else { Some(0) };
        let until_end = self.ends_us.map(|end: u64| end.saturating_sub(os::now_us()));
        front.poll(wait_us.into_iter().chain(until_end).min());
        if self.announces {
            let last = self.models.last();
            self.addresses.announce(|| Announced {
                model: last.map(|service| service.name().into()).unwrap_or_default(),
                models: self.models.names(),
                parallel: self.config.parallel,
                n_ctx: last.map_or(0, Service::n_ctx),
            });
        }
        for id in front.take_cancelled() {
            self.models.cancel(id);
        }
        while let Some(job) = front.next_job() {
            self.take(job, &mut front);
        }
        let is_waited_for = |waiting: &Waiting| match &waiting.job {
            Some(job) => front.has_client(job.client),
            None => self.ends_us.is_none(),
        };
        self.waiting.retain(is_waited_for);
        // Nothing is unloaded for a load that nobody waits for.
        let is_wanted = self.loading.is_none_or(|number| self.is_asked_for(number));
        self.gives_up |= self.needs_room && !is_wanted;
        if self.ends_us.is_none() && front.is_interrupted() {
            let timeout_s = self.config.shutdown_timeout;
            say!("Ctrl-C: no new requests; running ones have {timeout_s} s");
            front.close();
            let timeout_us = timeout_s.saturating_mul(1_000_000);
            self.ends_us = Some(os::now_us().saturating_add(timeout_us));
        }
        if self.is_over(&front) {
            return Ok(ControlFlow::Break(()));
        }
        drop(front);
        self.models.unload_ended();
        for service in self.models.loaded() {
            service.step(mutex)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A round between two steps of a load.
    ///
    /// # Errors
    /// [`Error::LoadGivenUp`].
    fn go_on(&mut self) -> Result<(), Error> {
        if self.between().is_break() { Err(Error::LoadGivenUp) } else { Ok(()) }
    }

    /// Whether the server ends: all clients have left after Ctrl-C, or their time is over.
    fn is_over(&self, front: &Front) -> bool {
        self.ends_us.is_some_and(|end| front.is_empty() || os::now_us() >= end)
    }

    /// A round between two slices of a load; gives the length of the next slice.
    fn between(&mut self) -> ControlFlow<(), Option<u64>> {
        let began_us = os::now_us();
        match self.round(false) {
            Ok(ControlFlow::Continue(())) if !self.gives_up => {
                // The load takes about half of the time.
                let took_us = os::now_us().saturating_sub(began_us);
                let length_us = took_us.clamp(LEAST_SLICE_US, MOST_SLICE_US);
                ControlFlow::Continue((!self.models.is_idle()).then_some(length_us))
            }
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                self.fault = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Answers a request, or starts its answer.
    fn take(&mut self, job: Job, front: &mut Front) {
        let result = match job.route {
            Route::Models => Ok(self.list()),
            Route::Metrics => Ok(self.metrics()),
            Route::Load => self.begin_load(&job),
            Route::Unload => self.begin_unload(&job, front),
            Route::Ollama(call) => {
                let list = self.models.list(|number| self.is_loading(number));
                match ollama::find(call, &job.request.body, &list, self.began, os::date()) {
                    Ok(Found::Model(number)) => return self.give(number, true, job, front),
                    Ok(Found::Text(kind, text)) => {
                        Ok(Response::new(200).with_body(kind, text.into_bytes()))
                    }
                    Err(error) => Err(error),
                }
            }
            route => {
                let name = match route.takes_body() {
                    // The name does not count, and the answer reports a malformed body.
                    true if self.models.n_all() == 1 => Ok(None),
                    true => model(&job.request.body),
                    false => Ok(job.request.query.get("model")),
                };
                let name = name.map(Option::unwrap_or_default);
                let chosen =
                    name.and_then(|name| Ok((self.models.choose(&name)?, !name.is_empty())));
                match chosen {
                    Ok((number, is_named)) => return self.give(number, is_named, job, front),
                    Err(error) => Err(error),
                }
            }
        };
        front.answer(job.client, result);
    }

    /// Gives a request to its model, or lets the request wait for the model's load.
    ///
    /// `is_named`: the request names the model.
    fn give(&mut self, number: usize, is_named: bool, job: Job, front: &mut Front) {
        let is_for_text = match job.route {
            Route::Generate(_) => true,
            Route::Ollama(call) => matches!(call, Call::Chat | Call::Generate),
            _ => false,
        };
        let needs_room = self.needs_room;
        let ready = match is_for_text {
            true => self.models.use_now(number),
            false => self.models.service_mut(number),
        };
        match ready {
            Some(service) if !(is_for_text && (needs_room || service.is_ending)) => {
                return service.take(job, front);
            }
            // A look at the server alone loads nothing.
            None if !job.route.takes_body() && !is_named => {
                let text = match job.route {
                    Route::Slots => "[]".into(),
                    _ => models::no_props(self.models.n_all()),
                };
                return front.answer(job.client, Ok(json(text)));
            }
            None if matches!(job.request.query.get("autoload").as_deref(), Some("false" | "0")) => {
                return front.answer(job.client, Err(ApiError::invalid("model is not loaded")));
            }
            _ => {}
        }
        if front.park(job.client) {
            self.waiting.push_back(Waiting { number, job: Some(job) });
        }
    }

    /// Answers `GET /v1/models`.
    fn list(&self) -> Response {
        let list = self.models.list(|number| self.is_loading(number));
        json(models::models(&list, self.began))
    }

    /// Whether a model is being loaded, or is about to be.
    fn is_loading(&self, number: usize) -> bool {
        self.loading == Some(number) || self.is_asked_for(number)
    }

    /// Whether a request waits for the load of a model.
    fn is_asked_for(&self, number: usize) -> bool {
        self.waiting.iter().any(|waiting| waiting.number == number)
    }

    /// Answers `GET /metrics`. The rates are those since the last reading.
    fn metrics(&mut self) -> Response {
        let total = self.models.counters();
        let (n_running, n_in_queues) = self.models.n_requests();
        let text = metrics::metrics(&metrics::Metrics {
            total: &total,
            window: &total.since(&self.last_reading),
            n_running,
            n_waiting: n_in_queues + self.waiting.len(),
            resident_bytes: os::memory_in_use(),
        });
        self.last_reading = total;
        Response::new(200)
            .header("Process-Start-Time-Unix", &self.began.to_string())
            .with_body(METRICS, text.into_bytes())
    }

    /// Answers `POST /models/load`.
    fn begin_load(&mut self, job: &Job) -> Result<Response, ApiError> {
        let number = self.models.find(&model(&job.request.body)?.unwrap_or_default())?;
        if self.models.service(number).is_some() || self.is_loading(number) {
            return Err(ApiError::invalid("model is already running"));
        }
        self.waiting.push_back(Waiting { number, job: None });
        Ok(json(models::success().into()))
    }

    /// Answers `POST /models/unload`. A model that answers requests ends behind them.
    fn begin_unload(&mut self, job: &Job, front: &mut Front) -> Result<Response, ApiError> {
        let name = model(&job.request.body)?.unwrap_or_default();
        // As from llama-server's router, the status differs from that of a load.
        let number = self.models.find(&name).map_err(|error| error.with_status(400))?;
        if let Some(service) = self.models.service_mut(number) {
            service.is_ending = true;
        } else if self.is_loading(number) {
            self.gives_up |= self.loading == Some(number);
            let error = ApiError::new(ErrorKind::Unavailable, "the model was unloaded");
            self.refuse_waiting(number, &error, front);
        } else {
            return Err(ApiError::invalid("model is not running"));
        }
        Ok(json(models::success().into()))
    }

    /// Refuses all requests that wait for a model.
    fn refuse_waiting(&mut self, number: usize, error: &ApiError, front: &mut Front) {
        self.waiting.retain_mut(|waiting| {
            let is_for_it = waiting.number == number;
            if let Some(job) = waiting.job.take_if(|_| is_for_it) {
                front.answer(job.client, Err(error.clone()));
            }
            !is_for_it
        });
    }
}

/// An answer in JSON.
fn json(text: String) -> Response {
    Response::new(200).with_body(JSON, text.into_bytes())
}
