//! Request methods.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::string::String;

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Another method; methods differ by case.
    Other(String),
}

impl Method {
    /// The method with this name.
    pub fn new(name: &str) -> Self {
        let known = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Patch,
            Method::Delete,
            Method::Options,
        ];
        let found = known.into_iter().find(|method| method.as_str() == name);
        found.unwrap_or_else(|| Method::Other(name.to_owned()))
    }

    /// The name of the method.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other(name) => name,
        }
    }

    /// Whether a request with this method must have a body, although an empty one.
    pub fn needs_body(&self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}
