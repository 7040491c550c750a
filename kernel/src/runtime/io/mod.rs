//! Text to the consoles and from them.

pub mod line;

#[cfg(target_os = "none")]
pub mod input;
#[cfg(target_os = "none")]
pub mod logger;
#[cfg(target_os = "none")]
pub mod output;
#[cfg(target_os = "none")]
pub mod sign_of_life;
