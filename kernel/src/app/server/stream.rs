//! A TCP connection as a stream of HTTP.

#![forbid(unsafe_code)]

use super::http::{Stream, StreamError};
use crate::app::os::{Errno, Socket};

impl Stream for Socket {
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        Socket::recv(self, buffer).map_err(error)
    }

    fn send(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        Socket::send(self, data).map_err(error)
    }

    fn shutdown(&mut self) {
        // A connection that cannot be shut down is over.
        let _ = self.shutdown_write();
    }
}

fn error(errno: Errno) -> StreamError {
    if errno.would_block() { StreamError::WouldBlock } else { StreamError::Gone }
}
