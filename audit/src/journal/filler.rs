//! The journal's own thread: zeros ahead of the records, the next segment, and closed segments cut to their length.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::disk::{self, Segment};
use super::{Durability, Shared, State};

/// How far ahead of the records the segment is filled, in bytes: more than a fast node writes while one chunk is filled.
const AHEAD: u64 = 8 << 20;

/// How much is filled at a time.
const CHUNK: u64 = 1 << 20;

impl Shared {
    /// Whether the active segment is short of zeros.
    pub(super) fn wants_filling(&self, state: &State) -> bool {
        state.filled < self.segment_bytes && state.filled - state.end < AHEAD
    }

    fn wants_next(&self, state: &State) -> bool {
        state.next.is_none() && state.end > self.segment_bytes / 2
    }

    /// Works until the journal is closed, and every closed segment is cut; or until it is poisoned.
    pub(super) fn fill_ahead(&self) {
        let mut state = self.lock();
        while !self.poisoned.load(Ordering::Acquire) {
            if let Some((segment, end)) = state.closed.pop() {
                drop(state);
                // A closed segment that stays too long does no harm: its records are durable, and zeros are no records.
                drop(segment.file.set_len(end).and_then(|()| segment.file.sync_all()));
                state = self.lock();
            } else if state.stop {
                break;
            } else if !state.no_space && self.wants_filling(&state) {
                let (from, to) = (state.filled, (state.filled + CHUNK).min(self.segment_bytes));
                let segment = Arc::clone(&state.segment);
                state.filling = true;
                drop(state);
                let (filled, full) = self.fill(&segment, from, to);
                state = self.lock();
                state.filling = false;
                state.filled = filled;
                state.no_space = full;
                self.filled.notify_all();
            } else if !state.no_space && self.wants_next(&state) {
                drop(state);
                let prepared = self.prepare_next();
                state = self.lock();
                state.no_space = prepared.is_none();
                state.next = prepared;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if let Some((segment, _)) = state.next.take() {
            // What is left of it is removed when the next one is prepared.
            drop(std::fs::remove_file(&segment.path));
        }
    }

    /// Fills with zeros and flushes, so that later flushes find the file's metadata durable. Gives how far it came, and
    /// whether the disk was full.
    fn fill(&self, segment: &Segment, from: u64, to: u64) -> (u64, bool) {
        let (filled, full) = match self.disk.write_zeros(&segment.file, from, to) {
            Ok(()) => (to, false),
            Err((written, error)) => (from + written, self.full_or_poison(error)),
        };
        if filled > from && self.durability == Durability::Fsync {
            // A failure has poisoned the journal; there is nobody else to tell.
            drop(self.sync_segment(segment));
        }
        (filled, full)
    }

    /// The next segment under its provisional name; `None` if it could not be made now.
    fn prepare_next(&self) -> Option<(Segment, u64)> {
        let path = self.dir.join(format!("{}.next", self.signer.stream));
        // A stop may have left one, of any content.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return None,
            _ => {}
        }
        let segment = Segment::create(&path).ok()?;
        let (filled, _) = self.fill(&segment, 0, AHEAD.min(self.segment_bytes));
        Some((segment, filled))
    }

    fn full_or_poison(&self, error: io::Error) -> bool {
        let full = disk::is_full(&error);
        if !full {
            drop(self.poison(error));
        }
        full
    }
}
