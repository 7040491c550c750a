//! A controller with a card in its slot, at the level of registers. Its DMA is not coherent: what it
//! writes arrives in memory when the caches are told to forget the lines.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::Mutex;

use super::dma::{self, Cache, Dma, Table};
use super::registers::register;
use super::*;
use crate::runtime::dev::mmio::{Access, FakeRegisters};
use crate::runtime::machine::{DmaWindow, DmaWindows, Region};

/// The kinds of card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing in the slot.
    None,
    /// Up to 2 GB, before version 2.00: does not know CMD8.
    Version1,
    /// Up to 2 GB.
    Standard,
    /// SDHC and SDXC.
    High,
    /// Counts bytes: up to 2 GB.
    SmallEmmc,
    /// Counts blocks.
    Emmc,
}

impl Kind {
    pub fn is_emmc(self) -> bool {
        matches!(self, Kind::SmallEmmc | Kind::Emmc)
    }
}

/// What goes wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bits of the error status, the data half done.
    Error(u32),
    /// The card's answer has these bits.
    State(u32),
    /// Nothing happens until the lines are reset.
    Silence,
    /// The data comes, but the data lines stay in use until they are reset.
    Busy,
    /// Nothing happens any more, and a reset does not end.
    Death,
}

/// What goes wrong with a card at 1.8 V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowVoltageFault {
    /// The supply does not switch.
    Supply,
    /// The card keeps its lines low.
    Lines,
    /// The controller takes its bit back.
    Controller,
    /// The data of DDR50 is damaged.
    Data,
    /// The card knows no DDR50.
    NoDdr50,
}

/// The time of a slot, in ns. It goes on with each access to a register, and with each pause.
#[derive(Clone, Default)]
pub struct SlotClock(Arc<AtomicU64>);

impl SlotClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Clock for SlotClock {
    fn now_us(&self) -> u64 {
        self.now_ns() / 1000
    }

    /// A spin or a nap, as on the machine.
    fn pause(&self, polls: u32) {
        self.advance(if polls < 20 { 50 } else { NAP_NS });
    }
}

/// What an eMMC has that SD cards have not.
pub struct Emmc {
    /// Its state, as the specification counts them (MMC 6.13): idle, ready, ident, stby, tran.
    state: u32,
    pub ext_csd: [u8; 512],
    /// The byte of the EXT_CSD that a switch does not change, but tells of an error.
    pub refused: Option<usize>,
    switch_error: bool,
    /// How long it is busy after a switch, in ns, and until when it is now.
    pub busy_ns: u64,
    busy_until_ns: Option<u64>,
    /// When it was told to be idle.
    idle_ns: u64,
}

/// Bytes of the EXT_CSD.
const BUS_WIDTH: usize = 183;
const HS_TIMING: usize = 185;
pub const DEVICE_TYPE: usize = 196;
const SEC_COUNT: usize = 212;

impl Emmc {
    fn new(kind: Kind, bytes: usize) -> Emmc {
        let mut ext_csd = [0; 512];
        // High speed at 26 and at 52 MHz.
        ext_csd[DEVICE_TYPE] = 0b11;
        if kind == Kind::Emmc {
            ext_csd[SEC_COUNT..SEC_COUNT + 4].copy_from_slice(&(bytes as u32 / 512).to_le_bytes());
        }
        let (busy_ns, idle_ns) = (5_000, 0);
        let (refused, switch_error, busy_until_ns) = (None, false, None);
        Emmc { state: 0, ext_csd, refused, switch_error, busy_ns, busy_until_ns, idle_ns }
    }
}

const NAP_NS: u64 = 50_000;
/// How long an access to a register takes.
const ACCESS_NS: u64 = 100;

pub struct Machine {
    pub clock: SlotClock,
    pub kind: Kind,
    pub image: Vec<u8>,
    pub capabilities: u32,
    pub version: u32,
    pub emmc: Emmc,
    /// How often ACMD41 or an eMMC's CMD1 says "not yet".
    pub not_ready: u32,
    /// Faults of the next reads of blocks, in turn.
    pub faults: VecDeque<Option<Fault>>,
    /// Commands that were carried out: index (100 more behind CMD55) and argument.
    pub commands: Vec<(u32, u32)>,
    pub windows: DmaWindows,
    /// DMA of data goes elsewhere, where it harms nobody, and no error tells.
    pub windows_are_wrong: bool,
    pub high_speed: bool,
    /// With a faster clock, in Hz, all blocks come damaged.
    pub good_hz: u64,
    /// The supply can be switched, and the card knows 1.8 V.
    pub knows_low_voltage: bool,
    /// What is wrong with 1.8 V.
    pub low_voltage_fault: Option<LowVoltageFault>,
    /// The card has power; its lines have 1.8 V by the supply, and by the card.
    is_on: bool,
    is_low: [bool; 2],
    /// The card has lost its power for long enough.
    off_ns: Option<u64>,
    /// The card changes its voltage, and since when it has no clock.
    switching: Option<Option<u64>>,
    /// The card was offered 1.8 V and took it, and waits for CMD11.
    offered: bool,
    /// What the card was switched to in group 1: 1 for high speed, 4 for DDR50.
    pub function: u32,
    /// How long a block is on its way to the data port, in ns.
    pub block_ns: u64,
    /// Bytes that came by DMA, and through the data port.
    pub by_dma: usize,
    pub by_port: usize,
    registers: [u32; 64],
    /// Writes that came too soon after another.
    pub lost: usize,
    /// When a register was last written.
    written_ns: Option<u64>,
    dead: bool,
    application: bool,
    /// The last command was one that the card does not know.
    refused: bool,
    sending: Option<Sending>,
    port: VecDeque<u8>,
    /// Lines that no cache holds.
    clean: Vec<Range<u64>>,
    /// What DMA wrote and no processor sees yet.
    unseen: Vec<(u64, Vec<u8>)>,
}

/// Data on its way to the data port, by blocks.
struct Sending {
    data: VecDeque<u8>,
    block: usize,
    /// When the next one is there.
    at_ns: u64,
}

/// Of host control 2.
const LOW_VOLTAGE: u32 = 1 << 19;
const RCA: u32 = 0x4567_0000;
/// Ready for data, in the state "tran".
const R1_TRANSFER: u32 = 0x900;

/// A fake card in a fake controller.
#[derive(Clone)]
pub struct Slot(pub Arc<Mutex<Machine>>);

impl Slot {
    pub fn new(kind: Kind, image: Vec<u8>) -> Slot {
        Slot(Arc::new(Mutex::new(Machine {
            clock: SlotClock::default(),
            kind,
            emmc: Emmc::new(kind, image.len()),
            image,
            // 100 MHz, high speed, ADMA2.
            capabilities: 100 << 8 | 1 << 19 | 1 << 21,
            version: 2,
            not_ready: 3,
            faults: VecDeque::new(),
            commands: Vec::new(),
            windows: DmaWindows::new(),
            windows_are_wrong: false,
            high_speed: true,
            good_hz: u64::MAX,
            knows_low_voltage: false,
            low_voltage_fault: None,
            is_on: true,
            is_low: [false; 2],
            off_ns: None,
            switching: None,
            offered: false,
            function: 0,
            block_ns: 0,
            by_dma: 0,
            by_port: 0,
            registers: [0; 64],
            lost: 0,
            written_ns: None,
            dead: false,
            application: false,
            refused: false,
            sending: None,
            port: VecDeque::new(),
            clean: Vec::new(),
            unseen: Vec::new(),
        })))
    }

    pub fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }

    /// The driver of this card, by DMA to the table and to `memory`, or else without.
    pub fn start(&self, memory: Option<&[u8]>) -> Result<SdDisk<FakeRegisters>, SdError> {
        let dma = || {
            let memory = memory?;
            let table = NonNull::from(Box::leak(Box::new(Table::new())));
            let bounce = dma::bounce();
            let window = |bus_address, address: *mut u8, size: usize| DmaWindow {
                bus_address,
                memory: Region { base: address as u64, size: size as u64 },
            };
            let windows = &mut self.machine().windows;
            windows.push(window(0xc000_0000, table.cast().as_ptr(), size_of::<Table>()));
            windows.push(window(0x4000_0000, memory.as_ptr().cast_mut(), memory.len()));
            windows.push(window(0x8000_0000, bounce.cast().as_ptr(), bounce.len()));
            let cache = Box::leak(Box::new(FakeCache(self.clone())));
            // SAFETY: both are leaked, and only this driver's.
            Some(unsafe { Dma::new(table, bounce, windows.clone(), cache) })
        };
        let clock = self.machine().clock.clone();
        let slot = self.clone();
        let registers = FakeRegisters::new(move |access| slot.machine().access(access));
        let supply = self
            .machine()
            .knows_low_voltage
            .then(|| -> Box<dyn Supply> { Box::new(FakeSupply(self.clone())) });
        SdDisk::new(registers, Box::new(clock), supply, dma)
    }
}

struct FakeSupply(Slot);

impl Supply for FakeSupply {
    fn set_low_voltage(&self, low: bool) -> bool {
        let mut machine = self.0.machine();
        assert!(!machine.has_clock(), "the lines' voltage changes while there is no clock");
        let works = machine.low_voltage_fault != Some(LowVoltageFault::Supply);
        machine.is_low[0] = low && works;
        works || !low
    }

    fn set_power(&self, on: bool) -> bool {
        let mut machine = self.0.machine();
        let now_ns = machine.clock.now_ns();
        if on {
            let off_ns = machine.off_ns.take().expect("the power was off");
            assert!(now_ns - off_ns >= 1_000_000, "the card had power again too soon");
            machine.is_low[1] = false;
            (machine.switching, machine.function, machine.offered) = (None, 0, false);
            machine.set_lines(0xf);
        } else {
            assert!(!machine.has_clock(), "the card loses its power while there is no clock");
            machine.off_ns = Some(now_ns);
        }
        machine.is_on = on;
        true
    }
}

struct FakeCache(Slot);

// SAFETY: what it does is what a cache without its lines would show.
unsafe impl Cache for FakeCache {
    unsafe fn clean_and_invalidate(&self, range: Range<u64>) {
        let mut machine = self.0.machine();
        let unseen = core::mem::take(&mut machine.unseen);
        for (address, data) in unseen {
            if range.start <= address && address + data.len() as u64 <= range.end {
                // SAFETY: the driver gave this memory to the controller, and now wants it back.
                unsafe {
                    (address as *mut u8).copy_from_nonoverlapping(data.as_ptr(), data.len());
                }
            } else {
                machine.unseen.push((address, data));
            }
        }
        machine.clean.push(range);
    }
}

impl Machine {
    fn access(&mut self, access: Access) -> u64 {
        self.clock.advance(ACCESS_NS);
        match access {
            Access::Read { offset, width } => {
                assert_eq!(width, 4);
                self.read(offset).into()
            }
            Access::Write { offset, width, value } => {
                assert_eq!(width, 4);
                if self.is_too_soon() {
                    self.lost += 1;
                } else {
                    self.write(offset, value as u32);
                }
                0
            }
        }
    }

    /// The card's clock, in Hz; 0 if it is off.
    pub fn clock_hz(&self) -> u64 {
        let clock = self.registers[register::CLOCK / 4];
        let low = clock >> 8 & 0xff;
        let half = if self.version >= 2 { low | (clock >> 6 & 0b11) << 8 } else { low };
        let base_hz = u64::from(self.capabilities >> 8 & 0xff) * 1_000_000;
        if clock & 1 << 2 == 0 { 0 } else { base_hz / u64::from(2 * half).max(1) }
    }

    /// Whether the write that comes now is one too many: while the clock is slow, those within two
    /// cycles of it are, and while it is off, those within 10 µs.
    fn is_too_soon(&mut self) -> bool {
        let busy_ns = match self.clock_hz() {
            0 => 10_000,
            hz if hz <= 400_000 => 2_000_000_000 / hz,
            _ => 0,
        };
        let now = self.clock.now_ns();
        let before = self.written_ns.replace(now);
        before.is_some_and(|before| now - before < busy_ns)
    }

    fn read(&mut self, offset: usize) -> u32 {
        self.next_block();
        if self.emmc.busy_until_ns.is_some_and(|end| self.clock.now_ns() >= end) {
            self.emmc.busy_until_ns = None;
            self.registers[register::PRESENT / 4] &= !0b10;
            self.raise(status::TRANSFER_COMPLETE);
        }
        match offset {
            register::CAPABILITIES => self.capabilities,
            // SDR50 and DDR50, as a Raspberry Pi 4 has them.
            register::CAPABILITIES_HIGH => 0xa525,
            register::VERSION => self.version << 16,
            register::DATA => {
                let mut word = [0; 4];
                for byte in &mut word {
                    *byte = self.port.pop_front().expect("nothing is read from an empty port");
                }
                self.by_port += 4;
                u32::from_le_bytes(word)
            }
            _ => self.registers[offset / 4],
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        match offset {
            register::STATUS => {
                self.registers[offset / 4] &= !value;
                // The summary follows the errors.
                if self.registers[offset / 4] >> 16 == 0 {
                    self.registers[offset / 4] &= !status::ERROR;
                }
            }
            register::CLOCK => {
                if value & 1 << 24 != 0 {
                    self.registers = [0; 64];
                    return;
                }
                if value & 0b11 << 25 != 0 {
                    if self.dead {
                        self.registers[offset / 4] = value;
                        return;
                    }
                    self.registers[register::PRESENT / 4] &= !0b11;
                    self.sending = None;
                    self.port.clear();
                }
                let had_clock = self.has_clock();
                // The internal clock is stable at once.
                self.registers[offset / 4] = value & 0x00ff_ffff | (value & 1) << 1;
                self.clock_changes(had_clock);
            }
            register::COMMAND => {
                self.registers[offset / 4] = value;
                self.command(value >> 24 & 0x3f, value);
            }
            register::CONTROL_2 => {
                assert!(!self.has_clock(), "the timing changes while there is no clock");
                let taken = self.low_voltage_fault == Some(LowVoltageFault::Controller);
                self.registers[offset / 4] = if taken { value & !LOW_VOLTAGE } else { value };
            }
            _ => self.registers[offset / 4] = value,
        }
    }

    fn has_clock(&self) -> bool {
        self.registers[register::CLOCK / 4] & 1 << 2 != 0
    }

    fn set_lines(&mut self, levels: u32) {
        let present = &mut self.registers[register::PRESENT / 4];
        *present = *present & !(0xf << 20) | levels << 20;
    }

    /// A card that changes its voltage does so while the clock stands still for 5 ms (PL 4.2.4.2).
    fn clock_changes(&mut self, had_clock: bool) {
        let now_ns = self.clock.now_ns();
        match (self.switching, had_clock, self.has_clock()) {
            (Some(_), true, false) => self.switching = Some(Some(now_ns)),
            (Some(Some(since_ns)), false, true) => {
                let is_long = now_ns - since_ns >= 5_000_000;
                let is_host = self.registers[register::CONTROL_2 / 4] & LOW_VOLTAGE != 0;
                self.switching = None;
                if is_long
                    && is_host
                    && self.is_low[0]
                    && self.low_voltage_fault != Some(LowVoltageFault::Lines)
                {
                    self.is_low[1] = true;
                    self.set_lines(0xf);
                }
            }
            _ => {}
        }
    }

    fn raise(&mut self, bits: u32) {
        let error = if bits >> 16 != 0 { status::ERROR } else { 0 };
        let enabled = self.registers[register::STATUS_ENABLE / 4];
        self.registers[register::STATUS / 4] |= (bits | error) & enabled;
    }

    fn answer(&mut self, words: [u32; 4]) {
        self.registers[register::RESPONSE / 4..][..4].copy_from_slice(&words);
        self.raise(status::COMMAND_COMPLETE);
    }

    fn command(&mut self, index: u32, command: u32) {
        let present = self.registers[register::PRESENT / 4];
        assert_eq!(present & 0b11, 0, "CMD{index} while the lines are in use");
        let clock = self.registers[register::CLOCK / 4];
        assert_eq!(clock & 0b101, 0b101, "CMD{index} without a clock");
        assert_ne!(self.registers[register::CONTROL / 4] & 1 << 8, 0, "CMD{index} without power");
        let timing = self.registers[register::CONTROL_2 / 4];
        let voltages = [self.is_low[0], self.is_low[1], timing & LOW_VOLTAGE != 0];
        assert!(self.is_on && self.switching.is_none(), "CMD{index} to a card that is off");
        assert!(voltages == [voltages[0]; 3], "CMD{index} at several voltages: {voltages:?}");
        let argument = self.registers[register::ARGUMENT / 4];
        let application = core::mem::take(&mut self.application);
        if self.kind.is_emmc() {
            return self.emmc_command(index, argument, command);
        }
        let known = match index {
            0 => true,
            8 => !matches!(self.kind, Kind::None | Kind::Version1),
            _ => self.kind != Kind::None,
        };
        if !known {
            self.refused = true;
            return self.raise(status::COMMAND_TIMEOUT | status::COMMAND_COMPLETE);
        }
        self.commands.push((index + if application { 100 } else { 0 }, argument));
        let selected = |argument: u32| assert_eq!(argument & 0xffff_0000, RCA);
        match (application, index) {
            (false, 0) => self.answer([0; 4]),
            (false, 8) => self.answer([argument, 0, 0, 0]),
            (false, 55) => {
                self.application = true;
                // One that did not know CMD8 says so only now.
                let unknown = u32::from(core::mem::take(&mut self.refused)) << 22;
                self.answer([unknown | 0x120, 0, 0, 0]);
            }
            (true, 41) => {
                assert_ne!(argument & 0x00ff_8000, 0);
                let ready = self.not_ready == 0;
                self.not_ready = self.not_ready.saturating_sub(1);
                let high = self.kind == Kind::High && argument & 1 << 30 != 0;
                let asked = argument & 1 << 24 != 0;
                self.offered = ready && asked && self.knows_low_voltage && !self.is_low[1];
                let ocr = 0x00ff_8000
                    | u32::from(ready) << 31
                    | u32::from(high && ready) << 30
                    | u32::from(self.offered) << 24;
                self.answer([ocr, 0, 0, 0]);
            }
            (false, 11) => {
                assert!(core::mem::take(&mut self.offered), "1.8 V was not agreed upon");
                self.answer([R1_TRANSFER, 0, 0, 0]);
                self.switching = Some(None);
                self.set_lines(0);
            }
            (false, 2) => self.answer([1, 2, 3, 4]),
            (false, 3) => self.answer([RCA | 0x500, 0, 0, 0]),
            (false, 9) => {
                selected(argument);
                self.answer(csd(self.kind, self.image.len(), self.high_speed));
            }
            (false, 7) => {
                selected(argument);
                self.answer([0x700, 0, 0, 0]);
            }
            (false, 16) => {
                assert_eq!(argument, 512);
                self.answer([R1_TRANSFER, 0, 0, 0]);
            }
            (true, 6) => {
                assert_eq!(argument, 2);
                self.answer([R1_TRANSFER, 0, 0, 0]);
            }
            (false, 6) => {
                let mut functions = [0; 64];
                let function = argument & 0xf;
                let has_ddr50 = self.low_voltage_fault != Some(LowVoltageFault::NoDdr50);
                let is_known = function == 1 || function == 4 && self.is_low[1] && has_ddr50;
                functions[16] = if is_known { function as u8 } else { 0xf };
                self.answer([R1_TRANSFER, 0, 0, 0]);
                self.send(functions.into(), 64);
                if is_known && argument >> 31 != 0 {
                    self.function = function;
                }
            }
            (false, 12) => {
                assert_eq!(command >> 22 & 0b11, 0b11, "CMD12 is an abort");
                self.answer([R1_TRANSFER, 0, 0, 0]);
            }
            (false, 17 | 18) => self.blocks(index, argument, command),
            _ => panic!("the card knows no CMD{index}"),
        }
    }

    /// What an eMMC does with a command. It answers none that its state does not allow.
    fn emmc_command(&mut self, index: u32, argument: u32, command: u32) {
        const ADDRESS: u32 = 1 << 16;
        let now_ns = self.clock.now_ns();
        let state = self.emmc.state;
        let hz = self.clock_hz();
        let control = self.registers[register::CONTROL / 4];
        let [width, timing] = [BUS_WIDTH, HS_TIMING].map(|byte| u32::from(self.emmc.ext_csd[byte]));
        let fastest = match (state, timing) {
            (0..=2, _) => 400_000,
            (_, 0) => 26_000_000,
            _ => 52_000_000,
        };
        assert!(index == 0 || hz <= fastest, "CMD{index} at {hz} Hz");
        if command & 1 << 21 != 0 {
            assert_eq!(control >> 1 & 1, width, "CMD{index} with the wrong number of lines");
        }
        let allowed = match (index, state) {
            (0, _) => true,
            (1, 0) => now_ns - self.emmc.idle_ns >= 1_000_000,
            (2, 1) | (3, 2) => true,
            (7 | 9, 3) | (13, 3 | 4) => argument == ADDRESS,
            (8 | 16 | 6 | 12 | 17 | 18, 4) => true,
            _ => false,
        };
        if !allowed {
            return self.raise(status::COMMAND_TIMEOUT | status::COMMAND_COMPLETE);
        }
        self.commands.push((index, argument));
        let r1 = [state << 9 | 1 << 8, 0, 0, 0];
        match index {
            0 => {
                self.emmc.state = 0;
                self.emmc.idle_ns = now_ns;
                self.answer([0; 4]);
            }
            1 => {
                assert_eq!(argument, 0x40ff_8000);
                let ready = self.not_ready == 0;
                self.not_ready = self.not_ready.saturating_sub(1);
                self.emmc.state = u32::from(ready);
                let high = u32::from(self.kind == Kind::Emmc && ready);
                self.answer([0x00ff_8080 | u32::from(ready) << 31 | high << 30, 0, 0, 0]);
            }
            2 => {
                self.emmc.state = 2;
                self.answer([1, 2, 3, 4]);
            }
            3 => {
                assert_eq!(argument, ADDRESS);
                self.emmc.state = 3;
                self.answer(r1);
            }
            7 => {
                self.emmc.state = 4;
                self.answer(r1);
            }
            9 => self.answer(csd(self.kind, self.image.len(), false)),
            8 => {
                assert_eq!(argument, 0);
                let block = self.registers[register::BLOCK / 4];
                assert_eq!(block, 1 << 16 | 512);
                self.answer(r1);
                self.send(self.emmc.ext_csd.to_vec().into(), 512);
            }
            6 => {
                assert_eq!(argument & 0xff00_00ff, 0x0300_0000);
                let byte = (argument >> 16 & 0xff) as usize;
                self.emmc.switch_error = self.emmc.refused == Some(byte);
                if !self.emmc.switch_error {
                    self.emmc.ext_csd[byte] = (argument >> 8) as u8;
                }
                self.emmc.busy_until_ns = Some(now_ns + self.emmc.busy_ns);
                self.registers[register::PRESENT / 4] |= 0b10;
                self.answer(r1);
            }
            13 => {
                let error = u32::from(core::mem::take(&mut self.emmc.switch_error));
                self.answer([r1[0] | error << 7, 0, 0, 0]);
            }
            16 => {
                assert_eq!(argument, 512);
                self.answer(r1);
            }
            12 => self.answer(r1),
            _ => self.blocks(index, argument, command),
        }
    }

    /// A read of blocks.
    fn blocks(&mut self, index: u32, argument: u32, command: u32) {
        let block = self.registers[register::BLOCK / 4];
        assert_eq!(block & 0xfff, 512);
        let count = (block >> 16) as usize;
        assert_eq!(index == 18, count > 1);
        // Read; for several also: count them, CMD12 at the end.
        assert_eq!(command & 0x3e, if count > 1 { 0x36 } else { 0x10 });
        let start = match self.kind {
            Kind::High | Kind::Emmc => argument as usize * 512,
            _ => argument as usize,
        };
        let mut data = self.image[start..start + count * 512].to_vec();
        let timing = self.registers[register::CONTROL_2 / 4] >> 16 & 0b111;
        let expected = if self.is_low[1] { self.function } else { 0 };
        assert_eq!(timing, expected, "card and controller have the same timing");
        let is_slow = self.function == 0 && !self.kind.is_emmc();
        assert!(self.clock_hz() <= if is_slow { 25_000_000 } else { 52_000_000 });
        let mut fault = self.faults.pop_front().flatten();
        let fails_ddr50 = self.low_voltage_fault == Some(LowVoltageFault::Data);
        if self.clock_hz() > self.good_hz || self.function == 4 && fails_ddr50 {
            // The checksum of the data.
            fault = Some(Fault::Error(1 << 21));
        }
        match fault {
            Some(Fault::Silence | Fault::Death) => {
                self.registers[register::PRESENT / 4] |= 0b11;
                self.dead = fault == Some(Fault::Death);
                return;
            }
            Some(Fault::State(bits)) => return self.answer([R1_TRANSFER | bits, 0, 0, 0]),
            Some(Fault::Busy) => self.registers[register::PRESENT / 4] |= 0b10,
            Some(Fault::Error(_)) => data.truncate(count / 2 * 512),
            None => {}
        }
        self.answer([R1_TRANSFER, 0, 0, 0]);
        let whole = data.len() == count * 512;
        if command & 1 != 0 {
            assert_eq!(self.registers[register::CONTROL / 4] & 0x18, 0x10, "ADMA2 is selected");
            self.scatter(&data, whole);
            if whole {
                self.raise(status::TRANSFER_COMPLETE);
            }
        } else if !data.is_empty() {
            self.send(data.into(), 512);
        }
        if let Some(Fault::Error(bits)) = fault {
            self.registers[register::PRESENT / 4] |= 0b10;
            self.raise(bits);
        }
    }

    fn send(&mut self, data: VecDeque<u8>, block: usize) {
        let at_ns = self.clock.now_ns() + self.block_ns;
        self.sending = Some(Sending { data, block, at_ns });
        self.next_block();
    }

    /// Brings the next block to the data port, if it is time and the last one is gone.
    fn next_block(&mut self) {
        let now_ns = self.clock.now_ns();
        let Some(sending) = &mut self.sending else { return };
        if !self.port.is_empty() || now_ns < sending.at_ns {
            return;
        }
        sending.at_ns = now_ns + self.block_ns;
        if sending.data.is_empty() {
            self.sending = None;
            return self.raise(status::TRANSFER_COMPLETE);
        }
        self.port = sending.data.drain(..sending.block).collect();
        self.raise(status::READ_READY);
    }

    /// Where the processor sees `length` bytes at an address on the bus; no cache may hold them.
    fn memory(&self, bus: u32, length: usize) -> u64 {
        let window = self.windows.iter().find_map(|window| {
            let offset = u64::from(bus).checked_sub(window.bus_address)?;
            let fits = offset + length as u64 <= window.memory.size;
            fits.then_some(window.memory.base + offset)
        });
        let address = window.expect("DMA stays in the windows");
        let end = address + length as u64;
        let clean = |range: &Range<u64>| range.start <= address && end <= range.end;
        assert!(self.clean.iter().any(clean), "a cache holds {address:#x}");
        address
    }

    fn scatter(&mut self, mut data: &[u8], whole: bool) {
        let mut table = self.registers[register::ADMA_ADDRESS / 4];
        loop {
            let at = self.memory(table, 8) as *const [u32; 2];
            // SAFETY: the driver's table, and it waits for us.
            let [attributes, address] = unsafe { at.read() };
            assert_eq!(attributes & 0x31, 0x21, "a valid descriptor of a transfer");
            assert_eq!(address % 4, 0);
            let length = (attributes >> 16) as usize;
            let length = length.min(data.len());
            let (piece, rest) = data.split_at(length);
            let memory = self.memory(address, length);
            if !self.windows_are_wrong {
                self.unseen.push((memory, piece.to_vec()));
            }
            self.by_dma += length;
            data = rest;
            if attributes & 0b10 != 0 {
                assert!(data.is_empty(), "the table ends before the data");
                break;
            }
            if data.is_empty() {
                assert!(!whole, "the data ends before the table");
                break;
            }
            table += 8;
        }
        self.clean.clear();
    }
}

/// The card-specific data of a card of so many bytes, as the controller gives it.
fn csd(kind: Kind, bytes: usize, switch: bool) -> [u32; 4] {
    let classes = 0b1_0110_1101 | u128::from(switch) << 10;
    let units = |of: usize| (bytes / of - 1) as u128;
    let csd = classes << 84
        | match kind {
            Kind::High => 1 << 126 | 9 << 80 | units(512 << 10) << 48,
            // The size in blocks is elsewhere; the version too.
            Kind::Emmc => 0b11 << 126 | 4 << 122 | 9 << 80 | 0xfff << 62 | 7 << 47,
            Kind::SmallEmmc => 0b10 << 126 | 4 << 122 | 10 << 80 | units(16 << 10) << 62 | 2 << 47,
            // Blocks of 1 KiB, in units of 16.
            _ => 10 << 80 | units(16 << 10) << 62 | 2 << 47,
        };
    let shifted = csd >> 8;
    [0, 32, 64, 96].map(|low| (shifted >> low) as u32)
}
