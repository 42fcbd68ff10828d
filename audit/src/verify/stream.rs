//! Following one stream from segment to segment.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keyward_crypto::chain::{genesis, next};
use keyward_model::event::EventKind;

use super::{Expected, FINDINGS_MAX, Finding, FindingKind, StreamReport};
use crate::checkpoint::{CHECKPOINT_EVENTS, Merkle, Signed};
use crate::line::{self, Line};
use crate::reader::{Reader, Token};

/// How many hashes are remembered to tell a copied record from a forged one.
const RECENT: usize = 4096;

/// A stream on its way through the checks.
pub(super) struct StreamCheck<'a> {
    expected: &'a Expected,
    report: StreamReport,
    /// Hash of the last record, if there is one to follow.
    hash: Option<[u8; 32]>,
    /// The events since the last checkpoint; `None` where the beginning of that stretch was not seen.
    tree: Option<Merkle>,
    /// Hash of the last checkpoint's record, `None` if it is not known.
    checkpoint: Option<[u8; 32]>,
    /// The stretch without a checkpoint has been reported.
    overdue: bool,
    recent: Vec<(u64, [u8; 32])>,
    /// The file that is being looked at.
    file: Option<PathBuf>,
}

impl<'a> StreamCheck<'a> {
    /// `whole`: the stream must begin with its first record.
    pub(super) fn new(stream: &str, folder: &Path, whole: bool, expected: &'a Expected) -> Self {
        Self {
            expected,
            report: StreamReport {
                stream: stream.to_owned(),
                folder: folder.to_owned(),
                first: 0,
                last: 0,
                events: 0,
                checkpoints: 0,
                ok: false,
                errors: Vec::new(),
                errors_omitted: 0,
                torn_tail: false,
            },
            hash: whole.then(|| genesis(stream)),
            tree: whole.then(Merkle::new),
            checkpoint: None,
            overdue: false,
            recent: vec![(0, [0; 32]); RECENT],
            file: None,
        }
    }

    /// Checks one segment; only the `newest` may end unfinished.
    pub(super) fn segment(&mut self, reader: &mut Reader<impl Read>, path: &Path, newest: bool) -> io::Result<()> {
        self.file = Some(path.to_owned());
        let mut unfinished = false;
        while let Some((_, token)) = reader.token()? {
            if unfinished {
                // Something stands behind it: not the end that a crash leaves.
                self.found(self.report.last + 1, FindingKind::NonCanonical);
                unfinished = false;
            }
            match token {
                Token::Line(bytes) => match line::parse(bytes) {
                    Ok(line) => self.record(&line),
                    Err(line::NonCanonical) => self.unreadable(),
                },
                Token::Unfinished(_) => unfinished = true,
                Token::Hole => self.unreadable(),
            }
        }
        if unfinished && newest {
            self.report.torn_tail = true;
        } else if unfinished {
            self.unreadable();
        }
        Ok(())
    }

    /// Another folder has another record at this place.
    pub(super) fn forked(&mut self, seq: u64, file: PathBuf) {
        self.file = Some(file);
        self.found(seq, FindingKind::Fork);
    }

    /// `seq` of the last record so far.
    pub(super) fn last(&self) -> u64 {
        self.report.last
    }

    /// The findings, once all segments have been seen. `furthest`: it must reach the expected heads.
    pub(super) fn finish(mut self, furthest: bool) -> StreamReport {
        for head in self.expected.heads.iter().filter(|_| furthest) {
            if head.stream == self.report.stream && head.seq > self.report.last {
                self.found(self.report.last + 1, FindingKind::Gap);
            }
        }
        self.report.ok = self.report.errors.is_empty();
        self.report
    }

    /// The findings for a stream of which nothing is left.
    pub(super) fn missing(mut self) -> StreamReport {
        self.found(1, FindingKind::Gap);
        self.report
    }

    /// A place where no record can be read. The next record will show whether one is missing.
    fn unreadable(&mut self) {
        self.found(self.report.last + 1, FindingKind::NonCanonical);
        self.tree = None;
    }

    fn record(&mut self, line: &Line<'_>) {
        self.report.events += 1;
        if self.report.first == 0 {
            self.report.first = line.seq;
            self.begin(line);
        }
        let computed = next(&line.prev, &line.covered);
        if computed != line.hash {
            self.found(line.seq, FindingKind::HashMismatch);
        }
        if line.seq <= self.report.last || line.seq == 0 {
            let known = self.recent[line.seq as usize % RECENT];
            let forged = known.0 == line.seq && known.1 != line.hash;
            self.found(line.seq, if forged { FindingKind::Fork } else { FindingKind::DuplicateSeq });
            // The chain goes on from where it stood.
            return;
        }
        if self.hash.is_some() && line.seq != self.report.last + 1 {
            self.found(line.seq, FindingKind::Gap);
            self.tree = None;
            self.checkpoint = None;
        } else if self.hash.is_some_and(|hash| hash != line.prev) || line.stream != self.report.stream {
            self.found(line.seq, FindingKind::PrevMismatch);
        }
        for head in &self.expected.heads {
            if head.stream == self.report.stream && head.seq == line.seq && head.hash != line.hash {
                self.found(line.seq, FindingKind::Fork);
            }
        }
        self.recent[line.seq as usize % RECENT] = (line.seq, line.hash);
        if line.event == EventKind::AuditCheckpoint.name() {
            self.checkpoint(line);
        } else if let Some(tree) = &mut self.tree {
            tree.push(&line.hash);
            if tree.count() > CHECKPOINT_EVENTS && !self.overdue {
                self.overdue = true;
                self.found(line.seq, FindingKind::MissingCheckpoint);
            }
        }
        self.report.last = line.seq;
        self.hash = Some(line.hash);
    }

    /// Takes up a stream at a segment's beginning. A segment follows a checkpoint, so it can be judged alone.
    fn begin(&mut self, line: &Line<'_>) {
        if self.hash.is_none() && line.seq == 1 {
            self.hash = Some(genesis(&self.report.stream));
            self.tree = Some(Merkle::new());
        } else if self.hash.is_none() {
            self.tree = Some(Merkle::new());
            self.checkpoint = Some(line.prev);
        }
    }

    fn checkpoint(&mut self, line: &Line<'_>) {
        self.report.checkpoints += 1;
        match line.checkpoint.map(Signed::parse) {
            Some(Ok(signed)) => {
                let says = &signed.says;
                if !signed.is_signed() {
                    self.found(line.seq, FindingKind::BadSignature);
                }
                if !self.may_sign(&signed.key) {
                    self.found(line.seq, FindingKind::UnknownKey);
                }
                let place = says.stream == line.stream && says.seq + 1 == line.seq && says.hash == line.prev;
                let fits = self.tree.is_none_or(|tree| (tree.count(), tree.root()) == (says.count, says.merkle_root));
                if !place || !fits {
                    self.found(line.seq, FindingKind::MerkleMismatch);
                }
                let follows = match self.checkpoint {
                    Some(last) => says.prev_checkpoint == Some(last),
                    // Only the first checkpoint of a stream that was seen from its beginning follows none.
                    None => self.tree.is_none() || self.report.first != 1 || says.prev_checkpoint.is_none(),
                };
                if !follows {
                    self.found(line.seq, FindingKind::MissingCheckpoint);
                }
            }
            _ => self.found(line.seq, FindingKind::NonCanonical),
        }
        self.tree = Some(Merkle::new());
        self.checkpoint = Some(line.hash);
        self.overdue = false;
    }

    /// Whether a key is among the expected ones, and the one that others know for this stream.
    fn may_sign(&self, key: &[u8; 32]) -> bool {
        let Expected { keys, heads, .. } = self.expected;
        let known = heads.iter().filter(|head| head.stream == self.report.stream).filter_map(|head| head.key.as_ref());
        (keys.is_empty() || keys.contains(key)) && known.into_iter().all(|known| known == key)
    }

    fn found(&mut self, seq: u64, kind: FindingKind) {
        if self.report.errors.len() < FINDINGS_MAX {
            self.report.errors.push(Finding { seq, kind, file: self.file.clone() });
        } else {
            self.report.errors_omitted += 1;
        }
    }
}
