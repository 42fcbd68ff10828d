//! What the log keeps in memory: its state, where each entry stands in the segments, and the recent entries themselves.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use openraft::EntryPayload;

use super::Options;
use super::horizon::Point;
use super::record::{Chain, FrameError, Record, frame};
use super::segment::Segment;
use crate::fs::File;
use crate::types::{Entry, LogId, Vote};

/// Bytes that an entry takes in memory beside its payload, roughly.
const ENTRY_BYTES: usize = 96;

/// The log as its users see it. Entries stand in `[first, next)`: from `tail_first` on in `tail`, and in the segments
/// as far as `slots` reach. INVARIANT: every entry is in the tail or has a slot; what has no slot yet stays in the tail.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// How far the segments are durable.
    pub(super) durable: Point,
    /// Segments with records, without gaps; the last one is being written.
    pub(super) segments: VecDeque<Segment>,
    /// Entries below this index may leave the tail: they were applied.
    pub(super) released: u64,
    first: u64,
    slots: VecDeque<Slot>,
    tail_first: u64,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

/// Where a written entry stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) seq: u64,
    pub(super) offset: u32,
    pub(super) size: u32,
}

/// An entry that is at hand, or where to read it.
pub(super) enum Place {
    Here(Entry),
    There { index: u64, file: Arc<dyn File>, epoch: u64, offset: u32, size: u32 },
}

impl Memory {
    fn next(&self) -> u64 {
        self.tail_first + self.tail.len() as u64
    }

    /// Takes an entry that comes next into the tail. The first one may have any index.
    pub(super) fn append(&mut self, entry: Entry) -> io::Result<()> {
        self.take_index(entry.log_id.index)?;
        self.last = Some(entry.log_id);
        self.tail_bytes += weight(&entry);
        self.tail.push_back(entry);
        Ok(())
    }

    /// Notes an entry that was found in a segment.
    pub(super) fn recover(&mut self, log_id: LogId, slot: Slot) -> io::Result<()> {
        self.take_index(log_id.index)?;
        self.last = Some(log_id);
        self.slots.push_back(slot);
        self.tail_first = log_id.index + 1;
        Ok(())
    }

    fn take_index(&mut self, index: u64) -> io::Result<()> {
        if self.first == self.next() {
            self.slots.clear();
            (self.first, self.tail_first) = (index, index);
            return Ok(());
        }
        if index != self.next() {
            let message = format!("entry {index} does not follow entry {}", self.next().saturating_sub(1));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    /// Drops all entries from `from` on, if there are any; `last` is the one before.
    pub(super) fn truncate(&mut self, from: u64, last: Option<LogId>) {
        if from >= self.next() {
            return;
        }
        let keep = usize::try_from(from.saturating_sub(self.tail_first)).unwrap_or(usize::MAX);
        while self.tail.len() > keep {
            self.tail.pop_back().iter().for_each(|entry| self.tail_bytes -= weight(entry));
        }
        self.slots.truncate(usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX));
        self.tail_first = self.tail_first.min(from);
        self.first = self.first.min(from);
        self.last = last.or(self.purged);
    }

    /// Drops all entries up to and with `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let first = upto.index + 1;
        while self.tail_first < first
            && let Some(entry) = self.tail.pop_front()
        {
            self.tail_bytes -= weight(&entry);
            self.tail_first += 1;
        }
        self.tail_first = self.tail_first.max(first);
        while self.first < first && self.slots.pop_front().is_some() {
            self.first += 1;
        }
        self.first = self.first.max(first);
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    /// Notes where an entry was written, if it is still an entry of the log.
    pub(super) fn written(&mut self, log_id: LogId, slot: Slot) {
        if let Some(segment) = self.segments.back_mut().filter(|segment| segment.seq == slot.seq) {
            segment.highest = segment.highest.max(Some(log_id.index));
        }
        let in_tail = log_id.index.checked_sub(self.tail_first).and_then(|at| self.tail.get(usize::try_from(at).ok()?));
        if log_id.index == self.durable_next() && in_tail.is_some_and(|entry| entry.log_id == log_id) {
            self.slots.push_back(slot);
        }
    }

    /// Index after the last entry that is durable. Every entry below is; what is queued is not.
    pub(super) fn durable_next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Lets written entries go from the tail, the oldest first, until it holds no more than it may: of applied ones, or of
    /// those that are read again to be applied.
    pub(super) fn trim(&mut self, options: &Options) {
        let written = self.durable_next();
        while self.tail_first < written
            && self.tail_bytes > self.tail_bytes_max(options)
            && let Some(entry) = self.tail.pop_front()
        {
            self.tail_bytes -= weight(&entry);
            self.tail_first += 1;
        }
    }

    fn tail_bytes_max(&self, options: &Options) -> usize {
        if self.tail_first < self.released {
            return options.tail_bytes;
        }
        // Whoever waits for an entry is found beside it. There are few of them: the leader proposes no more at a time.
        let is_awaited = self.tail.front().is_some_and(|entry| match &entry.payload {
            EntryPayload::Normal(batch) => batch.flight().has_passengers(),
            EntryPayload::Blank | EntryPayload::Membership(_) => false,
        });
        if is_awaited { usize::MAX } else { options.unapplied_bytes }
    }

    /// Bytes that the tail takes.
    #[cfg(test)]
    pub(super) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// The entries of `range` that there are, up to `bytes_max` of payload but at least one.
    pub(super) fn places(&self, range: Range<u64>, bytes_max: u64) -> Vec<Place> {
        let range = range.start.max(self.first)..range.end.min(self.next());
        let mut places =
            Vec::with_capacity(usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0).min(1024));
        let mut bytes = 0;
        for index in range {
            let place = match index.checked_sub(self.tail_first) {
                Some(at) => usize::try_from(at).ok().and_then(|at| self.tail.get(at)).cloned().map(Place::Here),
                None => self.there(index),
            };
            let Some(place) = place else { break };
            bytes += match &place {
                Place::Here(entry) => weight(entry) as u64,
                Place::There { size, .. } => u64::from(*size),
            };
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            places.push(place);
        }
        places
    }

    /// Whether the entries from `index` on are in the tail.
    pub(super) fn is_at_hand(&self, index: u64) -> bool {
        index >= self.tail_first
    }

    fn there(&self, index: u64) -> Option<Place> {
        let slot = self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)?;
        let segment = self.segments.get(usize::try_from(slot.seq.checked_sub(self.segments.front()?.seq)?).ok()?)?;
        let (file, epoch) = (Arc::clone(&segment.file), segment.epoch);
        Some(Place::There { index, file, epoch, offset: slot.offset, size: slot.size })
    }

    /// Where the entry before index `from` stands.
    pub(super) fn slot_of(&self, from: u64) -> Option<Slot> {
        let index = from.checked_sub(1)?;
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    /// The index of the first entry; `None` if there is none.
    pub(super) fn first_index(&self) -> Option<u64> {
        (self.first < self.next()).then_some(self.first)
    }

    /// The point at offset `end` of segment `seq`, as things stand.
    pub(super) fn point(&self, seq: u64, end: u32, chain: Chain) -> Point {
        let (vote_term, vote_node) = self.vote.map_or((0, 0), |vote| (vote.leader_id.term, vote.leader_id.node_id));
        Point { seq, end, chain, next_index: self.last.map_or(0, |last| last.index + 1), vote_term, vote_node }
    }

    /// Bytes of all segments with records.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.end)).sum()
    }

    /// The last entry before those segments at the end that hold `bytes`.
    pub(super) fn before_last(&self, bytes: u64) -> Option<u64> {
        let mut held = 0;
        for segment in self.segments.iter().rev() {
            if held >= bytes && segment.highest.is_some() {
                return segment.highest.filter(|index| *index >= self.first);
            }
            held += u64::from(segment.end);
        }
        None
    }

    /// Takes out the segments at the front that hold nothing but entries up to the purged one.
    pub(super) fn take_purged(&mut self) -> Vec<Segment> {
        let purged = self.purged.map(|purged| purged.index);
        let mut taken = Vec::new();
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|segment| segment.highest <= purged)
            && let Some(segment) = self.segments.pop_front()
        {
            taken.push(segment);
        }
        taken
    }
}

impl Place {
    /// The entry, read and checked if it is not at hand.
    pub(super) fn entry(self) -> io::Result<Entry> {
        match self {
            Self::Here(entry) => Ok(entry),
            Self::There { index, file, epoch, offset, size } => {
                let mut bytes = vec![0; size as usize];
                let read = file.read_at(offset.into(), &mut bytes)?;
                let found = match frame(bytes.get(..read).unwrap_or_default()) {
                    Ok(frame) if frame.epoch == epoch => frame.record().ok(),
                    Ok(_) | Err(FrameError::Blank | FrameError::Short(_) | FrameError::Broken) => None,
                };
                match found {
                    Some(Record::Entry(entry)) if entry.log_id.index == index => Ok(entry),
                    _ => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("log entry {index} is damaged on disk (at offset {offset})"),
                    )),
                }
            }
        }
    }
}

fn weight(entry: &Entry) -> usize {
    ENTRY_BYTES
        + match &entry.payload {
            EntryPayload::Normal(batch) => batch.bytes().len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
