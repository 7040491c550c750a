//! Bytes on their way to the client.

#![forbid(unsafe_code)]

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::stream::{Stream, StreamError};

/// A queue of bytes, and a body behind them that is not copied.
#[derive(Debug, Default)]
pub struct Output {
    queue: Vec<u8>,
    /// Bytes of the queue that are sent.
    queue_sent: usize,
    body: Cow<'static, [u8]>,
    /// Bytes of the body that are sent.
    body_sent: usize,
}

impl Output {
    /// Bytes that are still to be sent.
    pub fn pending(&self) -> usize {
        self.queue.len() - self.queue_sent + self.body.len() - self.body_sent
    }

    /// Bytes of memory for the queue and the body.
    pub fn buffered_bytes(&self) -> usize {
        self.queue.capacity() + self.body.len()
    }

    /// The end of the queue, for bytes to be appended. No body may be behind it.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.body.is_empty(), "a body ends an answer");
        // The sent half goes first, so that each byte moves once at most on average.
        if self.queue_sent > self.queue.len() / 2 {
            self.queue.drain(..self.queue_sent);
            self.queue_sent = 0;
        }
        &mut self.queue
    }

    /// Puts a body behind the queue.
    pub fn set_body(&mut self, body: Cow<'static, [u8]>) {
        debug_assert!(self.body.is_empty(), "a body ends an answer");
        self.body = body;
    }

    /// Sends what the stream takes; returns whether it took any byte.
    ///
    /// The only error is [`StreamError::Gone`]. Memory is given back once all is sent.
    pub fn send(&mut self, stream: &mut impl Stream) -> Result<bool, StreamError> {
        let before = self.pending();
        while self.pending() > 0 {
            let (from, sent) = match self.queue.len() - self.queue_sent {
                0 => (&*self.body, &mut self.body_sent),
                _ => (&*self.queue, &mut self.queue_sent),
            };
            match stream.send(&from[*sent..]) {
                Ok(0) | Err(StreamError::WouldBlock) => return Ok(self.pending() < before),
                Ok(n) => *sent = from.len().min(*sent + n),
                Err(StreamError::Gone) => return Err(StreamError::Gone),
            }
        }
        *self = Output::default();
        Ok(before > 0)
    }
}
