//! The application: a Hermit program that loads the model and generates, chats, measures or tests.
//!
//! It reaches the machine through the Hermit ABI alone (module `os`), and says what it does through
//! the events of [`crate::report`].

pub mod config;
