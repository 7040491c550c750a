//! The table: every check there is, by topic.

mod answers;
mod faults;
mod modes;

use crate::check::Check;

/// All checks, in the order in which they are run and reported.
pub fn table() -> Vec<Check> {
    let topics = [answers::checks(), modes::checks(), faults::checks()];
    topics.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_checks_have_one_name() {
        let mut names: Vec<String> = table().into_iter().map(|check| check.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
