//! Integers between two bounds.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Number;

use crate::app::server::api::error::ApiError;
use crate::app::server::api::request::object::Object;

/// The largest integer without a bound: 16 digits, as many as a double holds.
const LARGEST: i64 = 9_999_999_999_999_999;

/// The rule of an integer with the bounds of a schema; `None` without bounds.
///
/// # Errors
/// A bound is no number, or no integer is between the bounds.
pub fn rule(object: &Object<'_>) -> Result<Option<String>, ApiError> {
    let inwards = |bound: f64, up: bool| if up { libm::ceil(bound) } else { libm::floor(bound) };
    // A bound, rounded to an integer that is allowed.
    let bound = |key: &str, exclusive: &str, up: bool| {
        let read = |key: &str, up: bool| {
            let number = object.read::<Number>(key)?;
            let whole = |n: &Number| n.as_i64().or(Some(inwards(n.as_f64()?, up) as i64));
            Ok::<_, ApiError>(number.as_ref().and_then(whole))
        };
        let step = if up { 1 } else { -1 };
        Ok::<_, ApiError>(match read(key, up)? {
            Some(bound) => Some(bound),
            None => read(exclusive, !up)?.map(|bound: i64| bound.saturating_add(step)),
        })
    };
    let least = bound("minimum", "exclusiveMinimum", true)?;
    let most = bound("maximum", "exclusiveMaximum", false)?;
    if (least, most) == (None, None) {
        return Ok(None);
    }
    let low = least.unwrap_or(most.unwrap_or(0).min(-LARGEST));
    let high = most.unwrap_or(low.max(LARGEST));
    if low > high {
        return Err(object.error("minimum", format!("no integer is between {low} and {high}")));
    }
    let mut out = String::new();
    if low < 0 {
        // As in llama.cpp, -0 is a number above a lower bound below 0.
        let nearest = if least.is_some() { high.min(0) } else { high.min(-1) };
        out.push_str("\"-\" (");
        push_range(nearest.unsigned_abs(), low.unsigned_abs(), &mut out);
        out.push(')');
        if high >= 0 {
            out.push_str(" | ");
        }
    }
    if high >= 0 {
        push_range(low.max(0).unsigned_abs(), high.unsigned_abs(), &mut out);
    }
    Ok(Some(out))
}

/// The numbers from `low` to `high`, those of each length by themselves.
fn push_range(mut low: u64, high: u64, out: &mut String) {
    loop {
        let digits = low.to_string();
        let longest = u32::try_from(digits.len()).ok().and_then(|n| 10_u64.checked_pow(n));
        // The largest number of as many digits.
        let last = longest.map_or(high, |next| high.min(next.saturating_sub(1)));
        push_digits(digits.as_bytes(), last.to_string().as_bytes(), out);
        if last >= high {
            return;
        }
        out.push_str(" | ");
        low = last.saturating_add(1);
    }
}

/// The numbers between two of the same length.
fn push_digits(low: &[u8], high: &[u8], out: &mut String) {
    let n_common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    if n_common > 0 || low.is_empty() {
        let digits: String = low[..n_common].iter().map(|&digit| char::from(digit)).collect();
        out.push_str(&format!("\"{digits}\" "));
    }
    let (low, high) = (&low[n_common..], &high[n_common..]);
    let ([first, low @ ..], [last, high @ ..]) = (low, high) else { return };
    let (mut first, mut last) = (*first, *last);
    out.push('(');
    let mut separator = "";
    // Numbers that begin with the first digit, or the last one, have bounds of their own.
    if low.iter().any(|&digit| digit != b'0') {
        out.push_str(&format!("\"{}\" ", char::from(first)));
        push_digits(low, &high.iter().map(|_| b'9').collect::<Vec<u8>>(), out);
        first = first.saturating_add(1);
        separator = " | ";
    }
    let ends_early = high.iter().any(|&digit| digit != b'9');
    last = last.saturating_sub(u8::from(ends_early));
    if first <= last {
        let (first, last) = (char::from(first), char::from(last));
        out.push_str(&format!("{separator}[{first}-{last}]"));
        if !low.is_empty() {
            out.push_str(&format!(" [0-9]{{{}}}", low.len()));
        }
        separator = " | ";
    }
    if ends_early {
        out.push_str(&format!("{separator}\"{}\" ", char::from(last.saturating_add(1))));
        push_digits(&low.iter().map(|_| b'0').collect::<Vec<u8>>(), high, out);
    }
    out.push(')');
}
