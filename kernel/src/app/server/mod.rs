//! The HTTP server of the application.

pub mod page;
