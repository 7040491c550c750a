//! Bodies: by `Content-Length`, and by chunks (RFC 9112, 7.1).

#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::head::Framing;
use super::limits::Limits;
use super::lines::{Line, Step, is_blank};
use super::refusal::Refusal;

/// Hexadecimal digits of the longest size of a chunk.
const MAX_SIZE_DIGITS: usize = 16;

/// The decoder of one body.
///
/// Chunk extensions are skipped; trailers are read and dropped.
#[derive(Debug)]
pub struct Decoder {
    place: Place,
    line: Line,
    /// Bytes that chunk extensions and trailers may still take.
    overhead_left: usize,
    body_bytes: usize,
}

/// Place of the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a body with so many bytes to come.
    Body(usize),
    /// In the size of a chunk.
    Size { size: usize, digits: usize },
    /// Between the size of a chunk and its extensions.
    Blank { size: usize },
    /// In the extensions of a chunk.
    Extension { size: usize },
    /// In a chunk with so many bytes to come.
    Chunk(usize),
    /// In the end of line behind a chunk.
    ChunkEnd,
    /// Behind the last chunk, in a line with so many bytes before.
    Trailer(usize),
    /// Behind the body.
    Done,
}

impl Decoder {
    /// A decoder at the start of a body.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let place = match framing {
            Framing::Length(0) => Place::Done,
            Framing::Length(length) => Place::Body(length),
            Framing::Chunked => Place::Size { size: 0, digits: 0 },
        };
        let (overhead_left, body_bytes) = (limits.head_bytes, limits.body_bytes);
        Decoder { place, line: Line::default(), overhead_left, body_bytes }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Appends what `input` has of the body to `body`; returns the bytes used of `input`.
    ///
    /// All bytes are used, except those behind the body.
    pub fn push(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut rest = input;
        while let [byte, tail @ ..] = rest {
            self.place = match self.place {
                Place::Body(left) => match take(&mut rest, left, body)? {
                    0 => Place::Done,
                    left => Place::Body(left),
                },
                Place::Chunk(left) => match take(&mut rest, left, body)? {
                    0 => Place::ChunkEnd,
                    left => Place::Chunk(left),
                },
                Place::Done => break,
                in_line => {
                    rest = tail;
                    let step = self.line.push(*byte)?;
                    self.next(in_line, step, body.len())?
                }
            };
        }
        Ok(input.len() - rest.len())
    }

    /// The place behind one step of a line; `n` is the number of bytes of the body so far.
    fn next(&mut self, place: Place, step: Step, n: usize) -> Result<Place, Refusal> {
        Ok(match (place, step) {
            (Place::Size { size, digits }, Step::Text(byte)) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(Refusal::Chunk);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                Place::Size { size: size.saturating_mul(16) | digit, digits: digits + 1 }
            }
            (Place::Size { digits: 0, .. }, _) => return Err(Refusal::Chunk),
            (Place::Size { size, .. } | Place::Blank { size }, Step::Text(b';')) => {
                self.take_overhead()?;
                Place::Extension { size }
            }
            (Place::Size { size, .. } | Place::Blank { size }, Step::Text(byte))
                if is_blank(byte) =>
            {
                self.take_overhead()?;
                Place::Blank { size }
            }
            (Place::Extension { .. }, Step::Text(_)) => {
                self.take_overhead()?;
                place
            }
            // Blanks belong before extensions alone.
            (Place::Size { .. } | Place::Extension { .. }, Step::Cr) => place,
            (Place::Size { size, .. } | Place::Extension { size }, Step::End) => match size {
                0 => Place::Trailer(0),
                // `n` never exceeds the limit.
                _ if size > self.body_bytes - n => return Err(Refusal::BodyTooLarge),
                _ => Place::Chunk(size),
            },
            (Place::ChunkEnd, Step::Cr) => place,
            (Place::ChunkEnd, Step::End) => Place::Size { size: 0, digits: 0 },
            (Place::Trailer(0), Step::Text(byte)) if is_blank(byte) => {
                return Err(Refusal::FoldedLine);
            }
            (Place::Trailer(n), Step::Text(_)) => {
                self.take_overhead()?;
                Place::Trailer(n + 1)
            }
            (Place::Trailer(_), Step::Cr) => place,
            (Place::Trailer(0), Step::End) => Place::Done,
            (Place::Trailer(_), Step::End) => Place::Trailer(0),
            _ => return Err(Refusal::Chunk),
        })
    }

    fn take_overhead(&mut self) -> Result<(), Refusal> {
        self.overhead_left = self.overhead_left.checked_sub(1).ok_or(Refusal::TrailersTooLarge)?;
        Ok(())
    }
}

/// Moves up to `left` bytes of `input` to `body`; returns how many are still to come.
///
/// Memory grows with the bytes that arrive, never with the length that a client promises.
fn take(input: &mut &[u8], left: usize, body: &mut Vec<u8>) -> Result<usize, Refusal> {
    let (now, rest) = input.split_at(left.min(input.len()));
    body.try_reserve(now.len()).map_err(|_| Refusal::OutOfMemory)?;
    body.extend_from_slice(now);
    *input = rest;
    Ok(left - now.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const LIMITS: Limits = Limits { head_bytes: 20, body_bytes: 1000, ..Limits::DEFAULT };

    /// The body and the bytes used.
    fn decode(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, usize), Refusal> {
        let whole = decode_in(framing, input, input.len().max(1));
        for n in [1, 2, 3, 7] {
            assert_eq!(decode_in(framing, input, n), whole, "in pieces of {n}");
        }
        whole
    }

    fn decode_in(framing: Framing, input: &[u8], n: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut body, mut used) = (Vec::new(), 0);
        let mut decoder = Decoder::new(framing, &LIMITS);
        for piece in input.chunks(n) {
            let n = decoder.push(piece, &mut body)?;
            used += n;
            if n < piece.len() {
                assert!(decoder.is_done());
                break;
            }
        }
        match decoder.is_done() {
            true => Ok((body, used)),
            // A body that is not over differs from all that are.
            false => Ok((body, usize::MAX)),
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let chunked = |input: &[u8]| decode(Framing::Chunked, input);
        assert_eq!(decode(Framing::Length(0), b"more"), Ok((vec![], 0)));
        assert_eq!(decode(Framing::Length(3), b"bodymore"), Ok((b"bod".to_vec(), 3)));
        assert_eq!(decode(Framing::Length(5), b"body"), Ok((b"body".to_vec(), usize::MAX)));
        assert_eq!(chunked(b"0\r\n\r\nmore"), Ok((vec![], 5)));
        assert_eq!(chunked(b"3\r\na\r\n\r\n1\r\nb\r\n00\r\n\r\n"), Ok((b"a\r\nb".to_vec(), 20)));
        assert_eq!(chunked(b"00a;x=\"y\"\r\n0123456789\r\n0 \t;z\r\nA: b\r\n\r\n").unwrap().1, 38);
        assert_eq!(chunked(b"0\r\na: b\r\n").unwrap().1, usize::MAX, "the empty line is missing");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b";x\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1 1\r\n",
            b"00000000000000001\r\n",
            b"1\r\nab",
            b"1\r\na0\r\n\r\n",
        ] {
            assert_eq!(decode(Framing::Chunked, input), Err(Refusal::Chunk), "{input:?}");
        }
        for input in [
            &b"1\na"[..],
            b"1\r\na\n0\r\n\r\n",
            b"2\r\na\r\n0\r\n\r\n",
            b"1\r\na\r0\r\n\r\n",
            b"1;x\ny\r\n",
            b"1;x\ry\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\n",
            b"1\0\r\n",
        ] {
            let refused = decode(Framing::Chunked, input).unwrap_err();
            assert!(matches!(refused, Refusal::ControlCharacter), "{input:?}: {refused:?}");
        }
        let folded = decode(Framing::Chunked, b"0\r\nA: b\r\n c\r\n\r\n");
        assert_eq!(folded, Err(Refusal::FoldedLine));
    }

    #[test]
    fn sizes_are_bounded() {
        let chunked = |input: &str| decode(Framing::Chunked, input.as_bytes());
        let full = std::format!("3e7\r\n{}\r\n", "x".repeat(999));
        assert_eq!(chunked(&std::format!("{full}1\r\ny\r\n0\r\n\r\n")).unwrap().0.len(), 1000);
        assert_eq!(chunked(&std::format!("{full}2\r\n")), Err(Refusal::BodyTooLarge));
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(Refusal::BodyTooLarge));
        // Extensions of all chunks and trailers together.
        let chunk = std::format!("1;{}\r\nx\r\n", "y".repeat(9));
        assert!(chunked(&std::format!("{chunk}{chunk}0\r\n\r\n")).is_ok());
        for more in ["0;\r\n", "0 ", "0\r\nA"] {
            let refused = chunked(&std::format!("{chunk}{chunk}{more}"));
            assert_eq!(refused, Err(Refusal::TrailersTooLarge), "{more:?}");
        }
    }
}
