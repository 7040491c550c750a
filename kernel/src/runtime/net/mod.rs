//! The network: TCP/IP over a network card.
//!
//! smoltcp does ARP, neighbour discovery, IPv4, IPv6, ICMP echo, TCP and DHCP. The rest is here, from
//! the bottom:
//!
//! - [`filter`] drops frames that smoltcp would not take well
//! - [`slaac`] gives addresses from router advertisements
//! - [`addresses`] gives the interface its addresses: fixed ones, DHCP's, those of [`slaac`]
//! - [`tcp`] makes listeners with a backlog of smoltcp's sockets, each in a [`slot`], within
//!   [`limits`]
//! - [`stack`] polls all of it
//! - [`sockets`] are the sockets of the application, with their numbers from [`descriptors`]
//!
//! The functions here serve the ABI, with the only stack of the machine. No interrupt is taken, so
//! the stack moves on when a call polls it: each call of a socket, and [`wait`].

#![forbid(unsafe_code)]

pub mod addresses;
#[cfg(target_os = "none")]
pub mod card;
pub mod descriptors;
pub mod filter;
pub mod limits;
pub mod slaac;
mod slot;
pub mod sockets;
pub mod stack;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;

use alloc::boxed::Box;
use alloc::string::String;

use smoltcp::phy::Device;

use crate::runtime::sched::sleep_lock::SleepLock;
use crate::system::{Network, NetworkConfig, NetworkError};
use stack::{ETHERNET_HEADER_BYTES, Stack};

/// A network card: frames of Ethernet, and the interrupt that ends a core's sleep.
pub trait Card: Device + Send {
    /// Name of the kind of device.
    fn name(&self) -> String;

    /// The Ethernet address.
    fn mac(&self) -> [u8; 6];

    /// Lets the next frame end the calling core's sleep; false if a frame has come already.
    ///
    /// The call may be repeated without [`Card::disable_wake`] in between.
    fn enable_wake(&mut self) -> bool;

    /// Lets no frame end a core's sleep any more.
    fn disable_wake(&mut self);

    /// Longest time in µs to sleep without a look at the card.
    ///
    /// The result is `None` for a card whose interrupt is trusted.
    fn longest_sleep_us(&self) -> Option<u64> {
        None
    }
}

/// A card and its stack, whatever the type of the card.
trait Node: Send {
    fn configure(&mut self, config: &NetworkConfig, now_us: u64) -> Result<(), NetworkError>;
    fn network(&self) -> Option<Network>;
    fn poll(&mut self, now_us: u64) -> Option<&mut Stack>;
    fn enable_wake(&mut self) -> bool;
    fn disable_wake(&mut self);
    /// The moment until which the calling core may sleep.
    fn sleep_end(&self, now_us: u64) -> Option<u64>;
}

struct Attached<C> {
    card: C,
    seed: u64,
    stack: Option<Stack>,
}

impl<C: Card> Node for Attached<C> {
    fn configure(&mut self, config: &NetworkConfig, now_us: u64) -> Result<(), NetworkError> {
        if self.stack.is_some() {
            return Err(NetworkError::Started);
        }
        let mac = self.card.mac();
        let mut stack = Stack::start(&mut self.card, mac, config, self.seed, now_us)?;
        stack.poll(&mut self.card, now_us);
        self.stack = Some(stack);
        Ok(())
    }

    fn network(&self) -> Option<Network> {
        let stack = self.stack.as_ref()?;
        let frame = self.card.capabilities().max_transmission_unit;
        let pairs = stack.addresses().into_iter();
        Some(Network {
            name: self.card.name(),
            mac: self.card.mac(),
            mtu: frame.saturating_sub(ETHERNET_HEADER_BYTES),
            addresses: pairs.map(|cidr| (cidr.address().into(), cidr.prefix_len())).collect(),
            gateways: stack.gateways().into_iter().map(Into::into).collect(),
        })
    }

    fn poll(&mut self, now_us: u64) -> Option<&mut Stack> {
        let stack = self.stack.as_mut()?;
        stack.poll(&mut self.card, now_us);
        Some(stack)
    }

    fn enable_wake(&mut self) -> bool {
        self.stack.is_none() || self.card.enable_wake()
    }

    fn disable_wake(&mut self) {
        self.card.disable_wake();
    }

    fn sleep_end(&self, now_us: u64) -> Option<u64> {
        let stack = self.stack.as_ref()?;
        let look = self.card.longest_sleep_us().map(|us| now_us.saturating_add(us));
        look.into_iter().chain(stack.next_deadline()).min()
    }
}

/// The network of the machine.
static NODE: SleepLock<Option<Box<dyn Node>>> = SleepLock::new(None);

/// Gives the machine its network card; [`configure`] starts the stack.
///
/// `seed` is random, for sequence numbers and ports.
pub fn attach(card: impl Card + 'static, seed: u64) {
    *NODE.lock() = Some(Box::new(Attached { card, seed, stack: None }));
}

/// Whether the machine has its network card.
pub fn has_card() -> bool {
    NODE.lock().is_some()
}

/// Gives the machine its network card and starts the stack.
///
/// # Errors
/// See [`configure`].
pub fn start(
    card: impl Card + 'static,
    config: &NetworkConfig,
    seed: u64,
    now_us: u64,
) -> Result<(), NetworkError> {
    attach(card, seed);
    configure(config, now_us)
}

/// Starts the stack.
///
/// # Errors
/// There is no card, or it cannot be used, or the stack runs, or the configuration makes no sense.
pub fn configure(config: &NetworkConfig, now_us: u64) -> Result<(), NetworkError> {
    NODE.lock().as_mut().ok_or(NetworkError::NoCard)?.configure(config, now_us)
}

/// The card and its present addresses; `None` before the stack has started.
pub fn network() -> Option<Network> {
    NODE.lock().as_ref()?.network()
}

/// Polls the stack, lets `work` use it, and sends what came of that.
///
/// The result is `None` before the stack has started.
pub fn with_stack<R>(now_us: u64, work: impl FnOnce(&mut Stack) -> R) -> Option<R> {
    let mut node = NODE.lock();
    let node = node.as_mut()?;
    let result = work(node.poll(now_us)?);
    node.poll(now_us);
    Some(result)
}

/// Lets the next frame end the calling core's sleep; false if a frame has come already.
pub fn enable_wake() -> bool {
    NODE.lock().as_mut().is_none_or(|node| node.enable_wake())
}

/// Lets no frame end a core's sleep any more.
pub fn disable_wake() {
    if let Some(node) = NODE.lock().as_mut() {
        node.disable_wake();
    }
}

/// The moment of the clock, in µs, when the stack or the card needs the core again.
pub fn sleep_end(now_us: u64) -> Option<u64> {
    NODE.lock().as_ref()?.sleep_end(now_us)
}

/// Sleeps until a frame has come, `other` holds, the stack has work, or the clock reads
/// `deadline_us`.
///
/// The stack is not polled. The caller polls it afterwards, by [`with_stack`].
#[cfg(target_os = "none")]
pub fn wait(deadline_us: Option<u64>, other: &dyn Fn() -> bool) {
    use crate::runtime::arch::time;
    use crate::runtime::sched::idle;

    let end = deadline_us.into_iter().chain(sleep_end(time::now_us())).min();
    idle::wait_until(&|| other() || !enable_wake(), end);
    disable_wake();
}

/// Waits in tests, in short naps.
#[cfg(all(test, not(target_os = "none")))]
pub fn wait(deadline_us: Option<u64>, other: &dyn Fn() -> bool) {
    let end = deadline_us.into_iter().chain(sleep_end(testing::now_us())).min();
    while !other() && enable_wake() && end.is_none_or(|end| testing::now_us() < end) {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
    disable_wake();
}

#[cfg(test)]
mod tests;
