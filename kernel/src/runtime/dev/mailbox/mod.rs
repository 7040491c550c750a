//! The property mailbox of the VideoCore, the processor of a Raspberry Pi that runs the firmware.
//!
//! A message is a block of words in memory: its length in bytes, a code, the properties, a zero. Each
//! property is a tag, the bytes of room for its values, a word that says request or answer, and the
//! values. The message's address goes to the VideoCore in mailbox 1; the answer overwrites the message,
//! and its address comes back in mailbox 0.
//!
//! Sources: the wiki of github.com/raspberrypi/firmware, "Mailboxes" and "Mailbox property interface";
//! Linux, drivers/mailbox/bcm2835-mailbox.c, include/soc/bcm2835/raspberrypi-firmware.h (tags, clocks),
//! drivers/gpio/gpio-raspberrypi-exp.c (the expander's pins); raspberrypi/linux,
//! drivers/video/fbdev/bcm2708_fb.c (the picture).

#![forbid(unsafe_code)]

use core::fmt;

use crate::runtime::dev::mmio::{self, Registers};
use crate::runtime::machine::{Framebuffer, PixelFormat, Region};

/// Mailbox 0, from the VideoCore: the oldest mail.
const READ: usize = 0x00;
/// Its status.
const READ_STATUS: usize = 0x18;
/// Mailbox 1, to the VideoCore.
const WRITE: usize = 0x20;
/// Its status.
const WRITE_STATUS: usize = 0x38;
/// It takes no mail at present.
const FULL: u32 = 1 << 31;
/// It holds none.
const EMPTY: u32 = 1 << 30;
/// Most mails that a mailbox holds.
const DEPTH: usize = 8;

/// The channel of properties, in the low bits of a mail.
const CHANNEL: u32 = 8;
/// A message lies on a multiple of this, as a mail has no room for the low bits of its address.
const ALIGNMENT: u32 = 16;

/// The code of a message that was carried out.
const DONE: u32 = 0x8000_0000;
/// In a property: its values are an answer, whose bytes the rest of the word counts.
const ANSWER: u32 = 1 << 31;

/// Longest time that the VideoCore may take, in µs. Linux waits as long.
const TIMEOUT_US: u64 = 1_000_000;

/// Words of the longest message.
pub const WORDS: usize = 64;
/// Most values of a property.
const VALUES: usize = 3;

const GET_FIRMWARE_REVISION: u32 = 0x0000_0001;
const GET_BOARD_REVISION: u32 = 0x0001_0002;
const GET_CLOCK_RATE: u32 = 0x0003_0002;
const GET_MAX_CLOCK_RATE: u32 = 0x0003_0004;
const GET_TEMPERATURE: u32 = 0x0003_0006;
const GET_GPIO_STATE: u32 = 0x0003_0041;
const GET_THROTTLED: u32 = 0x0003_0046;
const ALLOCATE_PICTURE: u32 = 0x0004_0001;
const GET_DISPLAY_SIZE: u32 = 0x0004_0003;
const GET_PITCH: u32 = 0x0004_0008;
const GET_DISPLAYS: u32 = 0x0004_0013;
const SET_CLOCK_RATE: u32 = 0x0003_8002;
const SET_GPIO_STATE: u32 = 0x0003_8041;
const SET_DISPLAY_SIZE: u32 = 0x0004_8003;
const SET_PICTURE_SIZE: u32 = 0x0004_8004;
const SET_DEPTH: u32 = 0x0004_8005;
const SET_PIXEL_ORDER: u32 = 0x0004_8006;
const SET_ALPHA_MODE: u32 = 0x0004_8007;

/// Bits in a pixel.
const DEPTH_BITS: u32 = 32;
/// The pixel orders: which colour is in the lowest byte, and the format's name.
const RED_FIRST: u32 = 1;
const BLUE_FIRST: u32 = 0;
/// Alpha is not looked at.
const OPAQUE: u32 = 2;
/// Most pixels of a picture: the firmware's memory holds some 50 MiB. The display shows a smaller picture
/// in its own size.
const MAX_PIXELS: u64 = 4 << 20;
/// Bits of a VideoCore's address that say by which caches it goes. The others are the processor's address.
const ALIASES: u32 = 0b11 << 30;
/// What a picture's first byte lies on a multiple of.
const PAGE_SIZE: u32 = 4096;

/// The number of the expander's first pin, as the firmware counts pins.
const EXPANDER: u32 = 128;

/// A clock that the VideoCore knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Of the PL011s.
    Uart = 2,
    /// Of the processor's cores.
    Arm = 3,
    /// Of the VideoCore itself, and of the mini UART.
    Core = 4,
    /// Of the SD card's controller.
    Emmc2 = 12,
}

/// What has slowed the processor down, or would have to.
///
/// Source: raspberrypi/documentation, `vcgencmd get_throttled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled(pub u32);

impl Throttled {
    /// The supply's voltage is too low, or was since the start.
    pub const fn under_voltage(self) -> bool {
        self.0 & (1 << 0 | 1 << 16) != 0
    }

    /// The cores run slower than they should, or did since the start: the clock was capped, lowered, or
    /// held back by the soft limit of the temperature.
    pub const fn slowed_down(self) -> bool {
        self.0 & (0b1110 | 0b1110 << 16) != 0
    }

    /// What is wrong, and what helps; `None` if nothing is.
    pub const fn advice(self) -> Option<&'static str> {
        if self.under_voltage() {
            Some(
                "the supply's voltage is too low, which slows the processor down: take one of 5.1 V and 3 A \
                 with a short cable, and less on the USB ports",
            )
        } else if self.slowed_down() {
            Some("the processor is too hot and slowed down: give it air, a heat sink or a fan")
        } else {
            None
        }
    }
}

/// Why a property cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxError {
    /// The message lies where the VideoCore does not see it.
    OutOfReach,
    /// The VideoCore does not answer. It is not asked again.
    Silent,
    /// It answers that the message is wrong.
    Refused {
        /// The code that it gives.
        code: u32,
    },
    /// It does not know the property, or gives too few values.
    Unknown {
        /// The property.
        tag: u32,
    },
    /// There is no display, or none whose picture can be drawn to.
    NoDisplay,
}

impl fmt::Display for MailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MailboxError::OutOfReach => {
                f.write_str("the VideoCore does not see the memory of its messages")
            }
            MailboxError::Silent => f.write_str("the VideoCore does not answer"),
            MailboxError::Refused { code } => {
                write!(f, "the VideoCore refuses a message: {code:#x}")
            }
            MailboxError::Unknown { tag } => {
                write!(f, "the VideoCore does not know the property {tag:#x}")
            }
            MailboxError::NoDisplay => f.write_str("the VideoCore has no display to draw to"),
        }
    }
}

impl core::error::Error for MailboxError {}

/// Memory that holds a message, and that the VideoCore reads and writes past the processor's caches.
pub trait Memory {
    /// Where the VideoCore sees it, on a multiple of 16 bytes; `None` if it does not.
    fn bus_address(&self) -> Option<u32>;

    /// Puts a message there. The VideoCore sees all of it when the call returns.
    fn put(&mut self, message: &[u32; WORDS]);

    /// What is there now, as the VideoCore has left it.
    fn take(&mut self) -> [u32; WORDS];
}

/// A property that is asked for.
struct Property<'a> {
    tag: u32,
    values: &'a [u32],
    /// Values that an answer has at least.
    answers: usize,
}

impl Property<'_> {
    /// Words of room for its values.
    fn room(&self) -> usize {
        self.values.len().max(self.answers)
    }
}

/// The mailbox, with memory for its messages.
#[derive(Debug)]
pub struct Mailbox<R, M> {
    registers: R,
    memory: M,
    now_us: fn() -> u64,
    /// It has not answered once, and may still write to the message.
    is_silent: bool,
}

impl<R: Registers, M: Memory> Mailbox<R, M> {
    /// The mailbox behind `registers`. It is not touched before the first question.
    pub const fn new(registers: R, memory: M, now_us: fn() -> u64) -> Mailbox<R, M> {
        Mailbox { registers, memory, now_us, is_silent: false }
    }

    /// When the firmware was made, in seconds since 1970.
    ///
    /// # Errors
    /// There is no answer, or another than was asked for. So for all methods.
    pub fn firmware_revision(&mut self) -> Result<u32, MailboxError> {
        self.get(GET_FIRMWARE_REVISION)
    }

    /// The board's revision code, which tells its kind, its memory and its chip's stepping.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn board_revision(&mut self) -> Result<u32, MailboxError> {
        self.get(GET_BOARD_REVISION)
    }

    /// How fast a clock is, in Hz. 0: there is no such clock.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn clock_hz(&mut self, clock: Clock) -> Result<u32, MailboxError> {
        self.second(GET_CLOCK_RATE, &[clock as u32])
    }

    /// How fast a clock may be, in Hz. 0: there is no such clock.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn max_clock_hz(&mut self, clock: Clock) -> Result<u32, MailboxError> {
        self.second(GET_MAX_CLOCK_RATE, &[clock as u32])
    }

    /// Sets how fast a clock is, and gives what it is then, in Hz.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn set_clock_hz(&mut self, clock: Clock, hz: u32) -> Result<u32, MailboxError> {
        // The third value leaves out what "turbo" changes besides, as Linux does.
        self.second(SET_CLOCK_RATE, &[clock as u32, hz, 1])
    }

    /// Makes a clock as fast as it may be, and gives how fast it is then, in Hz.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn raise_clock(&mut self, clock: Clock) -> Result<u32, MailboxError> {
        let most_hz = self.max_clock_hz(clock)?;
        let hz = self.clock_hz(clock)?;
        if hz >= most_hz {
            return Ok(hz);
        }
        self.set_clock_hz(clock, most_hz)?;
        // A firmware that does not do what it is asked for answers with what it was asked for.
        self.clock_hz(clock)
    }

    /// The chip's temperature in thousandths of a degree Celsius.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn temperature_millicelsius(&mut self) -> Result<u32, MailboxError> {
        self.second(GET_TEMPERATURE, &[0])
    }

    /// Whether the supply or the temperature have slowed the processor down.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn throttled(&mut self) -> Result<Throttled, MailboxError> {
        self.get(GET_THROTTLED).map(Throttled)
    }

    /// Whether a pin of the GPIO expander, from 0 on, is high.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn expander_pin(&mut self, pin: u32) -> Result<bool, MailboxError> {
        self.expander(GET_GPIO_STATE, pin, 0).map(|state| state != 0)
    }

    /// Makes a pin of the GPIO expander, from 0 on, high or low. On a Raspberry Pi 4 number 4 has the
    /// SD card's lines at 1.8 V, not 3.3 V, and number 6 powers the card.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`].
    pub fn set_expander_pin(&mut self, pin: u32, high: bool) -> Result<(), MailboxError> {
        self.expander(SET_GPIO_STATE, pin, high.into()).map(|_| ())
    }

    /// Has the display show a picture of its own size, or of a part of that if the display is very large.
    ///
    /// # Errors
    /// See [`Mailbox::firmware_revision`]; or there is no display.
    pub fn show_picture(&mut self) -> Result<Framebuffer, MailboxError> {
        // Older firmware does not know this question, and leaves out all that comes behind it in a message.
        if self.get(GET_DISPLAYS) == Ok(0) {
            return Err(MailboxError::NoDisplay);
        }
        let size = Property { tag: GET_DISPLAY_SIZE, values: &[], answers: 2 };
        let [[mut width, mut height, _]] = self.ask([size])?;
        while u64::from(width) * u64::from(height) > MAX_PIXELS {
            (width, height) = (width / 2, height / 2);
        }
        let set = |tag, values| Property { tag, values, answers: 1 };
        let two = |tag, values| Property { tag, values, answers: 2 };
        let size = &[width, height];
        // All in one message: a picture is made of what is said before it in the same message.
        let [_, [width, height, _], [depth, ..], [order, ..], _, [base, bytes, _], [stride, ..]] =
            self.ask([
                two(SET_DISPLAY_SIZE, size),
                two(SET_PICTURE_SIZE, size),
                set(SET_DEPTH, &[DEPTH_BITS]),
                set(SET_PIXEL_ORDER, &[RED_FIRST]),
                set(SET_ALPHA_MODE, &[OPAQUE]),
                two(ALLOCATE_PICTURE, &[PAGE_SIZE]),
                set(GET_PITCH, &[]),
            ])?;
        let format = match (depth, order) {
            (DEPTH_BITS, RED_FIRST) => PixelFormat::from_name("x8b8g8r8"),
            (DEPTH_BITS, BLUE_FIRST) => PixelFormat::from_name("x8r8g8b8"),
            _ => None,
        };
        let region = Region { base: (base & !ALIASES).into(), size: bytes.into() };
        format
            .map(|format| Framebuffer { region, width, height, stride, format })
            .filter(|framebuffer| framebuffer.check().is_ok())
            .ok_or(MailboxError::NoDisplay)
    }

    fn expander(&mut self, tag: u32, pin: u32, state: u32) -> Result<u32, MailboxError> {
        let values = &[EXPANDER + pin, state];
        let [[pin, state, _]] = self.ask([Property { tag, values, answers: 2 }])?;
        // The pin's number comes back as 0, or else it was not done.
        if pin == 0 { Ok(state) } else { Err(MailboxError::Unknown { tag }) }
    }

    /// A property of one value.
    fn get(&mut self, tag: u32) -> Result<u32, MailboxError> {
        let [[value, ..]] = self.ask([Property { tag, values: &[], answers: 1 }])?;
        Ok(value)
    }

    /// The second value of a property, whose first one says of what.
    fn second(&mut self, tag: u32, values: &[u32]) -> Result<u32, MailboxError> {
        let [[_, value, _]] = self.ask([Property { tag, values, answers: 2 }])?;
        Ok(value)
    }

    /// Asks for some properties at once, and gives the values of each.
    fn ask<const N: usize>(
        &mut self,
        properties: [Property<'_>; N],
    ) -> Result<[[u32; VALUES]; N], MailboxError> {
        let mut message = [0; WORDS];
        let mut at = 2;
        for property in &properties {
            let room = property.room();
            message[at..at + 2].copy_from_slice(&[property.tag, room as u32 * 4]);
            message[at + 3..][..property.values.len()].copy_from_slice(property.values);
            at += 3 + room;
        }
        message[0] = (at as u32 + 1) * 4;
        let message = self.exchange(&message)?;
        if message[1] != DONE {
            return Err(MailboxError::Refused { code: message[1] });
        }
        let mut answers = [[0; VALUES]; N];
        at = 2;
        for (property, answer) in properties.iter().zip(&mut answers) {
            let room = property.room();
            let length = message[at + 2];
            if length & ANSWER == 0 || ((length & !ANSWER) as usize) < property.answers * 4 {
                return Err(MailboxError::Unknown { tag: property.tag });
            }
            answer[..room].copy_from_slice(&message[at + 3..][..room]);
            at += 3 + room;
        }
        Ok(answers)
    }

    /// Sends a message, and waits for what becomes of it.
    fn exchange(&mut self, message: &[u32; WORDS]) -> Result<[u32; WORDS], MailboxError> {
        if self.is_silent {
            return Err(MailboxError::Silent);
        }
        let address = self.memory.bus_address().filter(|at| at.is_multiple_of(ALIGNMENT));
        let mail = address.ok_or(MailboxError::OutOfReach)? | CHANNEL;
        self.memory.put(message);
        // Mail that a boot loader has not taken could be from the same address.
        for _ in 0..DEPTH {
            self.received();
        }
        let mut is_sent = false;
        let is_done = mmio::wait(TIMEOUT_US, self.now_us, || {
            if !is_sent && self.registers.read32(WRITE_STATUS) & FULL == 0 {
                self.registers.write32(WRITE, mail);
                is_sent = true;
            }
            is_sent && self.received() == Some(mail)
        });
        if !is_done {
            self.is_silent = true;
            return Err(MailboxError::Silent);
        }
        Ok(self.memory.take())
    }

    /// The oldest mail from the VideoCore, if there is one.
    fn received(&self) -> Option<u32> {
        (self.registers.read32(READ_STATUS) & EMPTY == 0).then(|| self.registers.read32(READ))
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
