//! Page tables: an identity map in which nothing is both writable and executable.
//!
//! The granule is 4 KiB, addresses have 48 bits, and there are four levels. Blocks of 1 GiB and
//! 2 MiB are used where a range allows them. The builder works on a slice of tables and does not
//! access the machine, so the builder runs in tests. The first table of the slice is the root.
//!
//! The tables are built while the processor still walks others; `boot.s` does the one switch. After
//! the switch only two things change:
//!
//! - Data becomes read-only and writable again. One write of a descriptor is enough.
//! - A block is split into pages. The block leaves the map for a moment (break-before-make).
//!
//! D8.16, "TLB maintenance", has the rule for both.
//!
//! Source: Arm Architecture Reference Manual (DDI 0487), chapters D8.3 (descriptor formats) and
//! D8.4 (permissions); D24.2 for `TCR_EL1`, `MAIR_EL1`, `SCTLR_EL1`.

mod descriptor;
mod tables;

pub use descriptor::{
    Access, BLOCK_SIZE, DEVICE_BLOCK, EARLY_CODE_BLOCK, EARLY_DATA_BLOCK, MAIR, PAGE_SIZE, SCTLR,
    SCTLR_EARLY, SCTLR_OFF, TCR,
};
pub use tables::{MapError, Table, Tables, tables_for_blocks};
