//! The disks of this machine, and the initial RAM disk.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::NonNull;

use virtio_drivers::transport::{DeviceType, SomeTransport};

use super::archive::Archive;
use super::gzip::Output;
use super::initrd::{self, Contents, InitrdError, Part};
use crate::runtime::arch::{cache, time};
use crate::runtime::dev::block::ram::RamDisk;
use crate::runtime::dev::block::sdhci::dma::{self, Cache, Dma, Table};
use crate::runtime::dev::block::sdhci::{SdDisk, SdError, Supply};
use crate::runtime::dev::block::virtio::VirtioDisk;
use crate::runtime::dev::block::{BlockDevice, Clock, Disk};
use crate::runtime::dev::bus::scan::{Bus, Found};
use crate::runtime::dev::mmio::Mmio;
use crate::runtime::dev::{facts, videocore};
use crate::runtime::machine::{MAX_SD_HOSTS, Machine, SdHost, SdSupply};
use crate::runtime::mem::pages::PageBuffer;
use crate::runtime::sched::idle;

/// Number of polls of a device without a nap: a short read is done that fast.
const SPINS: u32 = 20;
/// Length of the core's nap between two later polls, in µs.
///
/// A core that spins on an emulated machine takes time from the thread that emulates the device.
/// That cost up to half of the speed when the host was busy. A full queue lasts for much longer
/// than a nap.
const NAP_US: u64 = 50;
/// Number of naps in vain after which the next naps are twice as long.
///
/// A request that takes so long can wait. A device that is given up after half a minute should not
/// keep the core busy until then.
const NAPS: u32 = 1024;
/// Maximum number of doublings, to naps of 1.6 ms.
const DOUBLINGS: u32 = 5;

/// The clock of the machine.
struct MachineClock;

impl Clock for MachineClock {
    fn now_us(&self) -> u64 {
        time::now_us()
    }

    fn pause(&self, polls: u32) {
        if polls < SPINS {
            core::hint::spin_loop();
        } else {
            let nap_us = NAP_US << (polls / NAPS).min(DOUBLINGS);
            idle::wait_until(&|| false, Some(time::now_us() + nap_us));
        }
    }
}

/// The supply of a card in a Raspberry Pi: pins that the firmware switches.
struct Expander(SdSupply);

impl Supply for Expander {
    fn set_low_voltage(&self, low: bool) -> bool {
        set_pin(self.0.low_voltage_pin, low)
    }

    fn set_power(&self, on: bool) -> bool {
        set_pin(self.0.power_pin, on)
    }
}

/// Asks the firmware to make a pin high or low; returns whether the firmware did.
fn set_pin(pin: u32, high: bool) -> bool {
    matches!(videocore::ask(|mailbox| mailbox.set_expander_pin(pin, high)), Some(Ok(())))
}

/// Finds all block devices, the preferred one first.
///
/// The order is: virtio over MMIO, virtio over PCI, SD cards, the initial RAM disk. An initial RAM
/// disk that is no disk image gives its files as the second result.
///
/// A device that cannot be started is logged and left out. So is a virtio device whose DMA may
/// bypass the processor's caches. The SD hosts' driver cleans and invalidates the caches itself
/// ([`Dma`]). So that driver works whether the hosts' DMA is coherent or not.
///
/// # Errors
/// There is an initial RAM disk that cannot be used, and no other device.
///
/// # Safety
/// 1. The registers of the SD hosts are mapped one to one as device memory.
/// 2. The initial RAM disk is mapped one to one, and nobody writes to it.
/// 3. The heap is mapped one to one.
/// 4. Nobody else drives these devices, and the function is called once.
pub unsafe fn disks(
    machine: &Machine<'_>,
    bus: &mut Bus,
) -> Result<(Vec<Disk>, Option<Archive>), InitrdError> {
    let mut devices: Vec<Box<dyn BlockDevice>> = Vec::new();
    devices.extend(bus.take(DeviceType::Block).into_iter().filter_map(virtio_disk));
    for (host, table) in machine.sd_hosts.iter().zip(&TABLES) {
        // SAFETY: upheld by the caller. There is one table for each host.
        devices.extend(unsafe { sd_card(host, table) });
    }
    let mut archive = None;
    if let Some(region) = machine.initrd
        && let Some(start) = NonNull::new(region.base as *mut u8)
    {
        // SAFETY: the caller promises that nobody writes to this memory.
        let bytes = unsafe { NonNull::slice_from_raw_parts(start, region.size as usize).as_ref() };
        match open_initrd(bytes) {
            Ok((parts, Contents::Files { format, files })) => {
                archive = Some(Archive::new(parts, format, files));
            }
            Ok((_, Contents::Disk(image))) => devices.push(Box::new(RamDisk::new(image))),
            Err(error) if devices.is_empty() => return Err(error),
            Err(error) => log::warn!("{error}"),
        }
    }
    let start = |device| Disk::new(device, Box::new(MachineClock));
    Ok((devices.into_iter().map(start).collect(), archive))
}

/// Maximum number of unused bytes behind decompressed data.
///
/// With more unused bytes the data is moved once more. Only the last of several gzip members tells
/// its size in advance.
const LEFT_OVER: usize = 1 << 20;

/// Decompresses an initrd where needed, and reads its contents.
///
/// The result is the parts of the initrd, and what the parts hold. The decompressed data stays for
/// good, read-only.
fn open_initrd(
    bytes: &'static [u8],
) -> Result<(Vec<&'static [u8]>, Contents<'static>), InitrdError> {
    let start_us = time::now_us();
    let mut unpacked = PageBuffer::default();
    let parts = initrd::unpack(bytes, &mut unpacked)?;
    let made = parts.iter().filter_map(|part| match part {
        Part::Unpacked(range) => Some(range.end),
        Part::AsIs(_) => None,
    });
    let made = made.max();
    let mut exact = PageBuffer::default();
    if let Some(made) = made
        && unpacked.bytes().len() - made > LEFT_OVER
        && exact.grow(made)
    {
        exact.bytes().copy_from_slice(&unpacked.bytes()[..made]);
        unpacked = exact;
    }
    let ms = (time::now_us() - start_us) / 1000;
    let unpacked = unpacked.leak_read_only();
    if let Some(made) = made {
        let at = unpacked.as_ptr();
        log::info!("the initrd unpacks to {} KiB at {at:p}, in {ms} ms", made >> 10);
    }
    let parts = initrd::bytes_of(bytes, unpacked, &parts);
    let contents = initrd::contents(&parts)?;
    Ok((parts, contents))
}

/// The tables of the SD hosts' DMA.
///
/// An SD host may reach no more than the first GiB. The tables are in the image, which firmware
/// loads there.
static TABLES: [SharedTable; MAX_SD_HOSTS] =
    [const { SharedTable(UnsafeCell::new(Table::new())) }; MAX_SD_HOSTS];

struct SharedTable(UnsafeCell<Table>);

// SAFETY: only the driver that gets the table uses it.
unsafe impl Sync for SharedTable {}

/// The processor's data caches.
struct Caches;

// SAFETY: cleaning and invalidating changes nothing that a program sees.
unsafe impl Cache for Caches {
    unsafe fn clean_and_invalidate(&self, range: Range<u64>) {
        // SAFETY: upheld by the caller.
        unsafe { cache::clean_and_invalidate(range) };
    }
}

/// Starts the card in the slot of an SD host, if there is a usable card.
///
/// # Safety
/// As for [`disks`]. Nobody else uses the table.
unsafe fn sd_card(host: &SdHost, table: &'static SharedTable) -> Option<Box<dyn BlockDevice>> {
    // SAFETY: upheld by the caller.
    let registers = unsafe { Mmio::new(host.region) };
    let table = NonNull::new(table.0.get())?;
    // SAFETY: the table is a static. The image and the heap are mapped one to one.
    let dma = || Some(unsafe { Dma::new(table, dma::bounce(), host.dma.clone(), &Caches) });
    let supply = host.supply.map(|supply| -> Box<dyn Supply> { Box::new(Expander(supply)) });
    match SdDisk::new(registers, Box::new(MachineClock), supply, dma) {
        Ok(disk) => {
            facts::report("sd", format_args!("{}", disk.summary()));
            Some(Box::new(disk))
        }
        Err(error) => {
            // An empty slot is no fault, and the host of the WiFi chip has no card.
            let level = match error {
                SdError::NoCard | SdError::NoBaseClock => log::Level::Debug,
                _ => log::Level::Warn,
            };
            log::log!(level, "SD host at {:#x}: {error}", host.region.base);
            None
        }
    }
}

/// Starts a virtio block device.
fn virtio_disk(found: Found) -> Option<Box<dyn BlockDevice>> {
    let name = match found.transport {
        SomeTransport::Mmio(_) => "virtio-blk (mmio)",
        SomeTransport::Pci(_) => "virtio-blk (pci)",
    };
    match VirtioDisk::new(found.transport, name, found.coherence) {
        Ok(disk) => Some(Box::new(disk)),
        Err(error) => {
            log::warn!("{name}: {error}; an initrd can hold the model instead");
            None
        }
    }
}

impl Output for PageBuffer {
    fn grow(&mut self, bytes: usize) -> bool {
        PageBuffer::grow(self, bytes)
    }

    fn bytes(&mut self) -> &mut [u8] {
        PageBuffer::bytes(self)
    }
}
