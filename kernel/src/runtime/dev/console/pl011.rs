//! Arm PrimeCell UART (PL011).
//!
//! Source: PrimeCell UART (PL011) Technical Reference Manual, Arm DDI 0183, revision G, chapter 3.

use super::{Clock, Damaged, Driver, divisor, wait};
use crate::runtime::dev::mmio::Registers;
use crate::runtime::machine::Uart;

/// Data.
const UARTDR: usize = 0x00;
/// Framing, parity or break error with the byte in the low bits.
const DR_ERROR: u32 = 0b111 << 8;
/// Flags.
const UARTFR: usize = 0x18;
/// It is sending.
const FR_BUSY: u32 = 1 << 3;
/// The receive FIFO is empty.
const FR_RXFE: u32 = 1 << 4;
/// The transmit FIFO is full.
const FR_TXFF: u32 = 1 << 5;
/// Baud rate divisor, whole part.
const UARTIBRD: usize = 0x24;
/// Baud rate divisor, 64ths.
const UARTFBRD: usize = 0x28;
/// Line control.
const UARTLCR_H: usize = 0x2c;
/// The FIFOs are on.
const LCR_FEN: u32 = 1 << 4;
/// Words of eight bits.
const LCR_WLEN_8: u32 = 0b11 << 5;
/// Control.
const UARTCR: usize = 0x30;
/// The UART is on.
const CR_UARTEN: u32 = 1 << 0;
/// So is its transmitter.
const CR_TXE: u32 = 1 << 8;
/// So is its receiver.
const CR_RXE: u32 = 1 << 9;
/// Interrupt mask: which are let through.
const UARTIMSC: usize = 0x38;
/// The receive FIFO has reached its mark.
const INT_RX: u32 = 1 << 4;
/// The receive FIFO holds something, and nothing came for 32 bit periods.
const INT_RT: u32 = 1 << 6;

/// A PL011.
#[derive(Debug)]
pub struct Pl011<R> {
    registers: R,
}

impl<R: Registers> Pl011<R> {
    /// Sets the port up: FIFOs on, eight bits, interrupts off.
    ///
    /// The baud rate stays as the firmware has set it. Where it has set none, it becomes what the
    /// device tree asks for.
    pub fn new(uart: &Uart, registers: R, now_us: Clock) -> Pl011<R> {
        let port = Pl011 { registers };
        let r = &port.registers;
        r.write32(UARTIMSC, 0);
        // The line may only be set while the UART is off (3.3.8), and turning it off in the middle
        // of a byte garbles it.
        wait(now_us, || port.has_sent_all());
        r.write32(UARTCR, 0);
        if r.read32(UARTIBRD) == 0
            && let Some(divisor) = divisor(uart, 64)
        {
            r.write32(UARTIBRD, divisor / 64);
            r.write32(UARTFBRD, divisor % 64);
        }
        // Also what makes the divisor take effect (3.3.6).
        r.write32(UARTLCR_H, LCR_WLEN_8 | LCR_FEN);
        r.write32(UARTCR, CR_UARTEN | CR_TXE | CR_RXE);
        port
    }
}

impl<R: Registers> Driver for Pl011<R> {
    fn has_room(&self) -> bool {
        self.registers.read32(UARTFR) & FR_TXFF == 0
    }

    fn send(&self, byte: u8) {
        self.registers.write32(UARTDR, byte.into());
    }

    fn has_sent_all(&self) -> bool {
        self.registers.read32(UARTFR) & FR_BUSY == 0
    }

    fn receive(&self) -> Option<Result<u8, Damaged>> {
        if self.registers.read32(UARTFR) & FR_RXFE != 0 {
            return None;
        }
        let data = self.registers.read32(UARTDR);
        Some(if data & DR_ERROR == 0 { Ok(data as u8) } else { Err(Damaged) })
    }

    fn set_receive_interrupt(&self, on: bool) {
        // Both, since a single byte does not reach the mark. Neither is ever cleared by hand: they
        // end when the FIFO is read empty, and a byte that was there before is told, too.
        self.registers.write32(UARTIMSC, if on { INT_RX | INT_RT } else { 0 });
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

    const QEMU: Uart = Uart {
        kind: UartKind::Pl011,
        region: Region { base: 0x900_0000, size: 0x1000 },
        interrupt: None,
        clock_hz: Some(24_000_000),
        reg_shift: 0,
        reg_io_width: 4,
        baud: Some(115_200),
    };

    /// What the other end of the line, and whoever looks inside, would see.
    #[derive(Default)]
    struct Device {
        /// Bytes, some with the error bits above them, that wait to be read.
        received: VecDeque<u32>,
        /// Bytes in the transmit FIFO; one leaves each time the flags are read.
        sending: VecDeque<u8>,
        sent: Vec<u8>,
        control: u32,
        divisor: (u32, u32),
        mask: u32,
        /// What the manual forbids was done.
        misuse: Vec<Access>,
    }

    fn device(divisor: (u32, u32)) -> (Arc<Mutex<Device>>, FakeRegisters) {
        let state = Device { divisor, control: 0x300, ..Device::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let model = move |access| {
            let d = &mut *shared.lock().unwrap();
            let on = d.control & CR_UARTEN != 0;
            match access {
                Access::Read { offset: UARTFR, width: 4 } => {
                    let flags = if d.sending.is_empty() { 0 } else { FR_BUSY }
                        | if d.received.is_empty() { FR_RXFE } else { 0 }
                        | if d.sending.len() == 16 { FR_TXFF } else { 0 };
                    d.sent.extend(d.sending.pop_front());
                    u64::from(flags)
                }
                Access::Read { offset: UARTDR, width: 4 } => {
                    d.received.pop_front().unwrap_or(0xdead).into()
                }
                Access::Read { offset: UARTIBRD, width: 4 } => d.divisor.0.into(),
                Access::Write { offset: UARTDR, width: 4, value } if on && d.sending.len() < 16 => {
                    d.sending.push_back(value as u8);
                    0
                }
                Access::Write { offset: UARTCR, value, .. } => {
                    if !d.sending.is_empty() {
                        d.misuse.push(access);
                    }
                    d.control = value as u32;
                    0
                }
                Access::Write { offset: UARTIBRD, value, .. } if !on => {
                    d.divisor.0 = value as u32;
                    0
                }
                Access::Write { offset: UARTFBRD, value, .. } if !on => {
                    d.divisor.1 = value as u32;
                    0
                }
                Access::Write { offset: UARTLCR_H, value: 0x70, .. } if !on => 0,
                Access::Write { offset: UARTIMSC, value, .. } => {
                    d.mask = value as u32;
                    0
                }
                other => {
                    d.misuse.push(other);
                    0
                }
            }
        };
        (state, FakeRegisters::new(model))
    }

    #[test]
    fn sends_all_bytes_in_order() {
        let (state, registers) = device((13, 1));
        // The firmware's last words are still on their way.
        state.lock().unwrap().sending.extend(*b"boot");
        state.lock().unwrap().control = CR_UARTEN | CR_TXE;
        let port = port(&QEMU, registers);
        // More than the FIFO holds.
        let text: Vec<u8> = (0..97).collect();
        for &byte in &text {
            port.write_byte(byte);
        }
        port.flush();
        let state = state.lock().unwrap();
        assert_eq!(state.sent, [&b"boot"[..], &text].concat());
        assert_eq!(state.control, CR_UARTEN | CR_TXE | CR_RXE);
        assert_eq!(state.misuse, []);
    }

    #[test]
    fn keeps_the_firmware_s_baud_rate() {
        let (state, registers) = device((26, 3));
        port(&QEMU, registers);
        assert_eq!(state.lock().unwrap().divisor, (26, 3));
    }

    #[test]
    fn sets_a_baud_rate_where_there_is_none() {
        // 24 MHz / (16 * 115200) = 13.0208; 0.0208 * 64 = 1.33.
        let (state, registers) = device((0, 0));
        port(&QEMU, registers);
        assert_eq!(state.lock().unwrap().divisor, (13, 1));
        // 4 MHz at 230400 is the manual's example (3.3.6): 1 and 5.
        let (state, registers) = device((0, 0));
        let example = Uart { clock_hz: Some(4_000_000), baud: Some(230_400), ..QEMU };
        port(&example, registers);
        assert_eq!(state.lock().unwrap().divisor, (1, 5));
        // Nothing sensible is known.
        for (clock_hz, baud) in [(None, Some(9600)), (Some(1), Some(9600)), (Some(9600), Some(0))] {
            let (state, registers) = device((0, 0));
            port(&Uart { clock_hz, baud, ..QEMU }, registers);
            assert_eq!(state.lock().unwrap().divisor, (0, 0));
        }
    }

    #[test]
    fn receives_and_drops_damaged_bytes() {
        let (state, registers) = device((13, 1));
        let port = port(&QEMU, registers);
        assert_eq!(port.read_byte(), None);
        // Framing error, parity error, break; an overrun (bit 11) leaves the byte itself good.
        state.lock().unwrap().received.extend([0x141, 0x242, 0x43, 0x400, 0x844]);
        assert_eq!(port.read_byte(), Some(0x43));
        assert_eq!(port.read_byte(), Some(0x44));
        assert_eq!(port.read_byte(), None);
        assert_eq!(state.lock().unwrap().misuse, []);
    }

    #[test]
    fn tells_of_a_single_byte_too() {
        let (state, registers) = device((13, 1));
        let port = port(&QEMU, registers);
        assert_eq!(state.lock().unwrap().mask, 0);
        port.set_receive_interrupt(true);
        assert_eq!(state.lock().unwrap().mask, 0x50);
        port.set_receive_interrupt(false);
        assert_eq!(state.lock().unwrap().mask, 0);
        assert_eq!(state.lock().unwrap().misuse, []);
    }
}
