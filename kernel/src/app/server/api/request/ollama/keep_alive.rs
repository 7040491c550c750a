//! `keep_alive`: how long a model stays loaded after a request.

use alloc::string::String;

use super::super::object::{Object, parse};
use crate::app::server::api::error::ApiError;

/// How long a model stays loaded after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This time, in ns. 0: the model is unloaded at once.
    For(u64),
    /// For ever.
    Forever,
}

/// Units of time, in ns. Of two that begin alike, the longer one comes first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl KeepAlive {
    /// Reads the field: a number of seconds, or a text such as "5m". A negative time is for ever.
    ///
    /// # Errors
    /// The value is no time, or too long for 63 bits of ns.
    pub fn read(object: &Object<'_>) -> Result<Option<KeepAlive>, ApiError> {
        const NAME: &str = "keep_alive";
        let Some(value) = object.get(NAME) else { return Ok(None) };
        let time = match value.get().starts_with('"') {
            true => duration(&parse::<String>(&object.name(NAME), value)?),
            false => object.number(NAME)?.map(|number| seconds(number.into())),
        };
        time.map(Some).ok_or_else(|| object.error(NAME, "a time is needed, such as \"5m\" or 300"))
    }
}

/// The time of a number of seconds.
fn seconds(seconds: f64) -> KeepAlive {
    match seconds < 0.0 {
        true => KeepAlive::Forever,
        // The conversion saturates.
        false => KeepAlive::For(((seconds * 1e9) as u64).min(i64::MAX as u64)),
    }
}

/// Reads a text as Go's `time.ParseDuration` does: "1h30m", "1.5s", "-1s", "0".
fn duration(text: &str) -> Option<KeepAlive> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let ns = if unsigned == "0" { 0 } else { parts(unsigned)? };
    match text.starts_with('-') && ns > 0 {
        true => Some(KeepAlive::Forever),
        false => Some(KeepAlive::For(ns)),
    }
}

/// The sum of numbers with their units, in ns.
fn parts(mut text: &str) -> Option<u64> {
    let mut sum: u64 = 0;
    loop {
        let (whole, rest) = digits(text);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, ns) = UNITS.iter().find(|(unit, _)| is_unit(rest, unit))?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(*ns)?)?;
        let mut place = *ns;
        for digit in fraction.bytes() {
            place /= 10;
            let digit = u64::from(digit.wrapping_sub(b'0'));
            sum = sum.checked_add(digit.checked_mul(place)?)?;
        }
        text = rest.get(unit.len()..)?;
        if text.is_empty() {
            return i64::try_from(sum).is_ok().then_some(sum);
        }
    }
}

/// Splits the decimal digits off the start of a text.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Whether a text begins with this unit, and not with a longer word.
fn is_unit(text: &str, unit: &str) -> bool {
    let Some(rest) = text.strip_prefix(unit) else { return false };
    rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_go() {
        const S: u64 = 1_000_000_000;
        for (text, ns) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5m", 300 * S),
            ("+24h", 86_400 * S),
            ("1h30m", 5_400 * S),
            ("1.5h", 5_400 * S),
            (".5m", 30 * S),
            ("1.s", S),
            ("1m0.25s", 60 * S + S / 4),
            ("300ms", 3 * S / 10),
            ("7us8ns", 7_008),
            ("7µs", 7_000),
            ("7μs", 7_000),
            ("0.00000000099s", 0),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(duration(text), Some(KeepAlive::For(ns)), "{text}");
        }
        for text in ["-1s", "-0.5h"] {
            assert_eq!(duration(text), Some(KeepAlive::Forever), "{text}");
        }
        for text in [
            "",
            "-",
            "5",
            "-1",
            "m",
            ".m",
            "5 m",
            "5M",
            "5min",
            "1d",
            "1m-1s",
            "--1s",
            "1e3s",
            "5m ",
            "9223372036854775808ns",
            "99999999999999999999s",
            "9999999999h",
            "٣s",
            "1µ",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_seconds() {
        for (number, time) in [
            (0.0, KeepAlive::For(0)),
            (300.0, KeepAlive::For(300_000_000_000)),
            (0.5, KeepAlive::For(500_000_000)),
            (1e300, KeepAlive::For(i64::MAX as u64)),
            (-1.0, KeepAlive::Forever),
            (-0.1, KeepAlive::Forever),
        ] {
            assert_eq!(seconds(number), time, "{number}");
        }
    }
}
