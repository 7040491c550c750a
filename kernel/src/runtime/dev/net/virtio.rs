//! virtio-net.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, 5.1 "Network Device".
//!
//! The driver uses the queues of `virtio-drivers` rather than the driver `VirtIONetRaw` of that
//! crate. `VirtIONetRaw` accepts the event index, with which interrupts cannot be suppressed, and
//! hides the configuration, which holds MTU and link status.
//!
//! A frame takes one buffer: the virtio header, then the Ethernet frame. No offload is accepted, so
//! the header is all zeros. Buffers are allocated once, and never freed.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec;

use arrayvec::ArrayVec;
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use virtio_drivers::transport::{InterruptStatus, Transport};

use super::WakeLine;
use crate::runtime::dev::bus::lending::{LendingQueue, Writer};
use crate::runtime::dev::bus::virtio::{FEATURE_VERSION_1, StartError, accept, begin};
use crate::runtime::dev::mmio::barrier;
use crate::runtime::machine::Coherence;

/// Bytes of an Ethernet header.
pub const FRAME_HEADER: usize = 14;

/// Number of received frames that wait for the stack at most.
const RECEIVE_FRAMES: usize = 128;
/// Number of sent frames that wait for the device at most.
const TRANSMIT_FRAMES: usize = 64;

const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;

/// `VIRTIO_NET_F_MTU`: the configuration has the MTU.
const FEATURE_MTU: u64 = 1 << 3;
/// `VIRTIO_NET_F_MAC`: the configuration has the MAC address.
const FEATURE_MAC: u64 = 1 << 5;
/// `VIRTIO_NET_F_STATUS`: the configuration has the link status.
const FEATURE_STATUS: u64 = 1 << 16;
/// `VIRTIO_F_ANY_LAYOUT`: header and frame may be in one buffer. All devices of version 1 allow
/// this.
const FEATURE_ANY_LAYOUT: u64 = 1 << 27;

/// Offset of `mac` in `virtio_net_config`.
const CONFIG_MAC: usize = 0;
/// Offset of `status` in `virtio_net_config`.
const CONFIG_STATUS: usize = 6;
/// Offset of `mtu` in `virtio_net_config`.
const CONFIG_MTU: usize = 10;
/// `VIRTIO_NET_S_LINK_UP`.
const STATUS_LINK_UP: u16 = 1 << 0;

/// The MTU of a device that does not say.
const DEFAULT_MTU: usize = 1500;
/// The smallest MTU that a device may have (5.1.4.1), which is IPv4's too.
const MIN_MTU: usize = 68;
/// The largest MTU in use, which is the stack's.
const MAX_MTU: usize = 9216;
/// Bytes of a VLAN tag, which a received frame may have.
const VLAN_TAG: usize = 4;

/// Time in µs after which a sleeper looks at a card without a known interrupt.
const POLL_US: u64 = 10_000;
/// Time in µs after which a sleeper looks at a card all the same.
///
/// A card whose interrupt never comes is only slow then.
const DOUBT_US: u64 = 1_000_000;

/// A virtio network device.
///
/// The device is never freed: it may write to its buffers at any time.
pub struct NetDevice<T: Transport + 'static, L> {
    inner: &'static mut Inner<T>,
    line: L,
    /// Whether the interrupt ends a sleep, as far as is known.
    wakes: bool,
    mac: [u8; 6],
    mtu: usize,
    has_status: bool,
}

struct Inner<T> {
    transport: T,
    receive: Receive,
    transmit: Transmit,
}

/// The received frames.
struct Receive {
    queue: &'static mut LendingQueue<RECEIVE_FRAMES>,
    header_bytes: usize,
    /// Whether buffers were lent since the device was notified last.
    is_unannounced: bool,
    dropped: u64,
}

/// The frames to send.
struct Transmit {
    queue: &'static mut LendingQueue<TRANSMIT_FRAMES>,
    header_bytes: usize,
    free: ArrayVec<&'static mut [u8], TRANSMIT_FRAMES>,
}

impl<T: Transport, L: WakeLine> NetDevice<T, L> {
    /// Starts the network device behind `transport`.
    ///
    /// `coherence` is the device tree's word on the device. `line` is the wire of its interrupt.
    /// `random_mac` makes an address for a device that has none of its own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        mut transport: T,
        coherence: Coherence,
        line: L,
        random_mac: impl FnOnce() -> [u8; 6],
    ) -> Result<NetDevice<T, L>, StartError> {
        let offered = begin(&mut transport, coherence)?;
        let is_modern = offered & FEATURE_VERSION_1 != 0;
        if !is_modern && offered & FEATURE_ANY_LAYOUT == 0 {
            return Err(virtio_drivers::Error::Unsupported.into());
        }
        let says_mtu = offered & FEATURE_MTU != 0;
        let said_mtu = says_mtu.then(|| transport.read_config_space::<u16>(CONFIG_MTU));
        let said_mtu = said_mtu.transpose()?.map(usize::from);
        let said_mtu = said_mtu.filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu));
        let mtu = said_mtu.unwrap_or(DEFAULT_MTU);
        let mut wanted = FEATURE_VERSION_1 | FEATURE_MAC | FEATURE_STATUS | FEATURE_ANY_LAYOUT;
        if said_mtu.is_some() {
            wanted |= FEATURE_MTU;
        }
        accept(&mut transport, offered & wanted)?;
        let said_mac = if offered & FEATURE_MAC != 0 {
            let mac = transport.read_consistent(|| transport.read_config_space(CONFIG_MAC))?;
            Some(mac).filter(is_for_one_card)
        } else {
            None
        };
        // A made-up address is a locally administered one of a single card.
        let mac = said_mac.unwrap_or_else(|| {
            let [first, rest @ ..] = random_mac();
            let [a, b, c, d, e] = rest;
            [first & !1 | 2, a, b, c, d, e]
        });

        // The field `num_buffers` is part of the header of version 1 alone (5.1.6.1).
        let header_bytes = if is_modern { 12 } else { 10 };
        let frame_bytes = FRAME_HEADER + VLAN_TAG + mtu.max(DEFAULT_MTU);
        let buffer_bytes = (header_bytes + frame_bytes).next_multiple_of(64);
        let buffers = |n| vec![0; n * buffer_bytes].leak().chunks_exact_mut(buffer_bytes);
        let mut receive = Receive {
            queue: LendingQueue::new(&mut transport, RECEIVE_QUEUE, Writer::Device)?,
            header_bytes,
            is_unannounced: false,
            dropped: 0,
        };
        let transmit = Transmit {
            queue: LendingQueue::new(&mut transport, TRANSMIT_QUEUE, Writer::Driver)?,
            header_bytes,
            free: buffers(TRANSMIT_FRAMES).collect(),
        };
        buffers(RECEIVE_FRAMES).for_each(|buffer| receive.lend(buffer));
        transport.finish_init();
        receive.announce(&mut transport);
        Ok(NetDevice {
            inner: Box::leak(Box::new(Inner { transport, receive, transmit })),
            line,
            wakes: true,
            mac,
            mtu,
            has_status: offered & FEATURE_STATUS != 0,
        })
    }

    /// The address of the card.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The largest IP packet in bytes, without the Ethernet header.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// Whether the link is up. The call reads a register of the device.
    pub fn is_link_up(&self) -> bool {
        let status = || self.inner.transport.read_config_space::<u16>(CONFIG_STATUS);
        !self.has_status || status().is_ok_and(|status| status & STATUS_LINK_UP != 0)
    }

    /// Number of received frames that were dropped, because the device said a wrong length.
    pub fn dropped_frames(&self) -> u64 {
        self.inner.receive.dropped
    }

    /// Whether the device has broken the rules of its queues, and is not used any more.
    pub fn is_broken(&self) -> bool {
        self.inner.receive.queue.is_broken() || self.inner.transmit.queue.is_broken()
    }

    /// Makes a frame end the calling core's sleep.
    ///
    /// The result is false if there is something to do already: the caller polls the stack then.
    /// Otherwise the caller sleeps until [`Self::is_woken`] or its own deadline, for at most
    /// [`Self::longest_sleep_us`]. It then calls [`Self::after_sleep`].
    pub fn before_sleep(&mut self) -> bool {
        self.wakes = self.line.open();
        let inner = &mut *self.inner;
        inner.receive.announce(&mut inner.transport);
        let _ = inner.transport.ack_interrupt();
        inner.receive.queue.set_interrupts(true);
        // A received frame can only be processed with room for an answer.
        let is_full = inner.transmit.free.is_empty();
        if is_full {
            inner.transmit.queue.set_interrupts(true);
        }
        // The device writes to the queue and then reads the flags; the driver does the reverse.
        barrier();
        let has_work = inner.has_work();
        if has_work {
            self.after_sleep();
        }
        !has_work
    }

    /// Whether the stack has something to do: the condition of the sleeping core.
    ///
    /// The call acknowledges the device's interrupt. A change of the link counts as well.
    pub fn is_woken(&mut self) -> bool {
        let status = self.inner.transport.ack_interrupt();
        // The device writes to the queue before it raises the interrupt.
        barrier();
        self.inner.has_work() || status.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT)
    }

    /// Ends what [`Self::before_sleep`] has begun.
    pub fn after_sleep(&mut self) {
        self.inner.receive.queue.set_interrupts(false);
        self.inner.transmit.queue.set_interrupts(false);
        self.line.close();
        let _ = self.inner.transport.ack_interrupt();
    }

    /// Time in µs after which a sleeping core looks at the device, whatever wakes it.
    pub fn longest_sleep_us(&self) -> u64 {
        if self.wakes { DOUBT_US } else { POLL_US }
    }
}

/// Whether an address is one that a card may have: that of one card, and not all zeros.
fn is_for_one_card(mac: &[u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac.iter().any(|&byte| byte != 0)
}

impl<T: Transport> Inner<T> {
    /// Whether a poll of the stack would find something to do.
    ///
    /// While all transmit buffers are lent, only one that comes back lets the stack go on.
    fn has_work(&self) -> bool {
        let Inner { receive, transmit, .. } = self;
        if receive.queue.is_broken() || transmit.queue.is_broken() {
            false
        } else if transmit.free.is_empty() {
            transmit.queue.has_used()
        } else {
            receive.queue.has_used()
        }
    }
}

impl Receive {
    /// Notifies the device of buffers that were lent.
    fn announce(&mut self, transport: &mut impl Transport) {
        if core::mem::take(&mut self.is_unannounced) {
            self.queue.notify(transport);
        }
    }

    /// Lends a buffer to the device.
    fn lend(&mut self, buffer: &'static mut [u8]) {
        let bytes = buffer.len();
        // A queue that takes no buffer is broken, and the buffer is not needed again.
        self.is_unannounced |= self.queue.lend(buffer, bytes).is_ok();
    }

    /// Takes the next frame: its buffer, and the length of header and frame.
    ///
    /// Frames whose length cannot be right are dropped, at most as many as there are buffers.
    fn take(&mut self) -> Option<(&'static mut [u8], usize)> {
        for _ in 0..RECEIVE_FRAMES {
            let (buffer, written) = self.queue.take_back()?;
            if (self.header_bytes + FRAME_HEADER..=buffer.len()).contains(&written) {
                return Some((buffer, written));
            }
            if self.dropped == 0 {
                log::warn!("network card: a received frame of {written} bytes");
            }
            self.dropped += 1;
            self.lend(buffer);
        }
        None
    }
}

impl Transmit {
    /// Takes back the buffers that the device has sent.
    fn reclaim(&mut self) {
        while !self.free.is_full()
            && let Some((buffer, _)) = self.queue.take_back()
        {
            self.free.push(buffer);
        }
    }
}

/// A received frame.
pub struct RxToken<'a> {
    receive: &'a mut Receive,
    /// The buffer, until it is lent again.
    buffer: Option<&'static mut [u8]>,
    /// Bytes of header and frame.
    bytes: usize,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let buffer = self.buffer.as_deref().unwrap_or_default();
        f(buffer.get(self.receive.header_bytes..self.bytes).unwrap_or_default())
    }
}

impl Drop for RxToken<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.receive.lend(buffer);
        }
    }
}

/// Room for a frame to send.
pub struct TxToken<'a, T> {
    transmit: &'a mut Transmit,
    transport: &'a mut T,
}

impl<T: Transport> phy::TxToken for TxToken<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let header = self.transmit.header_bytes;
        let free = &mut self.transmit.free;
        let fits = len > 0 && free.last().is_some_and(|buffer| len <= buffer.len() - header);
        let Some(buffer) = (if fits { free.pop() } else { None }) else {
            // The stack knows the MTU, so it asks for no such frame.
            log::debug!("network card: a frame of {len} bytes to send");
            return f(&mut vec![0; len]);
        };
        // The header stays as it was allocated: all zeros.
        let result = f(&mut buffer[header..header + len]);
        match self.transmit.queue.lend(buffer, header + len) {
            Ok(()) => self.transmit.queue.notify(self.transport),
            // The queue is broken. No token is given any more.
            Err(buffer) => self.transmit.free.push(buffer),
        }
        result
    }
}

impl<T: Transport, L> Device for NetDevice<T, L> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, T>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_, T>)> {
        let Inner { transport, receive, transmit } = &mut *self.inner;
        receive.announce(transport);
        transmit.reclaim();
        if transmit.free.is_empty() || transmit.queue.is_broken() {
            return None;
        }
        let Some((buffer, bytes)) = receive.take() else {
            // Buffers of dropped frames.
            receive.announce(transport);
            return None;
        };
        let buffer = Some(buffer);
        Some((RxToken { receive, buffer, bytes }, TxToken { transmit, transport }))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_, T>> {
        let Inner { transport, transmit, .. } = &mut *self.inner;
        transmit.reclaim();
        let has_room = !transmit.free.is_empty() && !transmit.queue.is_broken();
        has_room.then_some(TxToken { transmit, transport })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_HEADER + self.mtu;
        capabilities
    }
}
