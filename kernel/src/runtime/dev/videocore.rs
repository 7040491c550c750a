//! The VideoCore of this machine, if it has one: its mailbox, and what that tells.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::UnsafeCell;

use log::{info, warn};
use spin::Once;

use super::facts::FACTS;
use super::mailbox::{Clock, Mailbox, MailboxError, Memory, Throttled, WORDS};
use super::mmio::Mmio;
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::arch::{cache, time};
use crate::runtime::machine::Machine;

/// The VideoCore of a BCM2711 sees the first GiB of memory from here on, past its own caches.
///
/// Source: BCM2711 ARM Peripherals, 1.2.4 ("Legacy master addresses").
const ALIAS: u32 = 0xc000_0000;
/// What it sees of the memory, in bytes.
const REACH: u64 = 1 << 30;

/// The mailbox and the one message that it has at a time.
pub type MachineMailbox = Mailbox<Mmio, Message>;

static MAILBOX: Once<SpinLock<MachineMailbox>> = Once::new();

/// A message in cache lines of its own.
#[repr(C, align(128))]
struct Words(UnsafeCell<[u32; WORDS]>);

// SAFETY: only the one `Message` uses it.
unsafe impl Sync for Words {}

static WORDS_OF_MESSAGE: Words = Words(UnsafeCell::new([0; WORDS]));

/// The memory of the mailbox's messages, in the image. There is one value of it, in [`MAILBOX`].
#[derive(Debug)]
pub struct Message(());

impl Message {
    /// Makes the caches write back and forget the words.
    fn hand_over() {
        let start = WORDS_OF_MESSAGE.0.get() as u64;
        // SAFETY: a static, which is mapped.
        unsafe { cache::clean_and_invalidate(start..start + size_of::<Words>() as u64) };
    }
}

impl Memory for Message {
    fn bus_address(&self) -> Option<u32> {
        let address = WORDS_OF_MESSAGE.0.get() as u64;
        (address + size_of::<Words>() as u64 <= REACH).then_some(ALIAS | address as u32)
    }

    fn put(&mut self, message: &[u32; WORDS]) {
        // SAFETY: valid for writes; this is the one `Message`, and the VideoCore has no message now.
        unsafe { WORDS_OF_MESSAGE.0.get().write_volatile(*message) };
        Message::hand_over();
    }

    fn take(&mut self) -> [u32; WORDS] {
        // Lines that were read ahead while the VideoCore wrote. None is dirty.
        Message::hand_over();
        // SAFETY: valid for reads; this is the one `Message`, and the VideoCore is done with it.
        unsafe { WORDS_OF_MESSAGE.0.get().read_volatile() }
    }
}

/// Sets up the mailbox, if the machine has one that we know.
///
/// # Safety
/// The mailbox that `machine` lists is mapped as device memory from here on, and nothing else drives
/// it.
pub unsafe fn set_up(machine: &Machine<'_>) {
    if let Some(region) = machine.mailbox {
        // SAFETY: upheld by the caller. The VideoCore writes to the message alone.
        let registers = unsafe { Mmio::new(region) };
        let mailbox = || SpinLock::new(Mailbox::new(registers, Message(()), time::now_us));
        MAILBOX.call_once(mailbox);
    }
}

/// Has the display show a picture, and gives `machine` that as its framebuffer. Without a display nothing
/// changes.
pub fn show_picture(machine: &mut Machine<'_>) {
    if let Some(Ok(framebuffer)) = ask(Mailbox::show_picture) {
        machine.add_framebuffer(framebuffer);
    }
}

/// Has the mailbox asked something; `None` where there is none.
pub fn ask<T>(
    question: impl FnOnce(&mut MachineMailbox) -> Result<T, MailboxError>,
) -> Option<Result<T, MailboxError>> {
    MAILBOX.get().map(|mailbox| question(&mut mailbox.lock()))
}

/// Asks for the cores' highest clock, and notes what the VideoCore tells of the board and the clock.
pub fn start_work() {
    match ask(Mailbox::firmware_revision) {
        Some(Ok(revision)) => FACTS.note("firmware", format_args!("{revision}")),
        Some(Err(error)) => return warn!("{error}"),
        None => return,
    }
    if let Some(Ok(revision)) = ask(Mailbox::board_revision) {
        FACTS.note("revision", format_args!("{revision:#x}"));
    }
    if let Some(Ok(hz)) = ask(|mailbox| mailbox.raise_clock(Clock::Arm)) {
        FACTS.note("arm-clock", format_args!("{}MHz", hz / 1_000_000));
    }
    let health = health();
    for (name, value) in health.facts() {
        FACTS.note(name, format_args!("{value}"));
    }
    if let Some(throttled) = health.throttled {
        advise(throttled);
    }
}

/// Logs how the processor has come through the work.
pub fn end_work() {
    let Health { celsius, throttled } = health();
    if let Some(celsius) = celsius {
        info!("the processor has {celsius} degrees Celsius");
    }
    if let Some(throttled) = throttled {
        info!("throttled: {:#x}", throttled.0);
        advise(throttled);
    }
}

/// The temperature and the supply now, `NAME=VALUE` each; none where there is no VideoCore.
pub fn health_facts() -> Vec<String> {
    health().facts().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What the VideoCore says of the supply and the temperature, as far as it does.
struct Health {
    celsius: Option<u32>,
    throttled: Option<Throttled>,
}

impl Health {
    /// Names and values, as in [`FACTS`].
    fn facts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let celsius = self.celsius.map(|celsius| ("temperature", format!("{celsius}C")));
        let throttled = self.throttled.map(|bits| ("throttled", format!("{:#x}", bits.0)));
        celsius.into_iter().chain(throttled)
    }
}

fn health() -> Health {
    let millicelsius = ask(Mailbox::temperature_millicelsius).and_then(Result::ok);
    let throttled = ask(Mailbox::throttled).and_then(Result::ok);
    Health { celsius: millicelsius.map(|value| value / 1000), throttled }
}

fn advise(throttled: Throttled) {
    if let Some(advice) = throttled.advice() {
        warn!("{advice} (throttled: {:#x})", throttled.0);
    }
}
