//! What clients did to secrets and what came of it: the evidence on which consistency is judged.
//!
//! A value is a number here, and no two writes have the same one: so a read says which write it saw.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::suite;

/// What one client did once to one secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who. A client does one thing after the other.
    pub client: u32,
    /// Which secret.
    pub key: u32,
    /// When it was sent, in nanoseconds of one monotonic clock for all.
    pub called: u64,
    /// When the answer was there, or was given up.
    pub returned: u64,
    /// What was asked for.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is asked of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// A new version with this value, which becomes the current one.
    Put {
        /// Of this write alone.
        value: u64,
        /// The number that must be current; 0: none.
        cas: Option<u64>,
    },
    /// A read, of the current version where no number is given.
    Get {
        /// The number.
        version: Option<u64>,
    },
    /// The soft deletion of the current version.
    Delete,
    /// Makes `to` the current version if `from` is.
    Promote {
        /// The number that must be current.
        from: u64,
        /// The number that is to be.
        to: u64,
    },
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was carried out, or refused because of what is there: the answer tells something about the state.
    Answered(Answer),
    /// Certainly nothing was done, and nothing was learnt.
    Failed,
    /// It may take effect at any time after its call, or never.
    Unknown,
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a put: the number of the new version.
    Written {
        /// The number.
        version: u64,
    },
    /// To a deletion or promotion: it is so.
    Done,
    /// The state is not as expected: a put with another number current, or a promotion with another number current or
    /// of a version that is not there or deleted.
    Refused,
    /// To a read.
    Value {
        /// The number of the version.
        version: u64,
        /// Its value.
        value: u64,
    },
    /// To a read: that version is soft-deleted.
    Deleted {
        /// The number of the version.
        version: u64,
    },
    /// To a read: no such version.
    Absent,
}

impl Operation {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<Answer> {
        match self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// Whether it was answered with what was asked for.
    pub fn succeeded(&self) -> bool {
        self.answer().is_some_and(|answer| answer != Answer::Refused)
    }

    /// Whether it changes something if it succeeds.
    pub fn is_write(&self) -> bool {
        !matches!(self.action, Action::Get { .. })
    }
}

/// Operations as a line each, which [`load`] reads.
///
/// # Errors
/// The file cannot be written.
pub fn save(history: &[Operation], path: &Path) -> std::io::Result<()> {
    let lines: Vec<_> = history.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    std::fs::write(path, lines.join("\n") + "\n")
}

/// What [`save`] wrote.
pub fn load(path: &Path) -> Vec<Operation> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()));
    suite::read(path).lines().map(read).collect()
}

/// Keeps a history that failed below the target folder, so that it can be looked at.
pub fn keep(history: &[Operation], name: &str) -> PathBuf {
    let path = suite::kept("histories").join(format!("{name}.jsonl"));
    save(history, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Operations by secret, in the order of their calls.
pub fn by_key(history: &[Operation]) -> BTreeMap<u32, Vec<&Operation>> {
    let mut keys: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(operation);
    }
    for operations in keys.values_mut() {
        operations.sort_by_key(|operation| operation.called);
    }
    keys
}

/// A history that no correct server could have made.
#[derive(Debug)]
pub struct Violation {
    /// Of which secret.
    pub key: u32,
    /// What is wrong with it.
    pub why: String,
    /// Operations to look at, the one that shows it last.
    pub evidence: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "secret {}: {}", self.key, self.why)?;
        for operation in &self.evidence {
            let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
            writeln!(
                f,
                "  {:>10.3} to {:>10.3} ms  client {:>2}  {:?} -> {:?}",
                milliseconds(operation.called),
                milliseconds(operation.returned),
                operation.client,
                operation.action,
                operation.outcome
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_goes_to_a_file_and_back() {
        let operation = |action, outcome| Operation { client: 1, key: 2, called: 3, returned: 4, action, outcome };
        let history = [
            operation(Action::Put { value: u64::MAX, cas: Some(0) }, Outcome::Answered(Answer::Written { version: 1 })),
            operation(Action::Get { version: None }, Outcome::Answered(Answer::Absent)),
            operation(Action::Delete, Outcome::Unknown),
            operation(Action::Promote { from: 2, to: 1 }, Outcome::Failed),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        save(&history, &path).unwrap();
        assert_eq!(load(&path), history);
    }
}
