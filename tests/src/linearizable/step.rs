//! One operation as the search sees it: what it would do to a state, and whether its answer fits there.

use std::collections::HashSet;

use crate::history::{Action, Answer, Operation, Outcome};
use crate::owners::Owners;

/// A secret as far as answers depend on it. Numbers are given in turn, so the last one tells which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// 0: there is none.
    pub(super) newest: u64,
    /// 0: there is none.
    pub(super) current: u64,
    /// In ascending order.
    pub(super) deleted: Vec<u64>,
}

impl State {
    pub(super) fn is_deleted(&self, version: u64) -> bool {
        self.deleted.binary_search(&version).is_ok()
    }
}

/// An operation as the search sees it.
pub(super) struct Step<'a> {
    pub(super) operation: &'a Operation,
    /// Of a put: the number its version has.
    pub(super) number: Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Number {
    /// Somebody was told.
    Known(u64),
    /// Nobody was: one that is nobody else's.
    NotAmong,
}

/// See [`Step::class`].
pub(super) type Class = Action;

/// What a step would do to a state.
pub(super) enum Effect {
    /// It does not fit there.
    Misfit,
    /// It fits and changes nothing, whenever it is done; or it has no answer and would change nothing now.
    Nothing,
    /// It fits and leads here.
    To(State),
}

impl<'a> Step<'a> {
    /// Nothing, where the operation neither did nor tells anything.
    pub(super) fn of(operation: &'a Operation, owners: &Owners) -> Option<Self> {
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

    pub(super) fn is_answered(&self) -> bool {
        self.operation.answer().is_some()
    }

    /// What it would do to `state`; `owned` are the numbers of which the write is known.
    pub(super) fn effect(&self, state: &State, owned: &HashSet<u64>) -> Effect {
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

    /// Steps of one class do the same and tell the same, whenever they are done; `None`: there is no other of its class.
    pub(super) fn class(&self) -> Option<Class> {
        let action = match (self.operation.action, self.number) {
            // Nobody saw the value: it might be any.
            (Action::Put { cas, .. }, Number::NotAmong) => Action::Put { value: 0, cas },
            (Action::Put { .. } | Action::Get { .. }, _) => return None,
            (action, _) => action,
        };
        (self.operation.answer() != Some(Answer::Refused)).then_some(action)
    }

    /// When it must be done; never, if it has no answer.
    pub(super) fn deadline(&self) -> u64 {
        if self.is_answered() { self.operation.returned } else { u64::MAX }
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
