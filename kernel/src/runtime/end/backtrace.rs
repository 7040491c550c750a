//! The way to here: the chain of frame records that `-C force-frame-pointers` keeps.

use core::arch::asm;
use core::fmt::{self, Write};

use super::symbols::Symbols;
use crate::runtime::mem::{image, stacks};

/// The most frames that are shown; a function that calls itself shows as one.
const MAX_SHOWN: usize = 32;

/// An address in the image, shown with the function it is in.
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
            // To be looked up in the ELF, which is linked at 0.
            None => write!(f, "image+{offset:#x}"),
        }
    }
}

fn symbols() -> Option<Symbols<'static>> {
    let range = image::symbols();
    let len = (range.end - range.start) as usize;
    // SAFETY: the builder put the table there, the memory is the image's, and nothing writes it.
    let bytes = unsafe { core::slice::from_raw_parts(range.start as *const u8, len) };
    Symbols::parse(bytes)
}

/// The call that returns to `lr`: the instruction before. A damaged frame may hold anything.
fn call_before(lr: u64) -> u64 {
    lr.saturating_sub(4)
}

/// Writes the frames from `pc`, whose frame record is at `fp`.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, pc: u64, fp: u64) -> fmt::Result {
    writeln!(out, "backtrace:\n  {}", Place(pc))?;
    let (mut fp, mut last, mut repeated) = (fp, 0, 0);
    let mut shown = 0;
    while shown < MAX_SHOWN {
        // A record lies on this core's stack, so that no damaged chain can lead elsewhere, and
        // each one above the last, so that none leads round.
        if fp % 16 != 0 || !stacks::is_on_mine(fp..fp.saturating_add(16)) {
            break;
        }
        // SAFETY: aligned and within the stack, which is mapped.
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
    // SAFETY: reads this function's own frame record: the caller's, and where it is returned to.
    unsafe { asm!("ldp {}, {}, [x29]", out(reg) fp, out(reg) lr, options(readonly, nostack)) };
    write(out, call_before(lr), fp)
}
