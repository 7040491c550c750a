//! The checks of memory that a caller of the ABI lends to a call.
//!
//! A caller gives a pointer and a number of bytes. Nothing can tell whether the memory is there, so
//! each function here is `unsafe`. What can be told is checked: a null pointer, and a length that
//! no slice of Rust may have.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::AtomicU32;

use hermit_abi::errno::{EFAULT, EINVAL};

/// The `len` bytes from `start` on.
///
/// # Errors
/// `EFAULT` for a null pointer and for bytes past the last address; `EINVAL` for more than
/// `isize::MAX` bytes, which the result of a read or write could not tell.
pub fn memory(start: *mut u8, len: usize) -> Result<NonNull<[u8]>, i32> {
    let start = NonNull::new(start).ok_or(EFAULT)?;
    if isize::try_from(len).is_err() {
        return Err(EINVAL);
    }
    start.addr().checked_add(len).ok_or(EFAULT)?;
    Ok(NonNull::slice_from_raw_parts(start, len))
}

/// The `len` bytes from `start` on, for the call to read.
///
/// # Errors
/// As for [`memory`].
///
/// # Safety
/// Unless `start` is null, for as long as `'a`:
///
/// 1. The bytes are valid for reads, and initialised.
/// 2. Nobody writes to them.
pub unsafe fn bytes<'a>(start: *const u8, len: usize) -> Result<&'a [u8], i32> {
    let memory = memory(start.cast_mut(), len)?;
    // SAFETY: not null, no more than `isize::MAX` bytes, not past the last address; the caller
    // vouches for the rest.
    Ok(unsafe { memory.as_ref() })
}

/// The `len` bytes from `start` on, for the call to fill. What is in them need not be initialised.
///
/// # Errors
/// As for [`memory`].
///
/// # Safety
/// Unless `start` is null, for as long as `'a`:
///
/// 1. The bytes are valid for writes.
/// 2. Nobody else reads or writes them.
pub unsafe fn room<'a>(start: *mut u8, len: usize) -> Result<&'a mut [MaybeUninit<u8>], i32> {
    let start = memory(start, len)?.cast::<MaybeUninit<u8>>();
    // SAFETY: as in `bytes`; `MaybeUninit` is valid whatever the memory holds.
    Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
}

/// The `n` values from `start` on, for the call to read and change.
///
/// # Errors
/// As for [`memory`]; `EINVAL` for an address that is not aligned for the type as well.
///
/// # Safety
/// Unless `start` is such a one, for as long as `'a`:
///
/// 1. The values are valid for reads and writes, and initialised.
/// 2. Nobody else reads or writes them.
pub unsafe fn values<'a, T>(start: *mut T, n: usize) -> Result<&'a mut [T], i32> {
    memory(start.cast(), n.checked_mul(size_of::<T>()).ok_or(EINVAL)?)?;
    if !start.is_aligned() {
        return Err(EINVAL);
    }
    // SAFETY: as in `bytes`, and aligned.
    Ok(unsafe { slice::from_raw_parts_mut(start, n) })
}

/// The word at `address`.
///
/// # Errors
/// `EINVAL` for a null pointer, and for an address that is no multiple of 4.
///
/// # Safety
/// Unless `address` is such a one, for as long as `'a`:
///
/// 1. The word is valid for reads and writes.
/// 2. It is only used by atomic operations.
pub unsafe fn word<'a>(address: *mut u32) -> Result<&'a AtomicU32, i32> {
    if address.is_null() || !address.is_aligned() {
        return Err(EINVAL);
    }
    // SAFETY: not null, and aligned; the caller vouches for the rest.
    Ok(unsafe { AtomicU32::from_ptr(address) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr;
    use core::sync::atomic::Ordering;

    #[test]
    fn lengths_that_no_slice_may_have_are_refused() {
        let mut byte = 7;
        let start = &raw mut byte;
        let most = isize::MAX as usize;
        for len in [most + 1, usize::MAX - 1, usize::MAX] {
            assert_eq!(memory(start, len), Err(EINVAL), "{len:#x}");
            // SAFETY: the length is refused.
            unsafe {
                assert_eq!(bytes(start, len), Err(EINVAL), "{len:#x}");
                assert_eq!(room(start, len).map(|room| room.len()), Err(EINVAL), "{len:#x}");
            }
        }
        // Past the last address, though short enough.
        let last = ptr::without_provenance_mut(usize::MAX - 6);
        assert_eq!(memory(last, 6).unwrap().len(), 6);
        for len in [7, 8, most] {
            assert_eq!(memory(last, len), Err(EFAULT), "{len:#x}");
        }
    }

    #[test]
    fn nothing_is_no_memory() {
        for len in [0, 1, usize::MAX] {
            // SAFETY: a null pointer is refused.
            unsafe {
                assert_eq!(bytes(ptr::null(), len), Err(EFAULT));
                assert_eq!(room(ptr::null_mut(), len).map(|room| room.len()), Err(EFAULT));
            }
        }
        // SAFETY: both are refused.
        let words = unsafe {
            [word(ptr::null_mut()).err(), word(ptr::without_provenance_mut(4 * 11 + 2)).err()]
        };
        assert_eq!(words, [Some(EINVAL); 2]);
    }

    #[test]
    fn values_are_as_many_as_memory_may_hold_and_aligned() {
        let mut values_here = [1_u64, 2, 3];
        let start = values_here.as_mut_ptr();
        let most = isize::MAX as usize / 8;
        for n in [most + 1, usize::MAX / 8 + 1, usize::MAX] {
            // SAFETY: the number is refused.
            assert_eq!(unsafe { values(start, n) }, Err(EINVAL), "{n:#x}");
        }
        // SAFETY: both are refused.
        let refused =
            unsafe { [values::<u64>(ptr::null_mut(), 1), values(start.wrapping_byte_add(4), 1)] };
        assert_eq!(refused, [Err(EFAULT), Err(EINVAL)]);
        // SAFETY: valid for reads and writes, and used through `lent` alone until the end.
        unsafe { values(start, 2) }.unwrap()[1] = 7;
        assert_eq!(values_here, [1, 7, 3]);
    }

    #[test]
    fn what_is_lent_is_read_and_filled_in_place() {
        // New memory, which nobody has written to.
        let mut memory: Box<[MaybeUninit<u8>]> = Box::new_uninit_slice(31);
        // SAFETY: valid for writes of its length, and used through `lent` alone.
        let lent = unsafe { room(memory.as_mut_ptr().cast(), memory.len()) }.unwrap();
        for (i, byte) in lent.iter_mut().enumerate() {
            byte.write(i as u8 + 1);
        }
        // SAFETY: filled above.
        let read = unsafe { bytes(memory.as_ptr().cast(), memory.len()) }.unwrap();
        assert!(read.iter().copied().eq(1..=31));

        let mut number = 5_u32;
        // SAFETY: valid, and only used atomically until it is read at the end.
        unsafe { word(&raw mut number) }.unwrap().fetch_add(1, Ordering::SeqCst);
        assert_eq!(number, 6);
    }
}
