//! Tests of the whole engine: the forward pass against a naive one, and the backend.

mod backend;
mod forward;
mod naive;
pub mod synthetic;
