//! The innermost loops of a function that multiply bytes.
//!
//! They are natural loops in the graph of basic blocks (Aho, Sethi and Ullman). A natural loop is a
//! branch back to a block that dominates the branch, with all blocks that lead to the branch. The
//! result does not depend on the order of the blocks, nor on the place of the code for faults.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::disassembly::{Flow, Function, Instruction};

/// A loop: the instructions of one iteration, ordered by address.
pub type Loop = Vec<Instruction>;

/// The number of byte products in one iteration.
pub fn products(body: &[Instruction]) -> u64 {
    body.iter().map(Instruction::products).sum()
}

/// The loops with byte products that contain no other such loop.
pub fn innermost(function: &Function) -> Vec<Loop> {
    let graph = Graph::new(function);
    let loops: Vec<BTreeSet<usize>> = graph
        .natural_loops()
        .into_iter()
        .filter(|blocks| blocks.iter().any(|&block| products(graph.code(block)) > 0))
        .collect();
    let has_inner = |outer: &BTreeSet<usize>| {
        loops.iter().any(|inner| inner.len() < outer.len() && inner.is_subset(outer))
    };
    let innermost = loops.iter().filter(|blocks| !has_inner(blocks));
    innermost
        .map(|blocks| blocks.iter().flat_map(|&block| graph.code(block)).cloned().collect())
        .collect()
}

/// The basic blocks of a function, ordered by address.
struct Graph<'a> {
    blocks: Vec<&'a [Instruction]>,
    successors: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(function: &'a Function) -> Graph<'a> {
        let code = &function.instructions;
        let mut starts = BTreeSet::new();
        for (i, instruction) in code.iter().enumerate() {
            if instruction.flow() != Flow::On {
                starts.insert(i + 1);
                let target = code.binary_search_by_key(&instruction.target, |to| Some(to.address));
                starts.extend(target.ok());
            }
        }
        starts.insert(0);
        starts.remove(&code.len());
        let starts: Vec<usize> = starts.into_iter().collect();
        let ends = starts.iter().skip(1).copied().chain([code.len()]);
        let blocks: Vec<&[Instruction]> =
            starts.iter().zip(ends).map(|(&start, end)| &code[start..end]).collect();
        let place: BTreeMap<u64, usize> = blocks
            .iter()
            .enumerate()
            .filter_map(|(i, block)| Some((block.first()?.address, i)))
            .collect();
        let next = |i: usize| (i + 1 < blocks.len()).then_some(i + 1);
        let successors = blocks
            .iter()
            .enumerate()
            .map(|(i, block)| {
                let Some(last) = block.last() else { return vec![] };
                let target = last.target.and_then(|to| place.get(&to)).copied();
                match last.flow() {
                    Flow::On => next(i).into_iter().collect(),
                    Flow::Fork => next(i).into_iter().chain(target).collect(),
                    Flow::Jump => target.into_iter().collect(),
                    Flow::Away => vec![],
                }
            })
            .collect();
        Graph { blocks, successors }
    }

    fn code(&self, block: usize) -> &'a [Instruction] {
        self.blocks[block]
    }

    fn predecessors(&self) -> Vec<Vec<usize>> {
        let mut predecessors = vec![vec![]; self.blocks.len()];
        for (from, successors) in self.successors.iter().enumerate() {
            successors.iter().for_each(|&to| predecessors[to].push(from));
        }
        predecessors
    }

    /// The dominators of each block: the blocks on every path to it.
    ///
    /// A block without a predecessor is an entry: the function's own, or the target of a jump
    /// table.
    fn dominators(&self, predecessors: &[Vec<usize>]) -> Vec<BTreeSet<usize>> {
        let all: BTreeSet<usize> = (0..self.blocks.len()).collect();
        let is_entry = |block: usize| block == 0 || predecessors[block].is_empty();
        let mut dominators: Vec<BTreeSet<usize>> = (0..self.blocks.len())
            .map(|block| if is_entry(block) { [block].into() } else { all.clone() })
            .collect();
        let mut changed = true;
        while changed {
            changed = false;
            for block in (0..self.blocks.len()).filter(|&block| !is_entry(block)) {
                let mut new = predecessors[block]
                    .iter()
                    .map(|&from| dominators[from].clone())
                    .reduce(|a, b| &a & &b)
                    .unwrap_or_default();
                new.insert(block);
                changed |= new != dominators[block];
                dominators[block] = new;
            }
        }
        dominators
    }

    /// The blocks of each loop. Loops with the same head count as one.
    fn natural_loops(&self) -> Vec<BTreeSet<usize>> {
        let predecessors = self.predecessors();
        let dominators = self.dominators(&predecessors);
        let mut loops: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, successors) in self.successors.iter().enumerate() {
            for &head in successors.iter().filter(|head| dominators[from].contains(head)) {
                let body = loops.entry(head).or_insert([head].into());
                let mut open = vec![from];
                while let Some(block) = open.pop() {
                    if body.insert(block) {
                        open.extend(&predecessors[block]);
                    }
                }
            }
        }
        loops.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::disassembly::parse;
    use super::*;

    /// Addresses in the innermost loops of a listing of instructions at 0, 4, 8, ….
    fn loops(lines: &[&str]) -> Vec<Vec<u64>> {
        let mut listing = String::from("0 <f>:\n");
        for (i, line) in lines.iter().enumerate() {
            listing += &format!("  {:x}: \t{}\n", 4 * i, line.replacen(' ', "\t", 1));
        }
        let loops = innermost(&parse(&listing)[0]);
        loops.iter().map(|body| body.iter().map(|i| i.address).collect()).collect()
    }

    const PRODUCT: &str = "smull v0.8h, v1.8b, v2.8b";

    #[test]
    fn the_innermost_loop_is_found() {
        let found = loops(&[
            "mov x0, x1",
            "add x1, x1, #1",
            PRODUCT,
            "b.ne 0x8 <f>",
            "add v0.8h, v0.8h, v0.8h",
            "b.ne 0x4 <f>",
            "ret",
        ]);
        assert_eq!(found, [[8, 12]]);
    }

    #[test]
    fn a_loop_without_products_is_none() {
        assert!(loops(&["add x1, x1, #1", "b.ne 0x0 <f>", PRODUCT, "ret"]).is_empty());
        // The loop around it is one.
        let found = loops(&["add x1, x1, #1", "b.ne 0x0 <f>", PRODUCT, "b.ne 0x0 <f>", "ret"]);
        assert_eq!(found, [[0, 4, 8, 12]]);
    }

    #[test]
    fn blocks_may_lie_in_any_order() {
        // The head is at 8, and the rest at 20, behind a block for a fault. The far jump back is no
        // loop.
        let found = loops(&[
            "cbz x0, 0x1c <f>",
            "b 0x8 <f>",
            PRODUCT,
            "cbz x1, 0x14 <f>",
            "brk #1",
            "sub x1, x1, #1",
            "b 0x8 <f>",
            "mov x1, x2",
            "b 0x4 <f>",
        ]);
        assert_eq!(found, [[8, 12, 20, 24]]);
    }

    #[test]
    fn what_a_table_of_jumps_leads_to_is_found() {
        assert_eq!(loops(&["br x8", PRODUCT, "b.ne 0x4 <f>", "ret"]), [[4, 8]]);
    }
}
