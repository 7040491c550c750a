//! What stands in for the files until they are there.
#![allow(missing_docs, clippy::missing_safety_doc)]
pub mod fs {
    pub unsafe fn read(_: i32, _: *mut u8, _: usize) -> isize {
        0
    }
}
