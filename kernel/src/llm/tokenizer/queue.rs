//! A priority queue of pairs of numbers, the least first.
//!
//! The queue fits byte-pair merging: millions of pairs, few different ranks, and new pairs whose
//! ranks are mostly higher than the present one. Pairs of higher ranks wait in the buckets of a
//! radix heap. The radix heap moves whole buckets, where a binary heap would jump about in memory.
//! The other pairs wait in a binary heap, which stays small.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::step_count::step;

/// Pairs of a rank and a place. The least rank comes first; of equal ranks, the least place.
#[derive(Debug)]
pub struct Queue {
    /// The present rank.
    rank: u32,
    /// Places of this rank, the least last.
    places: Vec<u32>,
    /// Pairs with higher ranks.
    ///
    /// `buckets[n]` holds pairs whose rank differs from `rank` in bit n and in no higher bit.
    buckets: [Vec<(u32, u32)>; 32],
    /// A bit for each bucket that is not empty.
    filled: u32,
    /// Pairs whose rank is no higher and that came after `places` was put in order.
    late: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            rank: 0,
            places: Vec::new(),
            buckets: [const { Vec::new() }; 32],
            filled: 0,
            late: BinaryHeap::new(),
        }
    }
}

impl Queue {
    /// Adds a pair.
    pub fn push(&mut self, rank: u32, place: u32) {
        if rank <= self.rank {
            self.late.push(Reverse((rank, place)));
        } else {
            step(1);
            let bucket = (rank ^ self.rank).ilog2();
            self.buckets[bucket as usize].push((rank, place));
            self.filled |= 1 << bucket;
        }
    }

    /// Takes the least pair. An empty queue can be used again.
    pub fn pop(&mut self) -> Option<(u32, u32)> {
        let first = self.places.last().map(|&place| (self.rank, place));
        if let Some(&Reverse(late)) = self.late.peek()
            && first.is_none_or(|first| late < first)
        {
            self.late.pop();
            return Some(late);
        }
        if first.is_none() && !self.next_rank() {
            self.rank = 0;
            return None;
        }
        self.places.pop().map(|place| (self.rank, place))
    }

    /// Goes to the next rank, and fills `places`. False if the queue has no higher rank.
    fn next_rank(&mut self) -> bool {
        if self.filled == 0 {
            return false;
        }
        // The lowest bucket holds the lowest ranks. Once `rank` is the lowest, all pairs of the
        // bucket belong in lower buckets.
        let lowest = self.filled.trailing_zeros() as usize;
        self.filled &= !(1 << lowest);
        let mut bucket = core::mem::take(&mut self.buckets[lowest]);
        self.rank = bucket.iter().map(|&(rank, _)| rank).min().unwrap_or(self.rank);
        for (rank, place) in bucket.drain(..) {
            match rank == self.rank {
                true => self.places.push(place),
                false => self.push(rank, place),
            }
        }
        self.buckets[lowest] = bucket;
        self.places.sort_unstable_by(|a, b| b.cmp(a));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_in_the_order_of_a_heap() {
        let mut random = 7u64;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 16) as u32 % n as u32
        };
        for round in 0..211 {
            // Few ranks or many, most of them later than the last one taken or all mixed.
            let (ranks, is_mixed) = ([3, 1009, 1 << 31][round % 3], round % 2 == 0);
            let (mut queue, mut heap) = (Queue::default(), BinaryHeap::new());
            let mut last = 0;
            for _ in 0..3001 {
                if draw(5) < 3 {
                    let rank = draw(ranks) | if is_mixed { 0 } else { last };
                    let place = draw(97);
                    queue.push(rank, place);
                    heap.push(Reverse((rank, place)));
                } else {
                    let pair = queue.pop();
                    assert_eq!(pair, heap.pop().map(|Reverse(pair)| pair));
                    last = pair.map_or(0, |(rank, _)| rank);
                }
            }
            while let Some(Reverse(pair)) = heap.pop() {
                assert_eq!(queue.pop(), Some(pair));
            }
            assert_eq!((queue.pop(), queue.rank), (None, 0));
        }
    }
}
