//! The chain of one stream: where it stands, and how the next record is linked to it.

use keyward_crypto::chain::{genesis, next};
use keyward_model::Timestamp;
use keyward_model::event::{Event, EventKind, EventOutcome, Ulid};

use crate::checkpoint::{AuditKey, CHECKPOINT_EVENTS, CHECKPOINT_SECONDS, Checkpoint, Merkle};
use crate::record::{HEX, Pieces, hex, number};

/// Where a stream stands. Copied before a batch is linked, so that a write that fails takes the chain back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// `seq` of the last record; 0 before the first.
    pub(crate) seq: u64,
    /// Hash of the last record; the genesis before the first.
    pub(crate) hash: [u8; 32],
    /// The highest Raft index that a record names; 0 if none does.
    pub(crate) last_index: u64,
    /// The events that no checkpoint covers yet.
    pub(crate) tree: Merkle,
    /// When the first of them was.
    pub(crate) uncovered_since: Timestamp,
    /// Time of the latest record.
    pub(crate) latest: Timestamp,
    /// Hash of the last checkpoint's record.
    pub(crate) prev_checkpoint: Option<[u8; 32]>,
}

/// What does not change along a stream.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) stream: String,
    pub(crate) node: String,
    pub(crate) key: AuditKey,
}

/// The most bytes that linking adds to a record's pieces, but for the stream's name: `hash`, `prev`, `seq`, punctuation.
pub(crate) const LINK_BYTES_MAX: usize = 75 + 75 + 28 + 12 + 2;

/// More bytes than any checkpoint record has, but for its two mentions of the stream's name.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 1536;

impl Chain {
    pub(crate) fn start(stream: &str) -> Self {
        Self {
            seq: 0,
            hash: genesis(stream),
            last_index: 0,
            tree: Merkle::new(),
            uncovered_since: Timestamp::default(),
            latest: Timestamp::default(),
            prev_checkpoint: None,
        }
    }

    /// Writes all of `pieces` to `out` as lines, with checkpoints where they fall due.
    pub(crate) fn link_all(&mut self, signer: &Signer, pieces: &Pieces, out: &mut Vec<u8>) {
        for record in 0..pieces.records.len() {
            let hash = self.link(&signer.stream, pieces, record, out);
            let cuts = pieces.records[record];
            self.last_index = self.last_index.max(cuts.index);
            self.covered_later(&hash, cuts.ts);
            if self.tree.count() >= CHECKPOINT_EVENTS {
                self.checkpoint(signer, out);
            }
        }
        if self.checkpoint_due(self.latest) {
            self.checkpoint(signer, out);
        }
    }

    /// Whether there are events that have waited long enough for a checkpoint.
    pub(crate) fn checkpoint_due(&self, now: Timestamp) -> bool {
        self.tree.count() > 0 && now >= self.uncovered_since.plus_seconds(CHECKPOINT_SECONDS)
    }

    /// What the node says about the stream as it stands, signed.
    pub(crate) fn signed(&self, signer: &Signer) -> Vec<u8> {
        let says = Checkpoint {
            stream: &signer.stream,
            seq: self.seq,
            hash: self.hash,
            index: self.last_index,
            count: self.tree.count(),
            merkle_root: self.tree.root(),
            prev_checkpoint: self.prev_checkpoint,
        };
        says.sign(&signer.key, self.latest)
    }

    /// Writes a checkpoint to `out`; without an event to cover there is nothing to say, and nothing is written.
    pub(crate) fn checkpoint(&mut self, signer: &Signer, out: &mut Vec<u8>) {
        if self.tree.count() == 0 {
            return;
        }
        let signed = self.signed(signer);
        // The head is a hash, unique and at hand: the id needs no randomness of its own.
        let mut random = [0; 10];
        random.copy_from_slice(&self.hash[..10]);
        let id = Ulid::from_parts(self.latest, random);
        let event = Event::new(id, self.latest, EventKind::AuditCheckpoint, EventOutcome::Success);
        let mut pieces = Pieces::default();
        pieces.push(&event, Some(&signer.node), Some(&signed));
        let hash = self.link(&signer.stream, &pieces, 0, out);
        self.covered(hash);
    }

    /// Takes in an event that is linked already and waits for a checkpoint.
    pub(crate) fn covered_later(&mut self, hash: &[u8; 32], ts: Timestamp) {
        if self.tree.count() == 0 {
            self.uncovered_since = ts;
        }
        self.latest = self.latest.max(ts);
        self.tree.push(hash);
    }

    /// Takes in a checkpoint whose record has `hash`.
    pub(crate) fn covered(&mut self, hash: [u8; 32]) {
        self.tree = Merkle::new();
        self.prev_checkpoint = Some(hash);
    }

    /// Writes one record as a line that names its place and the record before it; gives its hash.
    fn link(&mut self, stream: &str, pieces: &Pieces, record: usize, out: &mut Vec<u8>) -> [u8; 32] {
        let cuts = pieces.records[record];
        let piece = |n: usize| {
            let from = if n == 0 { cuts.start } else { cuts.ends[n - 1] };
            &pieces.bytes[from..cuts.ends[n]]
        };
        self.seq += 1;
        out.extend_from_slice(piece(0));
        let hash_at = out.len();
        out.extend_from_slice(b",\"hash\":\"");
        out.resize(out.len() + 64, b'0');
        out.push(b'"');
        out.extend_from_slice(piece(1));
        hex(out, ",\"prev\":\"", &self.hash);
        out.push(b'"');
        let rest = out.len();
        out.extend_from_slice(piece(2));
        number(out, ",\"seq\":", self.seq);
        out.extend_from_slice(piece(3));
        out.extend_from_slice(b",\"stream\":\"");
        out.extend_from_slice(stream.as_bytes());
        out.push(b'"');
        out.extend_from_slice(piece(4));

        self.hash = next(&self.hash, &[piece(0), piece(1), &out[rest..]]);
        for (pair, byte) in out[hash_at + 9..hash_at + 73].chunks_exact_mut(2).zip(self.hash) {
            pair.copy_from_slice(&HEX[usize::from(byte)]);
        }
        out.push(b'\n');
        self.hash
    }
}
