//! The Hermit ABI: what the application calls, converted to the types of the layers below.

pub mod lent;

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod hermit;
