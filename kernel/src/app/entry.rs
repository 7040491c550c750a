//! The common part of each binary's `runtime_entry`, which the runtime calls.
//!
//! `runtime_entry` is Hermit's convention. Each binary defines the symbol itself.

use core::ffi::{CStr, c_char};

use crate::app::{os, run};

/// Enters the application with the boot arguments; the runtime does so once.
///
/// # Safety
/// `argv` must point to `argc` C strings that live as long as the program.
pub unsafe fn enter(argc: i32, argv: *const *const c_char) -> ! {
    // SAFETY: the caller promises `argc` C strings.
    let argument = |i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_bytes();
    os::exit(run((1..usize::try_from(argc).unwrap_or(0)).map(argument)))
}
