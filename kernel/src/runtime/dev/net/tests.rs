use std::vec::Vec;

use smoltcp::phy::{Device, RxToken as _, TxToken as _};
use smoltcp::time::Instant;
use virtio_drivers::transport::{DeviceStatus, DeviceType};

use super::*;
use crate::runtime::dev::bus::fake::{FakeDevice, FakeTransport, Step, fake};
use crate::runtime::dev::bus::virtio::StartError;
use crate::runtime::machine::Coherence;

const NOW: Instant = Instant::ZERO;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const STATUS: u64 = 1 << 16;
const ANY_LAYOUT: u64 = 1 << 27;
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const MADE_UP: [u8; 6] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66];

/// A wire that notes what is done to it, and that wakes a sleeper or not.
struct FakeLine(FakeDevice, bool);

impl WakeLine for FakeLine {
    fn open(&mut self) -> bool {
        self.0.note(Step::Open);
        self.1
    }

    fn close(&mut self) {
        self.0.note(Step::Close);
    }
}

type Card = NetDevice<FakeTransport, FakeLine>;

/// The configuration: address, status, number of queue pairs, MTU.
fn config(mac: [u8; 6], mtu: u16) -> Vec<u8> {
    [&mac[..], &[1, 0, 1, 0], &mtu.to_le_bytes()].concat()
}

fn start(features: u64, config: &[u8]) -> (Result<Card, StartError>, FakeDevice) {
    let (transport, device) = fake(DeviceType::Network, features, config);
    let line = FakeLine(device.clone(), true);
    (NetDevice::new(transport, Coherence::Coherent, line, || MADE_UP), device)
}

/// A card of version 1 that runs.
fn card() -> (Card, FakeDevice) {
    let offered = VERSION_1 | MAC | STATUS | INDIRECT | EVENT_INDEX;
    let (card, device) = start(offered, &config(ADDRESS, 0));
    let card = card.ok().unwrap();
    device.steps();
    (card, device)
}

/// The device receives a frame, with a header of so many bytes.
fn deliver(device: &FakeDevice, header: usize, frame: &[u8]) {
    let number = device.take(RECEIVE).expect("the driver has lent a buffer");
    device.write(RECEIVE, number, &[&vec![0; header][..], frame].concat());
    device.give_back(RECEIVE, number.into(), (header + frame.len()) as u32);
}

/// A frame of this length, whose bytes depend on `seed`.
fn frame(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect()
}

/// The next frame that the stack receives.
fn received(card: &mut Card) -> Option<Vec<u8>> {
    card.receive(NOW).map(|(frame, _)| frame.consume(<[u8]>::to_vec))
}

/// Sends a frame; false if there is no token.
fn send(card: &mut Card, bytes: &[u8]) -> bool {
    let token = card.transmit(NOW);
    token.map(|token| token.consume(bytes.len(), |buffer| buffer.copy_from_slice(bytes))).is_some()
}

/// The device sends the next frame: header and frame.
fn sent(device: &FakeDevice) -> Option<Vec<u8>> {
    let number = device.take(TRANSMIT)?;
    let bytes = device.read(TRANSMIT, number);
    device.give_back(TRANSMIT, number.into(), 0);
    Some(bytes)
}

#[test]
fn a_card_is_as_it_says() {
    let (card, device) = start(VERSION_1 | MAC | STATUS | MTU, &config(ADDRESS, 1420));
    let card = card.ok().unwrap();
    assert_eq!((card.mac(), card.mtu()), (ADDRESS, 1420));
    assert_eq!(card.capabilities().max_transmission_unit, 1434);
    assert_eq!(device.accepted(), VERSION_1 | MAC | STATUS | MTU);
    assert!(device.status().contains(DeviceStatus::DRIVER_OK));
    assert!(card.is_link_up());
    device.configure(6, 0);
    assert!(!card.is_link_up());
    // Neither of the features that make interrupts harder to suppress.
    let (card, device) = start(!(ANY_LAYOUT | (1 << 33)), &config(ADDRESS, 9000));
    let card = card.ok().unwrap();
    assert_eq!((card.mtu(), device.accepted()), (9000, VERSION_1 | MAC | STATUS | MTU));
}

#[test]
fn what_a_card_does_not_say_has_a_default() {
    let (card, device) = start(VERSION_1, &[]);
    let card = card.ok().unwrap();
    // The address is made up: a local one, of one card.
    assert_eq!(card.mac(), [0x12, 0x22, 0x33, 0x44, 0x55, 0x66]);
    assert_eq!((card.mtu(), card.is_link_up()), (1500, true));
    assert_eq!(device.accepted(), VERSION_1);
    // What no card may be.
    for (mac, mtu) in [([0x53, 0, 0, 0, 0, 1], 67), ([0; 6], 9217), ([0xff; 6], u16::MAX)] {
        let (card, device) = start(VERSION_1 | MAC | MTU, &config(mac, mtu));
        let card = card.ok().unwrap();
        assert_eq!((card.mac()[0], card.mtu()), (0x12, 1500), "{mac:x?}, {mtu}");
        assert_eq!(device.accepted(), VERSION_1 | MAC);
    }
}

#[test]
fn a_card_that_cannot_work_is_refused() {
    let refused = |features, coherence, refuses: bool| {
        let (transport, device) = fake(DeviceType::Network, features, &config(ADDRESS, 0));
        if refuses {
            device.refuse();
        }
        let line = FakeLine(device, true);
        NetDevice::new(transport, coherence, line, || MADE_UP).err()
    };
    let unsupported = Some(StartError::Driver(virtio_drivers::Error::Unsupported));
    assert_eq!(refused(VERSION_1, Coherence::Coherent, false), None);
    assert_eq!(refused(VERSION_1, Coherence::Coherent, true), unsupported);
    assert_eq!(refused(VERSION_1, Coherence::NonCoherent, false), Some(StartError::NotCoherent));
    let platform = VERSION_1 | 1 << 33;
    assert_eq!(refused(platform, Coherence::Unsaid, false), Some(StartError::UnsaidCoherence));
    // A legacy device that wants its header apart.
    assert_eq!(refused(0, Coherence::Coherent, false), unsupported);
    assert_eq!(refused(ANY_LAYOUT, Coherence::Coherent, true), None);
}

#[test]
fn frames_are_received_in_their_order() {
    for (features, header) in [(VERSION_1, 12), (ANY_LAYOUT, 10)] {
        let (card, device) = start(features, &[]);
        let mut card = card.ok().unwrap();
        assert_eq!(device.steps(), [Step::Notify(0)]);
        assert_eq!(device.lent(RECEIVE), 128);
        assert_eq!(received(&mut card), None);
        // Three times around the queue, in groups of primes.
        for group in 0..23_u8 {
            let frames: Vec<_> = (0..17).map(|i| frame(14 + 97 * i, group)).collect();
            let frames: Vec<_> = frames.into_iter().filter(|frame| frame.len() <= 1514).collect();
            frames.iter().for_each(|frame| deliver(&device, header, frame));
            for frame in &frames {
                assert_eq!(received(&mut card).as_ref(), Some(frame));
            }
            assert_eq!(received(&mut card), None);
            // All buffers are lent again.
            assert_eq!(device.lent(RECEIVE), 128);
        }
    }
}

#[test]
fn the_largest_frame_has_room_with_a_vlan_tag() {
    for (mtu, largest) in [(1420, 1518), (1500, 1518), (9000, 9018)] {
        let (card, device) = start(VERSION_1 | MTU, &config(ADDRESS, mtu));
        let mut card = card.ok().unwrap();
        let whole = frame(largest, 3);
        deliver(&device, 12, &whole);
        assert_eq!(received(&mut card), Some(whole));
        let packet = frame(14 + usize::from(mtu), 5);
        assert!(send(&mut card, &packet));
        assert_eq!(sent(&device).unwrap()[12..], packet);
    }
}

#[test]
fn frames_are_sent_with_an_empty_header() {
    for (features, header) in [(VERSION_1, 12), (ANY_LAYOUT, 10)] {
        let (card, device) = start(features, &[]);
        let mut card = card.ok().unwrap();
        device.steps();
        for i in 0..197_u16 {
            let frame = frame(14 + usize::from(i) * 7, i as u8);
            assert!(send(&mut card, &frame));
            assert_eq!(device.steps(), [Step::Notify(1)]);
            assert_eq!(sent(&device).unwrap(), [&vec![0; header][..], &frame].concat());
            assert_eq!(device.steps(), [], "nobody wants an interrupt");
        }
        assert_eq!(sent(&device), None);
    }
}

#[test]
fn a_device_that_is_busy_is_not_notified() {
    let (mut card, device) = card();
    device.set_notifications(TRANSMIT, false);
    assert!(send(&mut card, &frame(60, 1)));
    assert_eq!(device.steps(), []);
    device.set_notifications(TRANSMIT, true);
    assert!(send(&mut card, &frame(60, 2)));
    assert_eq!(device.steps(), [Step::Notify(1)]);
    assert_eq!(device.lent(TRANSMIT), 2);
}

#[test]
fn a_full_queue_gives_no_token_until_the_device_has_sent() {
    let (mut card, device) = card();
    for i in 0..64 {
        assert!(send(&mut card, &frame(60, i)), "frame {i}");
    }
    assert!(!send(&mut card, &frame(60, 64)));
    // Without room for an answer, a frame that has come waits.
    let waits = frame(60, 99);
    deliver(&device, 12, &waits);
    assert_eq!(received(&mut card), None);
    assert_eq!(sent(&device).unwrap()[12..], frame(60, 0));
    assert_eq!(received(&mut card), Some(waits));
    assert!(send(&mut card, &frame(60, 64)));
    assert!(!send(&mut card, &frame(60, 65)));
    for i in 1..=64 {
        assert_eq!(sent(&device).unwrap()[12..], frame(60, i));
    }
    assert_eq!(sent(&device), None);
}

#[test]
fn a_silent_device_stops_nobody() {
    let (mut card, device) = card();
    while send(&mut card, &frame(60, 0)) {}
    for _ in 0..10_007 {
        assert!(received(&mut card).is_none() && !send(&mut card, &frame(60, 1)));
    }
    assert_eq!(device.lent(TRANSMIT), 64);
    assert!(!card.is_broken());
    assert!(card.before_sleep(), "nothing keeps the core awake");
    assert!(!card.is_woken());
}

#[test]
fn a_frame_without_a_token_s_use_is_dropped() {
    let (mut card, device) = card();
    deliver(&device, 12, &frame(60, 1));
    deliver(&device, 12, &frame(60, 2));
    drop(card.receive(NOW));
    assert_eq!(received(&mut card), Some(frame(60, 2)));
    assert_eq!(device.lent(RECEIVE), 128);
    // A token to send that is not used costs no buffer.
    for _ in 0..129 {
        assert!(card.transmit(NOW).is_some());
    }
    assert_eq!(device.lent(TRANSMIT), 0);
}

#[test]
fn a_frame_that_is_too_long_is_not_sent() {
    let (mut card, device) = card();
    for length in [0, 1600, usize::from(u16::MAX)] {
        let token = card.transmit(NOW).unwrap();
        assert_eq!(token.consume(length, |buffer| buffer.len()), length);
    }
    assert_eq!(sent(&device), None);
    assert!(send(&mut card, &frame(60, 1)));
}

#[test]
fn frames_of_wrong_lengths_are_dropped() {
    let (mut card, device) = card();
    let room = {
        let number = device.take(RECEIVE).unwrap();
        let room = device.room(RECEIVE, number) as u32;
        device.give_back(RECEIVE, number.into(), 0);
        room
    };
    for length in [1, 11, 12, 25, room + 1, 1 << 16, u32::MAX] {
        let number = device.take(RECEIVE).unwrap();
        device.give_back(RECEIVE, number.into(), length);
    }
    assert_eq!(received(&mut card), None);
    assert_eq!(card.dropped_frames(), 8);
    // Frames of the shortest and the longest length still come.
    for length in [26, room] {
        let number = device.take(RECEIVE).unwrap();
        device.give_back(RECEIVE, number.into(), length);
        assert_eq!(received(&mut card).map(|frame| frame.len()), Some(length as usize - 12));
    }
    assert!(!card.is_broken());
    assert_eq!(device.lent(RECEIVE), 128);
}

#[test]
fn endless_wrong_lengths_do_not_keep_the_stack() {
    let (mut card, device) = card();
    for _ in 0..7 {
        while let Some(number) = device.take(RECEIVE) {
            device.give_back(RECEIVE, number.into(), 0);
        }
        assert_eq!(received(&mut card), None);
        assert_eq!(device.lent(RECEIVE), 128);
    }
    assert_eq!(card.dropped_frames(), 7 * 128);
}

#[test]
fn a_device_that_gives_back_what_it_does_not_have_is_not_used_any_more() {
    // Numbers that no buffer of the queue has.
    for wrong in [128, u32::from(u16::MAX), 1 << 31 | 0x8000] {
        let (mut card, device) = card();
        device.give_back(RECEIVE, wrong, 60);
        assert_eq!(received(&mut card), None);
        assert!(card.is_broken(), "{wrong:#x}");
        deliver(&device, 12, &frame(60, 1));
        assert_eq!(received(&mut card), None);
        assert!(card.transmit(NOW).is_some(), "the other queue still works");
        assert!(card.before_sleep(), "nothing keeps the core awake");
        assert!(!card.is_woken());
    }
    let (mut card, device) = card();
    assert!(send(&mut card, &frame(60, 1)) && send(&mut card, &frame(60, 2)));
    let number = device.take(TRANSMIT).unwrap().into();
    device.give_back(TRANSMIT, number, 0);
    device.give_back(TRANSMIT, number, 0);
    assert!(!send(&mut card, &frame(60, 3)) && card.is_broken());
    deliver(&device, 12, &frame(60, 1));
    assert_eq!(received(&mut card), None);
    assert!(card.before_sleep());
}

#[test]
fn a_frame_wakes_the_sleeper_whenever_it_comes() {
    use Step::{Acknowledge, Close, Open, Raise};

    // Awake: the card raises no interrupt.
    let (mut card, device) = card();
    device.set_notifications(RECEIVE, false);
    deliver(&device, 12, &frame(60, 1));
    assert_eq!((device.steps(), device.is_raised()), (vec![], false));
    // Before the sleep: the frame is seen, and the preparations are undone.
    assert!(!card.before_sleep());
    assert_eq!(device.steps(), [Open, Acknowledge, Close, Acknowledge]);
    assert!(received(&mut card).is_some());
    // During the sleep: the card raises the interrupt.
    assert!(card.before_sleep());
    assert_eq!(device.steps(), [Open, Acknowledge]);
    deliver(&device, 12, &frame(60, 2));
    assert_eq!((device.steps(), device.is_raised()), (vec![Raise], true));
    assert!(card.is_woken());
    // The wire is low again, so that the next frame is an edge.
    assert!(!device.is_raised());
    deliver(&device, 12, &frame(60, 3));
    assert!(device.is_raised());
    card.after_sleep();
    assert_eq!(device.steps(), [Acknowledge, Raise, Close, Acknowledge]);
    // Awake again.
    deliver(&device, 12, &frame(60, 4));
    assert_eq!((device.steps(), device.is_raised()), (vec![], false));
    let frames: Vec<_> = core::iter::from_fn(|| received(&mut card)).collect();
    assert_eq!(frames, [frame(60, 2), frame(60, 3), frame(60, 4)]);
}

#[test]
fn a_frame_that_comes_with_the_acknowledgement_is_seen() {
    // The acknowledgement of an older interrupt clears that of the frame too.
    let (mut card, device) = card();
    device.before_acknowledgement(|device| deliver(device, 12, &frame(60, 1)));
    assert!(!card.before_sleep());
    assert!(received(&mut card).is_some());
    assert!(card.before_sleep());
    device.before_acknowledgement(|device| deliver(device, 12, &frame(60, 2)));
    assert!(card.is_woken());
    assert!(!device.is_raised());
}

#[test]
fn a_level_does_not_keep_the_sleeper_awake() {
    let (mut card, device) = card();
    // An interrupt from before, which nobody has acknowledged.
    device.announce_change();
    assert!(card.before_sleep());
    assert!(!device.is_raised());
    assert!(!card.is_woken());
    // A change of the configuration ends the sleep once, and not again and again.
    device.announce_change();
    assert!(card.is_woken());
    assert!(!device.is_raised() && !card.is_woken());
    card.after_sleep();
    assert!(!device.is_raised());
}

#[test]
fn a_sleeper_with_a_full_queue_waits_for_room() {
    let (mut card, device) = card();
    while send(&mut card, &frame(60, 0)) {}
    device.steps();
    // The frame cannot be processed: it must not keep the core awake.
    deliver(&device, 12, &frame(60, 1));
    assert!(card.before_sleep());
    assert!(!card.is_woken());
    assert!(sent(&device).is_some());
    assert!(device.is_raised(), "the room is announced");
    assert!(card.is_woken());
    card.after_sleep();
    assert_eq!(received(&mut card), Some(frame(60, 1)));
    // With room again, frames that were sent wake nobody.
    assert!(card.before_sleep());
    assert!(sent(&device).is_some());
    assert!(!device.is_raised() && !card.is_woken());
}

#[test]
fn a_card_without_an_interrupt_is_looked_at() {
    let (mut card, _) = card();
    assert!(card.before_sleep());
    assert_eq!(card.longest_sleep_us(), 1_000_000);
    let (transport, device) = fake(DeviceType::Network, VERSION_1, &[]);
    let line = FakeLine(device.clone(), false);
    let card = NetDevice::new(transport, Coherence::Coherent, line, || MADE_UP);
    let mut card = card.ok().unwrap();
    assert!(card.before_sleep());
    assert_eq!(card.longest_sleep_us(), 10_000);
    deliver(&device, 12, &frame(60, 1));
    assert!(card.is_woken());
}

#[test]
fn buffers_that_were_lent_are_announced_before_a_sleep() {
    let (mut card, device) = card();
    deliver(&device, 12, &frame(60, 1));
    assert!(received(&mut card).is_some());
    assert!(card.before_sleep());
    assert_eq!(device.steps(), [Step::Open, Step::Notify(0), Step::Acknowledge]);
}
