use std::sync::{Arc, Mutex};

use super::testing::{clock, elapsed_us, port};
use super::*;
use crate::runtime::dev::mmio::{Access, FakeRegisters};
use crate::runtime::machine::Region;

/// A kind of port, with the values of its registers in the states of interest.
struct Example {
    uart: Uart,
    /// Where its status is, and the value of a port that can do nothing, and of one that is idle.
    status: usize,
    stuck: u64,
    idle: u64,
    /// Where bytes to send are written.
    send: usize,
    /// The value of the status, and of each other register, where there are damaged bytes without
    /// end.
    damaged: [u64; 2],
}

const UART: Uart = Uart {
    kind: UartKind::Pl011,
    region: Region { base: 0x900_0000, size: 0x1000 },
    interrupt: None,
    clock_hz: None,
    reg_shift: 0,
    reg_io_width: 4,
    baud: None,
};

/// A PL011, a 16550 of bytes, the Raspberry Pi's mini-UART, and Apple's port.
const KINDS: [Example; 4] = [
    Example { uart: UART, status: 0x18, stuck: 0x38, idle: 0x10, send: 0, damaged: [0, 0x100] },
    Example {
        uart: Uart { kind: UartKind::Ns16550, reg_io_width: 1, ..UART },
        status: 5,
        stuck: 0,
        idle: 0x60,
        send: 0,
        damaged: [0xff; 2],
    },
    Example {
        uart: Uart { kind: UartKind::Ns16550, reg_shift: 2, ..UART },
        status: 0x14,
        stuck: 0,
        idle: 0x60,
        send: 0,
        damaged: [0xff; 2],
    },
    Example {
        uart: Uart { kind: UartKind::S5l, ..UART },
        status: 0x10,
        stuck: 0,
        idle: 0b110,
        send: 0x20,
        damaged: [0xffff_ffff; 2],
    },
];

/// The port's registers as the test sets them, and what was sent.
#[derive(Default)]
struct Device {
    status: u64,
    others: u64,
    /// Looks at the status that find the port stuck after each byte; then it is idle.
    looks: usize,
    looks_left: usize,
    sent: Vec<u8>,
}

impl Example {
    fn device(&self, status: u64) -> (Arc<Mutex<Device>>, FakeRegisters) {
        let device = Arc::new(Mutex::new(Device { status, ..Device::default() }));
        let shared = Arc::clone(&device);
        let &Example { status, stuck, send, .. } = self;
        let model = move |access| {
            let d = &mut *shared.lock().unwrap();
            match access {
                Access::Read { offset, .. } if offset == status && d.looks_left > 0 => {
                    d.looks_left -= 1;
                    stuck
                }
                Access::Read { offset, .. } if offset == status => d.status,
                Access::Read { .. } => d.others,
                Access::Write { offset, value, .. } => {
                    if offset == send {
                        d.sent.push(value as u8);
                        d.looks_left = d.looks;
                    }
                    0
                }
            }
        };
        (device, FakeRegisters::new(model))
    }
}

#[test]
fn a_stuck_port_is_waited_for_once() {
    // The clock goes on by a step or two while nobody waits.
    let once = TIMEOUT_US..TIMEOUT_US + TIMEOUT_US / 100;
    for kind in &KINDS {
        let (device, registers) = kind.device(kind.stuck);
        let mut port = None;
        let to_set_up = elapsed_us(|| port = Some(super::testing::port(&kind.uart, registers)));
        assert!(to_set_up < once.end, "{to_set_up} µs, {:?}", kind.uart.kind);
        let port = port.unwrap();
        device.lock().unwrap().sent.clear();
        let to_say = elapsed_us(|| {
            for byte in 0..=255 {
                port.write_byte(byte);
            }
            port.flush();
        });
        assert!(once.contains(&to_say), "{to_say} µs, {:?}", kind.uart.kind);
        assert!(device.lock().unwrap().sent.is_empty());

        // It comes back, and takes every byte again; and it is waited for again.
        device.lock().unwrap().status = kind.idle;
        port.write_byte(b'a');
        port.write_byte(b'b');
        assert_eq!(device.lock().unwrap().sent, b"ab");
        device.lock().unwrap().status = kind.stuck;
        let to_flush = elapsed_us(|| port.flush());
        assert!(once.contains(&to_flush), "{to_flush} µs, {:?}", kind.uart.kind);
        assert_eq!(elapsed_us(|| port.write_byte(b'c')), 0);
        assert_eq!(device.lock().unwrap().sent, b"ab");
    }
}

#[test]
fn a_slow_port_gets_every_byte() {
    let step_us = elapsed_us(|| {
        clock();
    });
    for kind in &KINDS {
        let (device, registers) = kind.device(kind.idle);
        let port = port(&kind.uart, registers);
        {
            // Each byte takes nearly as long as a port may.
            let mut device = device.lock().unwrap();
            device.sent.clear();
            device.looks = (TIMEOUT_US / step_us) as usize - 3;
        }
        let to_say = elapsed_us(|| {
            for byte in b"slow" {
                port.write_byte(*byte);
            }
            port.flush();
        });
        assert_eq!(device.lock().unwrap().sent, b"slow", "{:?}", kind.uart.kind);
        assert!(to_say > 3 * TIMEOUT_US, "{to_say} µs, {:?}", kind.uart.kind);
    }
}

#[test]
fn damaged_bytes_without_end_are_no_input() {
    for kind in &KINDS {
        let (device, registers) = kind.device(kind.idle);
        let port = port(&kind.uart, registers);
        let [status, others] = kind.damaged;
        (device.lock().unwrap().status, device.lock().unwrap().others) = (status, others);
        assert_eq!(port.read_byte(), None, "{:?}", kind.uart.kind);
    }
}
