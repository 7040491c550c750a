use super::*;
use kernel::report::{Exit, Hello, StopReason, Test};

fn hello() -> Event {
    Event::Hello(Hello {
        version: "0.1.0".into(),
        image_sha256: Some("ab".repeat(32)),
        machine: "linux,dummy-virt".into(),
        cpu: "Cortex-A72".into(),
        cpu_features: vec![],
        kernels: "neon".into(),
        cores: 3,
        exception_level: 1,
        consoles: vec!["pl011".into()],
        board: vec![],
        memory_bytes: 64 << 20,
        memory_free_bytes: 61 << 20,
        boot_us: 7,
    })
}

fn result(output: &str, tokens_emitted: usize) -> Event {
    Event::Result(Outcome {
        prompt_tokens: 3,
        tokens_emitted,
        output: output.into(),
        tokens: vec![],
        stop: StopReason::MaxTokens,
        context_shifts: 0,
        latency_us: 11,
        first_token_us: 7,
        prompt_tokens_per_s: 0.5,
        tokens_per_s: 2.5,
        arena_bytes: 17,
        arena_peak_bytes: 19,
        board: vec![],
    })
}

fn error(code: Code) -> Event {
    Event::Error(Fault { code, message: "what".into(), hint: "do".into() })
}

fn test(name: &str, pass: bool) -> Event {
    Event::Test(Test { name: name.into(), pass, detail: String::new(), figure: None })
}

fn exit(status: i32) -> Event {
    Event::Exit(Exit { status })
}

/// An `ExitStatus` of QEMU: its exit code, or the signal that ended it.
fn code_of_qemu(code: i32) -> End {
    End::Qemu(ExitStatus::from_raw(code << 8))
}

fn signal_of_qemu(signal: i32) -> End {
    End::Qemu(ExitStatus::from_raw(signal))
}

fn verdict(events: &[Event], end: End, stderr: &str, expected: &Expectations) -> Verdict {
    let events: Vec<&Event> = events.iter().collect();
    judge(Evidence { events: &events, garbled: None, end: &end, stderr }, expected)
}

/// The verdict on a run that QEMU ended with 0, without expectations.
fn plain(events: &[Event]) -> Verdict {
    verdict(events, code_of_qemu(0), "", &Expectations::default())
}

#[track_caller]
fn assert_says(verdict: &Verdict, exit_status: u8, part: &str) {
    assert_eq!(verdict.exit_status, exit_status, "{verdict:?}");
    assert!(verdict.message.contains(part), "{part:?} in {verdict:?}");
}

#[test]
fn a_run_that_says_all_there_is_to_say_passes() {
    assert_eq!(plain(&[hello(), result("Paris", 5), exit(0)]).kind, Kind::Passed);
    assert_eq!(plain(&[hello(), test("a", true), exit(0)]).kind, Kind::Passed);
}

#[test]
fn the_guests_error_and_its_hint_are_reported() {
    let verdict = plain(&[hello(), error(Code::ChecksumMismatch), exit(1)]);
    assert_says(&verdict, 1, "ChecksumMismatch: what");
    assert_eq!(verdict.hint, "do");
    assert_says(&plain(&[hello(), error(Code::ContextFull), result("", 0), exit(0)]), 1, "Context");
    assert_says(&plain(&[error(Code::Panic), exit(1)]), 1, "Panic: what");
}

#[test]
fn a_chat_survives_an_error_but_not_its_own_failure() {
    let expected = Expectations { mode: Some(Mode::Chat), ..Expectations::default() };
    let chat = |status| {
        let events = [hello(), error(Code::ContextFull), result("", 1), exit(status)];
        verdict(&events, code_of_qemu(0), "", &expected)
    };
    assert_eq!(chat(0).kind, Kind::Passed);
    assert_says(&chat(1), 1, "ContextFull");
}

#[test]
fn the_guest_must_exit_with_0_and_last() {
    assert_says(&plain(&[hello(), result("", 1), exit(3)]), 1, "status 3");
    assert_says(&plain(&[hello(), exit(0), result("", 1)]), 1, "last event");
    assert_says(&plain(&[hello(), result("", 1), exit(0), exit(0)]), 1, "2 `exit`");
    assert_says(&plain(&[result("", 1), exit(0)]), 1, "first event is not `hello`");
}

#[test]
fn the_machine_must_power_off() {
    let end = || End::StillOn(Duration::from_secs(5));
    let expected = Expectations::default();
    let events = [hello(), result("", 1), exit(0)];
    assert_says(&verdict(&events, end(), "", &expected), 1, "did not power off within 5 s");
    let events = [hello(), error(Code::DiskError), exit(1)];
    assert_says(&verdict(&events, end(), "", &expected), 1, "DiskError");
}

#[test]
fn a_qemu_that_dies_is_not_taken_for_a_guest_that_fails() {
    let expected = Expectations::default();
    let died = |events: &[Event], end, stderr| verdict(events, end, stderr, &expected);
    assert_says(
        &died(&[], code_of_qemu(1), "a\nqemu: no such CPU\n"),
        3,
        "with status 1 before the `hello` event: qemu: no such CPU",
    );
    assert_says(&died(&[hello()], signal_of_qemu(11), ""), 3, "by signal 11 after the `hello`");
    assert_says(&died(&[hello(), result("", 1), exit(0)], signal_of_qemu(6), ""), 3, "signal 6");
    assert_says(
        &died(&[hello()], code_of_qemu(0), "qemu: terminating on signal 15 from pid 7 (sh)"),
        3,
        "terminating on signal 15",
    );
    assert_says(&died(&[hello()], code_of_qemu(0), ""), 1, "without an `exit` event");
    assert_says(
        &died(&[hello(), error(Code::Panic)], code_of_qemu(0), ""),
        1,
        "the guest had reported Panic: what",
    );
    let missing = End::NotStarted("cannot start qemu".into());
    assert_says(&died(&[], missing, ""), 3, "cannot start qemu");
}

#[test]
fn each_time_limit_is_named() {
    let expected = Expectations::default();
    let timeout = |which, events: &[Event]| {
        verdict(events, End::Timeout(which, Duration::from_millis(1500)), "", &expected)
    };
    assert_says(&timeout(Timeout::Boot, &[]), 4, "no `hello` event within 1.5 s");
    assert_says(&timeout(Timeout::Idle, &[hello()]), 4, "no sign of life for 1.5 s after the");
    assert_says(&timeout(Timeout::Total, &[hello()]), 4, "not finished after 1.5 s");
    let verdict = timeout(Timeout::Idle, &[hello(), error(Code::OutOfMemory)]);
    assert_says(&verdict, 4, "the guest had reported OutOfMemory: what");
}

#[test]
fn a_stopped_run_is_no_failure_of_the_guest() {
    let expected = Expectations::default();
    let stopped = |end| verdict(&[hello()], end, "", &expected);
    assert_eq!(stopped(End::Signal(2)).exit_status, 130);
    assert_eq!(stopped(End::Signal(15)).kind, Kind::Interrupted);
    assert_eq!(stopped(End::Left).exit_status, 0);
    assert_says(&stopped(End::Flood), 1, "without end");
}

#[test]
fn an_event_that_cannot_be_read_fails_the_run() {
    let events = [hello(), result("", 1), exit(0)];
    let garbled = Garbled { line: "{\"event\":\"dance\"}".into(), error: "no such event".into() };
    let verdict = judge(
        Evidence {
            events: &events.iter().collect::<Vec<_>>(),
            garbled: Some(&garbled),
            end: &code_of_qemu(0),
            stderr: "",
        },
        &Expectations::default(),
    );
    assert_says(&verdict, 1, "cannot be read (no such event): {\"event\":\"dance\"}");
}

#[test]
fn the_guest_must_have_done_what_its_mode_asks() {
    let expecting = |mode, events: &[Event]| {
        let expected = Expectations { mode, ..Expectations::default() };
        verdict(events, code_of_qemu(0), "", &expected)
    };
    let idle = [hello(), exit(0)];
    assert_says(&expecting(None, &idle), 1, "without a `model` event");
    assert_says(&expecting(Some(Mode::Generate), &idle), 1, "without a `result` event");
    assert_says(&expecting(Some(Mode::Test), &idle), 1, "without a `test` event");
    assert_says(&expecting(Some(Mode::Perplexity), &idle), 1, "without a `perplexity` event");
    assert_says(&expecting(Some(Mode::Bench), &idle), 1, "without a `test` event");
    assert_eq!(expecting(Some(Mode::Chat), &idle).kind, Kind::Passed);
    let events = [hello(), test("a", true), test("b", false), test("c", false), exit(0)];
    assert_says(&expecting(Some(Mode::Test), &events), 1, "tests failed: b, c");
}

#[test]
fn the_output_must_be_the_one_expected() {
    let events = [hello(), result("Paris is", 5), result("big", 2), exit(0)];
    let expecting = |texts: &[&str], tokens| {
        let texts = texts.iter().map(|text| text.to_string()).collect();
        let expected = Expectations { texts, tokens, ..Expectations::default() };
        verdict(&events, code_of_qemu(0), "", &expected)
    };
    assert_eq!(expecting(&["Paris", "big"], Some(7)).kind, Kind::Passed);
    assert_says(&expecting(&["Paris", "London"], None), 1, "does not hold \"London\"");
    assert_says(&expecting(&["isbig"], None), 1, "isbig");
    assert_says(&expecting(&[], Some(5)), 1, "7 tokens were generated instead of 5");
}

#[test]
fn an_expected_error_passes_and_only_that_one() {
    let expected = Expectations {
        mode: Some(Mode::Generate),
        tokens: Some(0),
        error: Some(Code::OutOfMemory),
        ..Expectations::default()
    };
    let expecting = |events: &[Event], end| verdict(events, end, "", &expected);
    let oom = || error(Code::OutOfMemory);
    let fine = expecting(&[hello(), oom(), exit(1)], code_of_qemu(0));
    assert_eq!(fine.kind, Kind::Passed, "{fine:?}");

    let off = || code_of_qemu(0);
    assert_says(&expecting(&[hello(), exit(0)], off()), 1, "expected OutOfMemory, but no error");
    assert_says(&expecting(&[hello(), oom(), exit(0)], off()), 1, "status 0 instead of 1");
    assert_says(&expecting(&[hello(), error(Code::Panic), exit(1)], off()), 1, "ended with Panic");
    assert_says(&expecting(&[hello(), result("", 1), oom(), exit(1)], off()), 1, "1 tokens");
    assert_says(&expecting(&[hello(), oom()], signal_of_qemu(9)), 3, "by signal 9");
    let still_on = End::StillOn(Duration::from_secs(5));
    assert_says(&expecting(&[hello(), oom(), exit(1)], still_on), 1, "did not power off");
}
