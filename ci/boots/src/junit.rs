//! The report for CI: JUnit's XML, as most services read it.

use std::fmt::Write;
use std::time::Duration;

use crate::runner::{Done, Outcome};

/// The report of these checks.
pub fn report(done: &[Done]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| done.iter().filter(|d| wanted(&d.outcome)).count();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let time = seconds(done.iter().map(|one| one.time).sum());
    let cases: String = done.iter().map(case).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"boots\" tests=\"{}\" \
         failures=\"{failures}\" skipped=\"{skipped}\" time=\"{time}\">\n{cases}</testsuite>\n",
        done.len()
    )
}

fn case(done: &Done) -> String {
    let (name, time) = (escaped(&done.name), seconds(done.time));
    let inside = match &done.outcome {
        Outcome::Passed(_) => String::new(),
        Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
        Outcome::Failed(why) => {
            let first = escaped(why.lines().next().unwrap_or_default());
            format!("<failure message=\"{first}\">{}</failure>", escaped(why))
        }
    };
    format!("  <testcase classname=\"boots\" name=\"{name}\" time=\"{time}\">{inside}</testcase>\n")
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Escapes a text for XML 1.0.
///
/// XML has no control characters but tab and newline, so that Rust's escapes stand for them.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in kernel::report::printable(text).chars() {
        let _ = match c {
            '&' => safe.write_str("&amp;"),
            '<' => safe.write_str("&lt;"),
            '>' => safe.write_str("&gt;"),
            '"' => safe.write_str("&quot;"),
            // XML excludes these two as well.
            '\u{fffe}' | '\u{ffff}' => write!(safe, "{}", c.escape_default()),
            c => safe.write_char(c),
        };
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Passed;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    #[test]
    fn the_report_is_well_formed_and_tells_all() {
        let time = Duration::from_millis(1500);
        let one = |name: &str, outcome| Done { name: name.into(), outcome, time };
        let bad = "expected: a < b & \"c\"\n  \x1e{\"event\"} ]]>\x1b[2J";
        let done = [
            one("good", Outcome::Passed(Passed::tries(7))),
            one("<bad>", Outcome::Failed(bad.into())),
            one("none", Outcome::Skipped("no \"QEMU\"".into())),
        ];
        let report = report(&done);

        let mut reader = Reader::from_str(&report);
        let (mut seen, mut text, mut depth) = (Vec::new(), String::new(), 0);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(tag) | Event::Empty(tag) => {
                    depth +=
                        i32::from(!report[..reader.buffer_position() as usize].ends_with("/>"));
                    let attributes: Vec<String> = tag
                        .attributes()
                        .map(|it| {
                            it.unwrap().normalized_value(Default::default()).unwrap().into_owned()
                        })
                        .collect();
                    let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                    seen.push(format!("{name} {}", attributes.join(" ")));
                }
                Event::End(_) => depth -= 1,
                Event::Text(part) => text += &part.decode().unwrap(),
                Event::GeneralRef(part) => text += &format!("&{};", part.decode().unwrap()),
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0, "all that was opened is closed");
        assert_eq!(
            seen,
            [
                "testsuite boots 3 1 1 4.500",
                "testcase boots good 1.500",
                "testcase boots <bad> 1.500",
                "failure expected: a < b & \"c\"",
                "testcase boots none 1.500",
                "skipped no \"QEMU\"",
            ]
        );
        assert!(text.contains("\\u{1e}{"), "{text}");
        assert!(text.contains("\\u{1b}[2J"), "{text}");
    }
}
