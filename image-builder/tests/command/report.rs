//! `image-builder report`, as a user or `make board-report` runs it.

use super::common::Place;

const BANNER: &str = "Anchorite 0.1.0 on Raspberry Pi 4 Model B: 4 × Cortex-A72, 960 MiB\r\n";

#[test]
fn a_log_is_reported_and_drives_no_terminal() {
    let place = Place::new();
    let warning = "[    0.812000] WARN  \x1b[2J\x07 is odd\r\n";
    let noise = [0xff, 0xfe, b'\n'];
    place.write("log", [&noise, BANNER.as_bytes(), warning.as_bytes()].concat());
    let printed = place.run(["report", "log"]).succeeds().stdout();
    assert!(printed.contains("| banner | Anchorite 0.1.0 on Raspberry Pi 4 Model B"), "{printed}");
    assert!(printed.contains("WARN") && !printed.contains(['\x1b', '\x07', '\r']), "{printed}");
}

#[test]
fn a_log_without_a_line_of_anchorite_is_refused() {
    let place = Place::new();
    place.write("log", "MESS:00:00:04.5: dterror: no symbols found\r\n");
    place.run(["report", "log"]).fails(1, "log has no line of Anchorite's: docs/boards.md");
    place.run(["report", "none"]).fails(1, "cannot read none");
    place.run(["report"]).fails(2, "<LOG>");
}
