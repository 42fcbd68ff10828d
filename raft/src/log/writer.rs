//! The writer: the one place that appends to segments. It takes everything that is queued, writes it at once, flushes
//! once, and only then tells those who wait. Its first error is its last act.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::memory::{Memory, Slot};
use super::record::{BODY_BYTES_MAX, Chain, Record};
use super::segment::{Header, RECORDS_AT, Segment};
use crate::types::{Entry, LogId, Vote};

/// Whom to tell when something is durable, or that it will never be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What can be asked of the writer. The order of asking is the order in the log.
pub(super) enum Op {
    Append(Vec<Entry>, Done),
    Vote(Vote, Done),
    Truncate(u64),
    Purge(LogId),
    /// Tells when everything asked before is durable; with it goes the committed position.
    Flush(Done),
}

/// The writer's own state.
pub(super) struct Writer {
    chain: Chain,
    /// Records that wait for the flush, in the active segment from its `end` on; a new segment's header is among them.
    buffer: Vec<u8>,
    placed: Vec<(LogId, Slot)>,
    /// What was written so far. WHY: not from the memory, which is ahead by whatever is queued.
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

impl Writer {
    /// A writer that goes on where `memory` was recovered to.
    pub(super) fn new(chain: Chain, memory: &Memory) -> Self {
        let (vote, purged, committed) = (memory.vote, memory.purged, memory.committed);
        Self { chain, buffer: Vec::new(), placed: Vec::new(), vote, purged, committed }
    }

    /// Does all of `ops` and tells everyone.
    pub(super) fn process(&mut self, shared: &Shared, ops: Vec<Op>) {
        let mut waiting = Vec::new();
        let steps = ops_and_waiting(ops, &mut waiting);
        let result = match shared.failed() {
            Some(message) => Err(io::Error::other(message)),
            None => self.write_all(shared, steps),
        };
        if let Err(error) = &result {
            // The hook comes before anyone is told anything: it may end the process.
            shared.fail(&error.to_string());
        }
        for done in waiting {
            done(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn write_all(&mut self, shared: &Shared, records: Vec<Step>) -> io::Result<()> {
        let mut purged = false;
        let mut voted = false;
        for step in records {
            match step {
                Step::Write(record) => {
                    purged |= matches!(record, Record::Purge(_));
                    voted |= matches!(record, Record::Vote(_));
                    self.put(shared, &record)?;
                }
                Step::Committed => self.put_committed(shared)?,
            }
        }
        self.flush(shared)?;
        if purged || voted {
            shared.shelf.want_horizon();
        }
        if purged {
            let segments = shared.memory().take_purged();
            if !segments.is_empty() {
                shared.shelf.erase(segments);
            }
        }
        Ok(())
    }

    fn put_committed(&mut self, shared: &Shared) -> io::Result<()> {
        let committed = shared.memory().committed;
        match committed {
            Some(upto) if committed > self.committed => self.put(shared, &Record::Committed(upto)),
            _ => Ok(()),
        }
    }

    fn put(&mut self, shared: &Shared, record: &Record) -> io::Result<()> {
        let bound = record.size_bound();
        if bound > BODY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record is larger than the log takes"));
        }
        let room = |segment: &Segment| {
            let used = segment.end as usize + self.buffer.len();
            (segment.capacity as usize).saturating_sub(used)
        };
        let fits = shared.memory().segments.back().is_some_and(|segment| room(segment) >= bound);
        if !fits {
            self.flush(shared)?;
            self.roll(shared, bound)?;
        }
        self.encode(shared, record);
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Purge(upto) => self.purged = self.purged.max(Some(*upto)),
            Record::Committed(upto) => self.committed = Some(*upto),
            Record::Entry(_) | Record::Truncate(_) => {}
        }
        Ok(())
    }

    fn encode(&mut self, shared: &Shared, record: &Record) {
        let memory = shared.memory();
        let Some(segment) = memory.segments.back() else { return };
        let (start, flushed) = (self.buffer.len(), segment.end);
        self.chain = record.write(&mut self.buffer, segment.epoch, flushed, &self.chain);
        if let Record::Entry(entry) = record {
            let offset = flushed.saturating_add(u32::try_from(start).unwrap_or(u32::MAX));
            let size = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
            self.placed.push((entry.log_id, Slot { seq: segment.seq, offset, size }));
        }
    }

    /// Writes and flushes the buffer; from here on its records are the log's.
    fn flush(&mut self, shared: &Shared) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (file, start, seq) = match shared.memory().segments.back() {
            Some(segment) => (Arc::clone(&segment.file), segment.end, segment.seq),
            None => return Ok(()),
        };
        file.append(start.into(), &self.buffer).map_err(|error| {
            let path = super::segment::path(&shared.dir, seq);
            io::Error::new(error.kind(), format!("cannot write the raft log `{}`: {error}", path.display()))
        })?;
        shared.flushes.fetch_add(1, Ordering::Relaxed);
        let end = start.saturating_add(u32::try_from(self.buffer.len()).unwrap_or(u32::MAX));
        let mut memory = shared.memory();
        if let Some(segment) = memory.segments.back_mut() {
            segment.end = end;
        }
        memory.durable = memory.point(seq, end, self.chain);
        for (log_id, slot) in self.placed.drain(..) {
            memory.written(log_id, slot);
        }
        memory.trim(&shared.options);
        drop(memory);
        self.buffer.clear();
        if self.buffer.capacity() > 4 << 20 {
            self.buffer = Vec::new();
        }
        if start == 0 {
            // Only now is the segment part of the log; a second blank one behind a torn one would be a gap.
            shared.shelf.want_next();
            shared.shelf.want_horizon();
        }
        shared.watch_space();
        Ok(())
    }

    /// Puts the next segment to use. It begins with what the node must not forget when the segments before are erased.
    fn roll(&mut self, shared: &Shared, needed: usize) -> io::Result<()> {
        let spare = shared.shelf.take_next(shared).ok_or_else(|| io::Error::other("the raft log is closing"))?;
        let mut epoch = [0; 8];
        shared.chance.fill(&mut epoch);
        let epoch = u64::from_le_bytes(epoch);
        self.buffer = Header { seq: spare.seq, epoch, chain: self.chain }.block();
        let mut memory = shared.memory();
        let capacity = spare.capacity;
        memory.segments.push_back(Segment { seq: spare.seq, epoch, capacity, end: 0, highest: None, file: spare.file });
        drop(memory);
        let kept = [self.vote.map(Record::Vote), self.purged.map(Record::Purge), self.committed.map(Record::Committed)];
        for record in kept.iter().flatten() {
            self.encode(shared, record);
        }
        if (capacity as usize).saturating_sub(self.buffer.len()) >= needed {
            return Ok(());
        }
        // The first segment of a log is small: a large record may pass it by.
        self.flush(shared)?;
        if capacity >= shared.options.segment_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record does not fit into a log segment"));
        }
        self.roll(shared, needed)
    }
}

/// One thing to write.
enum Step {
    Write(Record),
    Committed,
}

fn ops_and_waiting(ops: Vec<Op>, waiting: &mut Vec<Done>) -> Vec<Step> {
    let mut steps = Vec::with_capacity(ops.len() + 1);
    for op in ops {
        match op {
            Op::Append(entries, done) => {
                steps.extend(entries.into_iter().map(|entry| Step::Write(Record::Entry(entry))));
                steps.push(Step::Committed);
                waiting.push(done);
            }
            Op::Vote(vote, done) => {
                steps.push(Step::Write(Record::Vote(vote)));
                waiting.push(done);
            }
            Op::Truncate(from) => steps.push(Step::Write(Record::Truncate(from))),
            Op::Purge(upto) => steps.push(Step::Write(Record::Purge(upto))),
            Op::Flush(done) => {
                steps.push(Step::Committed);
                waiting.push(done);
            }
        }
    }
    steps
}

const _: () = assert!(RECORDS_AT as usize >= 512, "the header has its block to itself");
