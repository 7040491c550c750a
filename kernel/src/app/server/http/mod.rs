//! HTTP/1.1 as pure code: bytes in, requests out; responses in, bytes out.
//!
//! [`Connection`] serves one client over any [`Stream`]. Nothing here waits, reads a clock or knows
//! a socket: the caller polls a connection when its stream is ready or its deadline has come.
//!
//! | module | contents |
//! |---|---|
//! | [`connection`] | the state machine of one client: requests, responses, timeouts, closing |
//! | [`limits`] | limits of bytes, headers and times |
//! | [`head`] | request line and headers: limits, syntax (by `httparse`), framing of the body |
//! | [`method`] | request methods |
//! | [`target`] | request targets: path and query, percent-decoded |
//! | [`headers`] | the headers of a request, found without regard to case |
//! | [`body`] | bodies by `Content-Length` and by chunks |
//! | `exchange` | what a request means to its response |
//! | [`response`] | status line and headers of a response |
//! | [`output`] | bytes on their way to the client |
//! | [`sse`] | framing of server-sent events |
//! | [`refusal`] | reasons to refuse a request, with their status codes |
//! | [`lines`] | the line discipline that heads, chunks and trailers share |
//! | [`stream`] | the byte stream below a connection |
//!
//! The rules are those of RFC 9110 and RFC 9112. Where the RFCs let a server be lenient, this
//! server is strict. A lenient proxy and a lenient server can be made to disagree about where a
//! request ends (request smuggling). So a line ends with CR LF and nothing else. A second
//! `Content-Length`, or one beside `Transfer-Encoding`, is refused. A refused request ends its
//! connection.
//!
//! The outcome depends on the bytes of a request alone, not on how the network splits them.
//!
//! **Pipelining.** A client may send its next request before the answer to the present one. Such a
//! request is dropped unread: the answer to the present one says `Connection: close`, and the
//! connection closes behind that answer. RFC 9112 (9.3.2) makes clients send it again on another
//! connection. A request that arrives once the answer is complete is served as usual.

pub mod body;
pub mod connection;
mod exchange;
pub mod head;
pub mod headers;
pub mod limits;
pub mod lines;
pub mod method;
pub mod output;
pub mod refusal;
pub mod response;
pub mod sse;
pub mod stream;
pub mod target;

#[cfg(test)]
mod tests;

pub use connection::{Connection, Poll, WriteError};
pub use head::Request;
pub use headers::Headers;
pub use limits::Limits;
pub use method::Method;
pub use refusal::Refusal;
pub use response::Response;
pub use stream::{Stream, StreamError};
pub use target::Query;
