//! Decodes any bytes as a body, and bodies in chunks of any size.
#![no_main]

use fuzz::limits::Limits;
use httparse::Status;
use kernel::app::server::http::body::Decoder;
use kernel::app::server::http::head::Framing;
use kernel::app::server::http::{Limits as HttpLimits, Refusal};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Lengths of the pieces that arrive, and of the chunks of a body, taken in turn.
    lengths: [u8; 3],
    /// The length of the body; 0: the body comes in chunks.
    length: u8,
    bytes: &'a [u8],
}

const LIMITS: Limits = Limits { memory: (32, 16 << 10), ns_per_byte: 10_000 };

/// Limits that inputs of the fuzzer reach.
const HTTP_LIMITS: HttpLimits =
    HttpLimits { head_bytes: 200, body_bytes: 1000, ..HttpLimits::DEFAULT };

/// A body, and the bytes used; `None`: there must be more.
type Decoded = Result<Option<(Vec<u8>, usize)>, Refusal>;

fuzz_target!(|input: Input| {
    LIMITS.hold(input.bytes.len(), || {
        let framing = match usize::from(input.length) {
            0 => Framing::Chunked,
            length => Framing::Length(length),
        };
        let whole = decode(framing, &HTTP_LIMITS, [input.bytes].into_iter());
        let pieces = || split(input.bytes, input.lengths);
        assert_eq!(decode(framing, &HTTP_LIMITS, pieces()), whole, "pieces matter");
        match (framing, whole) {
            (Framing::Chunked, Ok(Some(decoded))) => check_chunks(input.bytes, &decoded),
            (Framing::Length(length), decoded) => {
                let expected = input.bytes.get(..length).map(|body| (body.to_vec(), length));
                assert_eq!(decoded, Ok(expected));
            }
            _ => {}
        }
        round_trip(input.bytes, pieces());
    });
});

fn split(bytes: &[u8], lengths: [u8; 3]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut lengths = lengths.into_iter().cycle();
    std::iter::from_fn(move || {
        let n = lengths.next().map_or(1, usize::from).clamp(1, rest.len().max(1));
        let (piece, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(piece)
    })
}

fn decode<'a>(
    framing: Framing,
    limits: &HttpLimits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Decoded {
    let (mut body, mut used) = (Vec::new(), 0);
    let mut decoder = Decoder::new(framing, limits);
    for piece in pieces {
        let n = decoder.push(piece, &mut body)?;
        used += n;
        assert!(n == piece.len() || decoder.is_done());
        assert!(body.len() <= limits.body_bytes);
    }
    Ok(decoder.is_done().then_some((body, used)))
}

/// A lenient parser finds the same chunks in a body that the strict one accepts.
fn check_chunks(bytes: &[u8], (body, used): &(Vec<u8>, usize)) {
    let (mut rest, mut expected) = (bytes, Vec::new());
    loop {
        let Ok(Status::Complete((n, size))) = httparse::parse_chunk_size(rest) else {
            panic!("no chunk at {}", bytes.len() - rest.len());
        };
        rest = &rest[n..];
        if size == 0 {
            break;
        }
        let (chunk, tail) = rest.split_at(size as usize);
        expected.extend_from_slice(chunk);
        rest = tail.strip_prefix(b"\r\n").expect("the end of a chunk");
    }
    assert_eq!(*body, expected);
    let trailers = &bytes[bytes.len() - rest.len()..*used];
    assert!(trailers == b"\r\n" || trailers.ends_with(b"\r\n\r\n"), "{trailers:?}");
    assert_eq!(trailers.windows(4).filter(|end| *end == b"\r\n\r\n").count(), {
        usize::from(trailers.len() > 2)
    });
}

/// Bytes that are sent in chunks come back.
fn round_trip<'a>(bytes: &[u8], chunks: impl Iterator<Item = &'a [u8]>) {
    let mut sent = Vec::new();
    for chunk in chunks {
        sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        sent.extend_from_slice(chunk);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\n\r\n");
    let decoded = decode(Framing::Chunked, &HttpLimits::DEFAULT, [&sent[..]].into_iter());
    assert_eq!(decoded, Ok(Some((bytes.to_vec(), sent.len()))));
}
