//! The table: every check there is, by topic.

mod answers;
mod attacks;
mod bad_clients;
mod disks;
mod endurance;
mod faults;
mod good_client;
mod hostile_bodies;
mod image;
mod limits;
mod m1n1;
mod make;
mod many_requests;
mod modes;
mod pi4;
mod probe;
mod real;
mod serve;
mod swaps;
mod torture;
mod uboot;

use crate::check::Check;

/// All checks in the order of their start; long ones come first.
pub fn table() -> Vec<Check> {
    let topics = [
        modes::checks(),
        answers::checks(),
        faults::checks(),
        disks::checks(),
        limits::checks(),
        pi4::checks(),
        probe::checks(),
        m1n1::checks(),
        uboot::checks(),
        image::checks(),
        make::checks(),
        serve::checks(),
        bad_clients::checks(),
        attacks::checks(),
        hostile_bodies::checks(),
        swaps::checks(),
        many_requests::checks(),
        real::checks(),
        endurance::checks(),
        torture::checks(),
    ];
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
