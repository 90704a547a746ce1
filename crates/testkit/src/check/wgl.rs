//! Wing and Gong's search with Lowe's memory, as in Porcupine: try every order that respects real time, never the same
//! (set of operations done, register) twice.
//!
//! Operations with a definite refusal did not happen and are left out before. Operations of unknown fate have a call
//! and no return: they may be put anywhere after their call, or nowhere. The search is won when all that is left are
//! such operations.

use std::collections::HashSet;
use std::time::Instant;

use super::bits::Bits;
use super::register::Register;
use super::{Verdict, Violation};
use crate::history::{Action, Ending, Operation};

/// How many operations of the longest order a violation shows.
const SHOWN: usize = 12;
/// Steps between two looks at the clock.
const STEPS_PER_CLOCK: u64 = 1024;

/// Checks the operations on one key.
pub fn check(key: &str, operations: &[Operation], deadline: Instant) -> Verdict {
    let operations: Vec<&Operation> = operations.iter().filter(|operation| matters(operation)).collect();
    match Search::new(&operations).run(deadline) {
        Found::Order => Verdict::Correct,
        Found::OutOfTime => Verdict::Unknown { key: key.to_owned() },
        Found::None { worked, stuck } => Verdict::Violation(Box::new(Violation {
            key: key.to_owned(),
            message: "what clients saw is not linearizable".to_owned(),
            worked: worked.iter().rev().take(SHOWN).rev().map(|&op| operations[op].clone()).collect(),
            stuck: stuck.iter().map(|&op| operations[op].clone()).collect(),
        })),
    }
}

/// Whether the operation can have told or changed anything.
fn matters(operation: &Operation) -> bool {
    match (operation.action, operation.ending()) {
        (_, Ending::Refused) | (Action::Read, Ending::Unknown) => false,
        (_, Ending::Answered(_) | Ending::Unknown) => true,
    }
}

enum Found {
    Order,
    OutOfTime,
    /// The longest order, and the operations that were open when it could not go on.
    None {
        worked: Vec<usize>,
        stuck: Vec<usize>,
    },
}

/// A call or a return, in a doubly linked list ordered by time.
struct Event {
    operation: usize,
    /// For a call: where its return stands, if it returned.
    returns: Option<usize>,
    is_call: bool,
    before: usize,
    after: usize,
}

/// Place of the list's head; also stands for its end.
const HEAD: usize = 0;

struct Search<'a> {
    operations: &'a [&'a Operation],
    events: Vec<Event>,
    done: Bits,
    register: Register,
    /// Calls taken, and the register before each.
    taken: Vec<(usize, Register)>,
    seen: HashSet<(Bits, Register)>,
    longest: Vec<usize>,
    stuck: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        Self {
            operations,
            events: link(operations),
            done: Bits::new(operations.len()),
            register: Register::EMPTY,
            taken: Vec::new(),
            seen: HashSet::new(),
            longest: Vec::new(),
            stuck: Vec::new(),
        }
    }

    fn run(mut self, deadline: Instant) -> Found {
        let mut at = self.events[HEAD].after;
        let mut steps = 0u64;
        while at != HEAD {
            steps += 1;
            if steps.is_multiple_of(STEPS_PER_CLOCK) && Instant::now() >= deadline {
                return Found::OutOfTime;
            }
            if self.events[at].is_call {
                at = if self.take(at) { self.events[HEAD].after } else { self.events[at].after };
                continue;
            }
            // An operation has returned that is not in the order yet: what was taken last was wrong.
            self.note_longest(at);
            match self.give_back() {
                Some(call) => at = self.events[call].after,
                None => return Found::None { worked: self.longest, stuck: self.stuck },
            }
        }
        Found::Order
    }

    /// Puts the operation next in the order, if it can stand there and this is news.
    fn take(&mut self, call: usize) -> bool {
        let number = self.events[call].operation;
        let operation = self.operations[number];
        let Some(register) = self.register.step(operation.action, &operation.ending()) else { return false };
        self.done.insert(number);
        if !self.seen.insert((self.done.clone(), register)) {
            self.done.remove(number);
            return false;
        }
        self.taken.push((call, self.register));
        self.register = register;
        self.unlink(call);
        if let Some(returns) = self.events[call].returns {
            self.unlink(returns);
        }
        true
    }

    /// Takes the last operation out of the order again; `None` if the order is empty.
    fn give_back(&mut self) -> Option<usize> {
        let (call, register) = self.taken.pop()?;
        self.register = register;
        self.done.remove(self.events[call].operation);
        if let Some(returns) = self.events[call].returns {
            self.relink(returns);
        }
        self.relink(call);
        Some(call)
    }

    fn note_longest(&mut self, returned: usize) {
        if self.taken.len() < self.longest.len() || (!self.stuck.is_empty() && self.taken.len() == self.longest.len()) {
            return;
        }
        self.longest = self.taken.iter().map(|(call, _)| self.events[*call].operation).collect();
        self.stuck.clear();
        let mut at = self.events[HEAD].after;
        while at != returned {
            self.stuck.push(self.events[at].operation);
            at = self.events[at].after;
        }
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.events[at].before, self.events[at].after);
        self.events[before].after = after;
        self.events[after].before = before;
    }

    fn relink(&mut self, at: usize) {
        let (before, after) = (self.events[at].before, self.events[at].after);
        self.events[before].after = at;
        self.events[after].before = at;
    }
}

/// The list of events, with the head at its start.
fn link(operations: &[&Operation]) -> Vec<Event> {
    let mut order: Vec<(u64, usize, bool)> = Vec::with_capacity(operations.len() * 2);
    for (number, operation) in operations.iter().enumerate() {
        order.push((operation.called, number, true));
        if let (Some(returned), Ending::Answered(_)) = (operation.returned, operation.ending()) {
            order.push((returned, number, false));
        }
    }
    order.sort_unstable_by_key(|&(time, number, is_call)| (time, !is_call, number));
    let mut events = vec![Event { operation: usize::MAX, returns: None, is_call: false, before: HEAD, after: HEAD }];
    let mut calls = vec![HEAD; operations.len()];
    for (_, number, is_call) in order {
        let at = events.len();
        if is_call {
            calls[number] = at;
        } else {
            events[calls[number]].returns = Some(at);
        }
        events[at - 1].after = at;
        events.push(Event { operation: number, returns: None, is_call, before: at - 1, after: HEAD });
    }
    events[HEAD].before = events.len() - 1;
    events
}

#[cfg(test)]
mod tests;
