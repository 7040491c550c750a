//! What a request means to its response.

#![forbid(unsafe_code)]

use super::head::Head;
use super::method::Method;
use super::response::Announce;

/// What a request means to its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Whether the client speaks HTTP/1.0.
    pub is_http_1_0: bool,
    /// Whether the method is `HEAD`: the response has no body.
    pub is_head: bool,
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

impl Exchange {
    /// Of a request that could not be read: these bytes of it have arrived.
    pub fn of_unread(input: &[u8]) -> Self {
        let line = input.strip_prefix(b"\r\n").unwrap_or(input);
        Exchange { is_http_1_0: false, is_head: line.starts_with(b"HEAD "), keep_alive: false }
    }

    /// Of a request with this head.
    pub fn of(head: &Head) -> Self {
        Exchange {
            is_http_1_0: head.is_http_1_0,
            is_head: head.request.method == Method::Head,
            keep_alive: head.keep_alive,
        }
    }

    /// What the response says about the connection.
    pub fn announce(self) -> Announce {
        match (self.keep_alive, self.is_http_1_0) {
            (false, _) => Announce::Close,
            (true, true) => Announce::KeepAlive,
            (true, false) => Announce::Nothing,
        }
    }
}
