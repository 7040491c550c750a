//! What the harness makes of any bytes on the serial line, in chunks of any size.
#![no_main]

use fuzz::limits::Limits;
use kernel::report::{Code, Event, Fault, RECORD_SEPARATOR, printable, write_fault};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serial::{Decoder, Item};

// The harness is a command, so its parser is built in here.
#[path = "../../qemu/src/serial.rs"]
mod serial;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Lengths of the chunks, taken in turn.
    chunks: [u8; 3],
    line: &'a [u8],
}

/// A value of JSON takes some tens of bytes for two of the line.
const LIMITS: Limits = Limits { memory: (512, 64 << 10), ns_per_byte: 20_000 };

fuzz_target!(|input: Input| {
    LIMITS.hold(input.line.len(), || {
        let whole = decode([input.line].into_iter());
        let mut rest = input.line;
        let mut lengths = input.chunks.into_iter().cycle();
        let chunks = std::iter::from_fn(|| {
            let n = lengths.next().map_or(1, usize::from).clamp(1, rest.len().max(1));
            let (chunk, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(chunk)
        });
        assert_eq!(decode(chunks), whole, "it depends on the chunks");
        whole.iter().for_each(check);
        check_fault(&String::from_utf8_lossy(input.line));
    });
});

/// What comes out, neighbouring texts joined.
fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Item> {
    let mut pieces: Vec<Item> = Vec::new();
    let mut sink = |piece| match (pieces.last_mut(), piece) {
        (Some(Item::Text(before)), Item::Text(text)) => before.push_str(&text),
        (_, piece) => pieces.push(piece),
    };
    let mut decoder = Decoder::default();
    chunks.for_each(|chunk| decoder.push(chunk, &mut sink));
    decoder.finish(&mut sink);
    pieces
}

fn check(piece: &Item) {
    match piece {
        Item::Text(text) => {
            assert!(!text.is_empty() && !text.contains(RECORD_SEPARATOR), "{text:?}");
            // Shown to people, none of it can pose as an event.
            let shown = printable(text);
            assert!(shown.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{shown:?}");
        }
        // What the harness read is what the unikernel would write.
        Item::Event(event) => {
            let record = event.to_record();
            assert!(record.starts_with(RECORD_SEPARATOR) && record.matches('\n').count() == 1);
            let again = Event::from_line(&record).expect("a record").expect("an event");
            assert_eq!(again, **event);
        }
        Item::Garbled { line, error } => {
            assert!(line.chars().count() <= 120 && !error.is_empty(), "{line:?}");
        }
    }
}

/// What is written of a fault without the help of the heap is an event with the same texts.
fn check_fault(text: &str) {
    let mut record = String::new();
    write_fault(&mut record, Code::DiskError, format_args!("{text}"), text).expect("memory");
    let message = text.to_string();
    let fault = Event::Error(Fault { code: Code::DiskError, hint: message.clone(), message });
    assert_eq!(decode([record.as_bytes()].into_iter()), [Item::Event(Box::new(fault))]);
}
