//! The thread that changes the state: it applies entries, one transaction per call, and tells those who wait only
//! after the commit.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_model::command::decode_batch;
use keyward_model::{Command, Outcome, StateSum};
use keyward_storage::{Content, Position, Store, StoreError, Writer};
use openraft::EntryPayload;
use openraft::storage::EntryResponder;
use tokio::sync::{Notify, watch};

use crate::arrivals::{Waiter, tell_all};
use crate::checkpoint::Dirty;
use crate::jobs::{Job, Jobs};
use crate::log::Log;
use crate::log::record::{decode_membership, encode_membership};
use crate::observer::Observer;
use crate::snapshot::SnapshotData;
use crate::store::Purging;
use crate::submit::Landed;
use crate::transit::Transit;
use crate::types::{LogId, SnapshotMeta, StoredMembership, Types, log_id};

/// Sums that are kept, to compare with those of other nodes.
const SUMS_KEPT: usize = 1024;
/// Sums that a node tells the leader.
const SUMS_TOLD: usize = 16;

/// So many times as much log as otherwise is kept for a member that gets a snapshot.
const KEPT_FACTOR: u64 = 4;

/// Between two looks whether the node stops, while the log is slow.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// How far the state is, for everyone to see.
pub(crate) struct Standing {
    state: Mutex<State>,
    /// Index after the last applied entry.
    applied_next: watch::Sender<u64>,
    /// The term of the last applied entry; 0 before the first.
    applied_term: AtomicU64,
}

struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
    store: Store,
    /// What the state added up to after the last entries, the newest last.
    sums: VecDeque<(u64, StateSum)>,
}

/// What the thread works with.
pub(crate) struct Applier {
    pub(crate) jobs: Jobs,
    pub(crate) writer: Option<Writer>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) purging: Arc<Purging>,
    pub(crate) log: Log,
    pub(crate) log_bytes_max: u64,
    /// Bytes of the log that stay for other nodes, if there are any.
    pub(crate) log_bytes_kept: u64,
    /// Who gets a snapshot, and will need the log after it.
    pub(crate) transit: Arc<Transit>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) dirty: Arc<Dirty>,
    pub(crate) compact: Arc<Notify>,
}

impl Standing {
    /// Where the writer stands.
    ///
    /// # Errors
    /// The stored membership is not one.
    pub(crate) fn of(store: Store, writer: &Writer) -> io::Result<Self> {
        let membership = stored_membership(writer)?;
        let applied = writer.applied().map(to_log_id);
        let applied_next = watch::Sender::new(applied.map_or(0, |at| at.index + 1));
        let sums = applied.iter().map(|at| (at.index, writer.sum())).collect();
        let state = Mutex::new(State { applied, membership, snapshot: None, store, sums });
        Ok(Self { state, applied_next, applied_term: AtomicU64::new(term_of(applied)) })
    }

    /// Returns when the entry `index` is applied and readers see it.
    pub(crate) async fn reach(&self, index: u64) {
        // Fails only without a sender, which is here.
        drop(self.applied_next.subscribe().wait_for(|next| *next > index).await);
    }

    pub(crate) fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let state = self.state();
        (state.applied, state.membership.clone())
    }

    /// The term of the last applied entry, which readers see; 0 before the first. Cheap.
    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    /// Readers see everything up to `last`, and nothing in the observer's caches is older.
    fn show(&self, last: Option<LogId>) {
        self.applied_term.store(term_of(last), Ordering::Release);
        self.applied_next.send_replace(last.map_or(0, |at| at.index + 1));
    }

    /// Index after the last applied entry.
    pub(crate) fn applied_next(&self) -> u64 {
        *self.applied_next.borrow()
    }

    /// The last position made durable, and the state that holds it.
    pub(crate) fn snapshot(&self) -> Option<(SnapshotMeta, SnapshotData)> {
        let state = self.state();
        Some((state.snapshot.clone()?, SnapshotData::Live(state.store.clone())))
    }

    /// The folder of the state.
    pub(crate) fn directory(&self) -> PathBuf {
        self.state().store.directory().to_owned()
    }

    /// What the state added up to after some of the last entries, the newest last.
    pub(crate) fn sums(&self) -> Vec<(u64, StateSum)> {
        let state = self.state();
        state.sums.range(state.sums.len().saturating_sub(SUMS_TOLD)..).copied().collect()
    }

    /// The first of the entries after which another node's state added up to something else than this one's.
    pub(crate) fn differs(&self, told: &[(u64, StateSum)]) -> Option<u64> {
        let state = self.state();
        let differs = |(index, sum): &&(u64, StateSum)| {
            let at = state.sums.binary_search_by_key(index, |(index, _)| *index);
            at.ok().and_then(|at| state.sums.get(at)).is_some_and(|(_, own)| own != sum)
        };
        told.iter().find(differs).map(|(index, _)| *index)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Applier {
    /// The thread's body.
    pub(crate) fn run(mut self) {
        while let Some(job) = self.jobs.next() {
            match job {
                Job::Apply(batch, done) => {
                    let result = self.apply(batch).map_err(|error| self.failed(&error));
                    drop(done.send(result));
                }
                Job::MakeDurable(done) => {
                    let result = match self.observer.before_purge() {
                        Ok(()) => self.make_durable().map_err(|error| self.failed(&error)),
                        Err(_) => self.put_off(),
                    };
                    drop(done.send(result));
                }
                Job::Install(meta, data, done) => {
                    let result = self.install(&meta, &data).map_err(|error| self.failed(&error));
                    drop(done.send(result));
                }
                Job::Stop(done) => {
                    drop(done.send(self.make_durable().map(drop).map_err(|error| io::Error::other(error.to_string()))));
                    return;
                }
            }
        }
    }

    /// Any failure here ends the process: going on would let this node's state part from the others'.
    fn failed(&self, error: &ApplyError) -> io::Error {
        let message = error.to_string();
        if !matches!(error, ApplyError::Stopped) {
            self.observer.failed(&message);
        }
        io::Error::other(message)
    }

    fn apply(&mut self, batch: Vec<EntryResponder<Types>>) -> Result<(), ApplyError> {
        let mut loads = Vec::with_capacity(batch.len());
        let mut responders = Vec::with_capacity(batch.len());
        for (entry, responder) in batch {
            responders.extend(responder);
            loads.push(Load::of(entry.log_id, entry.payload)?);
        }
        let Some(last) = loads.last().map(|load| load.at) else { return Ok(()) };
        self.wait_for_log(last)?;
        let entries: Vec<keyward_storage::Entry<'_>> = loads.iter().map(Load::entry).collect();
        let outcomes = self.write(&entries)?;
        let writer = self.writer.as_ref().ok_or(ApplyError::NoWriter)?;
        let membership = writer.membership().filter(|(at, _)| loads.iter().any(|load| to_position(load.at) == *at));
        drop(entries);

        let membership =
            membership.map(|(at, bytes)| read_membership(at, &bytes)).transpose().map_err(ApplyError::Io)?;
        let sum = writer.sum();
        let mut state = self.standing.state();
        state.applied = Some(last);
        if state.sums.len() >= SUMS_KEPT {
            state.sums.pop_front();
        }
        state.sums.push_back((last.index, sum));
        if let Some(membership) = membership {
            state.membership = membership;
        }
        drop(state);

        let mut told = Vec::new();
        for (load, outcomes) in loads.into_iter().zip(outcomes) {
            let done: Vec<(Command, Outcome)> = load.commands.into_iter().zip(outcomes).collect();
            if !done.is_empty() {
                self.observer.applied(to_position(load.at), &done);
            }
            told.extend(load.waiters.into_iter().zip(done.into_iter().map(|(_, outcome)| Ok(outcome))));
        }
        // Whoever reads from here on finds nothing in the observer's caches that these entries made old.
        self.standing.show(Some(last));
        tell_all(told);
        for responder in responders {
            responder.send(());
        }
        self.log.release(last.index + 1);
        if self.dirty.mark()
            && let Some(writer) = &mut self.writer
        {
            writer.checkpoint(keyward_storage::Kind::Restart)?;
        }
        if self.log.bytes() > self.log_bytes_max
            && self.may_purge(last)
            && !self.purging.asked.swap(true, Ordering::AcqRel)
        {
            self.compact.notify_one();
        }
        Ok(())
    }

    /// Waits until this node's own log holds everything up to `last`, durably. Entries that others committed come here when
    /// they are only queued for it, and a state ahead of its log is one that no start accepts. A sole voter never waits:
    /// its own flush is what commits.
    fn wait_for_log(&mut self, last: LogId) -> Result<(), ApplyError> {
        if self.log.is_durable(last.index) {
            return Ok(());
        }
        let flushed = self.flushing();
        loop {
            match flushed.recv_timeout(STOP_LOOK) {
                Ok(result) => return result.map_err(ApplyError::Io),
                Err(RecvTimeoutError::Disconnected) => return Err(ApplyError::Io(closed())),
                // The log may wait for space for good.
                Err(RecvTimeoutError::Timeout) if self.jobs.is_stopping() => return Err(ApplyError::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Writes `entries`, however long the disk stays full: they are committed, so there is no other way on.
    fn write(&mut self, entries: &[keyward_storage::Entry<'_>]) -> Result<Vec<Vec<Outcome>>, ApplyError> {
        self.wait_for_room()?;
        let mut waited = false;
        loop {
            match self.writer.as_mut().ok_or(ApplyError::NoWriter)?.apply(entries) {
                Err(StoreError::DiskFull) if !waited => self.log.mark_full(),
                Err(StoreError::DiskFull) => {}
                outcomes => {
                    if waited {
                        self.log.unmark_full();
                    }
                    return Ok(outcomes?);
                }
            }
            waited = true;
            if !self.jobs.wait_for_space() {
                return Err(ApplyError::Stopped);
            }
        }
    }

    /// Waits until the observer can keep what comes of more entries.
    fn wait_for_room(&mut self) -> Result<(), ApplyError> {
        if self.observer.has_room() {
            return Ok(());
        }
        self.log.mark_held(true);
        while !self.observer.has_room() {
            if !self.jobs.wait_for_space() {
                return Err(ApplyError::Stopped);
            }
        }
        self.log.mark_held(false);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(SnapshotMeta, SnapshotData), ApplyError> {
        let writer = self.writer.as_mut().ok_or(ApplyError::NoWriter)?;
        let durable = writer.make_durable()?;
        self.purging.durable_next.store(durable.map_or(0, |at| at.index + 1), Ordering::Release);
        let upto = self.purged_next(durable.map(to_log_id)).map_err(ApplyError::Io)?;
        if self.is_kept(upto.map(|upto| upto.index)) {
            return self.put_off().map_err(ApplyError::Io);
        }
        let mut state = self.standing.state();
        if state.snapshot.as_ref().is_none_or(|last| last.last_log_id < upto) {
            let meta = SnapshotMeta { last_log_id: upto, last_membership: state.membership.clone() };
            state.snapshot = Some(meta);
        } else {
            self.purging.asked.store(false, Ordering::Release);
        }
        drop(state);
        self.standing.snapshot().ok_or(ApplyError::NoWriter)
    }

    /// Whether there is something to purge, when `last` is applied.
    fn may_purge(&self, last: LogId) -> bool {
        let next = if self.keeps_for_others() { self.log.before_last(self.log_bytes_kept) } else { Some(last.index) };
        let members = self.standing.state().membership.log_id().map(|id| id.index);
        next > self.log.purged().map(|purged| purged.index) && !self.is_kept(next.max(members))
    }

    /// Whether somebody will need entries up to `upto`, and may have them. WHY: without them it would need another snapshot
    /// as soon as it has this one, and so on for as long as much is written. On a full disk nothing is, and space counts more.
    fn is_kept(&self, upto: Option<u64>) -> bool {
        !self.log.is_full()
            && self.log.bytes() <= self.log_bytes_max.saturating_mul(KEPT_FACTOR)
            && self.transit.first().is_some_and(|index| upto > Some(index))
    }

    /// Up to where the log may be purged when everything up to `durable` is durable in the state. With other nodes a part of
    /// the log is kept: one that is a little behind shall not need all of the state.
    fn purged_next(&self, durable: Option<LogId>) -> io::Result<Option<LogId>> {
        if !self.keeps_for_others() {
            return Ok(durable);
        }
        let before = self.log.before_last(self.log_bytes_kept);
        let before = before.map(|index| self.log.read(index..index + 1, u64::MAX)).transpose()?;
        let before =
            before.and_then(|entries| entries.first().map(|entry| entry.log_id)).filter(|id| Some(*id) <= durable);
        // A snapshot names the membership that it holds, and that must not be one of later.
        let members = *self.standing.state().membership.log_id();
        Ok(before.max(self.log.purged()).max(members))
    }

    fn keeps_for_others(&self) -> bool {
        self.log_bytes_kept > 0 && self.standing.state().membership.nodes().count() > 1
    }

    /// Promises nothing new: the log purges up to what the last snapshot names, which it did already. After a start that is
    /// where the log begins: the state is durable up to there, or it would not begin there.
    fn put_off(&self) -> io::Result<(SnapshotMeta, SnapshotData)> {
        self.purging.asked.store(false, Ordering::Release);
        let mut state = self.standing.state();
        // WHY: kept, and not only given. The library ends a leader that has none for a node which needs one.
        if let (None, Some(purged)) = (&state.snapshot, self.log.purged()) {
            let last_membership = state.membership.clone();
            state.snapshot = Some(SnapshotMeta { last_log_id: Some(purged), last_membership });
        }
        Ok((state.snapshot.clone().unwrap_or_default(), SnapshotData::Live(state.store.clone())))
    }

    /// Puts another state in the place of this one. Readers of the old one go on until they let go of it.
    fn install(&mut self, meta: &SnapshotMeta, data: &SnapshotData) -> Result<(), ApplyError> {
        let store = self.standing.state().store.clone();
        let received = match data {
            SnapshotData::File(path) => path.clone(),
            SnapshotData::Live(other) => {
                let path = store.directory().join("copied.snapshot");
                other.snapshot_into(&path)?;
                path
            }
        };
        // Entries that contradict the snapshot were voided before this: a start must not find them beside the new state.
        self.flush_log().map_err(ApplyError::Io)?;
        self.writer = None;
        store.install(&received)?;
        let writer = store.writer()?;
        let applied = writer.applied().map(to_log_id);
        if applied != meta.last_log_id {
            return Err(ApplyError::OtherSnapshot);
        }
        let membership = stored_membership(&writer).map_err(ApplyError::Io)?;
        self.dirty.switch(store.checkpointer()?);
        self.purging.durable_next.store(applied.map_or(0, |at| at.index + 1), Ordering::Release);
        let sum = writer.sum();
        self.writer = Some(writer);
        let mut state = self.standing.state();
        *state = State {
            applied,
            membership,
            snapshot: Some(meta.clone()),
            store: store.clone(),
            sums: applied.iter().map(|at| (at.index, sum)).collect(),
        };
        drop(state);
        self.observer.replaced(&store);
        self.standing.show(applied);
        Ok(())
    }

    /// Waits until everything that the log was asked before is durable.
    fn flush_log(&self) -> io::Result<()> {
        self.flushing().recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Tells when everything that the log was asked before is durable.
    fn flushing(&self) -> mpsc::Receiver<io::Result<()>> {
        let (sender, receiver) = mpsc::channel();
        self.log.flush(Box::new(move |result| drop(sender.send(result))));
        receiver
    }
}

fn closed() -> io::Error {
    io::Error::other("the raft log is closed")
}

/// One entry, taken apart.
struct Load {
    at: LogId,
    kind: Kind,
    commands: Vec<Command>,
    waiters: Vec<Waiter<Landed>>,
}

enum Kind {
    Blank,
    Commands,
    Membership(Vec<u8>),
}

impl Load {
    fn of(at: LogId, payload: crate::types::Payload) -> Result<Self, ApplyError> {
        let (kind, commands, waiters) = match payload {
            EntryPayload::Blank => (Kind::Blank, Vec::new(), Vec::new()),
            EntryPayload::Membership(membership) => {
                (Kind::Membership(encode_membership(&membership)), Vec::new(), Vec::new())
            }
            EntryPayload::Normal(batch) => match batch.flight().take() {
                Some(passengers) => (Kind::Commands, passengers.commands, passengers.waiters),
                None => {
                    let commands = decode_batch(batch.bytes()).map_err(|error| ApplyError::Commands { at, error })?;
                    (Kind::Commands, commands, Vec::new())
                }
            },
        };
        Ok(Self { at, kind, commands, waiters })
    }

    fn entry(&self) -> keyward_storage::Entry<'_> {
        let content = match &self.kind {
            Kind::Blank => Content::Blank,
            Kind::Commands => Content::Commands(&self.commands),
            Kind::Membership(bytes) => Content::Membership(bytes),
        };
        keyward_storage::Entry { position: to_position(self.at), content }
    }
}

/// Why the state cannot go on.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("log entry {}: {error}; start the newer keyward that wrote it", at.index)]
    Commands { at: LogId, error: keyward_model::CommandError },
    #[error("{0}")]
    Io(io::Error),
    #[error("the state database was closed by an earlier failure")]
    NoWriter,
    #[error("the node stopped while the disk was full or slow; the next start applies what waited")]
    Stopped,
    #[error("the snapshot holds another state than its sender said; fetch it anew")]
    OtherSnapshot,
}

fn stored_membership(writer: &Writer) -> io::Result<StoredMembership> {
    match writer.membership() {
        None => Ok(StoredMembership::default()),
        Some((at, bytes)) => read_membership(at, &bytes),
    }
}

pub(crate) fn read_membership(at: Position, bytes: &[u8]) -> io::Result<StoredMembership> {
    let membership = decode_membership(bytes).ok_or_else(|| {
        io::Error::other(format!(
            "the membership of log entry {} has a format that this keyward does not know; start the newer one that wrote it",
            at.index
        ))
    })?;
    Ok(StoredMembership::new(Some(to_log_id(at)), membership))
}

/// A position as openraft names it.
fn term_of(at: Option<LogId>) -> u64 {
    at.map_or(0, |at| at.leader_id.term)
}

pub(crate) fn to_log_id(at: Position) -> LogId {
    log_id(at.term, at.leader, at.index)
}

/// A log id as the state database names it.
pub(crate) fn to_position(at: LogId) -> Position {
    Position { term: at.leader_id.term, leader: at.leader_id.node_id, index: at.index }
}
