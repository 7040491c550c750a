//! What is said of a check that fails.

use std::fmt;

use crate::expect::Expect;
use crate::seen::Seen;

/// Something that was expected and did not hold, with what was seen.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was expected, in a sentence.
    pub expected: String,
    /// What was seen: lines.
    pub seen: String,
}

impl Failure {
    /// Checks an expectation.
    ///
    /// # Errors
    /// The expectation does not hold.
    pub fn unless(expected: &Expect, seen: &Seen) -> Result<(), Failure> {
        expected.check(seen).map_err(|mismatch| Failure {
            expected: mismatch.expected,
            seen: mismatch.seen + &seen.shown(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected: {}\n{}", self.expected, self.seen)
    }
}

impl std::error::Error for Failure {}
