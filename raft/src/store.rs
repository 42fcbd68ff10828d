//! The log as openraft asks for it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, RaftLogReader};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::flight::Flight;
use crate::log::Log;
use crate::types::{Entry, LogId, Types, Vote};

/// Bytes of entries that are read at once, unless one has more: to go to a follower, or to be applied.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// The log, and how far it may be purged.
#[derive(Clone)]
pub struct LogStore {
    log: Log,
    purging: Arc<Purging>,
}

/// What log and state machine must agree on.
#[derive(Debug, Default)]
pub struct Purging {
    /// Entries below this index are durable in the state database.
    pub durable_next: AtomicU64,
    /// A purge was asked for and did not come yet.
    pub asked: AtomicBool,
}

impl LogStore {
    /// The store over `log`.
    pub fn new(log: Log, purging: Arc<Purging>) -> Self {
        Self { log, purging }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.log.read(indices(&range), u64::MAX)
    }

    // To be applied: piece by piece, or a state that is far behind would have all of it in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (log, range) = (self.log.clone(), indices(&range));
        let pieces = stream::try_unfold((log, range), |(log, range)| async move {
            let piece = if range.is_empty() { Vec::new() } else { read(&log, range.clone()).await? };
            let last = piece.last().map(|entry| entry.log_id.index);
            Ok::<_, io::Error>(
                last.map(|last| (stream::iter(piece.into_iter().map(Ok)), (log, last.saturating_add(1)..range.end))),
            )
        });
        pieces.try_flatten()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        read(&self.log, start..end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState { last_purged_log_id: self.log.purged(), last_log_id: self.log.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.log.save_vote(*vote, Box::new(move |result| drop(sender.send(result))));
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    // It comes once per commit, inside the core's loop: noted, and durable with the next append.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut flights = Vec::new();
        for entry in &entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                batch.flight().mark_logged();
                flights.push(batch.flight().clone());
            }
        }
        let done = move |result| {
            // Before openraft is told: applying the batch is the next thing, and the log shall have its work meanwhile.
            flights.iter().for_each(Flight::leave_log);
            callback.io_completed(result);
        };
        self.log.append(entries, Box::new(done))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let durable_next = self.purging.durable_next.load(Ordering::Acquire);
        if upto.index >= durable_next {
            // INVARIANT: purged <= durably applied. Beyond it lies the loss of acknowledged writes at the next power cut.
            let message =
                format!("entry {} must not be purged: the state is durable only below {durable_next}", upto.index);
            return Err(io::Error::other(message));
        }
        self.purging.asked.store(false, Ordering::Release);
        self.log.purge(upto);
        Ok(())
    }
}

fn indices(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// The first entries of `range`. From the disk they are read elsewhere: that must not hold up heartbeats.
async fn read(log: &Log, range: Range<u64>) -> io::Result<Vec<Entry>> {
    if log.is_at_hand(range.start) {
        return log.read(range, PIECE_BYTES_MAX);
    }
    let log = log.clone();
    spawn_blocking(move || log.read(range, PIECE_BYTES_MAX)).await.map_err(io::Error::other)?
}

fn closed() -> io::Error {
    io::Error::other("the raft log is closed")
}
