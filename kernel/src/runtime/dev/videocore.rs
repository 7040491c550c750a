//! The VideoCore of this machine: its mailbox, and the values it reports.

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

/// Bus address at which the VideoCore sees the first GiB of memory.
///
/// Accesses at this address bypass the VideoCore's own caches. Source: BCM2711 ARM Peripherals,
/// 1.2.4 ("Legacy master addresses").
const ALIAS: u32 = 0xc000_0000;
/// Size of the memory that the VideoCore sees, in bytes.
const REACH: u64 = 1 << 30;

/// The mailbox, with one message at a time.
pub type MachineMailbox = Mailbox<Mmio, Message>;

static MAILBOX: Once<SpinLock<MachineMailbox>> = Once::new();

/// A message in cache lines of its own.
#[repr(C, align(128))]
struct Words(UnsafeCell<[u32; WORDS]>);

// SAFETY: only the one `Message` uses these words.
unsafe impl Sync for Words {}

static WORDS_OF_MESSAGE: Words = Words(UnsafeCell::new([0; WORDS]));

/// The memory of the mailbox's messages, in the image.
/// There is only one value of this type, in [`MAILBOX`].
#[derive(Debug)]
pub struct Message(());

impl Message {
    /// Cleans and invalidates the cache lines of the message.
    fn hand_over() {
        let start = WORDS_OF_MESSAGE.0.get() as u64;
        // SAFETY: the words are a static, which is mapped.
        unsafe { cache::clean_and_invalidate(start..start + size_of::<Words>() as u64) };
    }
}

impl Memory for Message {
    fn bus_address(&self) -> Option<u32> {
        let address = WORDS_OF_MESSAGE.0.get() as u64;
        (address + size_of::<Words>() as u64 <= REACH).then_some(ALIAS | address as u32)
    }

    fn put(&mut self, message: &[u32; WORDS]) {
        // SAFETY: the words are valid for writes. This is the one `Message`, and the VideoCore has
        // no message now.
        unsafe { WORDS_OF_MESSAGE.0.get().write_volatile(*message) };
        Message::hand_over();
    }

    fn take(&mut self) -> [u32; WORDS] {
        // These lines were prefetched while the VideoCore wrote. None is dirty.
        Message::hand_over();
        // SAFETY: the words are valid for reads. This is the one `Message`, and the VideoCore is
        // done with it.
        unsafe { WORDS_OF_MESSAGE.0.get().read_volatile() }
    }
}

/// Sets up the mailbox, if the machine has a supported one.
///
/// # Safety
/// The mailbox that `machine` lists is mapped as device memory from here on, and nothing else
/// drives it.
pub unsafe fn set_up(machine: &Machine<'_>) {
    if let Some(region) = machine.mailbox {
        // SAFETY: upheld by the caller. The VideoCore writes only to the message.
        let registers = unsafe { Mmio::new(region) };
        let mailbox = || SpinLock::new(Mailbox::new(registers, Message(()), time::now_us));
        MAILBOX.call_once(mailbox);
    }
}

/// Makes the display show a picture, and adds the picture to `machine`.
/// The picture becomes the framebuffer. Without a display nothing changes.
pub fn show_picture(machine: &mut Machine<'_>) {
    if let Some(Ok(framebuffer)) = ask(Mailbox::show_picture) {
        machine.add_framebuffer(framebuffer);
    }
}

/// Sends a request to the mailbox; `None` if there is no mailbox.
pub fn ask<T>(
    question: impl FnOnce(&mut MachineMailbox) -> Result<T, MailboxError>,
) -> Option<Result<T, MailboxError>> {
    MAILBOX.get().map(|mailbox| question(&mut mailbox.lock()))
}

/// Raises the cores' clock to the maximum, and notes facts of the VideoCore.
/// The facts are about the board and the clock.
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

/// Logs the temperature and the throttling after the work.
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

/// The present temperature and supply, `NAME=VALUE` each; none without a VideoCore.
pub fn health_facts() -> Vec<String> {
    health().facts().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The VideoCore's readings of supply and temperature, as far as available.
struct Health {
    celsius: Option<u32>,
    throttled: Option<Throttled>,
}

impl Health {
    /// Names and values of the readings, as in [`FACTS`].
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
