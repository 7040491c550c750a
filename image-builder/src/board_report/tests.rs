use super::log::{Log, Stage};
use super::questions::{self, QUESTIONS};
use super::report;

/// The serial log of QEMU's Raspberry Pi 4, with the model on an SD card.
///
/// `ci/boots.sh pi4` made it.
const RASPI4B: &str = include_str!("testdata/raspi4b.log");

/// The same log with facts about the board in `hello`.
fn with_facts(facts: &str) -> String {
    let changed =
        RASPI4B.replace("\"memory_bytes\"", &format!("\"board\":[{facts}],\"memory_bytes\""));
    assert_ne!(changed, RASPI4B);
    changed
}

#[track_caller]
fn has(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|there| there == *line), "no {line:?} in:\n{report}");
    }
}

#[test]
fn a_recorded_log_becomes_a_report() {
    let report = report(&Log::read(RASPI4B));
    has(
        &report,
        &[
            "## Anchorite on Raspberry Pi 4 Model B",
            "| version | 0.1.0 |",
            "| image | d26a8304715c3fcf809822366be842f7e25f5da3409b8b2b1ee258830ca7a1a7 |",
            "| cores | 4 × Cortex-A72 |",
            "| started at | EL2 |",
            "| disk | SD card, 64 MiB, FAT16 |",
            "| model | tiny.gguf, llama Q4_0, 5 MiB in 2.072 s (2.6 MB/s), verified |",
            "| result | prompt of 5 tokens at 20.5/s, then 16 tokens at 29.3/s |",
            "| exit | 0 |",
            "| last stage | `exit` |",
            "| Pi 6 | how fast is the card read? | 2.6 MB/s |",
            "| Pi point 3 | do all four cores come from the spin table? | 4 cores |",
            "- Pi 1: which serial port do the pins carry?",
        ],
    );
    for absent in ["### Facts about the board", "### Warnings", "M1 ", "The log ends with"] {
        assert!(!report.contains(absent), "{absent} in:\n{report}");
    }
}

#[test]
fn facts_settle_the_questions_of_their_board() {
    let text = with_facts(r#""gpio14=alt5","left-out=7 KiB","odd""#);
    // Facts that are found after `hello`. A line of another program is no fact.
    let text = text.replace(
        "{\"event\":\"disk\"",
        "[  0.101010] INFO  board: sd=caps 0x45ee6432 version 2 50MHz ddr50 dma\n\
         [  0.101011] INFO  on board: emmc2div=7\n{\"event\":\"disk\"",
    );
    let log = Log::read(&text);
    let report = report(&log);
    has(
        &report,
        &[
            "- `gpio14=alt5`",
            "- `left-out=7 KiB`",
            "| Pi 1 | which serial port do the pins carry? | `gpio14=alt5` |",
            "| Pi 8 | does DMA reach memory, as `dma-ranges` has it? | \
             `sd=caps 0x45ee6432 version 2 50MHz ddr50 dma` |",
            "- Pi 5: is the card controller's base clock 100 MHz?",
            "- Pi 3: which firmware started it?",
        ],
    );
    assert!(!report.contains("- Pi 1: which serial port do the pins carry?"), "{report}");
    assert!(!report.contains("M1 3"), "{report}");
    let (settled, open) = questions::answers(&log);
    let of_pi4 =
        QUESTIONS.iter().filter(|question| question.board == questions::Board::Pi4).count();
    assert_eq!((settled.len(), settled.len() + open.len()), (6, of_pi4));

    let of_m1 = text.replace("Raspberry Pi 4 Model B", "Apple Mac mini (M1, 2020)").replace(
        "\"cpu\":\"Cortex-A72\"",
        "\"cpu\":\"4 × Apple M1 Icestorm + 4 × Apple M1 Firestorm\"",
    );
    let of_m1 = super::report(&Log::read(&of_m1));
    has(
        &of_m1,
        &[
            "| M1 3 | which memory was left out, below m1n1? | `left-out=7 KiB` |",
            "- M1 13: do the fast cores take the higher clock?",
            "| cores | 4 × Apple M1 Icestorm + 4 × Apple M1 Firestorm |",
        ],
    );
    assert!(!of_m1.contains("Pi "), "{of_m1}");
    // There are no questions about QEMU's `virt`.
    let of_virt = text.replace("Raspberry Pi 4 Model B", "linux,dummy-virt");
    let of_virt = super::report(&Log::read(&of_virt));
    assert!(!of_virt.contains("### Questions still open"), "{of_virt}");
}

#[test]
fn the_report_says_where_a_log_ends() {
    let hello = RASPI4B.lines().take(2).collect::<Vec<_>>().join("\n");
    let log = Log::read(&hello);
    assert_eq!(log.stage, Stage::Hello);
    let report_of_hello = report(&log);
    has(&report_of_hello, &["| last stage | `hello` |", "The log ends with:"]);
    assert!(report_of_hello.contains("    \u{1e}{\"event\":\"hello\""), "{report_of_hello}");
    let warned = format!("{hello}\n[    0.812000] WARN  odd\n");
    assert_eq!(Log::read(&warned).stage, Stage::Hello);

    let banner = RASPI4B.lines().next().unwrap();
    let report_of_banner = report(&Log::read(banner));
    has(
        &report_of_banner,
        &[
            "## Anchorite on a machine without a `hello` event",
            "| banner | Anchorite 0.1.0 on Raspberry Pi 4 Model B: 4 × Cortex-A72, 960 MiB |",
            "| last stage | the first line |",
            "- Pi 1: which serial port do the pins carry?",
        ],
    );
    for text in ["", "MESS:00:00:04.5: arasan: arasan_emmc_open\n", "Anchorite ale on tap\n"] {
        assert_eq!(Log::read(text).stage, Stage::Nothing, "{text}");
    }
}

#[test]
fn the_last_boot_counts_and_changes_by_a_terminal_do_not() {
    // Text of the firmware, a boot that failed, and a boot without the bytes before its events.
    let failed = "\x1e{\"event\":\"error\",\"code\":\"DiskError\",\"message\":\"sector 7\",\"hint\":\"h\"}\r\n";
    let banner = "Anchorite 0.0.9 on Raspberry Pi 4 Model B: 4 × Cortex-A72, 960 MiB\r\n";
    let text = format!("MESS: dterror\n{banner}{failed}{}", RASPI4B.replace('\x1e', ""));
    let log = Log::read(&text);
    assert_eq!((log.stage, log.boots, log.events.len()), (Stage::Exit, 2, 5));
    assert_eq!(log.hello().unwrap().version, "0.1.0");
    let report = report(&log);
    has(&report, &["| boots in the log | 2, of which this is the last |", "| exit | 0 |"]);
    assert!(!report.contains("DiskError"), "{report}");

    let cut = RASPI4B.replace("\"event\":\"disk\",", "\"event\":\"disk\" ");
    let log = Log::read(&cut);
    assert_eq!((log.unreadable, log.events.len()), (1, 4));
    has(&super::report(&log), &["| events that cannot be read | 1 |"]);
}

#[test]
fn warnings_and_errors_are_kept() {
    let warning = "[    0.812000] WARN  SD card: failed reads: 1, the first at sector 4099";
    let text = RASPI4B.replacen("\r\nOnce", &format!("\r\n{warning}\r\nOnce"), 1);
    assert_ne!(text, RASPI4B);
    has(&report(&Log::read(&text)), &["### Warnings and errors", &format!("    {warning}")]);

    // The text of a photograph of an M1's screen.
    let screen = "Anchorite 0.1.0 on Apple Mac mini (M1, 2020): 8 × Apple M1 Icestorm, 7 GiB\n\
                  DiskError: initrd: it ends at byte 7\n\
                  Note: no code\n\
                  Anchorite has failed, see above.\n\
                  It is now safe to switch off.\n";
    let log = Log::read(screen);
    assert_eq!(log.stage, Stage::Exit);
    assert_eq!(log.complaints, ["DiskError: initrd: it ends at byte 7"]);
    has(&report(&log), &["- M1 3: which memory was left out, below m1n1?"]);

    let fault = "\x1e{\"event\":\"error\",\"code\":\"Panic\",\"message\":\"m\",\"hint\":\"h\"}";
    let log = Log::read(fault);
    assert_eq!((log.stage, &log.complaints[..]), (Stage::Line, &["Panic: m (h)".to_owned()][..]));
}

#[test]
fn the_documents_have_each_fact_and_each_point() {
    let boards = include_str!("../../../docs/boards.md");
    for name in questions::facts() {
        assert!(boards.contains(&format!("`{name}=")), "no {name}");
    }
    for question in QUESTIONS {
        assert!(boards.contains(&format!("| {} |", question.point)), "no {}", question.point);
    }
}
