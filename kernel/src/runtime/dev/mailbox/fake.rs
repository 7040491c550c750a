//! A VideoCore for tests: it answers as a program says.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::runtime::dev::mmio::{Access, FakeRegisters};

/// Where the VideoCore sees the message.
pub const AT: u32 = 0xc123_4560;
/// How far the clock goes on each time that it is read.
const STEP_US: u64 = 1000;

/// What becomes of a property of this tag and these values: the word that says request or answer.
pub type Program = Box<dyn FnMut(u32, &mut [u32]) -> u32 + Send>;

/// What the VideoCore and a test share.
pub struct State {
    /// The memory of the message, as the VideoCore sees it.
    pub memory: [u32; WORDS],
    /// Mail for the processor.
    pub mail: VecDeque<u32>,
    /// Mail that comes before an answer.
    pub strays: Vec<u32>,
    /// How often the status of mailbox 1 says that it is full.
    pub full: u32,
    /// How often the status of mailbox 0 says that it is empty before an answer comes.
    pub delay: u32,
    /// How often it still says so.
    left: u32,
    /// It takes mail and answers none.
    pub is_dead: bool,
    /// The code of the next answers.
    pub code: u32,
    /// The messages that it has seen.
    pub seen: Vec<Vec<u32>>,
    program: Program,
}

/// The message's memory.
pub struct Shared {
    /// What the VideoCore has of it.
    pub state: Arc<Mutex<State>>,
    /// Where the VideoCore sees it.
    pub at: Option<u32>,
}

impl Memory for Shared {
    fn bus_address(&self) -> Option<u32> {
        self.at
    }

    fn put(&mut self, message: &[u32; WORDS]) {
        self.state.lock().unwrap().memory = *message;
    }

    fn take(&mut self) -> [u32; WORDS] {
        self.state.lock().unwrap().memory
    }
}

impl State {
    fn receive(&mut self, mail: u32) {
        assert_eq!(mail, AT | 8, "the mail");
        if self.is_dead {
            return;
        }
        let message = &mut self.memory;
        let words = message[0] as usize / 4;
        self.seen.push(message[..words].to_vec());
        assert_eq!(message[1], 0, "a request");
        let mut at = 2;
        while message[at] != 0 {
            let [tag, room, request] = [message[at], message[at + 1], message[at + 2]];
            assert_eq!(request >> 31, 0, "a request");
            let values = &mut message[at + 3..][..room as usize / 4];
            message[at + 2] = (self.program)(tag, values);
            at += 3 + room as usize / 4;
        }
        assert_eq!(at + 1, words, "the message's length");
        message[1] = self.code;
        self.mail.extend(self.strays.drain(..).chain([mail]));
        self.left = self.delay;
    }
}

std::thread_local! {
    static NOW_US: Cell<u64> = const { Cell::new(0) };
}

/// A clock of the test's own thread.
pub fn clock() -> u64 {
    NOW_US.set(NOW_US.get() + STEP_US);
    NOW_US.get()
}

/// A mailbox behind which `program` answers, and the other end.
pub fn mailbox(program: Program) -> (Arc<Mutex<State>>, Mailbox<FakeRegisters, Shared>) {
    let state = Arc::new(Mutex::new(State {
        memory: [0xdead; WORDS],
        mail: VecDeque::new(),
        strays: Vec::new(),
        full: 0,
        delay: 0,
        left: 0,
        is_dead: false,
        code: 0x8000_0000,
        seen: Vec::new(),
        program,
    }));
    let shared = Arc::clone(&state);
    let registers = FakeRegisters::new(move |access| {
        let state = &mut *shared.lock().unwrap();
        let count = |left: &mut u32| core::mem::replace(left, left.saturating_sub(1)) > 0;
        u64::from(match access {
            Access::Read { offset: 0x18, width: 4 } if state.mail.is_empty() => 1_u32 << 30,
            Access::Read { offset: 0x18, width: 4 } if count(&mut state.left) => 1 << 30,
            Access::Read { offset: 0x18, width: 4 } => 0,
            Access::Read { offset: 0x00, width: 4 } => state.mail.pop_front().expect("it is empty"),
            Access::Read { offset: 0x38, width: 4 } => u32::from(count(&mut state.full)) << 31,
            Access::Write { offset: 0x20, width: 4, value } => {
                assert_eq!(state.full, 0, "a mail to a mailbox that is full");
                state.receive(value as u32);
                0
            }
            other => panic!("{other:x?}"),
        })
    });
    let memory = Shared { state: Arc::clone(&state), at: Some(AT) };
    (state, Mailbox::new(registers, memory, clock))
}

/// The display of a Raspberry Pi 4.
#[derive(Clone, Copy)]
pub struct Display {
    /// How many there are, for a firmware that knows that question.
    pub count: Option<u32>,
    /// Its size.
    pub size: [u32; 2],
    /// The pixel order that it has, whatever is asked for.
    pub order: u32,
    /// The depth that it has.
    pub depth: u32,
    /// Where the picture is, as the VideoCore sees it.
    pub base: u32,
}

/// One that most people have.
pub const FULL_HD: Display =
    Display { count: Some(1), size: [1920, 1080], order: 1, depth: 32, base: 0xfd83_a000 };

/// A program that answers as a Raspberry Pi 4 does.
pub fn pi4() -> Program {
    pi4_with(FULL_HD)
}

/// The same with another display.
pub fn pi4_with(display: Display) -> Program {
    let mut arm_hz = 600_000_000;
    // What the message says of a picture before it asks for one.
    let (mut physical, mut picture) = ([0; 2], [2; 2]);
    Box::new(move |tag, values| {
        match (tag, &mut *values) {
            (0x1, [revision]) => *revision = 1_660_659_100,
            (0x0001_0002, [revision]) => *revision = 0x00b0_3115,
            (0x0003_0002, [clock, hz]) => {
                *hz = match *clock {
                    2 => 48_000_000,
                    3 => arm_hz,
                    4 => 500_000_000,
                    12 => 100_000_000,
                    _ => 0,
                };
            }
            (0x0003_0004, [3, hz]) => *hz = 1_800_000_000,
            (0x0003_8002, [3, hz, 1]) => arm_hz = *hz,
            (0x0003_0006, [0, value]) => *value = 45_277,
            (0x0003_0046, [bits]) => *bits = 0x5_0005,
            (0x0003_0041, [pin @ 128..136, state]) => (*pin, *state) = (0, u32::from(*pin == 134)),
            (0x0003_8041, [pin @ 128..136, _]) => *pin = 0,
            (0x0004_0013, [count]) => match display.count {
                Some(n) => *count = n,
                None => return 0,
            },
            (0x0004_0003, size @ [_, _]) => size.copy_from_slice(&display.size),
            (0x0004_8003, size @ [_, _]) => physical.copy_from_slice(size),
            (0x0004_8004, size @ [_, _]) => picture.copy_from_slice(size),
            (0x0004_8005, [depth @ 32]) => *depth = display.depth,
            (0x0004_8006, [order @ 1]) => *order = display.order,
            (0x0004_8007, [2]) => {}
            // Rows of 64 bytes.
            (0x0004_0001, [base @ 4096, bytes @ 0]) => {
                assert_eq!(physical, picture);
                *base = display.base;
                *bytes = (picture[0] * 4).next_multiple_of(64) * picture[1];
            }
            (0x0004_0008, [pitch]) => *pitch = (picture[0] * 4).next_multiple_of(64),
            // It knows pins, but not this one.
            (0x0003_0041 | 0x0003_8041, [_, _]) => {}
            _ => return 0,
        }
        1 << 31 | (values.len().min(2) * 4) as u32
    })
}
