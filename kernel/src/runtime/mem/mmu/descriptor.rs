//! Descriptors of the tables, and the registers that say how they are read.
#![forbid(unsafe_code)]

/// Bytes in the smallest unit of mapping.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of the blocks that can be split into pages.
pub const BLOCK_SIZE: u64 = 2 << 20;

/// `MAIR_EL1`: attribute 0 is device memory (nGnRnE), 1 is normal memory (write-back), 2 is normal
/// memory that no cache keeps.
///
/// Apple's own devices must be mapped without early acknowledgement of writes: one mapped as nGnRE
/// answers a write with an SError. Source: Linux, `nonposted-mmio` of t8103.dtsi's `soc`, for which
/// drivers/of/address.c asks for `ioremap_np`. Devices behind Apple's PCIe ports want nGnRE; none of them
/// is driven here. Other machines do not mind.
pub const MAIR: u64 = 0x44_ff_00;
/// `TCR_EL1` less the size of a physical address: 48 bits through `TTBR0_EL1` alone, tables
/// cached and shared like normal memory.
pub const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 30;
/// `SCTLR_EL1` with everything off: the bits that are to be one.
pub const SCTLR_OFF: u64 = 0x30d0_0800;
/// `SCTLR_EL1` on the early map: MMU, caches, stack alignment check.
pub const SCTLR_EARLY: u64 = SCTLR_OFF | 1 << 12 | 1 << 3 | 1 << 2 | 1;
/// `SCTLR_EL1` on the final map: also, what is writable is never executed.
pub const SCTLR: u64 = SCTLR_EARLY | 1 << 19;
/// A block of device memory, the address left out.
pub const DEVICE_BLOCK: u64 = VALID | ACCESSED | NEVER_EXECUTE;
/// A block of normal memory for the early map: read and write.
pub const EARLY_DATA_BLOCK: u64 = EARLY_CODE_BLOCK | NEVER_EXECUTE;
/// A block of normal memory for the early map that holds code, and thus whatever lies behind the code
/// within 2 MiB: all is allowed.
pub const EARLY_CODE_BLOCK: u64 = VALID | ACCESSED | NORMAL;

/// Something is mapped.
pub const VALID: u64 = 1;
/// Bit 1 makes a descriptor of level 0 to 2 a table and is part of a page's on level 3.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// `AttrIndx` 1, inner shareable.
pub const NORMAL: u64 = 1 << 2 | 3 << 8;
/// `AttrIndx` 2. Such memory is outer shareable whatever the descriptor says.
pub const UNCACHED: u64 = 2 << 2;
/// Nothing is written there.
pub const READ_ONLY: u64 = 1 << 7;
/// Or else the first access is a fault.
pub const ACCESSED: u64 = 1 << 10;
/// Not even the kernel executes it.
pub const PRIVILEGED_NEVER_EXECUTE: u64 = 1 << 53;
/// User mode does not execute it.
pub const UNPRIVILEGED_NEVER_EXECUTE: u64 = 1 << 54;
/// Nobody executes it.
pub const NEVER_EXECUTE: u64 = PRIVILEGED_NEVER_EXECUTE | UNPRIVILEGED_NEVER_EXECUTE;
/// The address in a descriptor.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The level of the largest blocks that there are, of 1 GiB; that of those of [`BLOCK_SIZE`]; and that of
/// pages.
pub const LARGEST_BLOCK: u32 = 1;
/// See [`LARGEST_BLOCK`].
pub const BLOCK_LEVEL: u32 = 2;
/// See [`LARGEST_BLOCK`].
pub const PAGE_LEVEL: u32 = 3;

/// Bytes that a descriptor of `level` maps.
pub const fn size(level: u32) -> u64 {
    1 << (39 - 9 * level)
}

/// The descriptor of a table of `level` that maps `address`.
pub const fn index(address: u64, level: u32) -> usize {
    (address / size(level)) as usize % 512
}

/// Whether a descriptor, of a level above that of pages, points to a table.
pub const fn is_table(entry: u64) -> bool {
    entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
}

/// What a range of memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
    /// Read and write registers of devices: no caching, no reordering, no early acknowledgement.
    Device,
    /// Read and write memory that others look at past the caches, as a display does. Writes may be
    /// put together.
    Uncached,
}

impl Access {
    /// The bits of a descriptor, the address left out.
    pub fn bits(self) -> u64 {
        let bits = match self {
            Access::Code => NORMAL | READ_ONLY | UNPRIVILEGED_NEVER_EXECUTE,
            Access::ReadOnly => NORMAL | READ_ONLY | NEVER_EXECUTE,
            Access::Data => NORMAL | NEVER_EXECUTE,
            Access::Device => NEVER_EXECUTE,
            Access::Uncached => UNCACHED | NEVER_EXECUTE,
        };
        VALID | ACCESSED | bits
    }
}
