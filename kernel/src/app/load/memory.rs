//! Memory for a model, and whether the memory suffices.

use alloc::boxed::Box;
use alloc::string::String;

use crate::app::error::Error;
use crate::app::os::{self, File};
use crate::llm;
use crate::llm::arena::ModelBuffer;
use crate::llm::plan::{ContextOptions, Plan};

/// Bytes read to find the header of a model that does not fit.
const HEADER: usize = 1 << 20;

/// Result of a look at the start of a model's file.
pub enum Header {
    /// The header goes on behind these bytes.
    CutShort,
    /// The header is malformed. The checksum is the better report of a damaged file, and the engine
    /// reads the header again.
    Malformed,
    /// The engine can run the model.
    Sound(Box<Plan>),
}

/// Reads the header in the start of a model's file.
///
/// # Errors
/// The engine cannot run the model, or the memory does not suffice for cache and tables. The file has
/// its memory already.
pub fn judge(prefix: &[u8], size: u64, context: ContextOptions) -> Result<Header, Error> {
    match plan(prefix, size, context) {
        Ok(plan) => Ok(Header::Sound(Box::new(plan))),
        Err(Error::Engine(llm::Error::HeaderCutShort { .. })) => Ok(Header::CutShort),
        Err(Error::Engine(llm::Error::ParseError { .. })) => Ok(Header::Malformed),
        Err(error) => Err(error),
    }
}

/// The plan of a model, if the memory suffices for cache and tables.
///
/// # Errors
/// As [`judge`], and the header is malformed or cut short.
pub fn plan(prefix: &[u8], size: u64, context: ContextOptions) -> Result<Plan, Error> {
    // The plan's own tables count as needed, so the free memory is read before they exist.
    let free = os::memory_available();
    let plan = Plan::read(prefix, size)?;
    let needed = plan.needed(context)?.total();
    if free >= needed as u64 {
        return Ok(plan);
    }
    let instead = plan.settings_that_fit(context, free);
    Err(no_room(size, needed, free + size, instead))
}

/// Memory for a file of `size` bytes.
///
/// # Errors
/// The memory does not suffice, or the header shows that the engine cannot run the model.
pub fn allocate(file: &File, size: u64, context: ContextOptions) -> Result<ModelBuffer, Error> {
    let too_large = || {
        // The header tells the size of cache and tables. Most headers are small. For a large one
        // the size of the file alone has to do.
        let header = ModelBuffer::try_new(bytes_of(size).min(HEADER)).and_then(|mut header| {
            let n = file.read_full(header.as_mut_slice()).unwrap_or(0);
            Plan::read(&header[..n], size)?.needed(context)
        });
        match header {
            // More memory would not help.
            Err(error @ (llm::Error::Unsupported { .. } | llm::Error::InvalidConfig { .. })) => {
                Error::Engine(error)
            }
            needed => {
                let besides = needed.map_or(0, |needed| needed.total());
                let free = os::memory_available();
                // No setting makes the file smaller.
                let instead = String::new();
                if free >= size.saturating_add(besides as u64) {
                    // The memory suffices, but the firmware's own memory lies in the middle.
                    let (what, free) = ("the model's file, in one piece,", largest_block(size));
                    return Error::OutOfMemory { what, needed: size, free, instead };
                }
                no_room(size, besides, free, instead)
            }
        }
    };
    ModelBuffer::try_new_in(os::PAGES, bytes_of(size)).map_err(|_| too_large())
}

/// The largest contiguous block of free memory below `size` bytes, to 4 KiB.
fn largest_block(size: u64) -> u64 {
    let (mut fits, mut too_large) = (0, size);
    while too_large - fits > 4096 {
        let middle = fits + (too_large - fits) / 2;
        *(if os::PAGES.has(bytes_of(middle)) { &mut fits } else { &mut too_large }) = middle;
    }
    fits
}

/// A size in memory. A size that no address holds fits no memory either.
fn bytes_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn no_room(size: u64, besides: usize, free: u64, instead: String) -> Error {
    let needed = size.saturating_add(besides as u64);
    Error::OutOfMemory { what: "the model with its cache and tables", needed, free, instead }
}
