//! Is this what was written? Reads segments as a stranger would: no server, no key of the node but public ones.
//!
//! What it can know: that the records it sees form one chain from a stream's first record, that each is canonical, and
//! that every checkpoint fits the events before it and is signed. What it cannot know from the files alone is how far the
//! stream should reach: give the [`Head`]s that others remember, and a cut tail is found too.

mod fork;

mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::SignedHead;
use crate::line;
use crate::reader::{Reader, Token};
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
    /// The folder that its files are in; where there are several with files of one stream, each has a report.
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
/// In a folder a stream must begin with its first record. A single file may begin anywhere: what came before it is taken
/// as given. Files of one stream in several folders must not contradict each other. Runs in bounded memory.
///
/// # Errors
/// If a file cannot be read.
pub fn verify(paths: &[PathBuf], expected: &Expected) -> io::Result<Report> {
    let wanted = |stream: &str| expected.stream.as_deref().is_none_or(|wanted| wanted == stream);
    let mut trails = trails(paths)?;
    trails.retain(|trail| wanted(&trail.stream));

    let mut streams: Vec<StreamReport> = Vec::new();
    for copies in trails.chunk_by(|a, b| a.stream == b.stream) {
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
            streams.push(check.finish());
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

/// The segments of one stream in one folder, in order.
#[derive(Debug)]
struct Trail {
    stream: String,
    folder: PathBuf,
    /// The folder was given, not single files: the stream must begin with its first record.
    whole: bool,
    /// Each with the `seq` that it claims to begin with.
    segments: Vec<(u64, PathBuf)>,
}

/// Sorts files into trails.
fn trails(paths: &[PathBuf]) -> io::Result<Vec<Trail>> {
    let mut files = BTreeSet::new();
    for path in paths {
        if !path.is_dir() {
            files.insert((false, beginning(path.clone())?));
            continue;
        }
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.insert((true, beginning(path)?));
            }
        }
    }
    let mut trails: BTreeMap<(String, PathBuf, bool), Trail> = BTreeMap::new();
    for (whole, Segment { stream, first, path }) in files {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let trail = trails.entry((stream.clone(), folder.clone(), whole));
        trail.or_insert(Trail { stream, folder, whole, segments: Vec::new() }).segments.push((first, path));
    }
    Ok(trails.into_values().collect())
}

/// A segment file and what it claims to begin with.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Segment {
    stream: String,
    first: u64,
    path: PathBuf,
}

/// Asks the first record, or if it cannot be read the file's name, where a segment belongs.
fn beginning(path: PathBuf) -> io::Result<Segment> {
    let mut reader = Reader::open(&path)?;
    if let Some((_, Token::Line(bytes))) = reader.token()?
        && let Ok(line) = line::parse(bytes)
    {
        return Ok(Segment { stream: line.stream.to_owned(), first: line.seq, path });
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let (stream, first) = name.rsplit_once('.').unwrap_or((&name, ""));
    Ok(Segment { stream: stream.to_owned(), first: first.parse().unwrap_or(0), path })
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
