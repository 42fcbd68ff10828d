//! Is this what was written? Reads segments as a stranger would: no server, no key of the node but public ones.
//!
//! What it can know: that the records it sees form one chain from a stream's first record, that each is canonical, and
//! that every checkpoint fits the events before it and is signed. What it cannot know from the files alone is how far the
//! stream should reach: give the [`Head`]s that others remember, and a cut tail is found too.

mod fork;

mod stream;

mod trail;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::SignedHead;
use crate::reader::Reader;
use stream::StreamCheck;

/// How many findings a stream's report holds at most; what is behind them is counted.
pub const FINDINGS_MAX: usize = 1000;

/// What the caller knows about the streams.
#[derive(Debug, Default)]
pub struct Expected {
    /// Look at this stream only.
    pub stream: Option<String>,
    /// The nodes' public audit keys. Without any, signatures are held against the key that each checkpoint names: this
    /// finds edits, but not a forger who signs anew.
    pub keys: Vec<[u8; 32]>,
    /// Records that must be there.
    pub heads: Vec<Head>,
}

/// A record that someone remembers: its place and its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The stream.
    pub stream: String,
    /// The record's `seq`.
    pub seq: u64,
    /// The record's hash.
    pub hash: [u8; 32],
    /// The public key of the stream, where whoever remembers the record knows it.
    pub key: Option<[u8; 32]>,
}

impl From<SignedHead> for Head {
    fn from(SignedHead { stream, seq, hash, key, .. }: SignedHead) -> Self {
        Self { stream, seq, hash, key: Some(key) }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Each stream, by name.
    pub streams: Vec<StreamReport>,
    /// Whether every stream is whole.
    pub ok: bool,
}

/// What was found in one stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StreamReport {
    /// Its name: the node, and its incarnation.
    pub stream: String,
    /// The folder that its newest files are in. Folders whose files follow each other have one report, as one stream; copies
    /// have one each.
    pub folder: PathBuf,
    /// `seq` of the first record; 0 if there is none.
    pub first: u64,
    /// `seq` of the last record.
    pub last: u64,
    /// How many records.
    pub events: u64,
    /// How many of them are checkpoints.
    pub checkpoints: u64,
    /// Whether the stream is whole.
    pub ok: bool,
    /// What is wrong, in the order of the files; at most [`FINDINGS_MAX`].
    pub errors: Vec<Finding>,
    /// How many more findings there were.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors_omitted: u64,
    /// The newest segment ends in the middle of a record, as a crash leaves it: not tampering. The node cuts it off when
    /// it starts.
    #[serde(skip_serializing_if = "is_false")]
    pub torn_tail: bool,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// At which record; where it cannot be read, the one expected there.
    pub seq: u64,
    /// What.
    pub kind: FindingKind,
    /// In which file; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// What can be wrong with a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Records are missing before this one, or up to an expected head.
    Gap,
    /// The record is not the one that its hash was made of.
    HashMismatch,
    /// The record does not follow the one before it.
    PrevMismatch,
    /// The signature is not that of the key which the checkpoint names.
    BadSignature,
    /// The checkpoint names a key that is not among the expected ones.
    UnknownKey,
    /// More events in a row than a checkpoint covers, or a checkpoint that follows another than the last one.
    MissingCheckpoint,
    /// The checkpoint does not fit the events that it covers.
    MerkleMismatch,
    /// Two different records claim this place.
    Fork,
    /// The record stands here a second time.
    DuplicateSeq,
    /// These bytes are not a record as it is written.
    NonCanonical,
}

/// Verifies segment files, and all segments (`*.jsonl`) of folders: those of one node, or of all nodes of a cluster.
///
/// In a folder a stream must begin with its first record, unless another folder has what came before. A single file may
/// begin anywhere: what came before it is taken as given. Files of one stream in several folders must not contradict each
/// other, and one of them must reach the heads that are expected. Runs in bounded memory.
///
/// # Errors
/// If a file cannot be read.
pub fn verify(paths: &[PathBuf], expected: &Expected) -> io::Result<Report> {
    let wanted = |stream: &str| expected.stream.as_deref().is_none_or(|wanted| wanted == stream);
    let mut trails = trail::trails(paths)?;
    trails.retain(|trail| wanted(&trail.stream));

    let mut streams: Vec<StreamReport> = Vec::new();
    while !trails.is_empty() {
        let others = trails.split_off(trails.partition_point(|trail| trail.stream == trails[0].stream));
        let copies = trail::joined(std::mem::replace(&mut trails, others))?;
        let mut checks = Vec::with_capacity(copies.len());
        for (n, trail) in copies.iter().enumerate() {
            let mut check = StreamCheck::new(&trail.stream, &trail.folder, trail.whole, expected);
            for (n, (_, path)) in trail.segments.iter().enumerate() {
                check.segment(&mut Reader::open(path)?, path, n + 1 == trail.segments.len())?;
            }
            for other in copies.iter().take(n) {
                if let Some((seq, file)) = fork::between(other, trail)? {
                    check.forked(seq, file);
                }
            }
            checks.push(check);
        }
        // Where the stream should reach, one copy of it must; others may be older.
        let furthest = checks.iter().map(StreamCheck::last).max().unwrap_or(0);
        let mut sought = true;
        for check in checks {
            let is_furthest = sought && check.last() == furthest;
            sought &= !is_furthest;
            streams.push(check.finish(is_furthest));
        }
    }
    // A stream that must be there and is not, lacks all its records.
    for stream in expected.heads.iter().map(|head| &head.stream).chain(&expected.stream) {
        if wanted(stream) && !streams.iter().any(|report| report.stream == *stream) {
            streams.push(StreamCheck::new(stream, Path::new(""), true, expected).missing());
        }
    }
    let ok = streams.iter().all(|report| report.ok);
    Ok(Report { streams, ok })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the serialiser's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the serialiser's signature")]
fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests;
