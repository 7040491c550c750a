//! Sizes for people: parsed and formatted.

/// Formats a size: "5.9 MiB".
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].iter();
    let mut unit = None;
    while value >= 1024.0 {
        match units.next() {
            Some(next) => unit = Some(next),
            None => break,
        }
        value /= 1024.0;
    }
    match unit {
        None => format!("{bytes} bytes"),
        Some(unit) if value < 10.0 => format!("{value:.1} {unit}"),
        Some(unit) => format!("{value:.0} {unit}"),
    }
}

/// Parses a size such as "64M" or "4G", in powers of 1024; bytes without a suffix.
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let shift = match suffix.to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" | "KIB" => Some(10),
        "M" | "MIB" => Some(20),
        "G" | "GIB" => Some(30),
        "T" | "TIB" => Some(40),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(n, shift)| n.checked_mul(1 << shift))
        .ok_or_else(|| "expected a size such as 64M or 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!(parse("517"), Ok(517));
        assert_eq!(parse("64M"), Ok(64 << 20));
        assert_eq!(parse("3gib"), Ok(3 << 30));
        for bad in ["", "M", "1.5G", "-1", "7X", "99999999T", "18446744073709551616"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people_have_two_digits_or_more() {
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(640 << 20), "640 MiB");
        assert_eq!(human(u64::MAX), "16777216 TiB");
    }
}
