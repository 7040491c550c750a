//! Requests for answers, with what writes the answers.

use alloc::vec::Vec;

use super::answer::Answer;
use super::answer::settings::Settings;
use super::error::ApiError;
use super::request::{self, Endpoint, Parsed};
use super::{Ids, Served};
use crate::llm::scheduler::Request;

/// A request for one or several answers.
#[derive(Debug)]
pub struct Job {
    /// A request for each answer. Its place is the number of the answer ([`Answer::on_update`]).
    pub requests: Vec<Request>,
    /// Writes the answers.
    pub answer: Answer,
}

/// Reads the body of a request for answers.
///
/// # Errors
/// [`ApiError`]: the request is malformed, or asks for what is not supported.
pub fn generate(
    endpoint: Endpoint,
    body: &[u8],
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Job, ApiError> {
    of(endpoint, request::read(endpoint, body, served, ids)?, served, ids)
}

/// The job of a request that was read.
///
/// # Errors
/// There is no prompt.
pub fn of(
    endpoint: Endpoint,
    parsed: Parsed,
    served: &Served<'_>,
    ids: &Ids,
) -> Result<Job, ApiError> {
    let Parsed { options, requests, prompts, breakers, grammar, call_form } = parsed;
    let [first, ..] = &requests[..] else { return Err(ApiError::invalid("no prompt")) };
    let settings = Settings::new(served, first, breakers, grammar, &options);
    let mut answer = Answer::new(endpoint, options, settings, call_form, served, ids);
    for (request, prompt) in requests.iter().zip(prompts) {
        answer.expect(request, prompt);
    }
    Ok(Job { requests, answer })
}
