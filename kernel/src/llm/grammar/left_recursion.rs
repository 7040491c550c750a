//! Refuses rules that call themselves before any character.

use alloc::vec;
use alloc::vec::Vec;

use super::{Element, Grammar, GrammarError};

/// What is known of a rule.
#[derive(Clone, Copy, Default)]
struct Known {
    is_in_progress: bool,
    is_done: bool,
    /// Whether an alternative is empty.
    has_empty: bool,
}

/// A rule whose first elements are being followed.
struct Visit {
    rule: u32,
    /// The next element.
    at: usize,
    /// Whether only rules with empty alternatives stand before.
    is_at_start: bool,
}

/// Refuses left recursion, as llama.cpp does.
///
/// A rule that is empty only by the rules it calls does not count as empty. Such a recursion shows
/// when the stacks grow without end.
///
/// # Errors
/// A rule calls itself at its start.
pub fn check(grammar: &Grammar, text: &str) -> Result<(), GrammarError> {
    let mut known = vec![Known::default(); grammar.rules.len()];
    for rule in 0..grammar.rules.len() as u32 {
        if !known[rule as usize].is_done && recurses(grammar, rule, &mut known) {
            let problem = "a rule calls itself before any character (left recursion)";
            return Err(GrammarError::at(text, 0, problem));
        }
    }
    Ok(())
}

/// Whether a rule, or one at the start of it, calls itself at its start.
fn recurses(grammar: &Grammar, rule: u32, known: &mut [Known]) -> bool {
    let mut visits = Vec::new();
    enter(grammar, rule, known, &mut visits);
    while let Some(visit) = visits.last_mut() {
        let element = grammar.elements[visit.at];
        match element {
            Element::Rule(called) if visit.is_at_start => {
                let called = &known[called as usize];
                if called.is_in_progress {
                    return true;
                }
                if !called.is_done {
                    // This element is looked at again behind that rule.
                    let Element::Rule(called) = element else { return false };
                    enter(grammar, called, known, &mut visits);
                    continue;
                }
                visit.is_at_start = called.has_empty;
            }
            Element::Or => visit.is_at_start = true,
            Element::End => {
                let known = &mut known[visit.rule as usize];
                (known.is_in_progress, known.is_done) = (false, true);
                visits.pop();
                continue;
            }
            _ => visit.is_at_start = false,
        }
        visit.at += 1;
    }
    false
}

fn enter(grammar: &Grammar, rule: u32, known: &mut [Known], visits: &mut Vec<Visit>) {
    let start = grammar.rules[rule as usize] as usize;
    let mut before = Element::Or;
    let mut has_empty = false;
    for &element in &grammar.elements[start..] {
        has_empty |= element.is_end() && before == Element::Or;
        before = element;
        if element == Element::End {
            break;
        }
    }
    known[rule as usize] = Known { is_in_progress: true, is_done: false, has_empty };
    visits.push(Visit { rule, at: start, is_at_start: true });
}
