//! Descriptors of the tables, and the registers that say how they are read.
#![forbid(unsafe_code)]

/// Size of a page, the smallest unit of a mapping, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Size of the blocks that can be split into pages, in bytes.
pub const BLOCK_SIZE: u64 = 2 << 20;

/// `MAIR_EL1`: the memory attributes.
///
/// - Attribute 0 is device memory (nGnRnE).
/// - Attribute 1 is normal memory (write-back).
/// - Attribute 2 is normal memory that no cache keeps.
///
/// Apple's own devices must be mapped without early acknowledgement of writes. A device mapped as
/// nGnRE answers a write with an SError. Source: Linux, `nonposted-mmio` of t8103.dtsi's `soc`, for
/// which drivers/of/address.c asks for `ioremap_np`.
///
/// Devices behind Apple's PCIe ports require nGnRE; none of them has a driver here. Other machines
/// do not mind.
pub const MAIR: u64 = 0x44_ff_00;
/// `TCR_EL1` without the size of a physical address.
///
/// Addresses of 48 bits are translated through `TTBR0_EL1` alone. The tables are cached and shared
/// like normal memory.
pub const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 30;
/// `SCTLR_EL1` with everything off: only the bits that must be one.
pub const SCTLR_OFF: u64 = 0x30d0_0800;
/// `SCTLR_EL1` on the early map: MMU, caches, stack alignment check.
pub const SCTLR_EARLY: u64 = SCTLR_OFF | 1 << 12 | 1 << 3 | 1 << 2 | 1;
/// `SCTLR_EL1` on the final map: also, writable memory is never executed.
pub const SCTLR: u64 = SCTLR_EARLY | 1 << 19;
/// A block of device memory, without the address.
pub const DEVICE_BLOCK: u64 = VALID | ACCESSED | NEVER_EXECUTE;
/// A block of normal memory on the early map: read and write.
pub const EARLY_DATA_BLOCK: u64 = EARLY_CODE_BLOCK | NEVER_EXECUTE;
/// A block of normal memory with code on the early map.
///
/// Everything is allowed, for other data behind the code within the 2 MiB.
pub const EARLY_CODE_BLOCK: u64 = VALID | ACCESSED | NORMAL;

/// The descriptor maps something.
pub const VALID: u64 = 1;
/// Bit 1: a table on levels 0 to 2, and part of a page's descriptor on level 3.
pub const TABLE_OR_PAGE: u64 = 1 << 1;
/// `AttrIndx` 1, inner shareable.
pub const NORMAL: u64 = 1 << 2 | 3 << 8;
/// `AttrIndx` 2. Such memory is outer shareable whatever the descriptor says.
pub const UNCACHED: u64 = 2 << 2;
/// The memory is not writable.
pub const READ_ONLY: u64 = 1 << 7;
/// Access flag; without it the first access is a fault.
pub const ACCESSED: u64 = 1 << 10;
/// The kernel cannot execute the memory.
pub const PRIVILEGED_NEVER_EXECUTE: u64 = 1 << 53;
/// User mode cannot execute the memory.
pub const UNPRIVILEGED_NEVER_EXECUTE: u64 = 1 << 54;
/// Nobody can execute the memory.
pub const NEVER_EXECUTE: u64 = PRIVILEGED_NEVER_EXECUTE | UNPRIVILEGED_NEVER_EXECUTE;
/// The address in a descriptor.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The level of the largest blocks, of 1 GiB.
pub const LARGEST_BLOCK: u32 = 1;
/// The level of the blocks of [`BLOCK_SIZE`].
pub const BLOCK_LEVEL: u32 = 2;
/// The level of pages.
pub const PAGE_LEVEL: u32 = 3;

/// Size of the memory that a descriptor of `level` maps, in bytes.
pub const fn size(level: u32) -> u64 {
    1 << (39 - 9 * level)
}

/// Index of the descriptor for `address` in a table of `level`.
pub const fn index(address: u64, level: u32) -> usize {
    (address / size(level)) as usize % 512
}

/// Whether a descriptor, of a level above that of pages, points to a table.
pub const fn is_table(entry: u64) -> bool {
    entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE
}

/// The use of a range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
    /// Read and write registers of devices.
    ///
    /// There is no caching, no reordering and no early acknowledgement.
    Device,
    /// Read and write memory that others access past the caches, as a display does.
    ///
    /// Writes may be combined.
    Uncached,
}

impl Access {
    /// The bits of a descriptor, without the address.
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
