//! What the fuzz targets share: bounds of memory and time that hold for any input, what
//! holds for any tokenizer, and disks.

pub mod disk;
pub mod limits;
pub mod text;
