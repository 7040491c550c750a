//! The byte stream below a connection.

#![forbid(unsafe_code)]

/// A byte stream in both directions that never waits, such as a TCP socket.
pub trait Stream {
    /// Reads into `buffer` and returns the number of bytes; 0: the peer sends no more.
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError>;

    /// Takes the start of `data` and returns the number of bytes taken.
    fn send(&mut self, data: &[u8]) -> Result<usize, StreamError>;

    /// Tells the peer that nothing more is sent; what was sent still arrives.
    fn shutdown(&mut self);
}

/// Reason why a stream moved no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// No byte has arrived, or no byte can be taken, at present.
    WouldBlock,
    /// The connection was reset, or has failed for good.
    Gone,
}
