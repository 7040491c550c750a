//! Runs of the harness against a QEMU that plays canned serial logs: what it shows, how it exits,
//! and that no process stays behind.

mod support;

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use kernel::report::{ChatState, Code};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::{Shown, Stage, chat, error, exit, hello, log, model, result, word};

/// Lets a script end on SIGTERM, with a note.
const NOTES_TERM: &str = "trap 'echo told | tee told >&2; exit' TERM";
const FOR_EVER: &str = "while :; do sleep 0.05; done";

/// A run that goes well: the text it shows, and all that is on the line.
const TEXT: &str = "Anchorite\n\rtiny [#.]\rtiny [##]\nOnce upon\n";

fn good_log() -> Vec<u8> {
    log([
        &"Anchorite\n" as _,
        &hello() as _,
        &"\rtiny [#.]\rtiny [##]\n" as _,
        &model() as _,
        &"Once upon\n" as _,
        &result("Once upon", &[5, 7]) as _,
        &exit(0) as _,
    ])
}

#[test]
fn the_text_is_shown_and_the_figures_summed_up() {
    let stage = Stage::new("cat log", &good_log());
    let shown = stage.run(&["--expect", "upon", "--expect-tokens", "2", "--timeout", "1e19"]);
    shown.assert(0, "loaded at 46.0 MB/s, 3 prompt tokens at 41.0/s, 2 tokens at 43.0/s]\n");
    assert_eq!(shown.stdout, TEXT);
}

#[test]
fn the_text_is_shown_as_it_comes() {
    let stage = Stage::new("printf 'Once '; read -r line <gate; cat log", &good_log());
    assert!(Command::new("mkfifo").arg(stage.path("gate")).status().unwrap().success());
    let mut harness = stage.harness(&[]).spawn().unwrap();
    let mut first = [0; 5];
    harness.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"Once ");
    // Only now may QEMU go on.
    stage.put("gate", b"\n");
    stage.end_of(harness).assert(0, "");
}

#[test]
fn all_of_it_can_be_kept() {
    let stage = Stage::new("echo careful >&2; cat log", &good_log());
    let (report, serial) = (stage.path("report.json"), stage.path("serial.log"));
    let disk = stage.path("disk,1");
    let shown = stage.run(&[
        "--report",
        word(&report),
        "--keep-log",
        word(&serial),
        "--disk",
        word(&disk),
        "--prompt",
        "a \"b\"",
    ]);
    shown.assert(0, "careful");
    assert_eq!(std::fs::read(serial).unwrap(), good_log());

    let arguments = stage.read("arguments");
    let disk_option = format!("file.filename={}", word(&disk).replace(',', ",,"));
    assert!(arguments.contains(&disk_option), "{arguments}");
    assert!(arguments.contains("-append\nprompt=\"a \\\"b\\\"\"\n"), "{arguments}");

    let report: Value = serde_json::from_str(&stage.read("report.json")).unwrap();
    assert_eq!(report["verdict"]["kind"], "passed");
    assert_eq!(report["verdict"]["exit_status"], 0);
    assert_eq!(report["qemu_stderr"], "careful\n");
    assert_eq!(report["serial_bytes"], good_log().len());
    assert_eq!(report["image_sha256"], "ab".repeat(32));
    assert_eq!(report["command"][1], "-machine");
    let events = report["events"].as_array().unwrap();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["hello", "model", "result", "exit"]);
    assert_eq!(events[2]["output"], "Once upon");
    let us = |name: &str| report["host_us"][name].as_u64().unwrap_or_else(|| panic!("{name}"));
    assert_eq!(us("hello"), events[0]["host_us"].as_u64().unwrap());
    assert_eq!(us("first_result") - us("first_token"), 4);
    assert!(us("hello") <= us("first_text") && us("first_text") <= us("end"));
}

#[test]
fn the_line_can_be_shown_as_it_is() {
    let stage = Stage::new("cat log", &good_log());
    let shown = stage.run(&["--raw"]);
    shown.assert(0, "");
    assert_eq!(shown.stdout.as_bytes(), good_log());
}

#[test]
fn a_run_with_an_error_fails_and_says_why() {
    let serial = log([
        &hello() as _,
        &error(Code::ChecksumMismatch, "tiny.gguf has another sum") as _,
        &exit(1) as _,
    ]);
    let stage = Stage::new("cat log", &serial);
    let report = stage.path("report.json");
    let shown = stage.run(&["--report", word(&report)]);
    shown.assert(1, "error: ChecksumMismatch: tiny.gguf has another sum\nhint: try this\n");
    assert!(stage.read("report.json").contains("\"kind\": \"failed\""));
    let shown = stage.run(&["--expect-error", "ChecksumMismatch", "--expect-tokens", "0"]);
    shown.assert(0, "ok: ended with ChecksumMismatch as expected: tiny.gguf has another sum\n");
    stage.run(&["--expect-error", "OutOfMemory"]).assert(1, "expected OutOfMemory");
}

#[test]
fn a_panic_before_the_first_event_fails_the_run() {
    let serial =
        log([&"boo" as _, &"\n" as _, &error(Code::Panic, "at x.rs:7") as _, &exit(1) as _]);
    Stage::new("cat log", &serial).run(&[]).assert(1, "Panic: at x.rs:7");
}

#[test]
fn what_was_expected_must_come() {
    let stage = Stage::new("cat log", &good_log());
    stage.run(&["--expect", "Paris"]).assert(1, "does not hold \"Paris\"");
    stage.run(&["--expect-tokens", "3"]).assert(1, "2 tokens were generated instead of 3");
    stage.run(&["--mode", "test"]).assert(1, "without a `test` event");
}

#[test]
fn a_qemu_that_dies_is_no_failure_of_the_guest() {
    let stage = Stage::new("cat log; echo 'fake: no' >&2; exit 7", &log([&hello() as _]));
    stage.run(&[]).assert(3, "QEMU ended with status 7 after the `hello` event: fake: no");
    let stage = Stage::new("cat log; kill -KILL $$", &good_log());
    stage.run(&[]).assert(3, "QEMU ended by signal 9 after the `exit` event");
    let stage = Stage::new("cat log", &log([&hello() as _]));
    stage.run(&[]).assert(1, "powered off or reset without an `exit` event");
}

#[test]
fn a_missing_qemu_is_reported_with_its_cure() {
    let stage = Stage::new("", b"");
    let shown = stage.run(&["--qemu", "/nonexistent/qemu"]);
    shown.assert(3, "cannot start /nonexistent/qemu");
    shown.assert(3, "qemu-system-arm");
}

#[test]
fn a_guest_that_does_not_boot_is_ended() {
    let stage = Stage::new("exec sleep 1000", b"");
    stage.run(&["--boot-timeout", "0.3"]).assert(4, "no `hello` event within 0.3 s");
}

#[test]
fn a_guest_that_falls_silent_is_ended() {
    let stage = Stage::new("cat log; exec sleep 1000", &log([&hello() as _, &"Once" as _]));
    let shown = stage.run(&["--idle-timeout", "2"]);
    shown.assert(4, "no sign of life for 2 s after the `hello` event");
    assert_eq!(shown.stdout, "Once\n", "the message stands on a line of its own");
}

#[test]
fn a_guest_that_never_comes_to_an_end_is_ended() {
    let stage = Stage::new("cat log; exec yes", &log([&hello() as _]));
    stage.run(&["--timeout", "0.5"]).assert(4, "not finished after 0.5 s");
}

#[test]
fn a_qemu_that_does_not_listen_is_ended_by_force() {
    let stage = Stage::new("trap '' TERM; exec sleep 1000", b"");
    stage.run(&["--boot-timeout", "0.3"]).assert(4, "no `hello`");
}

#[test]
fn a_guest_that_does_not_power_off_is_ended_and_fails() {
    let stage = Stage::new("cat log; exec sleep 1000", &good_log());
    stage.run(&[]).assert(1, "said `exit` but did not power off within 5 s");
}

#[test]
fn half_an_event_fails_the_run() {
    let serial = log([&hello() as _, &"\x1e{\"event\":\"resu" as _]);
    let stage = Stage::new("cat log", &serial);
    let shown = stage.run(&[]);
    shown.assert(1, "without an `exit` event");
    shown.assert(1, "(cut off before its end): {\"event\":\"resu");
    let serial = log([&hello() as _, &"\x1e{\"event\":\"resu\n" as _, &exit(0) as _]);
    Stage::new("cat log", &serial).run(&[]).assert(1, "an event that cannot be read");
    // The process dies in the middle of one.
    let serial = log([&hello() as _, &"\x1e{\"event\":\"exit\",\"sta" as _]);
    let shown = Stage::new("cat log; kill -KILL $$", &serial).run(&[]);
    shown.assert(3, "QEMU ended by signal 9 after the `hello` event");
    shown.assert(3, "it had sent an event that cannot be read");
}

#[test]
fn an_event_that_is_no_text_fails_the_run() {
    let whole = result("Gr*n", &[5]).to_record();
    let at = whole.find('*').unwrap();
    let damaged = [&whole.as_bytes()[..at], b"\xfc", &whole.as_bytes()[at + 1..]].concat();
    let serial = log([&hello() as _, &model() as _, &damaged.as_slice() as _, &exit(0) as _]);
    let shown = Stage::new("cat log", &serial).run(&[]);
    shown.assert(1, "an event that cannot be read (invalid utf-8");
    assert!(shown.stderr.contains("Gr\u{fffd}n"), "{}", shown.stderr);
}

#[test]
fn a_line_that_is_no_text_is_shown_as_well_as_can_be() {
    let serial = log([
        &hello() as _,
        &model() as _,
        &b"Gr\xfc\xc3\xbc\xf0\x9f\n".as_slice() as _,
        &result("", &[]) as _,
        &exit(0) as _,
    ]);
    let shown = Stage::new("cat log", &serial).run(&[]);
    shown.assert(0, "");
    assert_eq!(shown.stdout, "Gr\u{fffd}ü\u{fffd}\n");
}

#[test]
fn text_that_looks_like_an_event_is_none() {
    let serial = log([
        &hello() as _,
        &"{\"event\":\"exit\",\"status\":7}\nsays \x1e{\"event\":\"exit\",\"status\":7}\n" as _,
        &result("", &[]) as _,
        &exit(0) as _,
    ]);
    let shown = Stage::new("cat log", &serial).run(&[]);
    shown.assert(0, "");
    assert!(shown.stdout.contains("says \u{241e}{"), "{}", shown.stdout);
}

#[test]
fn a_flood_of_events_is_ended() {
    let stage = Stage::new("cat log; exec yes \"$(cat event)\"", &log([&hello() as _]));
    stage.put("event", &log([&error(Code::DiskError, "again") as _]));
    stage.run(&[]).assert(1, "the guest sends events without end");
}

#[test]
fn a_flood_does_not_fill_the_memory() {
    // 300 MB in one line, as many of QEMU's own, and a harness that may have 200 MB of address
    // space.
    let script = "cat log; head -c 300000000 /dev/zero | tr '\\0' x; echo; \
        head -c 300000000 /dev/zero >&2; cat rest";
    let stage = Stage::new(script, &log([&hello() as _]));
    stage.put("rest", &log([&result("", &[]) as _, &exit(0) as _]));
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -v 200000 && exec \"$0\" \"$@\"");
    limited.arg(env!("CARGO_BIN_EXE_anchorite-qemu")).arg("--kernel").arg(stage.path("image"));
    stage.set_up(&mut limited);
    limited.stdout(Stdio::null());
    stage.end_of(limited.spawn().unwrap()).assert(0, "0 tokens");
}

#[test]
fn a_screen_that_goes_away_does_not_change_the_verdict() {
    let stage = Stage::new("head -c 1000000 /dev/zero; echo; cat log", &good_log());
    let mut harness = stage.harness(&["--expect-tokens", "3"]).spawn().unwrap();
    drop(harness.stdout.take());
    stage.end_of(harness).assert(1, "2 tokens were generated");
}

/// A pipe that nobody reads.
fn gone() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn readers_that_have_gone_end_in_silence() {
    let stage = Stage::new("echo careful >&2; cat log", &good_log());
    for (arguments, status) in [
        (&["--raw"][..], 0),
        (&["--expect-tokens", "2"], 0),
        (&["--expect-tokens", "3"], 1),
        (&["--qemu", "/nonexistent/qemu"], 3),
        (&["--print"], 0),
        (&["--help"], 0),
        (&["--nonsense"], 2),
    ] {
        let shown = stage.end_of(stage.harness(arguments).stdout(gone()).spawn().unwrap());
        shown.assert(status, "");
        assert!(!shown.stderr.contains("standard output"), "{}", shown.stderr);
        let both = stage.harness(arguments).stdout(gone()).stderr(gone()).spawn().unwrap();
        stage.end_of(both).assert(status, "");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn text_that_cannot_be_shown_is_a_failure() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let says = "error: cannot write to standard output: No space left on device";
    let stage = Stage::new("cat log", &good_log());
    for arguments in [&[][..], &["--raw"], &["--print"], &["--help"], &["--version"]] {
        let shown = stage.end_of(stage.harness(arguments).stdout(full()).spawn().unwrap());
        shown.assert(1, says);
    }
    // The summary is lost, and no output is left to report that.
    let silent = stage.harness(&[]).stderr(full()).spawn().unwrap();
    stage.end_of(silent).assert(1, "");

    // QEMU is not left to run for nobody.
    let script = format!("{NOTES_TERM}; cat log; {FOR_EVER}");
    let stage = Stage::new(&script, &log([&hello() as _, &"Once\n" as _]));
    stage.end_of(stage.harness(&[]).stdout(full()).spawn().unwrap()).assert(1, says);
    assert_eq!(stage.read("told"), "told\n");
}

#[test]
fn what_the_run_reads_is_not_written_over() {
    let stage = Stage::new("cat log", &good_log());
    let [image, disk, hard, soft, tree, lines] =
        ["image", "disk,1", "hard", "soft", "tree", "lines"].map(|name| stage.path(name));
    std::fs::hard_link(&disk, &hard).unwrap();
    std::os::unix::fs::symlink("image", &soft).unwrap();
    stage.put("tree", b"a tree");
    stage.put("lines", b"Hello\n");
    let before = stage.files();
    for option in ["--keep-log", "--report"] {
        for output in [&image, &disk, &hard, &soft, &lines] {
            let mut harness = stage.harness(&["--disk", word(&disk), option, word(output)]);
            let harness = harness.stdin(File::open(&lines).unwrap()).spawn().unwrap();
            let shown = stage.end_of(harness);
            shown.assert(2, &format!("{} would be replaced, and it is the input ", word(output)));
        }
        let board = ["--board", "raspi4b", "--dtb", word(&tree), option, word(&tree)];
        stage.run(&board).assert(2, "would be replaced");
        let mut itself = stage.harness(&["--qemu", word(&image), option, word(&image)]);
        stage.end_of(itself.spawn().unwrap()).assert(2, "would be replaced");
    }
    // Nor is one output the other, and what is there already stays.
    let lines = word(&lines);
    let both = stage.run(&["--keep-log", lines, "--report", lines]);
    both.assert(2, "--keep-log and --report are one file, ");
    assert!(stage.files() == before);
    let new = stage.path("new");
    stage.run(&["--keep-log", word(&new), "--report", word(&new)]).assert(2, "are one file");
    // Nor is one the file where the text goes.
    let mut harness = stage.harness(&["--keep-log", word(&new)]);
    let harness = harness.stdout(File::create(&new).unwrap()).spawn().unwrap();
    stage.end_of(harness).assert(2, "--keep-log and standard output are one file, ");
    let mut harness = stage.harness(&["--report", word(&new)]);
    let harness = harness.stderr(File::create(&new).unwrap()).spawn().unwrap();
    stage.end_of(harness).assert(2, "");
    let told = stage.read("new");
    assert!(told.contains("--report and standard error are one file, "), "{told}");
    assert!(!stage.path("pid").exists());
}

#[test]
fn a_log_may_go_to_a_pipe_and_a_report_nowhere() {
    let stage = Stage::new("cat log", &good_log());
    let pipe = stage.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let harness = stage.harness(&["--keep-log", word(&pipe), "--report", "/dev/null"]);
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    stage.end_of({ harness }.spawn().unwrap()).assert(0, "2 tokens");
    assert_eq!(reader.join().unwrap(), good_log());
}

#[test]
fn signals_end_qemu_too() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let stage = Stage::new(&format!("{NOTES_TERM}; touch set; {FOR_EVER}"), b"");
        let harness = stage.harness(&[]).spawn().unwrap();
        stage.wait_for("set");
        kill_process(rustix::process::Pid::from_child(&harness), signal).unwrap();
        let shown = stage.end_of(harness);
        shown.assert(status, "stopped by signal");
        assert!(!shown.stderr.contains("told"), "{}", shown.stderr);
        assert_eq!(stage.read("told"), "told\n", "it could have ended in order");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_failure_of_the_host_ends_qemu_in_order() {
    let script = format!("{NOTES_TERM}; cat log; {FOR_EVER}");
    let stage = Stage::new(&script, &log([&hello() as _]));
    stage.run(&["--keep-log", "/dev/full"]).assert(1, "cannot write the serial log");
    assert_eq!(stage.read("told"), "told\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_is_reported() {
    let stage = Stage::new("cat log", &good_log());
    stage.run(&["--report", "/dev/full"]).assert(1, "cannot write the report");
}

#[cfg(target_os = "linux")]
#[test]
fn a_harness_that_is_killed_takes_qemu_along() {
    let stage = Stage::new("exec sleep 1000", b"");
    let mut harness = stage.harness(&[]).spawn().unwrap();
    stage.qemu();
    harness.kill().unwrap();
    harness.wait().unwrap();
    stage.assert_no_qemu_left();
}

#[test]
fn wrong_usage_starts_nothing() {
    let stage = Stage::new("", b"");
    stage.run(&["--smp", "9", "--gic", "2"]).assert(2, "--gic 3");
    stage.run(&["--disk", "/nonexistent/disk"]).assert(2, "there is no model disk");
    stage.run(&["--report", "/nonexistent/report"]).assert(2, "cannot write");
    stage.run(&["--nonsense"]).assert(2, "--nonsense");
    let shown = stage.run(&["--print", "--set", "prompt=it's"]);
    shown.assert(0, "");
    assert!(shown.stdout.contains("-append 'prompt=it'\\''s'"), "{}", shown.stdout);
    assert!(!stage.path("pid").exists());
}

/// A guest that answers each line it reads, and its commands without a `result`.
const CHATTER: &str = "cat log waiting; while IFS= read -r line; do \
    case $line in /quit) cat end; exit;; /*) echo \"<$line>\";; '') echo nothing;; \
    *) cat answering; echo \"[$line]\"; sleep 0.1; cat answer;; esac; cat waiting; done";

fn chat_with(script: &str) -> Stage {
    let stage = Stage::new(script, &log([&hello() as _, &model() as _]));
    stage.put("waiting", &log([&chat(ChatState::Waiting) as _]));
    stage.put("answering", &log([&chat(ChatState::Answering) as _]));
    stage.put("answer", &log([&"Yes.\n" as _, &result("Yes.", &[5]) as _]));
    stage.put("end", &log([&exit(0) as _]));
    stage
}

/// The end of a chat in which these lines were piped.
fn piped(stage: &Stage, lines: &[u8], arguments: &[&str]) -> Shown {
    stage.put("lines", lines);
    let mut harness = stage.harness(&[&["chat"], arguments].concat());
    harness.stdin(std::fs::File::open(stage.path("lines")).unwrap());
    stage.end_of(harness.spawn().unwrap())
}

#[test]
fn a_chat_can_be_scripted() {
    let lines = b"Hello\n\n/stats\nAre you there?";
    let shown = piped(&chat_with(CHATTER), lines, &["--expect-tokens", "2"]);
    shown.assert(0, "2 tokens in 2 answers");
    assert_eq!(shown.stdout, "[Hello]\nYes.\nnothing\n</stats>\n[Are you there?]\nYes.\n");
}

#[test]
fn what_a_line_is_only_the_guest_knows() {
    // It answers what begins with a slash, and nothing else; the harness never waits in vain.
    let script = "cat log waiting; while IFS= read -r line; do \
        case $line in /quit) cat end; exit;; /*) cat answering answer;; *) echo nothing;; esac; \
        cat waiting; done";
    let lines = "Hello\n/odd\n\u{a0}\n\u{3000}/stats\n\x1b[A\ncaf\u{e9}\r\n/even\ra\x15\n";
    let shown = piped(&chat_with(script), lines.as_bytes(), &["--idle-timeout", "20"]);
    shown.assert(0, "2 tokens in 2 answers");
    assert_eq!(shown.stdout.matches("nothing").count(), 6, "{}", shown.stdout);
}

#[test]
fn a_chat_that_waits_for_its_person_is_not_idle() {
    let stage = chat_with(CHATTER);
    let mut harness = stage.harness(&["chat", "--idle-timeout", "2"]);
    let mut harness = harness.stdin(Stdio::piped()).spawn().unwrap();
    let input = harness.stdin.take();
    stage.qemu();
    thread::sleep(Duration::from_secs(3));
    assert!(harness.try_wait().unwrap().is_none(), "the person may take any time");
    drop(input);
    stage.end_of(harness).assert(0, "");
}

#[test]
fn a_chat_whose_guest_falls_silent_is_ended() {
    // Before it waits for a line, and in an answer.
    for script in [
        "cat log; exec sleep 1000",
        "cat log waiting; read -r line; cat answering; exec sleep 1000",
    ] {
        let shown = piped(&chat_with(script), b"Hello\n", &["--idle-timeout", "0.5"]);
        shown.assert(4, "no sign of life for 0.5 s");
    }
}

#[test]
fn a_guest_whose_console_has_no_input_is_reported() {
    let stage = chat_with("cat log waiting; exec sleep 1000");
    let shown = piped(&stage, b"Hello\n", &["--idle-timeout", "0.5"]);
    shown.assert(4, "shows nothing of the one that it was sent 0.5 s ago\n");
    shown.assert(4, "has its console an input?");
}

#[test]
fn a_chat_that_nobody_can_type_in_is_ended_at_once() {
    // Its disk says that it is one.
    let stage = chat_with("cat log waiting; exec sleep 1000");
    stage.run(&[]).assert(1, "waits for a line, but this run has no input\nhint: talk to it");
}
