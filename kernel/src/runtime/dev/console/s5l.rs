//! The serial port of Apple's chips (`apple,s5l-uart`), a relative of Samsung's.
//!
//! Apple has published no manual. Sources: Linux, drivers/tty/serial/samsung_tty.c and
//! include/linux/serial_s3c.h (the `S3C2410` names, and the `APPLE_S5L` ones where Apple's port differs);
//! m1n1, src/uart.c and src/uart_regs.h.
//!
//! Both FIFOs hold 16 bytes, and stay as iBoot has set them. Where the sending FIFO is on, there is room
//! until UFSTAT says that it is full, as in Linux (`s3c24xx_serial_console_txrdy`). Where it is off, a
//! byte waits for UTRSTAT's "buffer empty", as in m1n1.
//!
//! Nothing on the line holds a byte back: the port has no flow control, and does not know whether a
//! cable is there. A byte waits only for those before it that fill the FIFO: 87 µs for each at 115200
//! baud. m1n1's hypervisor plays a port without waits, whose UFCON and errors read as 0
//! (src/hv_vuart.c).
//!
//! The registers are mapped as all devices are, as nGnRnE: see [`MAIR`](crate::runtime::mem::mmu::MAIR).

use super::{Damaged, Driver};
use crate::runtime::dev::mmio::Registers;

/// Control.
const UCON: usize = 0x04;
/// The transmitter and the receiver raise interrupts, each at its FIFO's mark, and the receiver also
/// when nothing came for a while: bit 9, or in chips up to the A9 bit 11 (Linux,
/// `APPLE_S5L_UCON_RXTO_LEGACY_ENA`), which means nothing in later ones such as the M1. Samsung's ports
/// have other bits for these, and a clock's selection in bits 10 and 11.
const UCON_INTERRUPTS: u32 = UCON_TXTHRESH | UCON_RXTHRESH | UCON_RXTO | UCON_RXTO_LEGACY;
const UCON_TXTHRESH: u32 = 1 << 13;
const UCON_RXTHRESH: u32 = 1 << 12;
const UCON_RXTO_LEGACY: u32 = 1 << 11;
const UCON_RXTO: u32 = 1 << 9;
/// Control of the FIFOs.
const UFCON: usize = 0x08;
/// They are on.
const UFCON_FIFO: u32 = 1 << 0;
/// Status.
const UTRSTAT: usize = 0x10;
/// A byte has been received.
const UTRSTAT_RXD: u32 = 1 << 0;
/// The transmitter's buffer is empty: there is room for a byte to send.
const UTRSTAT_TXBE: u32 = 1 << 1;
/// Nothing is being sent.
const UTRSTAT_TXE: u32 = 1 << 2;
/// Errors of the byte that is read next.
const UERSTAT: usize = 0x14;
/// A framing error, a break. Bit 0, an overrun, leaves the byte itself good. Bit 1 is a parity error in
/// some of Samsung's ports; Linux does not look at it here, and the line has no parity.
const UERSTAT_DAMAGED: u32 = 1 << 2 | 1 << 3;
/// Status of the FIFOs.
const UFSTAT: usize = 0x18;
/// The sending one is full.
const UFSTAT_TXFULL: u32 = 1 << 9;
/// Byte to send.
const UTXH: usize = 0x20;
/// Byte received.
const URXH: usize = 0x24;

/// An S5L serial port.
#[derive(Debug)]
pub struct S5l<R> {
    registers: R,
}

impl<R: Registers> S5l<R> {
    /// Takes the port over with its interrupts off. All else, the baud rate above all, stays as iBoot
    /// and m1n1 have set it (115200 or 1500000, eight bits): the tree does not tell the rate.
    pub fn new(registers: R) -> S5l<R> {
        let control = registers.read32(UCON);
        registers.write32(UCON, control & !UCON_INTERRUPTS);
        S5l { registers }
    }
}

impl<R: Registers> Driver for S5l<R> {
    fn has_room(&self) -> bool {
        if self.registers.read32(UFCON) & UFCON_FIFO == 0 {
            self.registers.read32(UTRSTAT) & UTRSTAT_TXBE != 0
        } else {
            self.registers.read32(UFSTAT) & UFSTAT_TXFULL == 0
        }
    }

    fn send(&self, byte: u8) {
        self.registers.write32(UTXH, byte.into());
    }

    fn has_sent_all(&self) -> bool {
        self.registers.read32(UTRSTAT) & UTRSTAT_TXE != 0
    }

    fn receive(&self) -> Option<Result<u8, Damaged>> {
        if self.registers.read32(UTRSTAT) & UTRSTAT_RXD == 0 {
            return None;
        }
        // The errors first: reading the byte moves on to the next one's.
        let errors = self.registers.read32(UERSTAT);
        let data = self.registers.read32(URXH);
        Some(if errors & UERSTAT_DAMAGED == 0 { Ok(data as u8) } else { Err(Damaged) })
    }

    /// Does nothing: the interrupt goes to Apple's interrupt controller, which is not driven. Whoever
    /// waits for input looks every time that the event stream ends its `wfe`.
    fn set_receive_interrupt(&self, _on: bool) {}
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::super::Console;
    use super::super::testing::{elapsed_us, port};
    use crate::runtime::dev::mmio::{Access, FakeRegisters};
    use crate::runtime::machine::{Region, Uart, UartKind};

    const UART: Uart = Uart {
        kind: UartKind::S5l,
        region: Region { base: 0x2_3520_0000, size: 0x1000 },
        interrupt: None,
        clock_hz: None,
        reg_shift: 0,
        reg_io_width: 4,
        baud: None,
    };

    /// What the other end of the line, and whoever looks inside, would see.
    #[derive(Default)]
    struct Device {
        /// Bytes that wait to be read, each with its errors.
        received: VecDeque<(u8, u32)>,
        /// The FIFOs are on: then the buffer is empty when the sending one is.
        has_fifo: bool,
        /// Bytes under way; one leaves each time a status is read, unless the line is stuck.
        sending: VecDeque<u8>,
        is_stuck: bool,
        sent: Vec<u8>,
        control: u32,
        /// What no driver should do.
        misuse: Vec<Access>,
    }

    fn device(control: u32) -> (Arc<Mutex<Device>>, FakeRegisters) {
        let state = Arc::new(Mutex::new(Device { control, ..Device::default() }));
        let shared = Arc::clone(&state);
        let model = move |access| {
            let d = &mut *shared.lock().unwrap();
            let room = if d.has_fifo { 16 } else { 1 };
            let statuses = [
                u64::from(!d.received.is_empty())
                    | u64::from(d.sending.is_empty()) << 1
                    | u64::from(d.sending.is_empty()) << 2,
                u64::from(d.has_fifo && d.sending.len() == room) << 9,
            ];
            if matches!(access, Access::Read { offset: 0x10 | 0x18, .. }) && !d.is_stuck {
                d.sent.extend(d.sending.pop_front());
            }
            match access {
                Access::Read { offset: 0x10, width: 4 } => statuses[0],
                Access::Read { offset: 0x18, width: 4 } => statuses[1],
                Access::Read { offset: 0x08, width: 4 } => d.has_fifo.into(),
                Access::Read { offset: 0x14, width: 4 } if !d.received.is_empty() => {
                    d.received[0].1.into()
                }
                Access::Read { offset: 0x24, width: 4 } if !d.received.is_empty() => {
                    d.received.pop_front().unwrap().0.into()
                }
                Access::Read { offset: 0x04, width: 4 } => d.control.into(),
                Access::Write { offset: 0x04, width: 4, value } => {
                    d.control = value as u32;
                    0
                }
                Access::Write { offset: 0x20, width: 4, value } if d.sending.len() < room => {
                    d.sending.push_back(value as u8);
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
        for has_fifo in [false, true] {
            let (state, registers) = device(0);
            state.lock().unwrap().has_fifo = has_fifo;
            state.lock().unwrap().sending.extend(*b"m1n1");
            let port = port(&UART, registers);
            // More than the FIFO holds.
            let text: Vec<u8> = (0..97).collect();
            for &byte in &text {
                port.write_byte(byte);
            }
            port.flush();
            let state = state.lock().unwrap();
            assert_eq!(state.sent, [&b"m1n1"[..], &text].concat());
            assert_eq!(state.misuse, []);
        }
    }

    #[test]
    fn a_byte_waits_only_for_a_fifo_that_is_full() {
        for (has_fifo, room) in [(false, 1), (true, 16)] {
            let (state, registers) = device(0);
            state.lock().unwrap().has_fifo = has_fifo;
            let port = port(&UART, registers);
            state.lock().unwrap().is_stuck = true;
            let to_fill = elapsed_us(|| (0..room).for_each(|byte| port.write_byte(byte)));
            assert_eq!(to_fill, 0, "{room}");
            assert!(elapsed_us(|| port.write_byte(room)) > 0, "{room}");
            let state = state.lock().unwrap();
            assert!(state.sending.iter().copied().eq(0..room), "{:?}", state.sending);
            assert_eq!(state.misuse, []);
        }
    }

    #[test]
    fn the_port_of_m1n1_s_hypervisor_takes_every_byte_at_once() {
        let state: Arc<Mutex<(Vec<u8>, VecDeque<u8>)>> = Arc::default();
        let shared = Arc::clone(&state);
        let registers = FakeRegisters::new(move |access| {
            let (sent, received) = &mut *shared.lock().unwrap();
            match access {
                // Always empty and idle.
                Access::Read { offset: 0x10, .. } => 0b110 | u64::from(!received.is_empty()),
                Access::Read { offset: 0x18, .. } => received.len().min(15) as u64,
                Access::Read { offset: 0x24, .. } => received.pop_front().unwrap_or(0).into(),
                Access::Write { offset: 0x20, value, .. } => {
                    sent.push(value as u8);
                    0
                }
                _ => 0,
            }
        });
        let port = port(&UART, registers);
        state.lock().unwrap().1.extend(*b"hi");
        let to_say = elapsed_us(|| {
            (0..200).for_each(|byte| port.write_byte(byte));
            port.flush();
        });
        assert_eq!(to_say, 0);
        assert!(state.lock().unwrap().0.iter().copied().eq(0..200));
        let heard = [port.read_byte(), port.read_byte(), port.read_byte()];
        assert_eq!(heard, [Some(b'h'), Some(b'i'), None]);
    }

    #[test]
    fn receives_and_drops_damaged_bytes() {
        let (state, registers) = device(0);
        let port = port(&UART, registers);
        assert_eq!(port.read_byte(), None);
        // A framing error, a break; then an overrun, whose byte is good.
        state.lock().unwrap().received.extend([
            (0x42, 1 << 2),
            (0x43, 0),
            (0, 1 << 3),
            (0x44, 1 << 0),
        ]);
        assert_eq!(port.read_byte(), Some(0x43));
        assert_eq!(port.read_byte(), Some(0x44));
        assert_eq!(port.read_byte(), None);
        assert_eq!(state.lock().unwrap().misuse, []);
    }

    #[test]
    fn turns_interrupts_off_and_leaves_the_modes() {
        // Polling both ways (bits 0 and 2), a clock selection (bit 10), and all interrupts.
        let (state, registers) = device(0b101 | 1 << 10 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 13);
        let port = port(&UART, registers);
        port.set_receive_interrupt(true);
        assert_eq!(state.lock().unwrap().control, 0b101 | 1 << 10);
        assert_eq!(state.lock().unwrap().misuse, []);
    }
}
