//! Histories made by hand, and the search held against a slow one that tries every order.

use std::time::{Duration, Instant};

use super::*;
use crate::history::{Action, Answer, Outcome};
use crate::order;
use crate::suite::Chance;

/// Client, from, to, what, what came.
type Row = (u32, u64, u64, Action, Outcome);

const READ: Action = Action::Get { version: None };
const DONE: Outcome = Outcome::Answered(Answer::Done);
const REFUSED: Outcome = Outcome::Answered(Answer::Refused);
const ABSENT: Outcome = Outcome::Answered(Answer::Absent);
const UNKNOWN: Outcome = Outcome::Unknown;

const fn put(value: u64) -> Action {
    Action::Put { value, cas: None }
}
const fn cas(cas: u64, value: u64) -> Action {
    Action::Put { value, cas: Some(cas) }
}
const fn promote(from: u64, to: u64) -> Action {
    Action::Promote { from, to }
}
const fn written(version: u64) -> Outcome {
    Outcome::Answered(Answer::Written { version })
}
const fn value(version: u64, value: u64) -> Outcome {
    Outcome::Answered(Answer::Value { version, value })
}
const fn deleted(version: u64) -> Outcome {
    Outcome::Answered(Answer::Deleted { version })
}

fn history(rows: &[Row]) -> Vec<Operation> {
    let operation = |&(client, called, returned, action, outcome): &Row| Operation {
        client,
        key: 0,
        called,
        returned,
        action,
        outcome,
    };
    rows.iter().map(operation).collect()
}

#[test]
fn histories_of_one_copy_are_accepted() {
    let cases: &[(&str, &[Row])] = &[
        ("nothing", &[]),
        ("one after the other", &[(0, 0, 1, put(7), written(1)), (1, 2, 3, READ, value(1, 7))]),
        ("a read during the write sees it", &[(0, 0, 9, put(7), written(1)), (1, 2, 3, READ, value(1, 7))]),
        ("a read during the write does not", &[(0, 0, 9, put(7), written(1)), (1, 2, 3, READ, ABSENT)]),
        (
            "two reads during the write, in this order",
            &[(0, 0, 9, put(7), written(1)), (1, 2, 3, READ, ABSENT), (1, 4, 5, READ, value(1, 7))],
        ),
        ("overlapping writes the other way round", &[(0, 0, 9, put(7), written(2)), (1, 2, 3, put(8), written(1))]),
        (
            "one of two that expect the same",
            &[(0, 0, 1, put(7), written(1)), (1, 2, 5, cas(1, 8), written(2)), (2, 3, 4, cas(1, 9), REFUSED)],
        ),
        (
            "a write without an answer that took effect late",
            &[(0, 0, 1, put(7), UNKNOWN), (1, 2, 3, READ, ABSENT), (1, 4, 5, READ, value(1, 7))],
        ),
        (
            "a write without an answer that never did",
            &[(0, 0, 1, put(7), UNKNOWN), (1, 2, 3, put(8), written(1)), (1, 4, 5, READ, value(1, 8))],
        ),
        (
            "a deletion without an answer between two reads",
            &[
                (0, 0, 1, put(7), written(1)),
                (1, 2, 3, Action::Delete, UNKNOWN),
                (0, 4, 5, READ, value(1, 7)),
                (0, 6, 7, READ, deleted(1)),
            ],
        ),
        (
            "back and forth",
            &[
                (0, 0, 1, put(7), written(1)),
                (0, 2, 3, put(8), written(2)),
                (0, 4, 5, promote(2, 1), DONE),
                (1, 6, 7, READ, value(1, 7)),
                (1, 8, 9, cas(2, 9), REFUSED),
                (1, 10, 11, cas(1, 10), written(3)),
                (1, 12, 13, promote(1, 2), REFUSED),
                (1, 14, 15, Action::Get { version: Some(2) }, value(2, 8)),
            ],
        ),
        (
            "a deleted version is not promoted",
            &[
                (0, 0, 1, put(7), written(1)),
                (0, 2, 3, Action::Delete, DONE),
                (0, 4, 5, put(8), written(2)),
                (0, 6, 7, promote(2, 1), REFUSED),
                (0, 8, 9, Action::Get { version: Some(1) }, deleted(1)),
            ],
        ),
        ("deleting nothing", &[(0, 0, 1, Action::Delete, DONE), (0, 2, 3, READ, ABSENT)]),
    ];
    for (name, rows) in cases {
        let history = history(rows);
        assert_eq!(order::check(&history).map_err(|violation| violation.to_string()), Ok(()), "{name}");
        check(&history).unwrap_or_else(|violation| panic!("{name}: {violation}"));
        assert!(slow::accepts(&history), "{name}");
    }
}

#[test]
fn histories_of_no_copy_are_refused() {
    let two: [Row; 2] = [(0, 0, 1, put(7), written(1)), (0, 2, 3, put(8), written(2))];
    let cases: &[(&str, &[Row])] = &[
        ("a stale read", &[two[0], two[1], (1, 4, 5, READ, value(1, 7))]),
        ("a lost write", &[two[0], (1, 2, 3, READ, ABSENT)]),
        ("a lost write, and its number given again", &[two[0], (1, 2, 3, put(8), written(1))]),
        (
            "two who expected the same, and both succeeded",
            &[two[0], (1, 2, 5, cas(1, 8), written(2)), (2, 3, 4, cas(1, 9), written(3))],
        ),
        ("an expectation that was right, refused", &[two[0], (1, 2, 3, cas(1, 8), REFUSED)]),
        ("a value that nobody wrote", &[two[0], (1, 2, 3, READ, value(1, 9))]),
        ("a value from the future", &[(0, 4, 5, put(7), written(1)), (1, 2, 3, READ, value(1, 7))]),
        ("seen, and then not", &[(0, 0, 9, put(7), written(1)), (1, 2, 3, READ, value(1, 7)), (1, 4, 5, READ, ABSENT)]),
        (
            "seen, then not, without an answer",
            &[(0, 0, 1, put(7), UNKNOWN), (1, 2, 3, READ, value(1, 7)), (1, 4, 5, READ, ABSENT)],
        ),
        (
            "resurrected: superseded before it was ever seen",
            &[
                (0, 0, 1, put(7), UNKNOWN),
                (1, 2, 3, put(8), written(2)),
                (1, 4, 5, READ, value(2, 8)),
                (1, 6, 7, READ, value(1, 7)),
            ],
        ),
        ("a deletion that did not last", &[two[0], (1, 2, 3, Action::Delete, DONE), (1, 4, 5, READ, value(1, 7))]),
        ("deleted by nobody", &[two[0], (1, 4, 5, READ, deleted(1))]),
        (
            "two promotions from the same, and both succeeded",
            &[
                two[0],
                two[1],
                (0, 4, 5, put(9), written(3)),
                (0, 6, 9, promote(3, 1), DONE),
                (1, 6, 9, promote(3, 2), DONE),
            ],
        ),
        (
            "a promotion that did not last",
            &[two[0], two[1], (0, 4, 5, promote(2, 1), DONE), (0, 6, 7, READ, value(2, 8))],
        ),
        ("a number left out", &[two[0], (0, 2, 3, put(8), written(3))]),
        ("one write without an answer, two gaps", &[two[0], (0, 2, 3, put(8), UNKNOWN), (0, 4, 5, put(9), written(4))]),
    ];
    for (name, rows) in cases {
        let history = history(rows);
        assert!(check(&history).is_err(), "{name} is accepted");
        assert!(!slow::accepts(&history), "{name}: the slow search accepts it");
    }
}

#[test]
fn what_the_search_cannot_go_past_is_shown() {
    let rows = [(0, 0, 1, put(7), written(1)), (0, 2, 3, put(8), written(2)), (1, 4, 5, READ, value(1, 7))];
    let violation = check(&history(&rows)).unwrap_err();
    assert_eq!(violation.evidence, history(&rows[1..]));
    assert!(violation.to_string().contains("newest 1, current 1, deleted []"), "{violation}");
}

#[test]
fn small_histories_get_the_verdict_of_the_slow_search() {
    let mut chance = Chance::announced("linearizable, small");
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let mut history = Execution { operations: 2 + chance.below(6), keys: 1, overlap: 4, lost: 5 }.run(&mut chance);
        for _ in 0..chance.below(3) {
            disturb(&mut history, &mut chance);
        }
        let (fast, slow) = (check(&history), slow::accepts(&history));
        assert_eq!(fast.is_ok(), slow, "{fast:?}\n{history:#?}");
        if fast.is_ok() {
            assert!(order::check(&history).is_ok(), "{:?}\n{history:#?}", order::check(&history));
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    eprintln!("linearizable: {accepted} small histories accepted, {refused} refused, as by trying every order");
    assert!(accepted > 3_000 && refused > 3_000);
}

#[test]
fn large_executions_are_accepted_and_broken_ones_refused_in_no_time() {
    const HISTORIES: u32 = 60;
    let mut chance = Chance::announced("linearizable, large");
    let (mut slowest, mut spent, mut steps, mut refused) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for _ in 0..HISTORIES {
        let execution = Execution { operations: 2000, keys: 10, overlap: 12, lost: 2 };
        let history = execution.run(&mut chance);
        let start = Instant::now();
        order::check(&history).unwrap_or_else(|violation| panic!("{violation}"));
        let effort = check(&history).unwrap_or_else(|violation| panic!("{violation}"));
        slowest = slowest.max(start.elapsed());
        spent += start.elapsed();
        steps += effort.steps;
        for broken in [stale(&history, &mut chance), unwritten(&history, &mut chance), doubled(&history, &mut chance)] {
            let Some(broken) = broken else { continue };
            assert!(check(&broken).is_err(), "a broken history is accepted");
            refused += 1;
        }
    }
    eprintln!(
        "linearizable: {HISTORIES} histories of 2000 operations in {spent:?}, the slowest in {slowest:?}, {steps} steps; {refused} broken ones refused"
    );
    assert!(refused > HISTORIES, "few histories could be broken");
    assert!(spent < Duration::from_secs(60), "{spent:?}");
}

/// A run of one copy, with calls and returns spread around the moment at which each operation took effect.
struct Execution {
    operations: u64,
    keys: u64,
    /// How many others an operation overlaps on average, more or less.
    overlap: u64,
    /// Of a hundred operations, how many have no answer, and how many failed.
    lost: u64,
}

impl Execution {
    fn run(&self, chance: &mut Chance) -> Vec<Operation> {
        let mut copies = vec![slow::Copy::default(); self.keys as usize];
        let mut history = Vec::new();
        for number in 0..self.operations {
            let key = chance.below(self.keys);
            let copy = &mut copies[key as usize];
            let action = action(number + 1, copy, chance);
            let moment = (number + self.overlap) * 10 + 5;
            let spread = |chance: &mut Chance| chance.below(self.overlap * 10);
            let (called, returned) = (moment - spread(chance), moment + spread(chance));
            let fate = chance.below(100);
            let outcome = if fate < self.lost {
                if chance.below(2) == 0 {
                    copy.act(action);
                }
                Outcome::Unknown
            } else if fate < 2 * self.lost {
                Outcome::Failed
            } else {
                Outcome::Answered(copy.act(action))
            };
            history.push(Operation { client: number as u32 % 8, key: key as u32, called, returned, action, outcome });
        }
        history
    }
}

fn action(value: u64, copy: &slow::Copy, chance: &mut Chance) -> Action {
    let any = |chance: &mut Chance| chance.below(copy.versions.len() as u64 + 1);
    // Now and then an expectation that is wrong.
    let current = |chance: &mut Chance| if chance.below(3) == 0 { any(chance) } else { copy.current };
    match chance.below(10) {
        0..3 => Action::Get { version: None },
        3 => Action::Get { version: Some(1 + any(chance)) },
        4..6 => Action::Put { value, cas: None },
        6..8 => Action::Put { value, cas: Some(current(chance)) },
        8 => Action::Delete,
        _ => Action::Promote { from: current(chance), to: any(chance) },
    }
}

/// Some answer becomes another, or some operation moves.
fn disturb(history: &mut [Operation], chance: &mut Chance) {
    let values = history.len() as u64 + 1;
    let at = chance.below(history.len() as u64) as usize;
    let operation = &mut history[at];
    let number = 1 + chance.below(4);
    let Outcome::Answered(answer) = &mut operation.outcome else { return };
    match (chance.below(3), answer) {
        (0, _) => {
            let length = operation.returned - operation.called;
            operation.called = chance.below(values * 10);
            operation.returned = operation.called + length;
        }
        (_, Answer::Written { version }) => *version = number,
        (_, answer @ (Answer::Done | Answer::Refused)) => {
            *answer = if *answer == Answer::Done { Answer::Refused } else { Answer::Done };
            if matches!(operation.action, Action::Put { .. }) {
                *answer = Answer::Written { version: number };
            } else if operation.action == Action::Delete {
                *answer = Answer::Done;
            }
        }
        (1, answer) => *answer = Answer::Value { version: number, value: chance.below(values) },
        (_, answer) => *answer = if number == 1 { Answer::Absent } else { Answer::Deleted { version: number - 1 } },
    }
}

/// A read by number that did not find what somebody had been told of before; or a write after which the number rises
/// that somebody had been told of.
fn stale(history: &[Operation], chance: &mut Chance) -> Option<Vec<Operation>> {
    let told: Vec<_> =
        history.iter().filter(|operation| matches!(operation.answer(), Some(Answer::Written { .. }))).collect();
    let early = told[chance.below(told.len() as u64) as usize];
    let Some(Answer::Written { version }) = early.answer() else { return None };
    let mut history = history.to_vec();
    let late = history.iter_mut().find(|later| {
        later.key == early.key
            && later.called > early.returned
            && matches!(later.action, Action::Get { .. })
            && later.answer().is_some()
    })?;
    late.action = Action::Get { version: Some(version) };
    late.outcome = Outcome::Answered(Answer::Absent);
    Some(history)
}

/// A value that was read was written by nobody.
fn unwritten(history: &[Operation], chance: &mut Chance) -> Option<Vec<Operation>> {
    let read: Vec<_> = history
        .iter()
        .filter_map(|operation| match operation.answer() {
            Some(Answer::Value { value, .. }) => Some(value),
            _ => None,
        })
        .collect();
    let lost = read[chance.below(read.len() as u64) as usize];
    let others =
        history.iter().filter(|operation| !matches!(operation.action, Action::Put { value, .. } if value == lost));
    Some(others.cloned().collect())
}

/// A write that was refused is said to have made a version that another one made.
fn doubled(history: &[Operation], chance: &mut Chance) -> Option<Vec<Operation>> {
    let mut history = history.to_vec();
    let puts = |operation: &&mut Operation| matches!(operation.action, Action::Put { .. });
    let refused = history.iter_mut().filter(puts).find(|operation| operation.answer() == Some(Answer::Refused))?;
    let (key, version) = (refused.key, 1 + chance.below(3));
    refused.outcome = written(version);
    let made = |other: &Operation| other.key == key && other.outcome == written(version);
    (history.iter().filter(|other| made(other)).count() > 1).then_some(history)
}

/// The same question answered by trying every order, on a copy that holds values.
mod slow {
    use crate::history::{Action, Answer, Operation, Outcome};

    /// A secret.
    #[derive(Clone, Default)]
    pub(super) struct Copy {
        /// Values, and whether they are deleted.
        pub(super) versions: Vec<(u64, bool)>,
        pub(super) current: u64,
    }

    impl Copy {
        pub(super) fn act(&mut self, action: Action) -> Answer {
            let at = |number: u64| (number as usize).checked_sub(1);
            match action {
                Action::Put { cas, .. } if cas.is_some_and(|cas| cas != self.current) => Answer::Refused,
                Action::Put { value, .. } => {
                    self.versions.push((value, false));
                    self.current = self.versions.len() as u64;
                    Answer::Written { version: self.current }
                }
                Action::Get { version } => {
                    let version = version.unwrap_or(self.current);
                    match at(version).and_then(|at| self.versions.get(at)) {
                        None => Answer::Absent,
                        Some((_, true)) => Answer::Deleted { version },
                        Some((value, false)) => Answer::Value { version, value: *value },
                    }
                }
                Action::Delete => {
                    if let Some(version) = at(self.current).and_then(|at| self.versions.get_mut(at)) {
                        version.1 = true;
                    }
                    Answer::Done
                }
                Action::Promote { from, to } => match at(to).and_then(|at| self.versions.get(at)) {
                    Some((_, deleted)) if from == self.current && (to == from || !deleted) => {
                        self.current = to;
                        Answer::Done
                    }
                    _ => Answer::Refused,
                },
            }
        }
    }

    pub(super) fn accepts(history: &[Operation]) -> bool {
        let open: Vec<_> = history.iter().filter(|operation| operation.outcome != Outcome::Failed).collect();
        explains(&Copy::default(), &open)
    }

    fn explains(copy: &Copy, open: &[&Operation]) -> bool {
        let first_return = open.iter().filter(|other| other.answer().is_some()).map(|other| other.returned).min();
        let Some(first_return) = first_return else { return true };
        open.iter().enumerate().filter(|(_, next)| next.called <= first_return).any(|(at, next)| {
            let mut copy = copy.clone();
            let answer = copy.act(next.action);
            if next.answer().is_some_and(|seen| seen != answer) {
                return false;
            }
            let rest: Vec<_> =
                open.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| *other).collect();
            explains(&copy, &rest)
        })
    }
}
