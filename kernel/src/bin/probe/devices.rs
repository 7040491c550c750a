//! Trials of devices that the application does not see: the network card, sources of random bytes.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use hermit_abi::errno::{EFAULT, EINVAL, ENOSYS};
use kernel::runtime::dev::entropy as sources;
use kernel::runtime::dev::net::card::{self, NetCard};
use kernel::runtime::sched::idle;
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::os::{now_us, read_entropy, say};

/// Number of questions to the network: more than each queue of the card has entries.
const QUESTIONS: u32 = 300;
/// Time in µs that an answer may take.
///
/// A sleeper with an interrupt has a deadline of 1 s. So the interrupt must wake the sleeper.
const ANSWER_US: u64 = 900_000;
/// Time in µs for which the quiet network is watched.
const QUIET_US: u64 = 500_000;
/// Number of looks at the card in that time: some 30 for each sleep of 10 ms. A wire that stays high
/// gives tens of thousands.
const MAX_LOOKS: u32 = 10_000;

/// The guest's and the router's address in QEMU's user network.
const GUEST: [u8; 4] = [10, 0, 2, 15];
const ROUTER: [u8; 4] = [10, 0, 2, 2];

/// The card asks for the router's hardware address, again and again, and sleeps until the answer.
pub fn net_frames() -> bool {
    let Some((name, card)) = card::take_later() else { return false };
    let mac = card.mac();
    say(&format!("net-frames: {name}, {mac:02x?}, MTU {}\n", card.mtu()));
    let is_up = card.is_link_up();
    let card = RefCell::new(card);
    let answers = (0..QUESTIONS).filter(|_| is_answered(&card, mac)).count();
    let looks = looks_at_a_quiet_card(&card);
    let has_room = card.borrow_mut().transmit(now()).is_some();
    say(&format!("net-frames: {answers} answers, {looks} looks\n"));
    is_up && has_room && answers == QUESTIONS as usize && looks < MAX_LOOKS
}

fn now() -> Instant {
    Instant::from_micros(now_us() as i64)
}

/// Whether the router answers in time (RFC 826).
fn is_answered(card: &RefCell<NetCard>, mac: [u8; 6]) -> bool {
    const ETHERNET_IPV4: [u8; 8] = [8, 6, 0, 1, 8, 0, 6, 4];
    let question =
        [&[0xff; 6][..], &mac, &ETHERNET_IPV4, &[0, 1], &mac, &GUEST, &[0; 6], &ROUTER].concat();
    let start_us = now_us();
    let sent = card.borrow_mut().transmit(now()).map(|token| {
        token.consume(question.len(), |frame| frame.copy_from_slice(&question));
    });
    if sent.is_none() {
        return false;
    }
    let is_answer = |frame: &[u8]| {
        let start = [&mac[..], &frame[6..12], &ETHERNET_IPV4, &[0, 2], &frame[6..12], &ROUTER];
        frame.starts_with(&start.concat())
    };
    loop {
        // Other frames of the network may come in between.
        while let Some((token, _)) = card.borrow_mut().receive(now()) {
            if token.consume(is_answer) {
                return now_us() - start_us < ANSWER_US;
            }
        }
        let elapsed_us = now_us() - start_us;
        if elapsed_us >= ANSWER_US {
            say(&format!("net-frames: no answer after {elapsed_us} us\n"));
            return false;
        }
        if card.borrow_mut().before_sleep() {
            let deadline_us = Some(now_us() + card.borrow().longest_sleep_us());
            idle::wait_until(&|| card.borrow_mut().is_woken(), deadline_us);
            card.borrow_mut().after_sleep();
        }
    }
}

/// Number of looks at the card while the core sleeps, and nothing or little comes.
fn looks_at_a_quiet_card(card: &RefCell<NetCard>) -> u32 {
    let looks = Cell::new(0);
    let end_us = now_us() + QUIET_US;
    while now_us() < end_us {
        while card.borrow_mut().receive(now()).is_some() {}
        if card.borrow_mut().before_sleep() {
            let look = || {
                looks.set(looks.get() + 1);
                card.borrow_mut().is_woken()
            };
            let deadline_us = end_us.min(now_us() + card.borrow().longest_sleep_us());
            idle::wait_until(&look, Some(deadline_us));
            card.borrow_mut().after_sleep();
        }
    }
    looks.get()
}

/// The machine has exactly these sources, joined by `+`; `none` for none.
pub fn entropy(expected: &str) -> bool {
    let names: Vec<String> = sources::sources().iter().map(ToString::to_string).collect();
    say(&format!("entropy: {}\n", names.join(", ")));
    let error = |number: i32| -(number as isize);
    let mut bytes = vec![0; 10_007];
    let refuses = read_entropy(Some(&mut bytes), 1) == error(EINVAL)
        && read_entropy(None, 0) == error(EFAULT)
        && bytes.iter().all(|&byte| byte == 0);
    if names.is_empty() {
        return expected == "none" && refuses && read_entropy(Some(&mut bytes), 0) == error(ENOSYS);
    }
    let is_read = read_entropy(Some(&mut bytes), 0) == bytes.len() as isize;
    let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    let mut others = vec![0; 61];
    let are_others = read_entropy(Some(&mut others), 0) == 61 && !bytes.starts_with(&others);
    // The mean is 40028, and the standard deviation 141.
    let is_balanced = (39_000..41_000).contains(&ones);
    names.join("+") == expected && refuses && is_read && are_others && is_balanced
}
