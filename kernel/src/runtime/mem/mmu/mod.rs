//! Page tables: an identity map in which nothing is both writable and executable.
//!
//! 4 KiB granule, 48-bit addresses, four levels; blocks of 1 GiB and 2 MiB where a range allows
//! them. The builder works on a slice of tables and touches no machine, so it runs in tests; the
//! slice's first table is the root. Tables are built while the processor still walks others: `boot.s`
//! does the one switch. After that only two things change. Data becomes read-only and writable again:
//! one write of a descriptor is enough. A block is split into pages: the block leaves the map for a moment
//! (break-before-make). D8.16, "TLB maintenance", tells the one from the other.
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
