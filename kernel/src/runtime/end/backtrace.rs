//! Backtraces: the chain of frame records that `-C force-frame-pointers` keeps.

use core::arch::asm;
use core::fmt::{self, Write};

use super::symbols::Symbols;
use crate::runtime::mem::{core_stacks, image};

/// Maximum number of frames shown; a function that calls itself counts once.
const MAX_SHOWN: usize = 32;

/// An address in the image, shown with its function.
#[derive(Clone, Copy, Debug)]
pub struct Place(pub u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.0.wrapping_sub(image::start());
        if !image::text().contains(&self.0) {
            return write!(f, "{:#x}", self.0);
        }
        match symbols().and_then(|symbols| symbols.find(offset as u32)) {
            Some((name, into)) => write!(f, "{name}+{into:#x}"),
            // The offset can be looked up in the ELF file, which is linked at 0.
            None => write!(f, "image+{offset:#x}"),
        }
    }
}

fn symbols() -> Option<Symbols<'static>> {
    let range = image::symbols();
    let len = (range.end - range.start) as usize;
    // SAFETY: the builder has put the table there. The memory is the image's, and nothing writes to
    // it.
    let bytes = unsafe { core::slice::from_raw_parts(range.start as *const u8, len) };
    Symbols::parse(bytes)
}

/// The address of the call that returns to `lr`: the instruction before.
///
/// A damaged frame may hold any `lr`.
fn call_before(lr: u64) -> u64 {
    lr.saturating_sub(4)
}

/// Writes the frames from `pc` on; the frame record of `pc` is at `fp`.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, pc: u64, fp: u64) -> fmt::Result {
    writeln!(out, "backtrace:\n  {}", Place(pc))?;
    let (mut fp, mut last, mut repeated) = (fp, 0, 0);
    let mut shown = 0;
    while shown < MAX_SHOWN {
        // A record lies on this core's stack, so a damaged chain cannot lead elsewhere. Each record
        // lies above the last, so no chain leads in a circle.
        if fp % 16 != 0 || !core_stacks::is_on_mine(fp..fp.saturating_add(16)) {
            break;
        }
        // SAFETY: the record is aligned and within the stack, which is mapped.
        let [next, lr] = unsafe { (fp as *const [u64; 2]).read() };
        if lr == last {
            repeated += 1;
        } else {
            if repeated > 0 {
                writeln!(out, "  … {repeated} more of these")?;
            }
            (last, repeated) = (lr, 0);
            if lr == 0 {
                break;
            }
            writeln!(out, "  {}", Place(call_before(lr)))?;
            shown += 1;
        }
        if next <= fp {
            break;
        }
        fp = next;
    }
    Ok(())
}

/// Writes the frames from the caller on.
///
/// # Errors
/// Those of `out`.
#[inline(never)]
pub fn write_here(out: &mut dyn Write) -> fmt::Result {
    let (fp, lr): (u64, u64);
    // SAFETY: the instruction reads this function's own frame record: the caller's record, and the
    // return address.
    unsafe { asm!("ldp {}, {}, [x29]", out(reg) fp, out(reg) lr, options(readonly, nostack)) };
    write(out, call_before(lr), fp)
}
