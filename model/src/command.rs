//! How the replicated state changes: a command carries everything decided and nothing secret.
//!
//! The leader reads, decides, seals and predicts; `apply` only checks that the state is the one the decision was made
//! on, and puts the rows in place. So apply needs no key, no clock and no randomness, and a sealed node replicates.

use serde::{Deserialize, Serialize};

use crate::{Id, Row, StateSum, Table, Timestamp, VersionBlob};

/// One replicated change, as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Who asked: makes a retried write recognisable.
    pub request: Id,
    /// The leader's clock when it decided.
    pub at: Timestamp,
    /// The state this decision was made on. Any other state: [`Outcome::Stale`], and nothing changes.
    pub before: StateSum,
    /// Leader's MAC over the sum after this command; kept beside the sum, checked at unseal.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 32],
    /// What to do, in order, all or nothing.
    pub changes: Vec<Change>,
    /// The audit record of the intent: canonical bytes that hold references only. Durable with the command.
    #[serde(with = "serde_bytes")]
    pub intent: Vec<u8>,
}

/// One change of one row or version blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Puts `row` in place. `row.rev` is 1 for a row that must not exist yet, else one more than that of the row it replaces.
    Put {
        /// Where.
        table: Table,
        /// The whole new row.
        row: Row,
    },
    /// Takes the row with exactly this revision away.
    Remove {
        /// Where.
        table: Table,
        /// Which.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// Its revision.
        rev: u64,
    },
    /// Adds the blob of a new version under a number never used before.
    AddVersion {
        /// The blob's number: drawn by the leader, growing, never reused.
        id: u64,
        /// Its sealed parts.
        blob: VersionBlob,
    },
    /// Wraps the data key of a version anew. The payload stays.
    Rewrap {
        /// The blob's number.
        id: u64,
        /// The new wrapping.
        #[serde(with = "serde_bytes")]
        wrapped: Vec<u8>,
    },
    /// Erases the blob of a version: wrapped key and payload, overwritten and gone. Nothing to erase is no error.
    EraseVersion {
        /// The blob's number.
        id: u64,
    },
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// All changes are in place.
    Done,
    /// The state was not the one the command was decided on; nothing changed. Decide anew.
    Stale,
}

/// Why bytes are not a command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The format number is not one this build knows: a newer node wrote it.
    #[error("command format {0} is not known to this version of keyward")]
    UnknownFormat(u8),
    /// The bytes end early, run over, or do not decode.
    #[error("malformed command batch")]
    Malformed,
}

/// The first byte of an encoded batch.
const FORMAT: u8 = 1;

/// Encodes a batch of commands as one log entry payload: a format byte, then postcard (wire format 1).
pub fn encode_batch(commands: &[Command]) -> Vec<u8> {
    let mut out = Vec::with_capacity(commands.iter().map(Command::size_hint).sum::<usize>() + 16);
    out.push(FORMAT);
    // Serialising plain data into memory cannot fail; an empty payload would be refused by `decode_batch`.
    postcard::to_extend(commands, out).unwrap_or_default()
}

/// Decodes what [`encode_batch`] wrote. Never panics, whatever the bytes.
///
/// # Errors
/// [`CommandError`] if the format is unknown, or the bytes are not exactly one batch.
pub fn decode_batch(bytes: &[u8]) -> Result<Vec<Command>, CommandError> {
    let (&format, rest) = bytes.split_first().ok_or(CommandError::Malformed)?;
    if format != FORMAT {
        return Err(CommandError::UnknownFormat(format));
    }
    match postcard::take_from_bytes(rest) {
        Ok((commands, [])) => Ok(commands),
        _ => Err(CommandError::Malformed),
    }
}

impl Command {
    /// About how many bytes the command takes in the log: for batching, not for layout.
    pub fn size_hint(&self) -> usize {
        let changes: usize = self
            .changes
            .iter()
            .map(|change| match change {
                Change::Put { row, .. } => row.key.len() + row.group.len() + row.body.len() + 40,
                Change::Remove { key, .. } => key.len() + 16,
                Change::AddVersion { blob, .. } => blob.wrapped.len() + blob.payload.len() + 24,
                Change::Rewrap { wrapped, .. } => wrapped.len() + 16,
                Change::EraseVersion { .. } => 16,
            })
            .sum();
        changes + self.intent.len() + 112
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Command {
        Command {
            request: Id([7; 16]),
            at: Timestamp(1),
            before: StateSum([1, 2, 3, 4]),
            signature: [9; 32],
            changes: vec![
                Change::Put {
                    table: Table::Secrets,
                    row: Row { key: vec![1], rev: 1, group: vec![], due: Some(-5), head: Some(8), body: vec![2; 300] },
                },
                Change::Remove { table: Table::Tokens, key: vec![3], rev: 9 },
                Change::AddVersion { id: 8, blob: VersionBlob { wrapped: vec![4; 60], payload: vec![5; 300] } },
                Change::Rewrap { id: 8, wrapped: vec![6] },
                Change::EraseVersion { id: 3 },
            ],
            intent: b"{}".to_vec(),
        }
    }

    #[test]
    fn a_batch_reads_back() {
        let batch = vec![sample(), sample()];
        let bytes = encode_batch(&batch);
        assert_eq!(decode_batch(&bytes), Ok(batch));
        assert_eq!(decode_batch(&[]), Err(CommandError::Malformed));
        assert_eq!(decode_batch(&[200, 1]), Err(CommandError::UnknownFormat(200)));
        assert_eq!(decode_batch(&[&bytes[..], &[0]].concat()), Err(CommandError::Malformed));
        for cut in 0..bytes.len() {
            assert!(decode_batch(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            drop(decode_batch(&bytes));
        }
    }
}
