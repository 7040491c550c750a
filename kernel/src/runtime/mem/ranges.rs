//! Which memory is free: what the device tree lists, less what is in use.
#![forbid(unsafe_code)]

use core::ops::Range;

use arrayvec::ArrayVec;

/// The most ranges that are kept apart. Boards have a handful; the smallest are given up first.
pub const MAX_RANGES: usize = 64;

/// Ranges of physical memory: page-aligned, not empty, in order, none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(ArrayVec<Range<u64>, MAX_RANGES>);

impl Ranges {
    /// No memory.
    pub const fn new() -> Self {
        Ranges(ArrayVec::new_const())
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.0.iter().cloned()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Adds the whole pages of `range`. What lies in it already is not counted twice.
    pub fn add(&mut self, range: Range<u64>, page: u64) {
        let Some(start) = range.start.checked_next_multiple_of(page) else { return };
        let end = range.end - range.end % page;
        if start >= end {
            return;
        }
        let mut merged = start..end;
        self.0.retain(|r| {
            let touches = r.start <= merged.end && merged.start <= r.end;
            if touches {
                merged = merged.start.min(r.start)..merged.end.max(r.end);
            }
            !touches
        });
        self.insert(merged);
    }

    /// Takes away every page that `range` touches.
    pub fn remove(&mut self, range: Range<u64>, page: u64) {
        if range.is_empty() {
            return;
        }
        let start = range.start - range.start % page;
        let end = range.end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        let mut tail = None;
        for r in &mut self.0 {
            if r.start < start && end < r.end {
                tail = Some(end..r.end);
                r.end = start;
            } else if r.start < start {
                r.end = r.end.min(start);
            } else if r.end > end {
                r.start = r.start.max(end);
            } else {
                r.end = r.start;
            }
        }
        self.0.retain(|r| !r.is_empty());
        if let Some(tail) = tail {
            self.insert(tail);
        }
    }

    /// Takes `bytes` out of the start of the first range that has them.
    pub fn take(&mut self, bytes: u64) -> Option<Range<u64>> {
        let range = self.0.iter_mut().find(|r| r.end - r.start >= bytes)?;
        let taken = range.start..range.start + bytes;
        range.start = taken.end;
        self.0.retain(|r| !r.is_empty());
        Some(taken)
    }

    fn insert(&mut self, range: Range<u64>) {
        if self.0.is_full() {
            let smallest = (0..self.0.len()).min_by_key(|&i| self.0[i].end - self.0[i].start);
            match smallest {
                Some(i) if self.0[i].end - self.0[i].start < range.end - range.start => {
                    self.0.remove(i);
                }
                _ => return,
            }
        }
        let at = self.0.partition_point(|r| r.start < range.start);
        self.0.insert(at, range);
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are the subject here")]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const PAGE: u64 = 16;

    fn ranges(list: &[Range<u64>]) -> Ranges {
        let mut ranges = Ranges::new();
        for range in list {
            ranges.add(range.clone(), PAGE);
        }
        ranges
    }

    fn list(ranges: &Ranges) -> Vec<Range<u64>> {
        ranges.iter().collect()
    }

    #[test]
    fn what_is_added_is_merged_and_rounded_inwards() {
        let r = ranges(&[64..128, 128..160, 7..33, 0..5]);
        assert_eq!(list(&r), [16..32, 64..160]);
        assert_eq!(r.bytes(), 112);
        assert_eq!(list(&ranges(&[48..64, 0..16, 16..48])), [0..64]);
    }

    #[test]
    fn what_is_removed_is_rounded_outwards() {
        let mut r = ranges(&[0..160]);
        r.remove(33..34, PAGE);
        assert_eq!(list(&r), [0..32, 48..160]);
        r.remove(0..1, PAGE);
        r.remove(150..1000, PAGE);
        assert_eq!(list(&r), [16..32, 48..144]);
        r.remove(31..49, PAGE);
        assert_eq!(list(&r), [64..144]);
        r.remove(100..100, PAGE);
        assert_eq!(list(&r), [64..144]);
        r.remove(3..u64::MAX, PAGE);
        assert_eq!(list(&r), []);
    }

    #[test]
    fn every_page_agrees_with_a_plain_list() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        let mut r = Ranges::new();
        let mut pages = [false; 61];
        for _ in 0..1009 {
            let (a, b) = (random(62), random(62));
            let (start, end) = (a.min(b), a.max(b));
            let add = random(2) == 0;
            pages[start as usize..end as usize].fill(add);
            match add {
                true => r.add(start * PAGE..end * PAGE, PAGE),
                false => r.remove(start * PAGE..end * PAGE, PAGE),
            }
            for (page, &free) in pages.iter().enumerate() {
                let at = page as u64 * PAGE;
                assert_eq!(r.iter().any(|r| r.contains(&at)), free);
            }
            let list = list(&r);
            assert!(list.windows(2).all(|w| w[0].end < w[1].start), "{list:?}");
        }
    }

    #[test]
    fn a_full_list_gives_up_the_smallest() {
        let mut r = Ranges::new();
        for i in 0..MAX_RANGES as u64 {
            r.add(i * 100 * PAGE..(i * 100 + 2 + i % 3) * PAGE, PAGE);
        }
        let before = r.bytes();
        r.add(10_000 * PAGE..10_007 * PAGE, PAGE);
        assert_eq!(r.bytes(), before + 5 * PAGE);
        r.add(20_000 * PAGE..20_001 * PAGE, PAGE);
        assert_eq!(r.bytes(), before + 5 * PAGE);
    }

    #[test]
    fn memory_is_taken_once() {
        let mut r = ranges(&[0..32, 64..256]);
        assert_eq!(r.take(64), Some(64..128));
        assert_eq!(r.take(32), Some(0..32));
        assert_eq!(r.take(129), None);
        assert_eq!(r.take(128), Some(128..256));
        assert_eq!(list(&r), []);
    }
}
