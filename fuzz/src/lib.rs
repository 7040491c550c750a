//! What the fuzz targets share: bounds of memory and time that hold for any input, what
//! holds for any tokenizer, disks, and a served model.

pub mod constrained;
pub mod disk;
pub mod limits;
pub mod served;
pub mod text;
