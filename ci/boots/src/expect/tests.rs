//! Expectations that hold, that do not, and what is shown of these.

use super::*;
use crate::seen::lines;
use kernel::report::{Code, Exit, Fault, Outcome, StopReason};

/// A `result` event as it stands on the serial line.
fn result(tokens: &[u32], context_shifts: usize) -> String {
    let outcome = Outcome {
        prompt_tokens: 3,
        tokens_emitted: tokens.len(),
        output: "a".into(),
        tokens: tokens.to_vec(),
        stop: StopReason::MaxTokens,
        context_shifts,
        latency_us: 1,
        first_token_us: 1,
        prompt_tokens_per_s: 0.5,
        tokens_per_s: 2.5,
        arena_bytes: 1,
        arena_peak_bytes: 1,
        board: vec!["temperature=25C".into(), "throttled=0x0".into()],
    };
    Event::Result(outcome).to_record()
}

/// A serial log, with `#` for the event separator.
fn seen(log: &str) -> Seen {
    Seen { lines: lines(log.replace('#', "\x1e").as_bytes()), ..Seen::default() }
}

fn run() -> Seen {
    let (code, message) = (Code::DiskError, "sector 17 cannot be read".to_owned());
    let error = Event::Error(Fault { code, message, hint: String::new() }).to_record();
    let result = result(&[5, 7, 8, 9], 2);
    let exit = Event::Exit(Exit { status: 0 }).to_record();
    seen(&format!("Anchorite\n{error}{result}{exit}").replace('\n', "\r\n"))
}

fn mismatch(expected: Expect, seen: &Seen) -> Mismatch {
    expected.check(seen).expect_err("it does not hold")
}

#[test]
fn what_holds_of_an_event_passes() {
    let seen = run();
    for like in [
        event!(Result {}),
        event!(Result { tokens == [5, 7, 8, 9], stop == StopReason::MaxTokens }),
        event!(Result { context_shifts >= 2usize, context_shifts <= 2usize }),
        event!(Result { stop != StopReason::Cancelled }),
        event!(Result { board ~ "^throttled=" }),
        event!(Error { code == Code::DiskError, message ~ "^sector [0-9]+ " }),
    ] {
        Expect::Event(like).check(&seen).unwrap();
    }
    Expect::Events(1, event!(Exit { status == 0 })).check(&seen).unwrap();
    Expect::NoEvent(event!(Exit { status == 1 })).check(&seen).unwrap();
    Expect::Line(pattern("^Anch")).check(&seen).unwrap();
    Expect::NoLine(pattern("sector")).check(&seen).unwrap();
    Expect::Exit(0, vec![]).check(&seen).unwrap();
    Expect::Answers(vec![vec![5, 7, 8, 9]]).check(&seen).unwrap();
    Expect::Status(0).check(&seen).unwrap();
}

#[test]
fn a_field_that_differs_is_shown_beside_what_was_expected() {
    let expected = event!(Result { stop == StopReason::MaxTokens, tokens == [5, 7, 6, 9] });
    let mismatch = mismatch(Expect::Event(expected), &run());
    assert_eq!(
        mismatch.expected,
        "some event is Result { stop == MaxTokens, tokens == [5, 7, 6, 9] }"
    );
    assert_eq!(
        mismatch.seen,
        "    #1 Result\n\
         \x20     stop: as expected, MaxTokens\n\
         \x20     tokens\n\
         \x20       expected == [5, 7, 6, 9]\n\
         \x20       seen        [5, 7, 8, 9]\n\
         \x20                          ^\n"
    );
}

#[test]
fn each_expectation_can_fail() {
    let seen = run();
    for (expected, instead) in [
        (Expect::Event(event!(Model {})), "there is no Model event"),
        (Expect::Event(event!(Result { board ~ "^voltage=" })), "\"throttled=0x0\""),
        (Expect::Event(event!(Result { context_shifts >= 3usize })), "seen        2"),
        (Expect::Event(event!(Error { code == Code::Panic })), "seen        DiskError"),
        (Expect::NoEvent(event!(Exit { status == 0 })), "status: as expected, 0"),
        (Expect::Events(2, event!(Result {})), "there are 1"),
        (Expect::Line(pattern("^nch")), "none of 1 lines"),
        (Expect::NoLine(pattern("nch")), "\"Anchorite\""),
        (Expect::Answers(vec![vec![5, 7], vec![8]]), "[[5, 7, 8, 9]]"),
        (Expect::Status(4), "status 0"),
        (Expect::Screen(pattern(".")), "none of 0 lines"),
        (Expect::that("it rains", |_| Err("sun".into())), "sun"),
    ] {
        let mismatch = mismatch(expected, &seen);
        assert!(mismatch.seen.contains(instead), "{instead:?} in {}", mismatch.seen);
    }
}

#[test]
fn an_event_must_be_like_all_of_it_at_once() {
    let two = seen(&[result(&[5], 2), result(&[1], 0)].concat());
    let like = event!(Result { tokens == [1], context_shifts == 2usize });
    let mismatch = mismatch(Expect::Event(like), &two);
    assert!(mismatch.seen.contains("#0") && mismatch.seen.contains("#1"), "{}", mismatch.seen);
}

#[test]
fn there_is_one_exit_and_nothing_behind_it() {
    let exit = "#{\"event\":\"exit\",\"status\":0}\n";
    let with = |behind: &str| seen(&format!("text\n{exit}{behind}"));
    let alone = || Expect::Exit(0, vec![]);
    let off = "It is now safe to switch off.";
    alone().check(&with("")).unwrap();
    Expect::Exit(0, vec![off.into()]).check(&with(off)).unwrap();
    mismatch(alone(), &with(exit));
    mismatch(alone(), &with(off));
    mismatch(alone(), &seen("text\n"));
    mismatch(alone(), &with("#nothing"));
    mismatch(Expect::Exit(1, vec![]), &with(""));
    mismatch(Expect::Exit(0, vec![off.into()]), &with(""));
}

#[test]
fn a_screen_shows_the_text_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    std::fs::write(&log, "a long line\r\n\r[#]\r[##]\r\n\x1e{\"event\":\"exit\",\"status\":0}\r\n")
        .unwrap();
    let shown = |screen: [&str; 4]| Seen {
        screen: screen.map(str::to_owned).to_vec(),
        ..Seen::read(&log).unwrap()
    };
    Expect::ScreenIsLog.check(&shown(["a long", " line", "[##]", GOOD_END])).unwrap();
    mismatch(Expect::ScreenIsLog, &shown(["a long", " line", "[#]", GOOD_END]));
    mismatch(Expect::ScreenIsLog, &shown(["a long", " line", "[##]", ""]));
}

#[test]
fn a_line_that_is_no_event_is_told_from_text() {
    let expected = crate::boot::no_garbled_line();
    expected.check(&run()).unwrap();
    let mismatch = mismatch(expected, &seen("#{\"event\":\"dance\"}\n"));
    assert!(mismatch.seen.contains("dance"), "{}", mismatch.seen);
}
