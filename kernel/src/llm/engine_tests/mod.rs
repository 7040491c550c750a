//! Tests of the forward pass against a naive one.

mod forward;
mod naive;
mod rows;
pub mod synthetic;
