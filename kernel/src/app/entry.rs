//! Where the runtime hands over: what Hermit's `runtime_entry` does, which each binary names itself.

use core::ffi::{CStr, c_char};

use crate::app::{os, run};

/// The application's entry, called once by the runtime with the boot arguments.
///
/// # Safety
/// `argv` must point to `argc` C strings that live as long as the program.
pub unsafe fn enter(argc: i32, argv: *const *const c_char) -> ! {
    // SAFETY: the caller promises `argc` C strings.
    let argument = |i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_bytes();
    os::exit(run((1..usize::try_from(argc).unwrap_or(0)).map(argument)))
}
