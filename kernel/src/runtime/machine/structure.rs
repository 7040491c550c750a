//! Opens a device tree whose names are longer or odder than the specification allows.
//!
//! Most trees of real boards have such names: `dtc` only warns of them and Linux does not look. The
//! parser refuses them. A tree that the parser refuses for nothing else is checked here for all that the
//! parser relies on, but what names are made of.

use dtoolkit::error::{FdtErrorKind, FdtParseError};
use dtoolkit::fdt::Fdt;

use super::MachineError;
use super::tree::text;

/// Tokens (Devicetree Specification 5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The tree in `bytes`, which is as long as its header says.
pub fn open(bytes: &[u8]) -> Result<Fdt<'_>, MachineError> {
    match Fdt::new(bytes) {
        Err(e) if is_about_names(&e) => {
            Structure::new(bytes).ok_or(MachineError::Structure)?.check()?;
            Ok(Fdt::new_unchecked(bytes))
        }
        result => Ok(result?),
    }
}

/// The header and the reserved memory were in order when this came up; the parser looks at them
/// first.
fn is_about_names(e: &FdtParseError) -> bool {
    matches!(e.kind, FdtErrorKind::InvalidNodeName | FdtErrorKind::InvalidPropertyName)
}

/// The structure block, read from front to back.
struct Structure<'t> {
    /// The tree up to the end of the structure block.
    bytes: &'t [u8],
    at: usize,
    strings: &'t [u8],
}

impl<'t> Structure<'t> {
    /// `None` if the blocks do not lie where the header says.
    fn new(tree: &'t [u8]) -> Option<Self> {
        // Header fields (5.2), each 4 bytes.
        let field = |index: usize| Some(be32(tree.get(4 * index..)?)? as usize);
        let (start, strings) = (field(2)?, field(3)?);
        let bytes = tree.get(..start.checked_add(field(9)?)?)?;
        let strings = tree.get(strings..strings.checked_add(field(8)?)?)?;
        Some(Structure { bytes, at: start, strings })
    }

    /// The block holds one node with all others inside, properties before children in each, and every
    /// length and offset stays within.
    fn check(&mut self) -> Result<(), MachineError> {
        self.walk().ok_or(MachineError::Structure)
    }

    fn walk(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        // Properties may only come between a node's start and its first child.
        let mut in_head = false;
        loop {
            match self.word()? {
                BEGIN_NODE => {
                    self.name()?;
                    depth += 1;
                    in_head = true;
                }
                PROP if in_head => {
                    let (length, name) = (self.word()? as usize, self.word()? as usize);
                    text(self.strings.get(name..)?)?;
                    self.skip(length)?;
                }
                END_NODE => {
                    depth = depth.checked_sub(1)?;
                    in_head = false;
                    if depth == 0 {
                        return self.end();
                    }
                }
                NOP if depth > 0 => {}
                _ => return None,
            }
        }
    }

    fn end(&mut self) -> Option<()> {
        (self.word()? == END).then_some(())
    }

    fn word(&mut self) -> Option<u32> {
        let word = be32(self.bytes.get(self.at..)?)?;
        self.at += 4;
        Some(word)
    }

    fn name(&mut self) -> Option<()> {
        let length = text(self.bytes.get(self.at..)?)?.len() + 1;
        self.skip(length)
    }

    /// Goes past `length` bytes and on to the next token.
    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length)?.checked_next_multiple_of(4)?;
        (self.at <= self.bytes.len()).then_some(())
    }
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}
