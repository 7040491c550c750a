//! Which core the application's first thread runs on.
//!
//! Where cores differ, the one that firmware starts may be a slow one: an M1 starts on an Icestorm. The
//! first thread reads, tokenises, samples and draws alone, so that it gets one of the fastest.
#![forbid(unsafe_code)]

/// The number of the core: the boot core's, 0, but where others do more than it, the first of those that do
/// most. Each comes with its capacity, see [`Cpu::capacity`](crate::runtime::machine::Cpu::capacity).
pub fn choose(boot: u32, others: impl Iterator<Item = (usize, u32)>) -> usize {
    let first = (0, boot);
    others.fold(first, |most, other| if other.1 > most.1 { other } else { most }).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_boot_core_unless_others_do_more() {
        for (capacities, core) in [
            (&[0][..], 0),
            (&[0, 0, 0], 0),
            (&[1024, 1024, 714], 0),
            (&[1024, 714, 714], 0),
            // An M1, and one whose first fast core is not up.
            (&[714, 714, 714, 714, 1024, 1024, 1024, 1024], 4),
            (&[714, 714, 714, 714, 0, 1024, 1024, 1024], 5),
            // Of three kinds.
            (&[400, 760, 1024, 760], 2),
            // The tree tells of some only.
            (&[0, 714], 1),
        ] {
            assert_eq!(choose(capacities[0], capacities.iter().copied().enumerate().skip(1)), core);
        }
    }
}
