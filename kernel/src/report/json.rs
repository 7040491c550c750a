//! Events as lines of the serial log.

use alloc::string::String;

use super::Event;

/// The byte that starts each event: ASCII "record separator".
pub const RECORD_SEPARATOR: char = '\x1e';

impl Event {
    /// The event as a record of the serial line: separator, object, newline.
    pub fn to_record(&self) -> String {
        // Every event serialises: serde_json fails only on maps with keys that are not text.
        let json = serde_json::to_string(self).unwrap_or_default();
        alloc::format!("{RECORD_SEPARATOR}{json}\n")
    }

    /// Reads the event in a line of the serial log; `None` if the line is text.
    ///
    /// # Errors
    /// The line starts with the separator, and holds no event that this version knows.
    pub fn from_line(line: &str) -> Option<Result<Event, serde_json::Error>> {
        let json = line.strip_prefix(RECORD_SEPARATOR)?;
        Some(serde_json::from_str(json.trim_end()))
    }
}
