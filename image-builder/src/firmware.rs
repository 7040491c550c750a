//! Finds the build of a Raspberry Pi's firmware.
//!
//! `start4.elf` holds texts that end with a zero byte:
//!
//! - `VC_BUILD_ID_TIME: ` occurs twice, before C's `__TIME__` and before its `__DATE__`.
//! - `VC_BUILD_ID_VERSION: ` precedes a commit and ` (clean)`.
//!
//! Source: the file in Debian's raspi-firmware 1.20220830.

use jiff::civil::Date;

/// The text before the time and the date.
const TIME: &[u8] = b"VC_BUILD_ID_TIME: ";
/// The text before the commit.
const VERSION: &[u8] = b"VC_BUILD_ID_VERSION: ";
/// The number of a commit's digits that are shown.
const DIGITS: usize = 12;

/// A build of the firmware.
#[derive(Debug, PartialEq)]
pub struct Build {
    /// The day on which it was built.
    pub date: Date,
    /// The start of the commit's hash; empty if the file lacks it.
    pub version: String,
}

/// Finds the build in the firmware's file `start4.elf`.
pub fn build(start4: &[u8]) -> Option<Build> {
    // C pads the day with a blank: "Aug  6 2022".
    let date = texts(start4, TIME).find_map(|text| {
        let words: Vec<_> = text.split_whitespace().collect();
        Date::strptime("%b %d %Y", words.join(" ")).ok()
    })?;
    let version = texts(start4, VERSION).next().unwrap_or_default();
    let version = version.chars().take_while(char::is_ascii_hexdigit).take(DIGITS).collect();
    Some(Build { date, version })
}

/// The texts behind each `name`, up to a zero byte.
fn texts<'f>(file: &'f [u8], name: &[u8]) -> impl Iterator<Item = &'f str> {
    let places = (0..file.len()).filter(move |&at| file[at..].starts_with(name));
    places.filter_map(|at| {
        let text = file[at + name.len()..].split(|&byte| byte == 0).next()?;
        str::from_utf8(text).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_firmware_says_of_its_build() {
        let file = b"\x7fELF\0\xff VC_BUILD_ID_USER: dom\0VC_BUILD_ID_TIME: 14:03:16\0\
            VC_BUILD_ID_VARIANT: start\0VC_BUILD_ID_TIME: Aug  6 2022\0VC_BUILD_ID_BRANCH: bcm2711_2\0\
            VC_BUILD_ID_VERSION: 102f1e848393c2112206fadffaaf86db04e98326 (clean)\0\xff";
        let date = Date::constant(2022, 8, 6);
        assert_eq!(build(file), Some(Build { date, version: "102f1e848393".into() }));
        // A file that is cut in the middle, and one without a version.
        let until = |text: &[u8]| file.windows(text.len()).position(|there| there == text).unwrap();
        assert_eq!(build(&file[..until(b"Aug")]), None);
        let build = build(&file[..until(b"VC_BUILD_ID_VERSION")]);
        assert_eq!(build, Some(Build { date, version: String::new() }));
    }
}
