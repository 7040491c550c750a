//! The serial port on the header of a Raspberry Pi 4: which of two the pins carry, and the pins.
//!
//! GPIO 14 and 15 are pins 8 and 10 of the header. Firmware or a boot loader connect them to the PL011
//! or the mini UART. No property of the device tree surely tells which: Linux's tree names one in
//! `stdout-path` and the other in its first alias. TF-A's port for the board asks the pins, too.
//!
//! Sources: BCM2711 ARM Peripherals, 5.2 (`GPFSEL`), 5.3 (alternative functions), 2.2 (mini UART); TF-A,
//! plat/rpi/common/rpi3_console_dual.c. QEMU's pins are inputs, and both of its ports work all the same.

#![forbid(unsafe_code)]

use core::fmt;

use super::mmio::{self, Registers};
use crate::runtime::machine::{Header, Region, Uart};

/// The functions of pins, ten in a register of 4 bytes, three bits each.
const GPFSEL: usize = 0x00;
/// The pins' numbers: what the header sends, and what it receives.
const TRANSMIT: usize = 14;
const RECEIVE: usize = 15;
/// Where the PL011 is connected to Bluetooth instead, by function 3.
const BLUETOOTH: [usize; 2] = [32, 33];

const INPUT: Function = Function(0b000);
/// On the header's pins the PL011.
const ALT0: Function = Function(0b100);
/// On Bluetooth's the PL011.
const ALT3: Function = Function(0b111);
/// On the header's pins the mini UART.
const ALT5: Function = Function(0b010);

/// Control of the PL011, and its divisor: 0 where nobody has set it up.
const UARTCR: usize = 0x30;
const UARTIBRD: usize = 0x24;
/// The PL011's clock in Hz unless the firmware says otherwise: the default of `init_uart_clock`.
const UART_HZ: u32 = 48_000_000;
/// The rate at which the firmware speaks.
const BAUD: u32 = 115_200;

/// Line status of the mini UART: room for a byte, all is sent. All is 0 while the block is off.
const MINI_LSR: usize = 0x14;
const MINI_LSR_SENDS: u32 = 1 << 5 | 1 << 6;
/// Its eight bytes take less to leave, in µs.
const PATIENCE_US: u64 = 10_000;

/// What a pin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(u32);

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] =
            ["input", "output", "alt5", "alt4", "alt0", "alt1", "alt2", "alt3"];
        f.write_str(NAMES[self.0 as usize % 8])
    }
}

/// The register of a pin's function, and where it stands in there.
const fn place(pin: usize) -> (usize, usize) {
    (GPFSEL + pin / 10 * 4, pin % 10 * 3)
}

fn function(gpio: &impl Registers, pin: usize) -> Function {
    let (register, shift) = place(pin);
    Function(gpio.read32(register) >> shift & 0b111)
}

fn set_function(gpio: &impl Registers, pin: usize, function: Function) {
    let (register, shift) = place(pin);
    let others = gpio.read32(register) & !(0b111 << shift);
    gpio.write32(register, others | function.0 << shift);
}

/// What the header's pins do: the one that sends, the one that receives.
pub fn functions(gpio: &impl Registers) -> [Function; 2] {
    [TRANSMIT, RECEIVE].map(|pin| function(gpio, pin))
}

/// The port that text is to go to: the one that the pins carry.
///
/// Where the pins carry none, it is `console`, the device tree's choice, if that is another port than
/// the two or a mini UART that is on. Else it is the PL011, which is connected to the pins.
///
/// `uart_hz` is asked for the frequency of the PL011's clock.
pub fn choose<R: Registers>(
    header: &Header,
    console: Option<Uart>,
    registers: impl Fn(Region) -> R,
    now_us: fn() -> u64,
    uart_hz: impl FnOnce() -> Option<u32>,
) -> Option<Uart> {
    let Some(gpio) = header.gpio else { return console };
    let gpio = registers(gpio);
    let [transmit, _] = functions(&gpio);
    let is_console = |uart: &Uart| console.is_some_and(|console| console.region == uart.region);
    let pl011 = |uart: Uart| Uart {
        clock_hz: uart.clock_hz.or_else(uart_hz).filter(|&hz| hz != 0).or(Some(UART_HZ)),
        baud: uart.baud.or(Some(BAUD)),
        ..uart
    };
    if transmit == ALT0
        && let Some(uart) = header.pl011
    {
        return Some(pl011(uart));
    }
    if let Some(uart) = header.mini_uart
        && (transmit == ALT5 || is_console(&uart))
        && is_on(&registers(uart.region), now_us)
    {
        return Some(uart);
    }
    let is_of_header = [header.pl011, header.mini_uart].iter().flatten().any(is_console);
    let Some(uart) = header.pl011.filter(|_| is_of_header || console.is_none()) else {
        return console;
    };
    for pin in BLUETOOTH {
        // The PL011 has one receiver.
        if function(&gpio, pin) == ALT3 {
            set_function(&gpio, pin, INPUT);
        }
    }
    let port = registers(uart.region);
    // Off, and without Bluetooth's baud rate.
    port.write32(UARTCR, 0);
    port.write32(UARTIBRD, 0);
    for pin in [TRANSMIT, RECEIVE] {
        set_function(&gpio, pin, ALT0);
    }
    Some(pl011(uart))
}

/// Whether the mini UART is on.
fn is_on(mini_uart: &impl Registers, now_us: fn() -> u64) -> bool {
    mmio::wait(PATIENCE_US, now_us, || mini_uart.read32(MINI_LSR) & MINI_LSR_SENDS != 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::runtime::dev::mailbox::fake::clock;
    use crate::runtime::dev::mmio::{Access, FakeRegisters};
    use crate::runtime::machine::{Machine, UartKind};

    const PI4: &[u8] = include_bytes!("../machine/testdata/pi4.dtb");
    const GPIO: u64 = 0xfe20_0000;
    const PL011: u64 = 0xfe20_1000;
    const MINI: u64 = 0xfe21_5040;
    const OTHER: u64 = 0xfe30_0000;

    /// A board, by the addresses of its registers.
    #[derive(Clone, Default)]
    struct Board(Arc<Mutex<BTreeMap<u64, u64>>>);

    impl Board {
        fn new(header: [u32; 2], bluetooth: u32, line_status: u64) -> Board {
            let board = Board::default();
            let set = |at, value| board.0.lock().unwrap().insert(at, value);
            // Neighbours: 13 and 16; 31 and 34.
            let [transmit, receive] = header;
            set(GPIO + 4, u64::from(0b001 << 9 | transmit << 12 | receive << 15 | 0b011 << 18));
            set(GPIO + 12, u64::from(0b111 << 3 | bluetooth << 6 | bluetooth << 9 | 0b111 << 12));
            set(MINI + 0x14, line_status);
            // As for Bluetooth.
            set(PL011 + 0x24, 1);
            set(PL011 + 0x30, 0x301);
            board
        }

        fn get(&self, at: u64) -> u64 {
            self.0.lock().unwrap().get(&at).copied().unwrap_or(0)
        }

        fn registers(&self, region: Region) -> FakeRegisters {
            let memory = Arc::clone(&self.0);
            FakeRegisters::new(move |access| {
                let at = |offset: usize| region.base + offset as u64;
                match access {
                    Access::Read { offset, width: 4 } => {
                        memory.lock().unwrap().get(&at(offset)).copied().unwrap_or(0)
                    }
                    Access::Write { offset, width: 4, value } => {
                        memory.lock().unwrap().insert(at(offset), value);
                        0
                    }
                    other => panic!("{other:?}"),
                }
            })
        }
    }

    const INPUTS: [u32; 2] = [0, 0];
    const TO_PL011: [u32; 2] = [0b100, 0b100];
    const TO_MINI: [u32; 2] = [0b010, 0b010];
    const ON: u64 = 0x60;
    const OFF: u64 = 0;

    #[test]
    fn text_goes_where_the_pins_lead() {
        let machine = Machine::from_fdt(PI4).unwrap();
        let header = machine.header;
        let (pl011, mini) = (header.pl011.unwrap(), header.mini_uart.unwrap());
        assert_eq!((pl011.kind, pl011.region.base), (UartKind::Pl011, PL011));
        assert_eq!((mini.kind, mini.region.base), (UartKind::Ns16550, MINI));
        assert_eq!(machine.console.unwrap().region, mini.region);
        let other = Uart { region: Region { base: OTHER, size: 0x200 }, ..pl011 };
        for (pins, line_status, console, expected, connects) in [
            // The device tree's word does not count where the pins have one.
            (TO_PL011, OFF, Some(mini), PL011, false),
            (TO_PL011, ON, Some(mini), PL011, false),
            (TO_PL011, OFF, Some(pl011), PL011, false),
            (TO_PL011, OFF, Some(other), PL011, false),
            (TO_MINI, ON, Some(mini), MINI, false),
            (TO_MINI, ON, Some(pl011), MINI, false),
            (TO_MINI, ON, None, MINI, false),
            (TO_MINI, ON, Some(other), MINI, false),
            // A byte is still on its way, or one has come.
            (TO_MINI, 0x21, Some(mini), MINI, false),
            // A mini UART that is off sends nothing.
            (TO_MINI, OFF, Some(mini), PL011, true),
            (TO_MINI, 0x01, Some(mini), PL011, true),
            // QEMU.
            (INPUTS, ON, Some(mini), MINI, false),
            // `enable_uart` is missing.
            (INPUTS, OFF, Some(mini), PL011, true),
            (INPUTS, ON, Some(pl011), PL011, true),
            (INPUTS, OFF, None, PL011, true),
            (INPUTS, OFF, Some(other), OTHER, false),
            ([0b001, 0b100], OFF, Some(mini), PL011, true),
        ] {
            let board = Board::new(pins, 0b111, line_status);
            let case = std::format!("{pins:?} {line_status:#x} {console:x?}");
            let port = choose(&header, console, |region| board.registers(region), clock, || None);
            assert_eq!(port.unwrap().region.base, expected, "{case}");
            let (selected, bluetooth) = (board.get(GPIO + 4), board.get(GPIO + 12));
            let (divisor, control) = (board.get(PL011 + 0x24), board.get(PL011 + 0x30));
            if connects {
                assert_eq!(selected, 0b011_100_100_001 << 9, "{case}");
                assert_eq!(bluetooth, 0b111_000_000_111 << 3, "{case}");
                assert_eq!((divisor, control), (0, 0), "{case}");
            } else {
                let untouched = Board::new(pins, 0b111, line_status);
                assert_eq!(selected, untouched.get(GPIO + 4), "{case}");
                assert_eq!(bluetooth, untouched.get(GPIO + 12), "{case}");
                assert_eq!((divisor, control), (1, 0x301), "{case}");
            }
        }
    }

    #[test]
    fn the_pl011_gets_a_clock_and_a_rate() {
        let header = Machine::from_fdt(PI4).unwrap().header;
        let board = Board::new(TO_PL011, 0b111, OFF);
        let port = |pl011, uart_hz| {
            let registers = |region| board.registers(region);
            let header = Header { pl011, ..header };
            let port = choose(&header, None, registers, clock, || uart_hz).unwrap();
            (port.clock_hz, port.baud)
        };
        assert_eq!(port(header.pl011, None), (Some(48_000_000), Some(115_200)));
        assert_eq!(port(header.pl011, Some(0)), (Some(48_000_000), Some(115_200)));
        assert_eq!(port(header.pl011, Some(3_000_000)), (Some(3_000_000), Some(115_200)));
        let said = header.pl011.map(|uart| Uart { baud: Some(9600), clock_hz: Some(1), ..uart });
        assert_eq!(port(said, Some(3_000_000)), (Some(1), Some(9600)));
    }

    #[test]
    fn what_else_uses_bluetooth_s_pins_keeps_them() {
        let header = Machine::from_fdt(PI4).unwrap().header;
        let board = Board::new(INPUTS, 0b001, OFF);
        choose(&header, header.pl011, |region| board.registers(region), clock, || None);
        assert_eq!(board.get(GPIO + 12), 0b111_001_001_111 << 3);
        assert_eq!(board.get(GPIO + 4), 0b011_100_100_001 << 9);
    }

    #[test]
    fn without_pins_or_a_pl011_the_device_tree_has_its_way() {
        let machine = Machine::from_fdt(PI4).unwrap();
        let header = Header { pl011: None, ..machine.header };
        let no_pins = Header { gpio: None, ..machine.header };
        let nowhere = |_| -> FakeRegisters { panic!("there are no pins") };
        assert_eq!(choose(&no_pins, machine.console, nowhere, clock, || None), machine.console);
        for pins in [INPUTS, TO_PL011, TO_MINI] {
            let board = Board::new(pins, 0b111, OFF);
            let registers = |region| board.registers(region);
            assert_eq!(
                choose(&header, machine.console, registers, clock, || None),
                machine.console
            );
            assert_eq!(board.get(GPIO + 4), Board::new(pins, 0b111, OFF).get(GPIO + 4));
        }
    }

    #[test]
    fn functions_have_the_manual_s_names() {
        let names: Vec<_> = (0..8).map(|bits| std::format!("{}", Function(bits))).collect();
        assert_eq!(names, ["input", "output", "alt5", "alt4", "alt0", "alt1", "alt2", "alt3"]);
        let board = Board::new([0b010, 0b110], 0, OFF);
        let gpio = board.registers(Region { base: GPIO, size: 0xb4 });
        assert_eq!(functions(&gpio), [Function(0b010), Function(0b110)]);
    }
}
