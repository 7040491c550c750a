//! The 16550 UART and what is compatible with it.
//!
//! Source: PC16550D data sheet, National Semiconductor 1995 (Texas Instruments SNLS378), section 8.
//! Registers are bytes; boards space them out (`reg-shift`) and may want words read and written
//! (`reg-io-width`), as the `8250` device tree binding says.

use super::{Clock, Damaged, Driver, divisor, wait};
use crate::runtime::dev::mmio::Registers;
use crate::runtime::machine::Uart;

/// Receiver buffer when read, transmitter holding register when written; with [`LCR_DLAB`] the low
/// byte of the divisor.
const RBR_THR: usize = 0;
/// Interrupt enable; with [`LCR_DLAB`] the high byte of the divisor.
const IER: usize = 1;
/// Received data is available; the line status tells of an error. The Raspberry Pi's mini UART raises
/// nothing for data unless bit 2 is set as well, contrary to BCM2711 ARM Peripherals, 2.2.2. Linux sets both on
/// all 16550s (drivers/tty/serial/8250/8250_port.c). A read of the line status ends its interrupt.
const IER_RECEIVED: u8 = 1 << 0 | 1 << 2;
/// FIFO control, to be written only.
const FCR: usize = 2;
/// FIFOs on and both emptied; the interrupt comes with the first byte.
const FCR_FIFO_RESET: u8 = 0b111;
/// Line control.
const LCR: usize = 3;
/// Eight bits, no parity, one stop bit.
const LCR_8N1: u8 = 0b11;
/// The divisor is at the first two registers.
const LCR_DLAB: u8 = 1 << 7;
/// Modem control.
const MCR: usize = 4;
/// Ready (DTR, RTS); OUT2 leads the interrupt out on PC-like boards.
const MCR_READY: u8 = 0b1011;
/// Line status.
const LSR: usize = 5;
/// A byte is there to be read.
const LSR_DATA_READY: u8 = 1 << 0;
/// Parity or framing error or break, of the byte that is read next.
const LSR_ERROR: u8 = 0b111 << 2;
/// There is room for a byte.
const LSR_THRE: u8 = 1 << 5;
/// All is sent.
const LSR_TEMT: u8 = 1 << 6;

/// A 16550.
#[derive(Debug)]
pub struct Ns16550<R> {
    registers: R,
    reg_shift: u32,
    words: bool,
}

impl<R: Registers> Ns16550<R> {
    /// Sets the port up: FIFOs on, eight bits, interrupts off.
    ///
    /// The baud rate stays as the firmware has set it. Where it has set none, it becomes what the
    /// device tree asks for.
    pub fn new(uart: &Uart, registers: R, now_us: Clock) -> Ns16550<R> {
        let port = Ns16550 { registers, reg_shift: uart.reg_shift, words: uart.reg_io_width == 4 };
        port.write(IER, 0);
        // What the firmware has said last would be lost with the FIFO.
        wait(now_us, || port.has_sent_all());
        port.write(LCR, LCR_8N1 | LCR_DLAB);
        if port.read(RBR_THR) == 0
            && port.read(IER) == 0
            && let Some(divisor) = divisor(uart, 1)
        {
            let [low, high, ..] = divisor.to_le_bytes();
            port.write(RBR_THR, low);
            port.write(IER, high);
        }
        port.write(LCR, LCR_8N1);
        port.write(FCR, FCR_FIFO_RESET);
        port.write(MCR, MCR_READY);
        port
    }

    fn read(&self, register: usize) -> u8 {
        let offset = register << self.reg_shift;
        if self.words { self.registers.read32(offset) as u8 } else { self.registers.read8(offset) }
    }

    fn write(&self, register: usize, value: u8) {
        let offset = register << self.reg_shift;
        if self.words {
            self.registers.write32(offset, value.into());
        } else {
            self.registers.write8(offset, value);
        }
    }
}

impl<R: Registers> Driver for Ns16550<R> {
    fn has_room(&self) -> bool {
        self.read(LSR) & LSR_THRE != 0
    }

    fn send(&self, byte: u8) {
        self.write(RBR_THR, byte);
    }

    fn has_sent_all(&self) -> bool {
        self.read(LSR) & LSR_TEMT != 0
    }

    fn receive(&self) -> Option<Result<u8, Damaged>> {
        // The error bits are those of the byte at the head of the FIFO, and reading the status
        // clears them: both come from one read.
        let status = self.read(LSR);
        if status & LSR_DATA_READY == 0 {
            return None;
        }
        let byte = self.read(RBR_THR);
        Some(if status & LSR_ERROR == 0 { Ok(byte) } else { Err(Damaged) })
    }

    fn set_receive_interrupt(&self, on: bool) {
        self.write(IER, if on { IER_RECEIVED } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::super::Console;
    use super::super::testing::port;
    use super::*;
    use crate::runtime::dev::mmio::{Access, FakeRegisters};
    use crate::runtime::machine::{Region, UartKind};

    const BYTES: Uart = Uart {
        kind: UartKind::Ns16550,
        region: Region { base: 0x1000_0000, size: 0x20 },
        interrupt: None,
        clock_hz: Some(1_843_200),
        reg_shift: 0,
        reg_io_width: 1,
        baud: Some(115_200),
    };
    const WORDS: Uart = Uart { reg_shift: 2, reg_io_width: 4, ..BYTES };

    #[derive(Default)]
    struct Device {
        /// Bytes and the error bits of the line status that belong to them.
        received: VecDeque<(u8, u8)>,
        /// One byte leaves each time the status is read.
        sending: VecDeque<u8>,
        sent: Vec<u8>,
        divisor: u16,
        line: u8,
        interrupts: u8,
        /// It is a mini UART.
        mini: bool,
        modem: u8,
        fifo: bool,
        misuse: Vec<Access>,
    }

    fn device(uart: &Uart, divisor: u16) -> (Arc<Mutex<Device>>, FakeRegisters) {
        let state = Arc::new(Mutex::new(Device { divisor, ..Device::default() }));
        let shared = Arc::clone(&state);
        let (shift, width) = (uart.reg_shift, uart.reg_io_width as usize);
        let model = move |access| {
            let d = &mut *shared.lock().unwrap();
            let latch = d.line & LCR_DLAB != 0;
            let [low, high] = d.divisor.to_le_bytes();
            let (Access::Read { offset, width: used } | Access::Write { offset, width: used, .. }) =
                access;
            if used != width || offset >> shift << shift != offset {
                d.misuse.push(access);
                return 0;
            }
            match access {
                Access::Read { .. } => u64::from(match (offset >> shift, latch) {
                    (0, true) => low,
                    (1, true) => high,
                    (0, false) => d.received.pop_front().map_or(0xee, |(byte, _)| byte),
                    (5, _) => {
                        let room = if d.sending.len() < 16 { LSR_THRE } else { 0 };
                        let empty = if d.sending.is_empty() { LSR_TEMT } else { 0 };
                        let ready = d.received.front().map_or(0, |&(_, errors)| 1 | errors);
                        d.sent.extend(d.sending.pop_front());
                        room | empty | ready
                    }
                    _ => {
                        d.misuse.push(access);
                        0
                    }
                }),
                Access::Write { value, .. } => {
                    let value = value as u8;
                    match (offset >> shift, latch) {
                        (0, true) => d.divisor = u16::from_le_bytes([value, high]),
                        (1, true) => d.divisor = u16::from_le_bytes([low, value]),
                        (0, false) if d.sending.len() < 16 => d.sending.push_back(value),
                        (1, false) => d.interrupts = value,
                        (2, _) => {
                            d.sending.clear();
                            d.fifo = value == FCR_FIFO_RESET;
                        }
                        (3, _) => d.line = value,
                        (4, _) => d.modem = value,
                        _ => d.misuse.push(access),
                    }
                    0
                }
            }
        };
        (state, FakeRegisters::new(model))
    }

    #[test]
    fn sends_all_bytes_in_order() {
        for uart in [BYTES, WORDS] {
            let (state, registers) = device(&uart, 1);
            state.lock().unwrap().sending.extend(*b"boot");
            let port = port(&uart, registers);
            let text: Vec<u8> = (0..97).collect();
            for &byte in &text {
                port.write_byte(byte);
            }
            port.flush();
            let state = state.lock().unwrap();
            assert_eq!(state.sent, [&b"boot"[..], &text].concat());
            assert_eq!((state.line, state.modem, state.fifo), (3, 11, true));
            assert_eq!(state.misuse, []);
        }
    }

    #[test]
    fn sets_a_baud_rate_only_where_there_is_none() {
        let divisor = |uart: &Uart, before| {
            let (state, registers) = device(uart, before);
            port(uart, registers);
            let state = state.lock().unwrap();
            assert_eq!((state.line, state.misuse.len()), (3, 0));
            state.divisor
        };
        assert_eq!(divisor(&BYTES, 0), 1);
        assert_eq!(divisor(&Uart { baud: Some(300), ..WORDS }, 0), 384);
        assert_eq!(divisor(&BYTES, 12), 12);
        assert_eq!(divisor(&BYTES, 0x1100), 0x1100);
        assert_eq!(divisor(&Uart { baud: None, ..BYTES }, 0), 0);
        assert_eq!(divisor(&Uart { baud: Some(1), clock_hz: Some(2_000_000), ..BYTES }, 0), 0);
    }

    #[test]
    fn receives_and_drops_damaged_bytes() {
        let (state, registers) = device(&WORDS, 1);
        let port = port(&WORDS, registers);
        assert_eq!(port.read_byte(), None);
        let bytes = [(0x41, 4), (0x42, 8), (0x43, 0), (0, 16), (0x44, 2)];
        state.lock().unwrap().received.extend(bytes);
        assert_eq!(port.read_byte(), Some(0x43));
        // An overrun lost the byte before this one; this one is good.
        assert_eq!(port.read_byte(), Some(0x44));
        assert_eq!(port.read_byte(), None);
    }

    impl Device {
        /// Whether it raises its interrupt.
        fn raises(&self) -> bool {
            let error = self.received.front().is_some_and(|&(_, errors)| errors & LSR_ERROR != 0);
            let receives = if self.mini { 0b101 } else { 0b001 };
            !self.received.is_empty() && self.interrupts & receives == receives
                || error && self.interrupts & 0b100 != 0
        }
    }

    #[test]
    fn tells_of_bytes_when_asked_to() {
        for mini in [false, true] {
            let (state, registers) = device(&BYTES, 1);
            state.lock().unwrap().mini = mini;
            let port = port(&BYTES, registers);
            for errors in [0, 8] {
                state.lock().unwrap().received.push_back((0x41, errors));
                assert!(!state.lock().unwrap().raises(), "{mini}");
                port.set_receive_interrupt(true);
                assert!(state.lock().unwrap().raises(), "{mini}");
                assert_eq!(port.read_byte(), (errors == 0).then_some(0x41));
                // Else no sleep would be one.
                assert!(!state.lock().unwrap().raises(), "{mini}");
                port.set_receive_interrupt(false);
                assert_eq!(state.lock().unwrap().interrupts, 0);
            }
        }
    }
}
