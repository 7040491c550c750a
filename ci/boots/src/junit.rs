//! The report for CI: JUnit's XML, as most services read it.

use std::io;
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use crate::runner::{Done, Outcome};

/// Writes the report of these checks.
pub fn report(done: &[Done]) -> io::Result<Vec<u8>> {
    let count = |wanted: fn(&Outcome) -> bool| done.iter().filter(|d| wanted(&d.outcome)).count();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_))).to_string();
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_))).to_string();
    let tests = done.len().to_string();
    let time = seconds(done.iter().map(|one| one.time).sum());

    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let suite = xml.create_element("testsuite").with_attributes([
        ("name", "boots"),
        ("tests", tests.as_str()),
        ("failures", &failures),
        ("skipped", &skipped),
        ("time", &time),
    ]);
    suite.write_inner_content(|xml| done.iter().try_for_each(|one| case(xml, one)))?;
    Ok(xml.into_inner())
}

fn case(xml: &mut Writer<Vec<u8>>, done: &Done) -> io::Result<()> {
    let time = seconds(done.time);
    let case = xml.create_element("testcase").with_attributes([
        ("classname", "boots"),
        ("name", done.name.as_str()),
        ("time", &time),
    ]);
    match &done.outcome {
        Outcome::Passed(_) => case.write_empty()?,
        Outcome::Skipped(why) => case.write_inner_content(|xml| {
            let why = allowed(why);
            xml.create_element("skipped")
                .with_attribute(("message", why.as_str()))
                .write_empty()?;
            Ok(())
        })?,
        Outcome::Failed(why) => case.write_inner_content(|xml| {
            let why = allowed(why);
            let first = why.lines().next().unwrap_or_default();
            xml.create_element("failure")
                .with_attribute(("message", first))
                .write_text_content(BytesText::new(&why))?;
            Ok(())
        })?,
    };
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// XML 1.0 has no control characters but tab and newline, not even escaped.
fn allowed(text: &str) -> String {
    kernel::report::printable(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Passed;
    use quick_xml::Reader;

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
        let report = String::from_utf8(report(&done).unwrap()).unwrap();

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
