//! Opens device trees whose node or property names break the specification.
//!
//! Most trees of real boards have names that are too long or have odd characters. `dtc` only warns
//! of such names, and Linux does not check. The parser refuses such names. So a tree that is
//! refused for its names alone is checked here. The check covers all that the parser then relies
//! on, except the characters and lengths of names.

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

/// Opens the tree in `bytes`, which is as long as its header says.
pub fn open(bytes: &[u8]) -> Result<Fdt<'_>, MachineError> {
    match Fdt::new(bytes) {
        Err(e) if is_about_names(&e) => {
            Structure::new(bytes).ok_or(MachineError::Structure)?.check()?;
            Ok(Fdt::new_unchecked(bytes))
        }
        result => Ok(result?),
    }
}

/// Whether the error is about a name.
/// The parser checks the header and the reserved memory first, so these were valid.
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
    /// Finds the blocks; `None` if they do not lie where the header says.
    fn new(tree: &'t [u8]) -> Option<Self> {
        // Header fields (5.2), each 4 bytes.
        let field = |index: usize| Some(be32(tree.get(4 * index..)?)? as usize);
        let (start, strings) = (field(2)?, field(3)?);
        let bytes = tree.get(..start.checked_add(field(9)?)?)?;
        let strings = tree.get(strings..strings.checked_add(field(8)?)?)?;
        Some(Structure { bytes, at: start, strings })
    }

    /// Checks the nesting, and that every length and offset stays within the block.
    ///
    /// The block must hold one node with all others inside. In each node, properties come before
    /// children.
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

    /// Skips `length` bytes and the padding up to the next token.
    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length)?.checked_next_multiple_of(4)?;
        (self.at <= self.bytes.len()).then_some(())
    }
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}
