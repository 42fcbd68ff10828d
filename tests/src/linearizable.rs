//! Whether a history is linearizable: is there one order of all operations, each between its call and its return,
//! in which every answer is what a single copy of the data would have said?
//!
//! The search is that of Wing and Gong with the memory of Lowe, secret by secret (a history is linearizable if it is for
//! each secret alone). It lifts operations out of a list of calls and returns one by one: any whose call stands before
//! the first return may be next. What was tried from the same state with the same operations done is not tried again.
//!
//! Four observations keep the search short; none changes its verdict:
//! - A number is given once and a value is of one write, so whoever saw a value in a version has told where that
//!   write belongs, also if it was never answered ([`Owners`]). The state needs no values.
//! - A read or a refusal that fits can be done at once: it never changes anything, so whatever order works without that
//!   works with it. (A deletion that would change nothing now may have changed something later.)
//! - An operation without an answer need not be done at all, and is not where it would change nothing.
//! - Of several without an answer that would do the same, the one called first may stand for any.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, Answer, Operation, Outcome, Violation, by_key};
use crate::owners::Owners;

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

/// A secret as far as answers depend on it. Numbers are given in turn, so the last one tells which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    newest: u64,
    /// 0: there is none.
    current: u64,
    /// In ascending order.
    deleted: Vec<u64>,
}

impl State {
    fn is_deleted(&self, version: u64) -> bool {
        self.deleted.binary_search(&version).is_ok()
    }
}

/// An operation as the search sees it.
struct Step<'a> {
    operation: &'a Operation,
    /// Of a put: the number its version has.
    number: Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Number {
    /// Somebody was told.
    Known(u64),
    /// Nobody was: one that is nobody else's.
    NotAmong,
}

/// What a step would do to a state.
enum Effect {
    /// It does not fit there.
    Misfit,
    /// It fits and changes nothing, whenever it is done; or it has no answer and would change nothing now.
    Nothing,
    /// It fits and leads here.
    To(State),
}

impl<'a> Step<'a> {
    /// Nothing, where the operation neither did nor tells anything.
    fn of(operation: &'a Operation, owners: &Owners) -> Option<Self> {
        match operation.outcome {
            Outcome::Failed => return None,
            Outcome::Unknown if !operation.is_write() => return None,
            Outcome::Unknown | Outcome::Answered(_) => {}
        }
        let number = match operation.action {
            Action::Put { value, .. } => owners.version_of(value).map_or(Number::NotAmong, Number::Known),
            Action::Get { .. } | Action::Delete | Action::Promote { .. } => Number::NotAmong,
        };
        Some(Self { operation, number })
    }

    fn is_answered(&self) -> bool {
        self.operation.answer().is_some()
    }

    fn effect(&self, state: &State, owned: &HashSet<u64>) -> Effect {
        match self.operation.action {
            Action::Put { cas, .. } => self.put(cas, state, owned),
            Action::Get { version } => self.get(version, state),
            Action::Delete => {
                let mut after = state.clone();
                match after.deleted.binary_search(&state.current) {
                    Err(place) if state.current > 0 => after.deleted.insert(place, state.current),
                    _ if self.is_answered() => {}
                    _ => return Effect::Nothing,
                }
                Effect::To(after)
            }
            Action::Promote { from, to } => self.promote(from, to, state),
        }
    }

    fn put(&self, cas: Option<u64>, state: &State, owned: &HashSet<u64>) -> Effect {
        let expected = cas.is_none_or(|cas| cas == state.current);
        let next = state.newest + 1;
        match self.operation.answer() {
            Some(Answer::Refused) if expected => return Effect::Misfit,
            Some(Answer::Refused) => return Effect::Nothing,
            None if !expected => return Effect::Nothing,
            _ if !expected => return Effect::Misfit,
            _ => {}
        }
        match self.number {
            Number::Known(number) if number != next => return Effect::Misfit,
            Number::NotAmong if owned.contains(&next) => return Effect::Misfit,
            Number::Known(_) | Number::NotAmong => {}
        }
        Effect::To(State { newest: next, current: next, deleted: state.deleted.clone() })
    }

    fn get(&self, asked: Option<u64>, state: &State) -> Effect {
        let number = asked.unwrap_or(state.current);
        let there = (1..=state.newest).contains(&number);
        let fits = match self.operation.answer() {
            Some(Answer::Value { version, .. }) => there && version == number && !state.is_deleted(number),
            Some(Answer::Deleted { version }) => there && version == number && state.is_deleted(number),
            Some(Answer::Absent) => !there,
            Some(Answer::Written { .. } | Answer::Done | Answer::Refused) | None => false,
        };
        if fits { Effect::Nothing } else { Effect::Misfit }
    }

    fn promote(&self, from: u64, to: u64, state: &State) -> Effect {
        let there = (1..=state.newest).contains(&to);
        let possible = from == state.current && there && (to == state.current || !state.is_deleted(to));
        match self.operation.answer() {
            Some(Answer::Refused) if possible => Effect::Misfit,
            Some(Answer::Refused) => Effect::Nothing,
            Some(_) if !possible => Effect::Misfit,
            None if !possible || to == state.current => Effect::Nothing,
            Some(_) | None => Effect::To(State { current: to, ..state.clone() }),
        }
    }
}

/// Which steps are done, one bit each.
type Done = Box<[u64]>;

/// Steps that may be next: those whose calls stand before the first return of one that is not done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    /// For one that never changes anything.
    Still,
    /// For one that may.
    Moving,
}

/// A step that was taken: what to go back to.
struct Taken {
    step: usize,
    /// The state before, if it was one that may change it.
    before: Option<State>,
}

struct Search<'a> {
    steps: &'a [Step<'a>],
    owned: HashSet<u64>,
    /// For each step without an answer, the one called last before it that would do the same.
    twins: Vec<Option<usize>>,
    /// A doubly linked list of calls (`step`), returns (`steps + step`) and an end (`2 * steps`), in order of time.
    next: Vec<usize>,
    previous: Vec<usize>,
    done: Done,
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
            twins: twins(steps),
            next,
            previous,
            done: vec![0; count.div_ceil(64)].into(),
            seen: HashSet::new(),
            taken: 0,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let steps = self.steps;
        let (count, end) = (steps.len(), 2 * steps.len());
        let mut open = steps.iter().filter(|step| step.is_answered()).count();
        let mut state = State::default();
        let mut path: Vec<Taken> = Vec::new();
        // The least that was open, the state then, and which steps were done.
        let mut furthest = (open, state.clone(), self.done.clone());
        let (mut looking, mut entry) = (Looking::Still, self.next[end]);
        while open > 0 {
            if entry < count {
                let (step, at) = (&steps[entry], entry);
                entry = self.next[at];
                let after = match (step.effect(&state, &self.owned), looking) {
                    (Effect::Nothing, Looking::Still) if step.is_answered() => None,
                    (Effect::To(after), Looking::Moving) if self.is_new(at, &after) => Some(after),
                    _ => continue,
                };
                self.taken += 1;
                if self.taken > STEPS_MAX {
                    return Err(self.misfit(&furthest, "undecided: the search was given up"));
                }
                let passed = self.previous[at];
                self.lift(at);
                open -= usize::from(step.is_answered());
                let before = after.map(|after| std::mem::replace(&mut state, after));
                // After a step that changed nothing, those passed over before it still do not fit.
                entry = self.next[if before.is_some() { end } else { passed }];
                looking = Looking::Still;
                path.push(Taken { step: at, before });
                if open < furthest.0 {
                    furthest = (open, state.clone(), self.done.clone());
                }
                continue;
            }
            if looking == Looking::Still {
                (looking, entry) = (Looking::Moving, self.next[end]);
                continue;
            }
            // Nothing more can be next. Back to the last step for which there may be another.
            loop {
                let Some(Taken { step, before }) = path.pop() else {
                    return Err(self.misfit(&furthest, "no order of these operations explains their answers"));
                };
                self.put_back(step);
                open += usize::from(steps[step].is_answered());
                if let Some(before) = before {
                    (state, entry) = (before, self.next[step]);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether a step that leads to `after` may be taken and was not taken from here before.
    fn is_new(&mut self, step: usize, after: &State) -> bool {
        if self.twins[step].is_some_and(|twin| !self.is_done(twin)) {
            return false;
        }
        let mut done = self.done.clone();
        done[step / 64] |= 1 << (step % 64);
        self.seen.insert((done, after.clone()))
    }

    fn is_done(&self, step: usize) -> bool {
        is_set(&self.done, step)
    }

    /// Takes a step's call and return out of the list.
    fn lift(&mut self, step: usize) {
        self.done[step / 64] |= 1 << (step % 64);
        for entry in self.entries(step) {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            (self.next[previous], self.previous[next]) = (next, previous);
        }
    }

    /// Undoes the last [`Search::lift`].
    fn put_back(&mut self, step: usize) {
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

    /// What the longest order that fits cannot go past: the operations that could be next, the one that had to be last.
    fn misfit(&self, (_, state, done): &(usize, State, Done), what: &str) -> Violation {
        let open = || self.steps.iter().enumerate().filter(|(number, _)| !is_set(done, *number)).map(|(_, step)| step);
        let first = open().filter(|step| step.is_answered()).min_by_key(|step| step.operation.returned);
        let Some(first) = first.map(|step| step.operation) else {
            return Violation { key: 0, why: what.to_owned(), evidence: Vec::new() };
        };
        let near = open().map(|step| step.operation).filter(|other| other.called <= first.returned && *other != first);
        let evidence = near.take(SHOWN_MAX).chain([first]).cloned().collect();
        let State { newest, current, deleted } = state;
        let why =
            format!("{what}; newest {newest}, current {current}, deleted {deleted:?}, and none of these can be next:");
        Violation { key: first.key, why, evidence }
    }
}

fn is_set(done: &Done, step: usize) -> bool {
    done[step / 64] >> (step % 64) & 1 == 1
}

/// See [`Search::twins`]. Steps come in the order of their calls.
fn twins(steps: &[Step<'_>]) -> Vec<Option<usize>> {
    let mut last: BTreeMap<(Action, Number), usize> = BTreeMap::new();
    let twin = |(number, step): (usize, &Step<'_>)| {
        let action = match step.operation.action {
            // Nobody saw the value: it might be any.
            Action::Put { cas, .. } if step.number == Number::NotAmong => Action::Put { value: 0, cas },
            action => action,
        };
        if step.is_answered() { None } else { last.insert((action, step.number), number) }
    };
    steps.iter().enumerate().map(twin).collect()
}

#[cfg(test)]
mod tests;
