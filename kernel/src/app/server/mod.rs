//! The server: `mode = "serve"`.

pub mod api;
