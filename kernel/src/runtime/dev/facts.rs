//! What the runtime finds out about a board, for `hello` and the log.
//!
//! Nobody has seen most boards. Each fact is `NAME=VALUE`, and settles a question that the board's
//! documents leave open. A fact can be noted before there is a heap. What is found out only after `hello`
//! goes to the log, as `board: NAME=VALUE`.

#![forbid(unsafe_code)]

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Arguments, Write};

use arrayvec::{ArrayString, ArrayVec};
use lock_api::Mutex;

use crate::runtime::arch::lock::RawSpinMutex;

/// Most facts that are kept.
const MAX_FACTS: usize = 24;
/// Most bytes of a fact; what is longer is cut.
const MAX_BYTES: usize = 96;

/// The facts of this machine.
pub static FACTS: Facts = Facts::new();

/// Logs a fact that `hello` is too early for.
pub fn tell(name: &str, value: Arguments<'_>) {
    log::info!("board: {name}={value}");
}

/// A list of facts, in the order in which they were noted.
#[derive(Debug)]
pub struct Facts(Mutex<RawSpinMutex, ArrayVec<ArrayString<MAX_BYTES>, MAX_FACTS>>);

impl Facts {
    /// No facts.
    pub const fn new() -> Facts {
        Facts(Mutex::new(ArrayVec::new_const()))
    }

    /// Notes a fact. A list that is full drops it.
    pub fn note(&self, name: &str, value: Arguments<'_>) {
        let mut fact = ArrayString::new();
        // What does not fit is cut.
        let _ = write!(Cut(&mut fact), "{name}={value}");
        let _ = self.0.lock().try_push(fact);
    }

    /// All facts.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().iter().map(ToString::to_string).collect()
    }
}

impl Default for Facts {
    fn default() -> Self {
        Facts::new()
    }
}

/// Writes up to the end of the text's room.
struct Cut<'a>(&'a mut ArrayString<MAX_BYTES>);

impl Write for Cut<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        s.chars().try_for_each(|c| self.0.try_push(c)).map_err(|_| core::fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_in_order_and_are_cut_where_there_is_no_room() {
        let facts = Facts::new();
        facts.note("gpio14", format_args!("alt{}", 5));
        facts.note("long", format_args!("{}", "ä".repeat(MAX_BYTES)));
        for i in 0..MAX_FACTS {
            facts.note("more", format_args!("{i}"));
        }
        let all = facts.all();
        assert_eq!(all.len(), MAX_FACTS);
        assert_eq!(all[0], "gpio14=alt5");
        assert_eq!(all[1], std::format!("long={}", "ä".repeat((MAX_BYTES - 5) / 2)));
        assert_eq!(all[MAX_FACTS - 1], std::format!("more={}", MAX_FACTS - 3));
    }
}
