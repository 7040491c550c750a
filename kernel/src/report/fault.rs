//! The last two events, written without a heap.

use core::fmt::{self, Write};

use super::{Code, RECORD_SEPARATOR};

/// Writes an `error` event without allocating, for paths without a usable heap.
///
/// # Errors
/// Those of `out`.
pub fn write_fault(
    out: &mut dyn Write,
    code: Code,
    message: fmt::Arguments<'_>,
    hint: &str,
) -> fmt::Result {
    write!(out, "{RECORD_SEPARATOR}{{\"event\":\"error\",\"code\":\"{code}\",\"message\":\"")?;
    JsonText(out).write_fmt(message)?;
    out.write_str("\",\"hint\":\"")?;
    JsonText(out).write_str(hint)?;
    out.write_str("\"}\n")
}

/// Writes an `exit` event without allocating.
///
/// # Errors
/// Those of `out`.
pub fn write_exit(out: &mut dyn Write, status: i32) -> fmt::Result {
    writeln!(out, "{RECORD_SEPARATOR}{{\"event\":\"exit\",\"status\":{status}}}")
}

/// Escapes text for the inside of a JSON string.
struct JsonText<'a>(&'a mut dyn Write);

impl Write for JsonText<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            match c {
                '"' => self.0.write_str("\\\"")?,
                '\\' => self.0.write_str("\\\\")?,
                '\n' => self.0.write_str("\\n")?,
                c if c < ' ' => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}
