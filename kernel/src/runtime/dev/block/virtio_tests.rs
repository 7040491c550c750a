use super::*;
use std::sync::{Arc, Mutex};
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A device whose blocks are too large.
/// The driver stops after the first steps, before it starts the device.
struct Coarse {
    /// Features besides the block size.
    features: u64,
    status: DeviceStatus,
    steps: Arc<Mutex<Vec<DeviceStatus>>>,
}

impl Coarse {
    fn must_know_its_driver(&self) {
        assert_eq!(self.status, DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    }
}

impl Transport for Coarse {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.must_know_its_driver();
        FEATURE_BLK_SIZE | self.features
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        self.must_know_its_driver();
        assert_eq!(offset, CONFIG_BLK_SIZE);
        Ok(T::read_from_bytes((128_u32 << 10).as_bytes()).unwrap())
    }
    fn get_status(&self) -> DeviceStatus {
        self.status
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
        self.steps.lock().unwrap().push(status);
    }
    fn write_driver_features(&mut self, _: u64) {
        unreachable!()
    }
    fn max_queue_size(&mut self, _: u16) -> u32 {
        unreachable!()
    }
    fn notify(&mut self, _: u16) {
        unreachable!()
    }
    fn set_guest_page_size(&mut self, _: u32) {
        unreachable!()
    }
    fn requires_legacy_layout(&self) -> bool {
        unreachable!()
    }
    fn queue_set(&mut self, _: u16, _: u32, _: PhysAddr, _: PhysAddr, _: PhysAddr) {
        unreachable!()
    }
    fn queue_unset(&mut self, _: u16) {
        unreachable!()
    }
    fn queue_used(&mut self, _: u16) -> bool {
        unreachable!()
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        unreachable!()
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> virtio_drivers::Result<()> {
        unreachable!()
    }
}

/// Starts a device with these features and this coherence in the device tree.
/// The result is the error, and the status steps up to it.
fn start(features: u64, coherence: Coherence) -> (Option<StartError>, Vec<DeviceStatus>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let device = Coarse { features, status: DeviceStatus::DRIVER_OK, steps: steps.clone() };
    let error = VirtioDisk::new(device, "coarse", coherence).err();
    let steps = steps.lock().unwrap().clone();
    (error, steps)
}

/// The error of a device that may do DMA: its blocks are too large.
const TOO_COARSE: StartError = StartError::Driver(virtio_drivers::Error::Unsupported);

#[test]
fn a_device_is_asked_nothing_before_it_knows_that_it_has_a_driver() {
    let (error, steps) = start(0, Coherence::Coherent);
    assert_eq!(error, Some(TOO_COARSE));
    let acknowledged = DeviceStatus::ACKNOWLEDGE;
    assert_eq!(steps, [DeviceStatus::empty(), acknowledged, acknowledged | DeviceStatus::DRIVER]);
}

#[test]
fn a_device_whose_dma_may_bypass_the_caches_is_refused() {
    use Coherence::{Coherent, NonCoherent, Unsaid};

    const ACCESS_PLATFORM: u64 = 1 << 33;
    for (coherence, features, expected) in [
        (Coherent, 0, TOO_COARSE),
        (Coherent, ACCESS_PLATFORM, TOO_COARSE),
        (Unsaid, 0, TOO_COARSE),
        (Unsaid, !ACCESS_PLATFORM, TOO_COARSE),
        (Unsaid, ACCESS_PLATFORM, StartError::UnsaidCoherence),
        (NonCoherent, 0, StartError::NotCoherent),
        (NonCoherent, ACCESS_PLATFORM, StartError::NotCoherent),
    ] {
        let (error, _) = start(features, coherence);
        assert_eq!(error, Some(expected), "{coherence:?}, features {features:#x}");
    }
    let said = StartError::UnsaidCoherence.to_string();
    assert!(said.contains("`dma-coherent`"), "{said}");
    assert!(StartError::NotCoherent.to_string().contains("`dma-noncoherent`"));
}
