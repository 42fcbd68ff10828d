//! Whether a history is linearizable: is there one order of all operations, each between its call and its return,
//! in which every answer is what a single copy of the data would have said?
//!
//! The search is that of Wing and Gong with the memory of Lowe, secret by secret (a history is linearizable if it is for
//! each secret alone). It lifts operations out of a list of calls and returns one by one: any whose call stands before
//! the first return may be next. What was tried from the same state with the same operations done is not tried again.
//!
//! Some observations keep the search short; none changes its verdict:
//! - A number is given once and a value is of one write, so whoever saw a value in a version has told where that
//!   write belongs, also if it was never answered ([`Owners`]). The state needs no values.
//! - A read or a refusal that fits can be done at once: it never changes anything, so whatever order works without that
//!   works with it. (A deletion that would change nothing now may have changed something later.)
//! - An operation without an answer need not be done at all, and is not where it would change nothing.
//! - Of several that do the same and tell the same, the one that must be done first may stand for any.
//! - A step after which an answer can never come true is not taken: nothing is undeleted, and what is not current any
//!   more comes back by a promotion only ([`Needs`]).

mod needs;

mod step;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use crate::history::{Operation, Violation, by_key};
use crate::owners::Owners;
use needs::Needs;
use step::{Class, Effect, Number, State, Step};

/// Steps of the search for one secret. Histories of a thousand operations take a few thousand.
const STEPS_MAX: u64 = 5_000_000;
/// Operations shown of a secret whose history fits no order.
const SHOWN_MAX: usize = 12;

/// What the verdict is founded on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Operations with an answer.
    pub answered: usize,
    /// Writes without one.
    pub unknown: usize,
    /// Steps of the search.
    pub steps: u64,
}

/// Checks a history.
///
/// # Errors
/// The first secret whose operations fit no order, with what the longest order that does fit cannot go past.
pub fn check(history: &[Operation]) -> Result<Effort, Violation> {
    let mut sum = Effort::default();
    for operations in by_key(history).into_values() {
        let owners = Owners::of(&operations)?;
        let steps: Vec<Step> = operations.iter().filter_map(|operation| Step::of(operation, &owners)).collect();
        let mut search = Search::new(&steps);
        search.run()?;
        sum.answered += steps.iter().filter(|step| step.is_answered()).count();
        sum.unknown += steps.iter().filter(|step| !step.is_answered()).count();
        sum.steps += search.taken;
    }
    Ok(sum)
}

/// Which steps are done, one bit each.
type Done = Box<[u64]>;

/// A state on the way, and how the search came to it.
struct Node {
    state: State,
    /// The steps that led here from the node before, in their order.
    taken: Vec<usize>,
    /// Steps that may be next, the one to be tried first last.
    choices: Vec<(usize, State)>,
}

struct Search<'a> {
    steps: &'a [Step<'a>],
    owned: HashSet<u64>,
    needs: Needs,
    /// A doubly linked list of calls (`step`), returns (`steps + step`) and an end (`2 * steps`), in order of time.
    next: Vec<usize>,
    previous: Vec<usize>,
    done: Done,
    /// Steps with an answer that are not done.
    open: usize,
    seen: HashSet<(Done, State)>,
    /// Steps taken so far, also those taken back.
    taken: u64,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step<'a>]) -> Self {
        let count = steps.len();
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * count);
        for (number, step) in steps.iter().enumerate() {
            moments.push((step.operation.called, false, number));
            if step.is_answered() {
                // Calls before returns at the same moment: those overlap.
                moments.push((step.operation.returned, true, number));
            }
        }
        moments.sort_unstable();
        let end = 2 * count;
        let (mut next, mut previous, mut last) = (vec![end; end + 1], vec![end; end + 1], end);
        for (_, returns, number) in moments {
            let entry = if returns { count + number } else { number };
            (next[last], previous[entry], last) = (entry, last, entry);
        }
        (next[last], previous[end]) = (end, last);
        let known = |step: &Step<'_>| match step.number {
            Number::Known(number) => Some(number),
            Number::NotAmong => None,
        };
        Self {
            steps,
            owned: steps.iter().filter_map(known).collect(),
            needs: Needs::new(steps),
            next,
            previous,
            done: vec![0; count.div_ceil(64)].into(),
            open: steps.iter().filter(|step| step.is_answered()).count(),
            seen: HashSet::new(),
            taken: 0,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        // The least that was open, the state then, and which steps were done.
        let mut furthest = (usize::MAX, State::default(), self.done.clone());
        let mut path = vec![self.node(State::default(), Vec::new())];
        while self.open > 0 {
            let Some(node) = path.last_mut() else {
                return Err(self.misfit(&furthest, "no order of these operations explains their answers"));
            };
            if self.open < furthest.0 {
                furthest = (self.open, node.state.clone(), self.done.clone());
            }
            let Some((step, after)) = node.choices.pop() else {
                let taken = std::mem::take(&mut node.taken);
                taken.into_iter().rev().for_each(|step| self.put_back(step));
                path.pop();
                continue;
            };
            if self.taken > STEPS_MAX {
                return Err(self.misfit(&furthest, "undecided: the search was given up"));
            }
            self.lift(step);
            if self.seen.insert((self.done.clone(), after.clone())) {
                path.push(self.node(after, vec![step]));
            } else {
                self.put_back(step);
            }
        }
        Ok(())
    }

    /// Does all that never changes anything and fits `state`, and finds what may be next.
    fn node(&mut self, state: State, mut taken: Vec<usize>) -> Node {
        let (steps, end) = (self.steps, 2 * self.steps.len());
        let mut choices: Vec<(usize, State)> = Vec::new();
        let mut best: BTreeMap<Class, usize> = BTreeMap::new();
        let mut entry = self.next[end];
        // Up to the first return of a step that is not done.
        while entry < steps.len() {
            let passed = self.previous[entry];
            match steps[entry].effect(&state, &self.owned) {
                Effect::Nothing if steps[entry].is_answered() => {
                    self.lift(entry);
                    taken.push(entry);
                    entry = self.next[passed];
                    continue;
                }
                Effect::To(after) => match steps[entry].class().map(|class| best.entry(class)) {
                    Some(Entry::Occupied(place)) => {
                        let other = &mut choices[*place.get()];
                        if steps[entry].deadline() < steps[other.0].deadline() {
                            other.0 = entry;
                        }
                    }
                    Some(Entry::Vacant(place)) => {
                        place.insert(choices.len());
                        choices.push((entry, after));
                    }
                    None => choices.push((entry, after)),
                },
                Effect::Nothing | Effect::Misfit => {}
            }
            entry = self.next[entry];
        }
        choices.retain(|(step, after)| self.needs.leaves_hope(*step, &state, after, &self.done));
        // The one that was called first is tried first.
        choices.reverse();
        Node { state, taken, choices }
    }

    /// Takes a step's call and return out of the list.
    fn lift(&mut self, step: usize) {
        self.taken += 1;
        self.open -= usize::from(self.steps[step].is_answered());
        self.done[step / 64] |= 1 << (step % 64);
        for entry in self.entries(step) {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            (self.next[previous], self.previous[next]) = (next, previous);
        }
    }

    /// Undoes the last [`Search::lift`].
    fn put_back(&mut self, step: usize) {
        self.open += usize::from(self.steps[step].is_answered());
        self.done[step / 64] &= !(1 << (step % 64));
        for entry in self.entries(step).rev() {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            (self.next[previous], self.previous[next]) = (entry, entry);
        }
    }

    fn entries(&self, step: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let returns = self.steps[step].is_answered().then_some(self.steps.len() + step);
        [Some(step), returns].into_iter().flatten()
    }

    /// What the longest order that fits cannot go past: the operations that could be next, the one that must be soonest,
    /// and those that need what is current then.
    fn misfit(&self, (_, state, done): &(usize, State, Done), what: &str) -> Violation {
        let open = || self.steps.iter().enumerate().filter(|(number, _)| !is_done(done, *number)).map(|(_, step)| step);
        let first = open().filter(|step| step.is_answered()).min_by_key(|step| step.operation.returned);
        let Some(first) = first.map(|step| step.operation) else {
            return Violation { key: 0, why: what.to_owned(), evidence: Vec::new() };
        };
        let near = open().map(|step| step.operation).filter(|other| other.called <= first.returned && *other != first);
        let need = self.needs.of(state.current, done).map(|step| self.steps[step].operation);
        let mut evidence: Vec<Operation> = near.take(SHOWN_MAX).chain([first]).cloned().collect();
        for needing in need.take(SHOWN_MAX) {
            if !evidence.contains(needing) {
                evidence.push(needing.clone());
            }
        }
        let State { newest, current, deleted } = state;
        let why = format!(
            "{what}; newest {newest}, current {current}, deleted {deleted:?}, and none of these can be next, or the last ones come too late:"
        );
        Violation { key: first.key, why, evidence }
    }
}

fn is_done(done: &Done, step: usize) -> bool {
    done[step / 64] >> (step % 64) & 1 == 1
}

#[cfg(test)]
mod tests;
