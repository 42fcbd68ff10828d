//! Checks of a history that need no search: each tells at once what is wrong and who saw it.
//!
//! They find less than [`crate::linearizable`], and say it better: run them first.

use crate::history::{Action, Answer, Operation, Outcome, Violation, by_key};
use crate::owners::Owners;

/// Checks, for each secret: version numbers are given once, rise, and have no gap; what was read was written; whoever
/// was answered before a call is heeded by its answer (so a client reads its own writes, and never goes back).
///
/// # Errors
/// The first violation.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    for operations in by_key(history).into_values() {
        let owners = Owners::of(&operations)?;
        check_gaps(&operations, &owners)?;
        check_floor(&operations)?;
    }
    Ok(())
}

/// A version whose write nobody knows came from a write without an answer: there must have been as many.
fn check_gaps(operations: &[&Operation], owners: &Owners) -> Result<(), Violation> {
    let doubtful = |operation: &&&Operation| match operation.action {
        Action::Put { value, .. } => operation.outcome == Outcome::Unknown && owners.version_of(value).is_none(),
        Action::Get { .. } | Action::Delete | Action::Promote { .. } => false,
    };
    let (gaps, doubtful) = (owners.gaps(), operations.iter().filter(doubtful).count());
    if gaps.len() > doubtful {
        let key = operations.first().map_or(0, |operation| operation.key);
        let why = format!("versions {gaps:?} were left out, and only {doubtful} writes have no answer");
        return Err(Violation { key, why, evidence: Vec::new() });
    }
    Ok(())
}

/// The highest number that somebody knew, and who did first.
#[derive(Clone, Copy, Default)]
struct Floor<'a> {
    version: u64,
    by: Option<&'a Operation>,
}

fn check_floor(operations: &[&Operation]) -> Result<(), Violation> {
    // Calls before returns at the same moment: those overlap.
    let mut moments: Vec<(u64, bool, usize)> = operations
        .iter()
        .enumerate()
        .flat_map(|(number, operation)| [(operation.called, false, number), (operation.returned, true, number)])
        .collect();
    moments.sort_unstable();
    let promoted = operations
        .iter()
        .any(|operation| matches!(operation.action, Action::Promote { .. }) && operation.outcome != Outcome::Failed);
    let mut floor = Floor::default();
    let mut at_call = vec![floor; operations.len()];
    for (_, returns, number) in moments {
        if !returns {
            at_call[number] = floor;
            continue;
        }
        let operation = operations[number];
        let known = at_call[number];
        let (version, wrong) = match (operation.action, operation.answer()) {
            (Action::Put { .. }, Some(Answer::Written { version })) => (version, version <= known.version),
            (Action::Get { version: None }, Some(Answer::Value { version, .. } | Answer::Deleted { version })) => {
                // A promotion moves `current` back; then a lower number is no error.
                (version, !promoted && version < known.version)
            }
            (Action::Get { version: None }, Some(Answer::Absent)) => (0, known.version > 0),
            (Action::Get { version: Some(asked) }, Some(Answer::Absent)) => (0, asked <= known.version),
            (Action::Get { .. }, Some(Answer::Value { version, .. } | Answer::Deleted { version })) => (version, false),
            _ => continue,
        };
        if wrong {
            let own = known.by.is_some_and(|by| by.client == operation.client);
            let who = if own { "this client itself" } else { "another client" };
            let why = format!("{who} knew of version {} before this was asked", known.version);
            let evidence = known.by.into_iter().chain([operation]).cloned().collect();
            return Err(Violation { key: operation.key, why, evidence });
        }
        if version > floor.version {
            floor = Floor { version, by: Some(operation) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client, from, to, what, what came.
    type Row = (u32, u64, u64, Action, Outcome);

    const READ: Action = Action::Get { version: None };
    const fn put(value: u64) -> Action {
        Action::Put { value, cas: None }
    }
    const fn written(version: u64) -> Outcome {
        Outcome::Answered(Answer::Written { version })
    }
    const fn value(version: u64, value: u64) -> Outcome {
        Outcome::Answered(Answer::Value { version, value })
    }

    fn verdict(rows: &[Row]) -> Result<(), String> {
        let operation = |&(client, called, returned, action, outcome): &Row| Operation {
            client,
            key: 0,
            called,
            returned,
            action,
            outcome,
        };
        check(&rows.iter().map(operation).collect::<Vec<_>>()).map_err(|violation| violation.why)
    }

    #[test]
    fn each_rule_is_told_by_its_name() {
        let two = [(0, 0, 1, put(7), written(1)), (1, 2, 3, put(8), written(2))];
        let with = |row: Row| verdict(&[&two[..], &[row]].concat());
        assert_eq!(with((0, 4, 5, READ, value(2, 8))), Ok(()));
        // Overlapping the second write, either value is right.
        assert_eq!(with((0, 2, 5, READ, value(1, 7))), Ok(()));
        for (row, why) in [
            ((1, 4, 5, READ, value(1, 7)), "this client itself knew of version 2 before this was asked"),
            ((0, 4, 5, READ, value(1, 7)), "another client knew of version 2 before this was asked"),
            (
                (0, 4, 5, READ, Outcome::Answered(Answer::Absent)),
                "another client knew of version 2 before this was asked",
            ),
            (
                (0, 4, 5, Action::Get { version: Some(2) }, Outcome::Answered(Answer::Absent)),
                "another client knew of version 2 before this was asked",
            ),
            ((0, 4, 5, put(9), written(4)), "versions [3] were left out, and only 0 writes have no answer"),
            ((0, 4, 5, put(9), written(2)), "version 2 has the values 8 and 9"),
            ((0, 4, 5, READ, value(3, 8)), "value 8 is in the versions 2 and 3"),
            ((0, 4, 5, READ, value(3, 9)), "value 9 was never written"),
        ] {
            assert_eq!(with(row), Err(why.to_owned()), "{row:?}");
        }
    }

    #[test]
    fn a_write_without_an_answer_may_fill_a_gap_and_a_promotion_may_go_back() {
        let rows = [
            (0, 0, 1, put(7), written(1)),
            (1, 0, 9, put(8), Outcome::Unknown),
            (0, 4, 5, put(9), written(3)),
            (0, 6, 7, Action::Promote { from: 3, to: 1 }, Outcome::Answered(Answer::Done)),
            (0, 8, 9, READ, value(1, 7)),
        ];
        assert_eq!(verdict(&rows), Ok(()));
        assert!(verdict(&[rows[0], rows[2], rows[3], rows[4]]).is_err());
        assert!(verdict(&[rows[0], rows[1], rows[2], rows[4]]).is_err());
    }

    #[test]
    fn what_was_refused_or_not_yet_asked_for_is_not_read() {
        let early = [(0, 5, 6, put(7), written(1)), (1, 0, 4, READ, value(1, 7))];
        assert_eq!(verdict(&early), Err("value 7 was read before it was written".to_owned()));
        let refused = [(0, 0, 1, put(7), Outcome::Failed), (1, 2, 4, READ, value(1, 7))];
        assert_eq!(verdict(&refused), Err("value 7 is there, and its write was refused".to_owned()));
    }
}
