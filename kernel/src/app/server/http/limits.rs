//! Limits of a connection: bytes, headers and times.

#![forbid(unsafe_code)]

/// Number of headers of the longest head.
pub const MAX_HEADERS: usize = 100;

/// Limits of a connection: bytes, and times in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head; of chunk extensions and trailers together as well.
    pub head_bytes: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of a streamed response that wait for the client.
    pub output_bytes: usize,
    /// Time for a head, from its first byte on; for the first byte of a connection as well.
    pub head_us: u64,
    /// Time for a body, from its head on.
    pub body_us: u64,
    /// Time between a response and the next request.
    pub idle_us: u64,
    /// Time in which the client must take a byte of what is to be sent.
    pub stall_us: u64,
    /// Time in which the client must take all of a complete response.
    pub send_us: u64,
    /// Time for which a closing connection reads on.
    pub linger_us: u64,
}

impl Limits {
    /// The limits of a server without settings.
    pub const DEFAULT: Limits = Limits {
        head_bytes: 32 << 10,
        target_bytes: 8 << 10,
        body_bytes: 8 << 20,
        output_bytes: 64 << 10,
        head_us: 20_000_000,
        body_us: 120_000_000,
        idle_us: 75_000_000,
        stall_us: 30_000_000,
        send_us: 60_000_000,
        linger_us: 2_000_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}
