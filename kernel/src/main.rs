//! The bare-metal binary. On a host it only says what it is.
#![cfg_attr(target_os = "none", no_std, no_main)]

// The entry, the panic handler and the allocator are in the library.
#[cfg(target_os = "none")]
use kernel as _;

#[cfg(target_os = "none")]
mod placeholder {
    //! Stands in for the application.
    use core::ffi::{CStr, c_char};

    #[unsafe(no_mangle)]
    extern "C" fn runtime_entry(
        argc: i32,
        argv: *const *const c_char,
        _env: *const *const c_char,
    ) -> ! {
        for i in 0..argc as usize {
            // SAFETY: `argv` holds `argc` C strings.
            let word = unsafe { CStr::from_ptr(*argv.add(i)) }.to_bytes();
            // SAFETY: plain calls with valid buffers.
            unsafe {
                hermit_abi::write(1, word.as_ptr(), word.len());
                hermit_abi::write(1, c"\n".as_ptr().cast(), 1);
            }
        }
        // SAFETY: ends the program.
        unsafe { hermit_abi::exit(0) }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64: `make run` builds and starts it");
}
