//! The server: `mode = "serve"`.

pub mod http;
