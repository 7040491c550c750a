//! Dates as texts of RFC 3339.

// The sums and products are bounded by the year 9999.
#![cfg_attr(not(test), allow(clippy::arithmetic_side_effects))]

use alloc::format;
use alloc::string::String;

/// The last second of the year 9999, in seconds since 1970: RFC 3339 has no later one.
const LAST: u64 = 253_402_300_799;
/// Days from 1 March of the year 0 to 1 January 1970.
const BEFORE_1970: u64 = 719_468;
/// Days of 400 years, after which the calendar repeats.
const DAYS_OF_400_YEARS: u64 = 146_097;
/// Days of 100 years without the leap day of the last one.
const DAYS_OF_100_YEARS: u64 = 36_524;
/// Days of four years.
const DAYS_OF_4_YEARS: u64 = 1_461;

/// The text of a date in µs since 1970, UTC. A date after the year 9999 becomes its last second.
pub fn rfc3339(us: u64) -> String {
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let seconds = seconds.min(LAST);
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

/// Year, month and day of a number of days since 1 January 1970, in the Gregorian calendar.
///
/// Years begin in March here, so that a leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + BEFORE_1970;
    let (n_400, rest) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // The last day of 400 years is a leap day, which begins no further century.
    let n_100 = (rest / DAYS_OF_100_YEARS).min(3);
    let rest = rest - n_100 * DAYS_OF_100_YEARS;
    let (n_4, rest) = (rest / DAYS_OF_4_YEARS, rest % DAYS_OF_4_YEARS);
    let n_1 = (rest / 365).min(3);
    let of_year = rest - n_1 * 365;
    let year = 400 * n_400 + 100 * n_100 + 4 * n_4 + n_1;
    // From March on, five months have 153 days: 31, 30, 31, 30, 31.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    match month {
        0..=9 => (year, month + 3, day),
        _ => (year + 1, month - 9, day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_have_their_texts() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
            (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59.000000Z"),
            (253_402_300_800_000_000, "9999-12-31T23:59:59.000000Z"),
            (u64::MAX, "9999-12-31T23:59:59.551615Z"),
        ] {
            assert_eq!(rfc3339(us), text);
        }
    }

    #[test]
    fn each_day_follows_the_day_before() {
        let is_leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..=LAST / 86_400 {
            assert_eq!(civil(days), (year, month, day));
            let of_month = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == of_month => (year, month + 1, 1),
                (_, day) => (year, month, day + 1),
            };
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }
}
