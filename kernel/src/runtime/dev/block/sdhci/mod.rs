//! SD cards and eMMC behind a standard host controller, such as a Raspberry Pi 4's EMMC2.
//!
//! Sources: SD Host Controller Simplified Specification 3.00 (the controller: "HC" below) and SD
//! Physical Layer Simplified Specification 6.00 (the card: "PL"); JEDEC JESD84-B51 (eMMC 5.1: "MMC").
//!
//! A read is one command of many blocks (CMD18), which the controller ends by itself (Auto CMD12).
//! The data comes by ADMA2 where the controller can do that: straight to its place if the controller
//! reaches that memory, else through a buffer that it reaches ([`dma`]). Without ADMA2 it comes through the
//! controller's data port (programmed I/O, "PIO").
//!
//! Registers are read and written as words of 32 bits alone: Broadcom's controllers take nothing else
//! (Linux, drivers/mmc/host/sdhci-iproc.c).

mod card;
mod command;
pub mod dma;
mod host;
mod registers;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use command::SdError;
pub use host::Supply;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::ptr::NonNull;

use super::{BlockDevice, Buffer, Clock, Completion, Request};
use crate::runtime::dev::mmio::Registers;
use card::{Card, R1_ERRORS};
use command::{BLOCK_BYTES, Response, STOP_TRANSMISSION};
use dma::Dma;
use host::Host;
use registers::{
    MODE_AUTO_CMD12, MODE_COUNT, MODE_DMA, MODE_MULTIPLE, MODE_READ, register, status,
};

/// A command gets this long, in µs, and one more for each byte; cards have 100 ms and read a MB a second
/// at least. A controller that has lost a block may wait for much longer.
const PATIENCE_US: u64 = 2_000_000;
/// After so many damaged transfers, one after another, the card gets a slower clock: one less than a
/// single block is tried.
const DAMAGED_IN_TURN: u32 = 2;
/// That clock, in Hz. It suits the timing of high speed too, which goes from 0 to 50 MHz (PL 6.6).
const SLOWER_HZ: u32 = 25_000_000;
/// How often block 0 is tried, and how long the driver then waits between two looks, in µs.
const ATTEMPTS: u32 = 3;
const LOOK_US: u64 = 100;
/// How long the core looks for the next block in the data port without a pause, in µs. At 50 MHz and with
/// 4 lines a block takes 20, and a nap would take longer.
const NEXT_BLOCK_US: u64 = 100;

/// An SD card or an eMMC.
pub struct SdDisk<R> {
    host: Host<R>,
    card: Card,
    /// What the controller does DMA with, as long as that works.
    dma: Option<Dma>,
    /// Bytes that have come by it.
    by_dma: u64,
    /// Transfers that were damaged on their way since the last one that was not.
    damaged: u32,
    state: State,
}

/// What the card is busy with.
enum State {
    Idle,
    /// The next command of this read is to be sent once the lines are free.
    Due(Read),
    /// That command is under way.
    Running(Read),
    /// It can neither be carried out nor ended: the controller may write to the memory at any time.
    Lost(Read),
}

/// A request that is being carried out, by one command after another.
struct Read {
    request: Request,
    /// Bytes that earlier commands have read.
    done: usize,
    /// Bytes that the present command reads.
    length: usize,
    /// Bytes of those that have been read; by DMA, all come at once.
    received: usize,
    way: Way,
    /// When the data port last gave a block, in the host's time.
    block_us: u64,
    /// The command is given up then, in the host's time.
    deadline_us: u64,
}

/// How the data comes to its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Port,
    Direct,
    Bounce,
}

/// How a look at a command ended.
enum Look {
    Waiting,
    Done,
    Failed,
}

impl<R: Registers + Send> SdDisk<R> {
    /// Starts the controller behind `registers` and the card in its slot.
    ///
    /// `supply` is there if the card's supply can be switched. `dma` is asked if there is a card and the
    /// controller can do ADMA2.
    ///
    /// Takes up to a second or so: a card may need that long to be ready.
    ///
    /// # Errors
    /// There is no card, or none that can be read.
    pub fn new(
        registers: R,
        clock: Box<dyn Clock>,
        supply: Option<Box<dyn Supply>>,
        dma: impl FnOnce() -> Option<Dma>,
    ) -> Result<SdDisk<R>, SdError> {
        let host = Host::new(registers, clock, supply)?;
        let card = Card::identify(&host)?;
        let dma = if host.can_do_adma2() { dma() } else { None };
        let mut disk = SdDisk { host, card, dma: None, by_dma: 0, damaged: 0, state: State::Idle };
        if let Some(dma) = dma
            && !disk.try_dma(dma)
        {
            log::warn!(
                "{}: DMA does not bring what the data port does, going on without",
                disk.name()
            );
            disk.dma = None;
        }
        Ok(disk)
    }

    /// What a board's owner may want to know of the controller, and how the card is read.
    pub fn summary(&self) -> String {
        let (capabilities, version) = (self.host.capabilities(), self.host.version());
        let way = if self.dma.is_some() { "dma" } else { "pio" };
        let edges = if self.host.is_at_ddr50() { " ddr50" } else { "" };
        let mhz = self.host.hz() / 1_000_000;
        format!("caps {capabilities:#x} version {version} {mhz}MHz{edges} {way}")
    }

    /// Takes DMA into use, and tells whether it brings block 0 as the data port does. Where the device
    /// tree is wrong about a window, the controller writes elsewhere and reports no error.
    fn try_dma(&mut self, mut dma: Dma) -> bool {
        let Some(expected) = self.read_first_block([0; BLOCK_BYTES]) else { return false };
        // No byte of it is right.
        let pattern = expected.map(|byte| !byte);
        dma.fill_bounce(&pattern);
        self.host.select_adma2();
        self.dma = Some(dma);
        self.read_first_block(pattern) == Some(expected) && self.by_dma != 0
    }

    /// What block 0 makes of `before`.
    fn read_first_block(&mut self, before: [u8; BLOCK_BYTES]) -> Option<[u8; BLOCK_BYTES]> {
        let memory = NonNull::from(Box::leak(Box::new(before)));
        for _ in 0..ATTEMPTS {
            let bytes = NonNull::slice_from_raw_parts(memory.cast(), BLOCK_BYTES);
            // SAFETY: the memory came out of a box, so it is valid and nobody else's; it goes back into one
            // only when the controller is done with it.
            self.submit(Request::new(0, unsafe { Buffer::new(bytes) }));
            let done = loop {
                if let Some(done) = self.complete() {
                    break done;
                }
                if matches!(self.state, State::Lost(_)) {
                    return None;
                }
                self.host.sleep(LOOK_US);
            };
            if done.ok {
                // SAFETY: as above.
                return Some(*unsafe { Box::from_raw(memory.as_ptr()) });
            }
        }
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(memory.as_ptr()) });
        None
    }

    /// When a command that reads so many bytes has taken too long.
    fn deadline_us(&self, bytes: usize) -> u64 {
        self.host.now_us() + PATIENCE_US + bytes as u64
    }

    /// Sends the next command of a read.
    fn start(&mut self, mut read: Read) -> Read {
        let rest = read.request.buffer.as_ptr().len() - read.done;
        read.length = rest.min(dma::LARGEST);
        read.received = 0;
        let mut table = None;
        read.way = Way::Port;
        if let Some(dma) = &mut self.dma {
            table = dma.prepare(read.request.buffer.part(read.done, read.length));
            read.way = Way::Direct;
            if table.is_none() {
                read.length = read.length.min(dma::BOUNCE_BYTES);
                table = dma.prepare_bounce(read.length);
                read.way = if table.is_some() { Way::Bounce } else { Way::Port };
            }
        }
        read.deadline_us = self.deadline_us(read.length);

        let blocks = (read.length / BLOCK_BYTES) as u32;
        let mut mode = MODE_READ;
        let mut command = card::READ_SINGLE_BLOCK;
        if blocks > 1 {
            mode |= MODE_MULTIPLE | MODE_COUNT | MODE_AUTO_CMD12;
            command = card::READ_MULTIPLE_BLOCK;
        }
        if let Some(table) = table {
            mode |= MODE_DMA;
            self.host.write(register::ADMA_ADDRESS, table);
            self.host.write(register::ADMA_ADDRESS_HIGH, 0);
        }
        self.host.write(register::BLOCK, blocks << 16 | BLOCK_BYTES as u32);
        let block = read.request.sector + (read.done / BLOCK_BYTES) as u64;
        self.host.send(command, Response::R1, self.card.address(block), Some(mode));
        read
    }

    /// Looks how far the command has come, and fetches what the data port holds.
    fn look(&mut self, read: &mut Read) -> Look {
        loop {
            let now = self.host.read(register::STATUS);
            if now & status::ERRORS != 0 {
                if now & status::DAMAGED != 0 {
                    self.damaged += 1;
                }
                if now & status::ADMA_ERROR != 0 {
                    log::warn!("{}: DMA does not work, going on without", self.card.name());
                    self.dma = None;
                }
                return Look::Failed;
            }
            if now & status::COMMAND_COMPLETE != 0 {
                self.host.write(register::STATUS, status::COMMAND_COMPLETE);
                if self.host.read(register::RESPONSE) & R1_ERRORS != 0 {
                    return Look::Failed;
                }
            }
            if now & status::READ_READY != 0 && read.way == Way::Port && read.received < read.length
            {
                self.host.write(register::STATUS, status::READ_READY);
                let mut block = [0; BLOCK_BYTES];
                self.host.read_block(&mut block);
                read.request.buffer.fill_part(read.done + read.received, &block);
                read.received += BLOCK_BYTES;
                read.block_us = self.host.now_us();
                continue;
            }
            if now & status::TRANSFER_COMPLETE == 0 {
                if self.host.now_us() < read.block_us + NEXT_BLOCK_US {
                    continue;
                }
                return Look::Waiting;
            }
            self.host.write(register::STATUS, status::TRANSFER_COMPLETE);
            if let Some(dma) = self.dma.as_mut().filter(|_| read.way != Way::Port) {
                let finish = if read.way == Way::Direct { Dma::finish } else { Dma::finish_bounce };
                finish(dma, &mut read.request.buffer, read.done, read.length);
                read.received = read.length;
                self.by_dma += read.length as u64;
            }
            return if read.received == read.length { Look::Done } else { Look::Failed };
        }
    }

    /// Ends a command that went wrong, so that another can be sent (HC 3.10.1): it takes µs, or a
    /// tenth of a second where the card does not answer. Whether the controller is done with it.
    fn recover(&self) -> bool {
        if !self.host.reset_lines() {
            return false;
        }
        // Fails where the card was not sending.
        let _ = self.host.command(STOP_TRANSMISSION, Response::R1b, 0);
        self.host.reset_lines()
    }

    /// Gives a read back that went wrong, if the controller leaves its memory alone now.
    fn fail(&mut self, read: Read) -> Option<Completion> {
        if self.recover() {
            if self.damaged >= DAMAGED_IN_TURN && self.host.hz() > SLOWER_HZ {
                let (name, mhz) = (self.name(), SLOWER_HZ / 1_000_000);
                log::warn!("{name}: data comes damaged, going on with a clock of {mhz} MHz");
                // If the clock fails, so does the next command.
                let _ = self.host.set_clock(SLOWER_HZ);
            }
            return Some(Completion { request: read.request, ok: false });
        }
        self.state = State::Lost(read);
        None
    }

    /// Leaves a read as it is, unless it has taken too long.
    fn wait(&mut self, read: Read, state: fn(Read) -> State) -> Option<Completion> {
        if self.host.now_us() > read.deadline_us {
            return self.fail(read);
        }
        self.state = state(read);
        None
    }
}

impl<R: Registers + Send> BlockDevice for SdDisk<R> {
    fn name(&self) -> &'static str {
        self.card.name()
    }

    fn sector_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn sectors(&self) -> u64 {
        self.card.blocks()
    }

    fn queue_depth(&self) -> usize {
        1
    }

    fn submit(&mut self, request: Request) {
        let deadline_us = self.deadline_us(0);
        let read = Read {
            request,
            done: 0,
            length: 0,
            received: 0,
            way: Way::Port,
            block_us: 0,
            deadline_us,
        };
        self.state = State::Due(read);
    }

    fn complete(&mut self) -> Option<Completion> {
        loop {
            match core::mem::replace(&mut self.state, State::Idle) {
                State::Idle => return None,
                State::Due(read) if self.host.is_busy() => return self.wait(read, State::Due),
                State::Due(read) => self.state = State::Running(self.start(read)),
                State::Running(mut read) => match self.look(&mut read) {
                    Look::Waiting => return self.wait(read, State::Running),
                    Look::Failed => return self.fail(read),
                    Look::Done => {
                        self.damaged = 0;
                        read.done += read.length;
                        if read.done == read.request.buffer.len() {
                            return Some(Completion { request: read.request, ok: true });
                        }
                        self.state = State::Due(read);
                    }
                },
                State::Lost(read) => {
                    self.state = State::Lost(read);
                    return None;
                }
            }
        }
    }
}
