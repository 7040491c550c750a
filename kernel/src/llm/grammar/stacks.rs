//! The stacks of an answer: what may follow, for each way to read the answer by the grammar.
//!
//! A stack is a list of places in rules. The top one is what comes next; a place below follows
//! where the rule above it ends. A stack without places is the end of the answer. Stacks with a
//! common bottom share it: a [`Node`] is a place and the stack below. Equal stacks are one node, so
//! a grammar that can read an answer in many ways does not multiply them.

use alloc::vec::Vec;

use super::{Element, Grammar};
use crate::llm::Error;

/// The stack without places: the answer may end.
pub const DONE: u32 = 0;

/// The most nodes of one answer.
const MAX_NODES: usize = 1 << 16;

/// The top of a stack, and the stack below.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The place of an element that ends no alternative.
    position: u32,
    below: u32,
}

/// The stacks could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The grammar can read the answer in too many ways.
    TooManyWays,
    /// The memory does not suffice.
    NoMemory,
}

impl Overflow {
    /// The error for the client.
    pub fn error(self) -> Error {
        match self {
            Overflow::TooManyWays => Error::InvalidConfig {
                what: "the grammar can read the answer in too many ways: make it less ambiguous, \
                       or its repetitions smaller"
                    .into(),
            },
            Overflow::NoMemory => {
                let asked = (MAX_NODES * size_of::<Node>()) as u64;
                Error::OutOfMemory { what: "the stacks of the grammar", asked }
            }
        }
    }
}

/// All stacks of an answer.
///
/// A node's number is larger than that of the node below it.
#[derive(Debug, Default)]
pub struct Stacks {
    nodes: Vec<Node>,
    /// For each node, the last search that found it.
    found_by: Vec<u32>,
    /// The number of the present search.
    search: u32,
    /// The number of each node, at a place by its hash or behind it; 0: free.
    table: Vec<u32>,
    /// Stacks whose top may be a rule.
    to_expand: Vec<u32>,
    /// Nodes that may still be visited.
    budget: u64,
}

impl Stacks {
    /// Only the stack without places.
    pub fn try_new() -> Result<Self, Overflow> {
        let mut stacks = Stacks::default();
        stacks.reserve()?;
        stacks.nodes.push(Node { position: u32::MAX, below: DONE });
        stacks.found_by.push(0);
        Ok(stacks)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Allows so many visits of nodes.
    pub fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// Takes visits off the budget.
    ///
    /// # Errors
    /// Nothing of it is left.
    pub fn spend(&mut self, visits: usize) -> Result<(), Overflow> {
        match self.budget.checked_sub(visits as u64) {
            Some(left) => self.budget = left,
            None => return Err(Overflow::TooManyWays),
        }
        Ok(())
    }

    /// The element on top of a stack; `None` at the end.
    pub fn top(&self, grammar: &Grammar, stack: u32) -> Option<Element> {
        (stack != DONE).then(|| grammar.element(self.nodes[stack as usize].position))
    }

    /// The stack with the place `position` on `below`, or `below` if an alternative ends there.
    fn push(&mut self, grammar: &Grammar, position: u32, below: u32) -> Result<u32, Overflow> {
        if grammar.element(position).is_end() {
            return Ok(below);
        }
        self.reserve()?;
        let mut place = self.home(position, below);
        loop {
            let number = self.table[place];
            if number == 0 {
                break;
            }
            let node = self.nodes[number as usize];
            if node.position == position && node.below == below {
                return Ok(number);
            }
            place = (place + 1) & (self.table.len() - 1);
        }
        let number = self.nodes.len() as u32;
        self.table[place] = number;
        self.nodes.push(Node { position, below });
        self.found_by.push(0);
        Ok(number)
    }

    /// The first place in the table for a node.
    fn home(&self, position: u32, below: u32) -> usize {
        let hash =
            (u64::from(position) << 32 | u64::from(below)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.table.len() - 1)
    }

    /// Makes room for one more node.
    fn reserve(&mut self) -> Result<(), Overflow> {
        if self.nodes.len() == self.nodes.capacity() {
            if self.nodes.len() >= MAX_NODES {
                return Err(Overflow::TooManyWays);
            }
            let more = self.nodes.len().max(64);
            self.nodes.try_reserve_exact(more).map_err(|_| Overflow::NoMemory)?;
            self.found_by.try_reserve_exact(more).map_err(|_| Overflow::NoMemory)?;
            let n = (2 * self.nodes.capacity()).next_power_of_two();
            let more = n - self.table.len();
            self.table.try_reserve_exact(more).map_err(|_| Overflow::NoMemory)?;
            self.table.resize(n, 0);
            self.fill_table();
        }
        Ok(())
    }

    fn fill_table(&mut self) {
        self.table.fill(0);
        for (number, Node { position, below }) in (0..).zip(&self.nodes).skip(1) {
            let mut place = self.home(*position, *below);
            while self.table[place] != 0 {
                place = (place + 1) & (self.table.len() - 1);
            }
            self.table[place] = number;
        }
    }

    /// Forgets all nodes but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        // The latest node is at the end of its chain in the table, so no other one is lost.
        while self.nodes.len() > n {
            let number = self.nodes.len() as u32 - 1;
            let Some(Node { position, below }) = self.nodes.pop() else { return };
            self.found_by.pop();
            let mut place = self.home(position, below);
            while self.table[place] != number {
                place = (place + 1) & (self.table.len() - 1);
            }
            self.table[place] = 0;
        }
    }

    /// Begins a search: each stack is found once in it.
    pub fn begin_search(&mut self) {
        self.search = match self.search.checked_add(1) {
            Some(search) => search,
            None => {
                self.found_by.fill(0);
                1
            }
        };
    }

    /// Adds to `found` the stacks of the start of the grammar.
    ///
    /// # Errors
    /// They are too many.
    pub fn find_start(&mut self, grammar: &Grammar, found: &mut Vec<u32>) -> Result<(), Overflow> {
        self.call(grammar, grammar.root, DONE)?;
        self.expand(grammar, found)
    }

    /// Adds to `found` the stacks behind the top element of a stack.
    ///
    /// # Errors
    /// They are too many.
    pub fn find_behind(
        &mut self,
        grammar: &Grammar,
        stack: u32,
        found: &mut Vec<u32>,
    ) -> Result<(), Overflow> {
        let Node { position, below } = self.nodes[stack as usize];
        let behind = self.push(grammar, position + 1, below)?;
        self.to_expand.push(behind);
        self.expand(grammar, found)
    }

    /// Notes the alternatives of a rule, on the stack `below`.
    fn call(&mut self, grammar: &Grammar, rule: u32, below: u32) -> Result<(), Overflow> {
        let mut position = grammar.rules[rule as usize];
        loop {
            let stack = self.push(grammar, position, below)?;
            if self.to_expand.len() >= MAX_NODES {
                return Err(Overflow::TooManyWays);
            }
            self.to_expand.push(stack);
            while !grammar.element(position).is_end() {
                position += 1;
            }
            if grammar.element(position) == Element::End {
                return Ok(());
            }
            position += 1;
        }
    }

    /// Replaces the rules on top of the noted stacks, until characters or tokens are there.
    fn expand(&mut self, grammar: &Grammar, found: &mut Vec<u32>) -> Result<(), Overflow> {
        let result = self.expand_noted(grammar, found);
        self.to_expand.clear();
        result
    }

    fn expand_noted(&mut self, grammar: &Grammar, found: &mut Vec<u32>) -> Result<(), Overflow> {
        while let Some(stack) = self.to_expand.pop() {
            self.spend(1)?;
            let found_by = &mut self.found_by[stack as usize];
            if *found_by == self.search {
                continue;
            }
            *found_by = self.search;
            match self.top(grammar, stack) {
                Some(Element::Rule(rule)) => {
                    let Node { position, below } = self.nodes[stack as usize];
                    let below = self.push(grammar, position + 1, below)?;
                    self.call(grammar, rule, below)?;
                }
                _ => {
                    found.try_reserve(1).map_err(|_| Overflow::NoMemory)?;
                    found.push(stack);
                }
            }
        }
        Ok(())
    }

    /// Forgets all nodes that the stacks `kept` do not need, and renumbers those.
    pub fn keep(&mut self, kept: &mut [u32]) {
        self.begin_search();
        for &stack in &*kept {
            self.found_by[stack as usize] = self.search;
        }
        for number in (1..self.nodes.len()).rev() {
            if self.found_by[number] == self.search {
                let below = self.nodes[number].below;
                self.found_by[below as usize] = self.search;
            }
        }
        // Each node is moved down. `found_by` then has the new number of each old one.
        let mut n = 1;
        for number in 1..self.nodes.len() {
            if self.found_by[number] == self.search {
                let Node { position, below } = self.nodes[number];
                let below = if below == DONE { DONE } else { self.found_by[below as usize] };
                self.nodes[n as usize] = Node { position, below };
                self.found_by[number] = n;
                n += 1;
            }
        }
        for stack in kept.iter_mut().filter(|stack| **stack != DONE) {
            *stack = self.found_by[*stack as usize];
        }
        self.nodes.truncate(n as usize);
        self.found_by.truncate(n as usize);
        self.found_by.fill(0);
        self.search = 0;
        self.fill_table();
    }
}
