//! The thread that changes the state: it applies entries, one transaction per call, and tells those who wait only
//! after the commit.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyward_model::command::decode_batch;
use keyward_model::{Command, Outcome};
use keyward_storage::{Content, Position, Store, StoreError, Writer};
use openraft::EntryPayload;
use openraft::storage::EntryResponder;
use tokio::sync::Notify;

use crate::checkpoint::Dirty;
use crate::flight::Waiter;
use crate::jobs::{Job, Jobs};
use crate::log::Log;
use crate::log::record::{decode_membership, encode_membership};
use crate::node::Observer;
use crate::snapshot::SnapshotData;
use crate::store::Purging;
use crate::types::{LogId, SnapshotMeta, StoredMembership, Types, log_id};

/// How far the state is, for everyone to see.
pub(crate) struct Standing(Mutex<State>);

struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
    /// `None` only while another state is put in its place.
    store: Option<Store>,
}

/// What the thread works with.
pub(crate) struct Applier {
    pub(crate) jobs: Jobs,
    pub(crate) writer: Option<Writer>,
    pub(crate) store_options: keyward_storage::Options,
    pub(crate) standing: Arc<Standing>,
    pub(crate) purging: Arc<Purging>,
    pub(crate) log: Log,
    pub(crate) log_bytes_max: u64,
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
        Ok(Self(Mutex::new(State {
            applied: writer.applied().map(to_log_id),
            membership,
            snapshot: None,
            store: Some(store),
        })))
    }

    pub(crate) fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let state = self.state();
        (state.applied, state.membership.clone())
    }

    /// The last position made durable, and the state that holds it.
    pub(crate) fn snapshot(&self) -> Option<(SnapshotMeta, SnapshotData)> {
        let state = self.state();
        Some((state.snapshot.clone()?, SnapshotData::Live(state.store.clone()?)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let entries: Vec<keyward_storage::Entry<'_>> = loads.iter().map(Load::entry).collect();
        let outcomes = self.write(&entries)?;
        let writer = self.writer.as_ref().ok_or(ApplyError::NoWriter)?;
        let membership = writer.membership().filter(|(at, _)| loads.iter().any(|load| to_position(load.at) == *at));
        drop(entries);

        let membership = membership.map(|(at, bytes)| read_membership(at, &bytes)).transpose()?;
        let mut state = self.standing.state();
        state.applied = Some(last);
        if let Some(membership) = membership {
            state.membership = membership;
        }
        drop(state);

        for (load, outcomes) in loads.into_iter().zip(outcomes) {
            let done: Vec<(Command, Outcome)> = load.commands.into_iter().zip(outcomes).collect();
            if !done.is_empty() {
                self.observer.applied(to_position(load.at), &done);
            }
            for (waiter, (_, outcome)) in load.waiters.into_iter().zip(&done) {
                drop(waiter.send(Ok(*outcome)));
            }
        }
        for responder in responders {
            responder.send(());
        }
        self.log.release(last.index + 1);
        if self.dirty.mark()
            && let Some(writer) = &mut self.writer
        {
            writer.checkpoint(keyward_storage::Kind::Restart)?;
        }
        if self.log.bytes() > self.log_bytes_max && !self.purging.asked.swap(true, Ordering::AcqRel) {
            self.compact.notify_one();
        }
        Ok(())
    }

    /// Writes `entries`, however long the disk stays full: they are committed, so there is no other way on.
    fn write(&mut self, entries: &[keyward_storage::Entry<'_>]) -> Result<Vec<Vec<Outcome>>, ApplyError> {
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

    fn make_durable(&mut self) -> Result<(SnapshotMeta, SnapshotData), ApplyError> {
        let writer = self.writer.as_mut().ok_or(ApplyError::NoWriter)?;
        let durable = writer.make_durable()?;
        self.purging.durable_next.store(durable.map_or(0, |at| at.index + 1), Ordering::Release);
        let mut state = self.standing.state();
        let meta = SnapshotMeta { last_log_id: durable.map(to_log_id), last_membership: state.membership.clone() };
        state.snapshot = Some(meta);
        drop(state);
        self.standing.snapshot().ok_or(ApplyError::NoWriter)
    }

    /// Promises nothing new: the log purges up to what the last snapshot names, which it did already.
    fn put_off(&self) -> io::Result<(SnapshotMeta, SnapshotData)> {
        self.purging.asked.store(false, Ordering::Release);
        let state = self.standing.state();
        let store = state.store.clone().ok_or_else(|| io::Error::other(ApplyError::NoWriter.to_string()))?;
        Ok((state.snapshot.clone().unwrap_or_default(), SnapshotData::Live(store)))
    }

    /// Replaces the state. Nobody else may hold a handle of the old database while it is done.
    fn install(&mut self, meta: &SnapshotMeta, data: &SnapshotData) -> Result<(), ApplyError> {
        self.writer = None;
        let old = self.standing.state().store.take().ok_or(ApplyError::NoWriter)?;
        let directory = old.file().parent().map(PathBuf::from).unwrap_or_default();
        drop(old);
        let received = directory.join("received.snapshot");
        let store = match data {
            SnapshotData::File(path) => Store::install(&directory, path, &self.store_options)?,
            SnapshotData::Live(other) => {
                other.snapshot_into(&received)?;
                let store = Store::install(&directory, &received, &self.store_options)?;
                std::fs::remove_file(&received).map_err(ApplyError::Io)?;
                store
            }
        };
        let writer = store.writer()?;
        let applied = writer.applied().map(to_log_id);
        if applied != meta.last_log_id {
            return Err(ApplyError::OtherSnapshot);
        }
        let membership = stored_membership(&writer).map_err(ApplyError::Io)?;
        self.purging.durable_next.store(applied.map_or(0, |at| at.index + 1), Ordering::Release);
        self.writer = Some(writer);
        let mut state = self.standing.state();
        *state = State { applied, membership, snapshot: Some(meta.clone()), store: Some(store) };
        Ok(())
    }
}

/// One entry, taken apart.
struct Load {
    at: LogId,
    kind: Kind,
    commands: Vec<Command>,
    waiters: Vec<Waiter>,
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
    #[error("the node stopped while the disk was full; the next start applies what waited")]
    Stopped,
    #[error("the snapshot holds another state than its sender said; fetch it anew")]
    OtherSnapshot,
}

fn stored_membership(writer: &Writer) -> io::Result<StoredMembership> {
    match writer.membership() {
        None => Ok(StoredMembership::default()),
        Some((at, bytes)) => read_membership(at, &bytes).map_err(|error| io::Error::other(error.to_string())),
    }
}

fn read_membership(at: Position, bytes: &[u8]) -> Result<StoredMembership, ApplyError> {
    let membership = decode_membership(bytes).ok_or_else(|| {
        ApplyError::Io(io::Error::other(format!(
            "the membership of log entry {} has a format that this keyward does not know; start the newer one that wrote it",
            at.index
        )))
    })?;
    Ok(StoredMembership::new(Some(to_log_id(at)), membership))
}

/// A position as openraft names it.
pub(crate) fn to_log_id(at: Position) -> LogId {
    log_id(at.term, at.leader, at.index)
}

/// A log id as the state database names it.
pub(crate) fn to_position(at: LogId) -> Position {
    Position { term: at.leader_id.term, leader: at.leader_id.node_id, index: at.index }
}
