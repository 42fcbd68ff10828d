//! Which write made which version of one secret, as far as answers tell.
//!
//! A number is given once and a value is of one write, so answers that do not agree here are wrong in any order.

use std::collections::BTreeMap;

use crate::history::{Action, Answer, Operation, Outcome, Violation};

/// What answers tell of the versions of one secret.
#[derive(Debug, Default)]
pub struct Owners {
    /// The value of each version that was seen.
    values: BTreeMap<u64, u64>,
    /// The version of each value that was seen.
    versions: BTreeMap<u64, u64>,
    /// The highest number that was seen in any answer.
    highest: u64,
}

impl Owners {
    /// Reads the answers of one secret.
    ///
    /// # Errors
    /// Two values of one version, two versions of one value, a value that nobody wrote, or that was read before it was.
    pub fn of(operations: &[&Operation]) -> Result<Self, Violation> {
        let mut owners = Self::default();
        let mut seen: BTreeMap<u64, &Operation> = BTreeMap::new();
        for &operation in operations {
            let (version, value) = match (operation.action, operation.answer()) {
                (Action::Put { value, .. }, Some(Answer::Written { version })) => (version, value),
                (Action::Get { .. }, Some(Answer::Value { version, value })) => (version, value),
                (_, Some(Answer::Deleted { version })) => {
                    owners.highest = owners.highest.max(version);
                    continue;
                }
                _ => continue,
            };
            owners.highest = owners.highest.max(version);
            let other = owners.values.insert(version, value).filter(|other| *other != value);
            if let Some(other) = other {
                let why = format!("version {version} has the values {other} and {value}");
                return Err(violation(why, seen.get(&version).copied().into_iter().chain([operation])));
            }
            let other = owners.versions.insert(value, version).filter(|other| *other != version);
            if let Some(other) = other {
                let why = format!("value {value} is in the versions {other} and {version}");
                return Err(violation(why, seen.get(&other).copied().into_iter().chain([operation])));
            }
            seen.entry(version).or_insert(operation);
        }
        owners.check_writers(operations)?;
        Ok(owners)
    }

    /// Every value that was read was written, by a write that could have been done by then.
    fn check_writers(&self, operations: &[&Operation]) -> Result<(), Violation> {
        let mut writers: BTreeMap<u64, &Operation> = BTreeMap::new();
        for &operation in operations {
            if let Action::Put { value, .. } = operation.action {
                writers.insert(value, operation);
            }
        }
        for &read in operations {
            let Some(Answer::Value { value, .. }) = read.answer() else { continue };
            let Some(&writer) = writers.get(&value) else {
                return Err(violation(format!("value {value} was never written"), [read]));
            };
            if matches!(writer.outcome, Outcome::Failed | Outcome::Answered(Answer::Refused)) {
                return Err(violation(format!("value {value} is there, and its write was refused"), [writer, read]));
            }
            if read.returned < writer.called {
                return Err(violation(format!("value {value} was read before it was written"), [writer, read]));
            }
        }
        Ok(())
    }

    /// The version that has this value, if that was seen.
    pub fn version_of(&self, value: u64) -> Option<u64> {
        self.versions.get(&value).copied()
    }

    /// Whether it was seen whose write made this version.
    pub fn is_owned(&self, version: u64) -> bool {
        self.values.contains_key(&version)
    }

    /// Numbers up to the highest seen of which nobody knows the write.
    pub fn gaps(&self) -> Vec<u64> {
        (1..=self.highest).filter(|version| !self.is_owned(*version)).collect()
    }
}

fn violation<'a>(why: String, evidence: impl IntoIterator<Item = &'a Operation>) -> Violation {
    let evidence: Vec<_> = evidence.into_iter().cloned().collect();
    Violation { key: evidence.last().map_or(0, |operation| operation.key), why, evidence }
}
