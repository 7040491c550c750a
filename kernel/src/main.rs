//! The bare-metal binary: the application, on the runtime. On a host it only says what it is.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use core::ffi::c_char;

/// What the runtime calls when the machine is up: Hermit's convention.
///
/// # Safety
/// `argv` holds `argc` C strings that live as long as the program.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
unsafe extern "C" fn runtime_entry(
    argc: i32,
    argv: *const *const c_char,
    _env: *const *const c_char,
) -> ! {
    // SAFETY: upheld by the caller.
    unsafe { kernel::app::enter(argc, argv) }
}

/// What the runtime asks the application.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
static APPLICATION: kernel::system::Application = kernel::system::Application {
    kernels: kernel::llm::kernels::name,
    reboots: kernel::app::reboots_at_exit,
};

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program boots on bare aarch64: `make run` builds and starts it");
}
