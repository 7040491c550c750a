//! A fake virtio device: a transport for a driver, and a handle that plays the device.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::virtio::FEATURE_VERSION_1;

/// Number of queues.
const QUEUES: usize = 2;
/// Size of a descriptor in bytes: address, length, flags, next.
const DESCRIPTOR: usize = 16;
/// Flag of a descriptor whose buffer the device may write to.
const WRITABLE: u16 = 1 << 1;

/// What driver and device do, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The driver notifies the device of this queue.
    Notify(u16),
    /// The driver acknowledges the interrupt.
    Acknowledge,
    /// The device raises the interrupt.
    Raise,
    /// The driver lets the interrupt through at the controller.
    Open,
    /// The driver shuts the interrupt out at the controller.
    Close,
}

#[derive(Default)]
struct Queue {
    size: usize,
    descriptors: usize,
    driver_area: usize,
    device_area: usize,
    /// Entries of the available ring that the device has taken.
    taken: u16,
    /// Entries that the device has written to the used ring.
    used: u16,
}

struct State {
    kind: DeviceType,
    offered: u64,
    accepted: u64,
    refuses: bool,
    config: Vec<u8>,
    status: DeviceStatus,
    queues: [Queue; QUEUES],
    pending: InterruptStatus,
    steps: Vec<Step>,
    meanwhile: Option<Meanwhile>,
}

/// What the device does while the driver is busy.
type Meanwhile = Box<dyn FnOnce(&FakeDevice) + Send>;

/// The transport of a fake device, for the driver.
pub struct FakeTransport(Arc<Mutex<State>>);

/// The device's side of a fake device.
#[derive(Clone)]
pub struct FakeDevice(Arc<Mutex<State>>);

/// A device that offers these features and has this configuration.
pub fn fake(kind: DeviceType, offered: u64, config: &[u8]) -> (FakeTransport, FakeDevice) {
    let state = Arc::new(Mutex::new(State {
        kind,
        offered,
        accepted: 0,
        refuses: false,
        config: config.into(),
        status: DeviceStatus::DRIVER_OK,
        queues: Default::default(),
        pending: InterruptStatus::empty(),
        steps: Vec::new(),
        meanwhile: None,
    }));
    (FakeTransport(state.clone()), FakeDevice(state))
}

/// Reads a value of memory that driver and device share.
fn peek<T: Copy>(address: usize) -> T {
    // SAFETY: the driver has given the address to the device, as that of memory that lives for ever.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes a value to memory that driver and device share.
fn poke<T>(address: usize, value: T) {
    // SAFETY: as in `peek`.
    unsafe { (address as *mut T).write_volatile(value) }
}

impl Queue {
    /// The index of the available ring, up to which there are buffers.
    fn available(&self) -> u16 {
        // SAFETY: as in `peek`; the driver accesses the word atomically.
        let index = unsafe { AtomicU16::from_ptr((self.driver_area + 2) as *mut u16) };
        index.load(Ordering::SeqCst)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index) % self.size
    }
}

impl FakeDevice {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes the device refuse the driver's choice of features.
    pub fn refuse(&self) {
        self.state().refuses = true;
    }

    /// Features that the driver has accepted.
    pub fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// Changes a byte of the configuration.
    pub fn configure(&self, offset: usize, value: u8) {
        self.state().config[offset] = value;
    }

    /// The status at present.
    pub fn status(&self) -> DeviceStatus {
        self.state().status
    }

    /// Number of buffers that the driver has lent to the device, and that the device has not taken.
    pub fn lent(&self, queue: usize) -> usize {
        let queue = &self.state().queues[queue];
        usize::from(queue.available().wrapping_sub(queue.taken))
    }

    /// Takes the next buffer: its number in the queue, if there is one.
    pub fn take(&self, queue: usize) -> Option<u16> {
        let queue = &mut self.state().queues[queue];
        if queue.available() == queue.taken {
            return None;
        }
        let number = peek(queue.driver_area + 4 + 2 * queue.slot(queue.taken));
        queue.taken = queue.taken.wrapping_add(1);
        Some(number)
    }

    /// Address and length of a buffer.
    fn buffer(&self, queue: usize, number: u16, writable: bool) -> (usize, usize) {
        let at = self.state().queues[queue].descriptors + DESCRIPTOR * usize::from(number);
        let flags: u16 = peek(at + 12);
        assert_eq!(flags, if writable { WRITABLE } else { 0 }, "one buffer, for the device's use");
        (peek::<u64>(at) as usize, peek::<u32>(at + 8) as usize)
    }

    /// The bytes of a buffer that the device reads.
    pub fn read(&self, queue: usize, number: u16) -> Vec<u8> {
        let (address, length) = self.buffer(queue, number, false);
        (address..address + length).map(peek).collect()
    }

    /// Length of a buffer that the device writes to.
    pub fn room(&self, queue: usize, number: u16) -> usize {
        self.buffer(queue, number, true).1
    }

    /// Writes to the start of a buffer.
    pub fn write(&self, queue: usize, number: u16, bytes: &[u8]) {
        let (address, length) = self.buffer(queue, number, true);
        assert!(bytes.len() <= length, "the buffer has room");
        bytes.iter().enumerate().for_each(|(i, &byte)| poke(address + i, byte));
    }

    /// Gives a buffer back, and raises the interrupt unless the driver wants none.
    ///
    /// Nothing is checked: number and length may be wrong.
    pub fn give_back(&self, queue: usize, number: u32, length: u32) {
        let mut state = self.state();
        let queue = &mut state.queues[queue];
        let entry = queue.device_area + 4 + 8 * queue.slot(queue.used);
        poke(entry, number);
        poke(entry + 4, length);
        queue.used = queue.used.wrapping_add(1);
        // SAFETY: as in `peek`; the driver accesses the words atomically.
        let flags = unsafe {
            let index = AtomicU16::from_ptr((queue.device_area + 2) as *mut u16);
            index.store(queue.used, Ordering::SeqCst);
            AtomicU16::from_ptr(queue.driver_area as *mut u16).load(Ordering::SeqCst)
        };
        if flags & 1 == 0 {
            state.raise(InterruptStatus::QUEUE_INTERRUPT);
        }
    }

    /// Changes the configuration as far as the driver is concerned: raises the interrupt.
    pub fn announce_change(&self) {
        self.state().raise(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
    }

    /// Whether the wire of the interrupt is high.
    pub fn is_raised(&self) -> bool {
        self.state().pending != InterruptStatus::empty()
    }

    /// Notes a step of the driver that does not go through the transport.
    pub fn note(&self, step: Step) {
        self.state().steps.push(step);
    }

    /// Takes the steps since the last call.
    pub fn steps(&self) -> Vec<Step> {
        core::mem::take(&mut self.state().steps)
    }

    /// Makes the device do something right before the driver's next acknowledgement takes effect.
    pub fn before_acknowledgement(&self, meanwhile: impl FnOnce(&FakeDevice) + Send + 'static) {
        self.state().meanwhile = Some(Box::new(meanwhile));
    }

    /// Asks the driver for no notifications of a queue, or for some.
    pub fn set_notifications(&self, queue: usize, wanted: bool) {
        poke(self.state().queues[queue].device_area, u16::from(!wanted));
    }
}

impl State {
    fn raise(&mut self, status: InterruptStatus) {
        self.pending |= status;
        self.steps.push(Step::Raise);
    }
}

impl Transport for FakeTransport {
    fn device_type(&self) -> DeviceType {
        self.0.lock().unwrap().kind
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.lock().unwrap().offered
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.lock().unwrap().accepted = features;
    }

    fn max_queue_size(&mut self, _: u16) -> u32 {
        256
    }

    fn notify(&mut self, queue: u16) {
        let mut state = self.0.lock().unwrap();
        assert!(state.status.contains(DeviceStatus::DRIVER_OK), "a device that runs");
        state.steps.push(Step::Notify(queue));
    }

    fn get_status(&self) -> DeviceStatus {
        let state = self.0.lock().unwrap();
        if state.refuses { state.status - DeviceStatus::FEATURES_OK } else { state.status }
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.lock().unwrap().status = status;
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        self.0.lock().unwrap().offered & FEATURE_VERSION_1 == 0
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.0.lock().unwrap().queues[usize::from(queue)] = Queue {
            size: size as usize,
            descriptors: descriptors as usize,
            driver_area: driver_area as usize,
            device_area: device_area as usize,
            ..Queue::default()
        };
    }

    fn queue_unset(&mut self, _: u16) {
        panic!("a queue is never freed")
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.lock().unwrap().queues[usize::from(queue)].size != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let meanwhile = self.0.lock().unwrap().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile(&FakeDevice(self.0.clone()));
        }
        let mut state = self.0.lock().unwrap();
        state.steps.push(Step::Acknowledge);
        core::mem::replace(&mut state.pending, InterruptStatus::empty())
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let state = self.0.lock().unwrap();
        assert!(state.status.contains(DeviceStatus::DRIVER), "a device that knows its driver");
        let bytes = state.config.get(offset..offset + size_of::<T>());
        let value = bytes.map(|bytes| T::read_from_bytes(bytes).unwrap());
        value.ok_or(virtio_drivers::Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        panic!("no driver writes to the configuration")
    }
}
