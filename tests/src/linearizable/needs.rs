//! What answers still need of a version: after a step that takes it away for good, no order can be right.

use std::collections::BTreeMap;

use super::step::{State, Step};
use super::{Done, is_done};
use crate::history::{Action, Answer};

/// For each version, the steps that need something of it.
#[derive(Default)]
pub(super) struct Needs {
    /// That it is not deleted.
    live: BTreeMap<u64, Vec<usize>>,
    /// That it is current.
    here: BTreeMap<u64, Vec<usize>>,
    /// Those that may make it current again.
    back: BTreeMap<u64, Vec<usize>>,
}

impl Needs {
    pub(super) fn new(steps: &[Step<'_>]) -> Self {
        let mut needs = Self::default();
        for (number, step) in steps.iter().enumerate() {
            let (live, here) = match (step.operation.action, step.operation.answer()) {
                (Action::Get { version: None }, Some(Answer::Value { version, .. })) => (Some(version), Some(version)),
                (Action::Get { version: Some(_) }, Some(Answer::Value { version, .. })) => (Some(version), None),
                (Action::Get { version: None }, Some(Answer::Deleted { version })) => (None, Some(version)),
                (Action::Get { version: None }, Some(Answer::Absent)) => (None, Some(0)),
                (Action::Put { cas, .. }, Some(Answer::Written { .. })) => (None, cas),
                (Action::Promote { from, to }, Some(Answer::Done)) => ((from != to).then_some(to), Some(from)),
                _ => (None, None),
            };
            if let Some(version) = live {
                needs.live.entry(version).or_default().push(number);
            }
            if let Some(version) = here {
                needs.here.entry(version).or_default().push(number);
            }
            if let Action::Promote { from, to } = step.operation.action
                && from != to
                && step.operation.answer() != Some(Answer::Refused)
            {
                needs.back.entry(to).or_default().push(number);
            }
        }
        needs
    }

    /// Steps not done that need something of a version.
    pub(super) fn of(&self, version: u64, done: &Done) -> impl Iterator<Item = usize> {
        let steps = [&self.here, &self.live].into_iter().filter_map(move |by| by.get(&version));
        steps.flatten().copied().filter(|step| !is_done(done, *step))
    }

    /// Whether all answers can still come true after `step` leads from one state to another.
    pub(super) fn leaves_hope(&self, step: usize, before: &State, after: &State, done: &Done) -> bool {
        let wanted = |by: &BTreeMap<u64, Vec<usize>>, version: u64| {
            by.get(&version).is_some_and(|steps| steps.iter().any(|other| *other != step && !is_done(done, *other)))
        };
        let left = before.current != after.current;
        if left && wanted(&self.here, before.current) && !wanted(&self.back, before.current) {
            return false;
        }
        let deletes = before.deleted.len() != after.deleted.len();
        !(deletes && wanted(&self.live, before.current))
    }
}
