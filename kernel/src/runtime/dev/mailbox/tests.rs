use super::fake::{AT, Display, FULL_HD, clock, mailbox, pi4, pi4_with};
use super::*;

#[test]
fn asks_a_raspberry_pi_4() {
    let (state, mut mailbox) = mailbox(pi4());
    assert_eq!(mailbox.firmware_revision(), Ok(1_660_659_100));
    assert_eq!(mailbox.board_revision(), Ok(0xb0_3115));
    assert_eq!(mailbox.clock_hz(Clock::Uart), Ok(48_000_000));
    assert_eq!(mailbox.clock_hz(Clock::Core), Ok(500_000_000));
    assert_eq!(mailbox.clock_hz(Clock::Emmc2), Ok(100_000_000));
    assert_eq!(mailbox.clock_hz(Clock::Arm), Ok(600_000_000));
    assert_eq!(mailbox.max_clock_hz(Clock::Arm), Ok(1_800_000_000));
    assert_eq!(mailbox.set_clock_hz(Clock::Arm, 1_500_000_000), Ok(1_500_000_000));
    assert_eq!(mailbox.clock_hz(Clock::Arm), Ok(1_500_000_000));
    assert_eq!(mailbox.temperature_millicelsius(), Ok(45_277));
    assert_eq!(mailbox.throttled(), Ok(Throttled(0x5_0005)));
    assert_eq!((mailbox.expander_pin(6), mailbox.expander_pin(4)), (Ok(true), Ok(false)));
    assert_eq!(mailbox.set_expander_pin(4, true), Ok(()));
    assert_eq!(mailbox.set_expander_pin(8, true), Err(MailboxError::Unknown { tag: 0x3_8041 }));
    // The wiki's example of a message: length, code, tag, room, request, value, end.
    assert_eq!(state.lock().unwrap().seen[0], [28, 0, 1, 4, 0, 0, 0]);
    assert_eq!(state.lock().unwrap().seen[2], [32, 0, 0x3_0002, 8, 0, 2, 0, 0]);
}

#[test]
fn what_throttled_says() {
    for (bits, under_voltage, slowed_down) in [
        (0, false, false),
        (1 << 0, true, false),
        (1 << 1, false, true),
        (1 << 2, false, true),
        (1 << 3, false, true),
        (1 << 16, true, false),
        (1 << 17, false, true),
        (1 << 18, false, true),
        (1 << 19, false, true),
        (0x5_0005, true, true),
        (1 << 4 | 1 << 15 | 1 << 20, false, false),
    ] {
        let throttled = Throttled(bits);
        assert_eq!(throttled.under_voltage(), under_voltage, "{bits:#x}");
        assert_eq!(throttled.slowed_down(), slowed_down, "{bits:#x}");
        let advice = throttled.advice().unwrap_or_default();
        assert_eq!(advice.contains("5.1 V"), under_voltage, "{bits:#x}");
        assert_eq!(advice.contains("heat sink"), slowed_down && !under_voltage, "{bits:#x}");
    }
}

#[test]
fn waits_for_room_and_for_its_own_answer() {
    let (state, mut mailbox) = mailbox(pi4());
    {
        let mut state = state.lock().unwrap();
        // A boot loader's, from the very same place, and another channel's.
        state.mail.extend([AT | 8, AT | 1]);
        state.strays.push(AT | 1);
        state.full = 100;
        state.delay = 100;
    }
    assert_eq!(mailbox.firmware_revision(), Ok(1_660_659_100));
    let state = state.lock().unwrap();
    assert_eq!((state.full, state.mail.len()), (0, 0));
}

#[test]
fn gives_up_a_videocore_that_is_silent() {
    let (state, mut mailbox) = mailbox(pi4());
    state.lock().unwrap().is_dead = true;
    let start_us = clock();
    assert_eq!(mailbox.firmware_revision(), Err(MailboxError::Silent));
    let waited_us = clock() - start_us;
    assert!((1_000_000..1_100_000).contains(&waited_us), "{waited_us}");
    // It may still write to the message of then.
    state.lock().unwrap().is_dead = false;
    assert_eq!(mailbox.firmware_revision(), Err(MailboxError::Silent));
    assert_eq!(clock() - start_us - waited_us, 1000);
    assert_eq!(state.lock().unwrap().seen.len(), 0);
}

#[test]
fn gives_up_a_mailbox_that_stays_full() {
    let (state, mut mailbox) = mailbox(pi4());
    state.lock().unwrap().full = u32::MAX;
    assert_eq!(mailbox.throttled(), Err(MailboxError::Silent));
    assert_eq!(state.lock().unwrap().seen.len(), 0);
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    let unknown = Err(MailboxError::Unknown { tag: 0x3_0006 });
    for (word, code, expected) in [
        (0x8000_0008, 0x8000_0001, Err(MailboxError::Refused { code: 0x8000_0001 })),
        (0x8000_0008, 0, Err(MailboxError::Refused { code: 0 })),
        // The request as it was.
        (8, 0x8000_0000, unknown),
        // QEMU says so of what it does not know.
        (0x8000_0000, 0x8000_0000, unknown),
        (0x8000_0004, 0x8000_0000, unknown),
        (0x8000_0008, 0x8000_0000, Ok(7)),
        (0x8000_000c, 0x8000_0000, Ok(7)),
    ] {
        let (state, mut mailbox) = mailbox(Box::new(move |_, values| {
            values[1] = 7;
            word
        }));
        state.lock().unwrap().code = code;
        assert_eq!(mailbox.temperature_millicelsius(), expected, "{word:#x} {code:#x}");
    }
}

#[test]
fn a_message_must_be_where_the_videocore_sees_it() {
    for at in [None, Some(AT + 8)] {
        let (state, mut mailbox) = mailbox(pi4());
        mailbox.memory.at = at;
        assert_eq!(mailbox.board_revision(), Err(MailboxError::OutOfReach));
        assert_eq!(state.lock().unwrap().seen.len(), 0);
    }
}

#[test]
fn the_display_gets_a_picture_of_its_own_size() {
    let shown = |display| mailbox(pi4_with(display)).1.show_picture();
    let format = |name| PixelFormat::from_name(name).unwrap();
    let full_hd = Framebuffer {
        region: Region { base: 0x3d83_a000, size: 1920 * 1080 * 4 },
        width: 1920,
        height: 1080,
        stride: 1920 * 4,
        format: format("x8b8g8r8"),
    };
    assert_eq!(shown(FULL_HD), Ok(full_hd));
    assert_eq!(shown(Display { count: None, ..FULL_HD }), Ok(full_hd));
    let other_order = Framebuffer { format: format("x8r8g8b8"), ..full_hd };
    assert_eq!(shown(Display { order: 0, ..FULL_HD }), Ok(other_order));
    // What the processor and the VideoCore call the same place.
    assert_eq!(shown(Display { base: 0x3d83_a000, ..FULL_HD }), Ok(full_hd));
    for (size, [width, height], stride) in [
        ([1366, 768], [1366, 768], 5504),
        ([2560, 1600], [2560, 1600], 10_240),
        ([3840, 2160], [1920, 1080], 7680),
        ([7680, 4320], [1920, 1080], 7680),
        ([u32::MAX; 2], [2047; 2], 8192),
    ] {
        let picture = shown(Display { size, ..FULL_HD }).unwrap();
        assert_eq!((picture.width, picture.height, picture.stride), (width, height, stride));
        assert_eq!(picture.region.size, u64::from(stride * height));
    }
}

#[test]
fn without_a_display_there_is_no_picture() {
    for display in [
        Display { count: Some(0), ..FULL_HD },
        Display { size: [0, 0], ..FULL_HD },
        Display { size: [2, 2], ..FULL_HD },
        Display { base: 0, ..FULL_HD },
        Display { depth: 16, ..FULL_HD },
        Display { order: 2, ..FULL_HD },
    ] {
        assert_eq!(mailbox(pi4_with(display)).1.show_picture(), Err(MailboxError::NoDisplay));
    }
}

#[test]
fn the_cores_get_their_highest_clock() {
    let (state, mut mailbox) = mailbox(pi4());
    assert_eq!(mailbox.raise_clock(Clock::Arm), Ok(1_800_000_000));
    assert_eq!(mailbox.clock_hz(Clock::Arm), Ok(1_800_000_000));
    let asked = state.lock().unwrap().seen.len();
    assert_eq!(mailbox.raise_clock(Clock::Arm), Ok(1_800_000_000));
    // It is not set where it is right.
    assert_eq!(state.lock().unwrap().seen.len(), asked + 2);
}

#[test]
fn a_clock_that_stays_as_it_is_is_told_as_it_is() {
    let program = |tag, values: &mut [u32]| {
        match (tag, &mut *values) {
            (0x3_0002, [3, hz]) => *hz = 700_000_000,
            (0x3_0004, [3, hz]) => *hz = 800_000_000,
            _ => {}
        }
        0x8000_0008
    };
    assert_eq!(mailbox(Box::new(program)).1.raise_clock(Clock::Arm), Ok(700_000_000));
}
