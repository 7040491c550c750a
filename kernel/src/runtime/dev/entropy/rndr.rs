//! The processor's random numbers.

use core::arch::asm;

use super::KEY_BYTES;
use crate::runtime::arch::this_core::read_register;

/// Number of attempts at a number. Each attempt may fail, as the hardware may need time.
const ATTEMPTS: u32 = 100;

/// Random bytes of the calling core; `None` where the core has none to give.
///
/// `ID_AA64ISAR0_EL1.RNDR` says whether the instruction exists.
pub fn read() -> Option<[u8; KEY_BYTES]> {
    if read_register!("id_aa64isar0_el1") >> 60 == 0 {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for word in bytes.as_chunks_mut::<8>().0 {
        *word = (0..ATTEMPTS).find_map(|_| attempt())?.to_le_bytes();
    }
    Some(bytes)
}

/// Reads `RNDR` once.
fn attempt() -> Option<u64> {
    let (number, is_valid): (u64, u64);
    // SAFETY: the instruction reads a register that the caller has found to exist. A failure sets
    // the flag Z.
    unsafe {
        asm!("mrs {number}, s3_3_c2_c4_0", "cset {is_valid}, ne", number = out(reg) number,
            is_valid = out(reg) is_valid, options(nomem, nostack));
    }
    (is_valid == 1).then_some(number)
}
