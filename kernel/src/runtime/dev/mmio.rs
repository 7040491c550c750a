//! Access to the registers of devices.
//!
//! Drivers are generic over [`Registers`]. On the machine this is [`Mmio`]. In tests on the host it
//! is a `FakeRegisters`, which plays the device and records the driver's accesses.

/// The registers of a device. Offsets are in bytes from its first register.
///
/// 1. Each call makes one access, of the method's width.
/// 2. The accesses are made in the order of the calls.
/// 3. Between these accesses and those to ordinary memory there is no order: see [`publish`].
///
/// # Panics
/// All methods panic if the access is not aligned or not within the device's registers. Either is a
/// fault of the driver.
pub trait Registers {
    /// Reads 8 bits.
    fn read8(&self, offset: usize) -> u8;
    /// Reads 32 bits.
    fn read32(&self, offset: usize) -> u32;
    /// Reads 64 bits.
    fn read64(&self, offset: usize) -> u64;
    /// Writes 8 bits.
    fn write8(&self, offset: usize, value: u8);
    /// Writes 32 bits.
    fn write32(&self, offset: usize, value: u32);
    /// Writes 64 bits.
    fn write64(&self, offset: usize, value: u64);
}

/// Makes earlier writes to memory visible to all cores before later accesses.
///
/// An example of a later access is the write to a device that makes another core read the memory.
pub fn publish() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes nothing.
    unsafe {
        core::arch::asm!("dsb ishst", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Orders all earlier accesses, to memory and to devices, before all later ones.
///
/// Driver and device of a queue each write a word of memory and then read one of the other's. The
/// barrier stands between write and read, so that at least one of the two sees the other's word.
pub fn barrier() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes nothing.
    unsafe {
        core::arch::asm!("dsb sy", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Waits until `ready` holds, with a timeout; false after `timeout_us`.
///
/// `ready` polls a device.
pub fn wait(timeout_us: u64, now_us: impl Fn() -> u64, mut ready: impl FnMut() -> bool) -> bool {
    let mut deadline_us = None;
    while !ready() {
        let now_us = now_us();
        if now_us >= *deadline_us.get_or_insert(now_us.saturating_add(timeout_us)) {
            // The core may have been suspended, and the device may have become ready since.
            return ready();
        }
        core::hint::spin_loop();
    }
    true
}

#[cfg(test)]
pub use fake::{Access, FakeRegisters};
#[cfg(target_arch = "aarch64")]
pub use machine::Mmio;

#[cfg(target_arch = "aarch64")]
mod machine {
    use core::arch::asm;

    use super::Registers;
    use crate::runtime::machine::Region;

    /// Registers in memory.
    #[derive(Debug)]
    pub struct Mmio {
        base: usize,
        size: usize,
    }

    impl Mmio {
        /// The registers at `region`.
        ///
        /// # Safety
        /// As long as the value lives:
        ///
        /// 1. The whole region is identity-mapped, as device memory or as uncached memory, or the
        ///    MMU is off.
        /// 2. No object of Rust lies in the region.
        /// 3. The device's response to an access is sound, DMA above all. The driver that gets the
        ///    value is responsible for that.
        pub const unsafe fn new(region: Region) -> Mmio {
            Mmio { base: region.base as usize, size: region.size as usize }
        }

        fn address(&self, offset: usize, width: usize) -> usize {
            assert!(
                offset.is_multiple_of(width) && offset < self.size && width <= self.size - offset,
                "register {offset:#x} of the device at {:#x}",
                self.base
            );
            self.base + offset
        }
    }

    // Plain loads and stores in assembly. `read_volatile` may become a load that also moves its
    // base register. A hypervisor cannot emulate such an access to a device (Arm ARM DDI 0487,
    // ESR_ELx.ISV).
    macro_rules! access {
        ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal) => {
            fn $read(&self, offset: usize) -> $type {
                let address = self.address(offset, size_of::<$type>());
                let value;
                // SAFETY: the address lies in the region of `new`'s contract, and is aligned;
                // `address` has checked both.
                unsafe {
                    asm!($load, value = out(reg) value, address = in(reg) address,
                        options(nostack, preserves_flags));
                }
                value
            }

            fn $write(&self, offset: usize, value: $type) {
                let address = self.address(offset, size_of::<$type>());
                // SAFETY: as above.
                unsafe {
                    asm!($store, value = in(reg) value, address = in(reg) address,
                        options(nostack, preserves_flags));
                }
            }
        };
    }

    impl Registers for Mmio {
        access!(read8, write8, u8, "ldrb {value:w}, [{address}]", "strb {value:w}, [{address}]");
        access!(read32, write32, u32, "ldr {value:w}, [{address}]", "str {value:w}, [{address}]");
        access!(read64, write64, u64, "ldr {value:x}, [{address}]", "str {value:x}, [{address}]");
    }
}

#[cfg(test)]
mod fake {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Registers;

    /// A driver's access to a register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Access {
        /// A read of `width` bytes.
        Read {
            /// Offset of the register.
            offset: usize,
            /// Number of bytes.
            width: usize,
        },
        /// A write of `width` bytes.
        Write {
            /// Offset of the register.
            offset: usize,
            /// Number of bytes.
            width: usize,
            /// The value.
            value: u64,
        },
    }

    type Model = Box<dyn FnMut(Access) -> u64 + Send>;

    /// A fake device, implemented by a closure.
    /// The closure is called with each access, and returns the value of a read.
    pub struct FakeRegisters {
        state: RefCell<(Model, Vec<Access>)>,
    }

    impl FakeRegisters {
        /// The device that `model` implements.
        pub fn new(model: impl FnMut(Access) -> u64 + Send + 'static) -> Self {
            FakeRegisters { state: RefCell::new((Box::new(model), Vec::new())) }
        }

        /// A device whose registers return the value written last.
        /// Before the first write they return the values of `initial`, or 0.
        pub fn memory(initial: &[(usize, u64)]) -> Self {
            let mut memory: BTreeMap<usize, u64> = initial.iter().copied().collect();
            FakeRegisters::new(move |access| match access {
                Access::Read { offset, .. } => memory.get(&offset).copied().unwrap_or(0),
                Access::Write { offset, value, .. } => memory.insert(offset, value).unwrap_or(0),
            })
        }

        /// All accesses so far.
        pub fn accesses(&self) -> Vec<Access> {
            self.state.borrow().1.clone()
        }

        /// Offsets and values of all writes so far.
        pub fn writes(&self) -> Vec<(usize, u64)> {
            let write = |access| match access {
                Access::Write { offset, value, .. } => Some((offset, value)),
                Access::Read { .. } => None,
            };
            self.accesses().into_iter().filter_map(write).collect()
        }

        fn access(&self, access: Access) -> u64 {
            let (Access::Read { offset, width } | Access::Write { offset, width, .. }) = access;
            assert!(offset.is_multiple_of(width), "unaligned: {access:?}");
            let (model, log) = &mut *self.state.borrow_mut();
            log.push(access);
            model(access)
        }
    }

    macro_rules! access {
        ($read:ident, $write:ident, $type:ty) => {
            fn $read(&self, offset: usize) -> $type {
                let value = self.access(Access::Read { offset, width: size_of::<$type>() });
                <$type>::try_from(value).expect("the model gives more bits than were read")
            }

            fn $write(&self, offset: usize, value: $type) {
                let width = size_of::<$type>();
                self.access(Access::Write { offset, width, value: value.into() });
            }
        };
    }

    impl Registers for FakeRegisters {
        access!(read8, write8, u8);
        access!(read32, write32, u32);
        access!(read64, write64, u64);
    }
}
