//! A node: its log, its state and the consensus between nodes, behind one handle that any thread may use.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use keyward_model::command::decode_batch;
use keyward_model::{Command, CommandError, Entropy, Outcome};
use keyward_storage::{Position, Store, StoreError};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, Config, EntryPayload, Raft, SnapshotPolicy};
use tokio::sync::{Notify, oneshot};

use crate::applier::{Applier, Standing, to_position};
use crate::checkpoint::Dirty;
use crate::fs::Fs;
use crate::jobs::{Job, Jobs};
use crate::log::{self, Ground, Log, OpenError};
use crate::machine::Machine;
use crate::network::Alone;
use crate::store::{LogStore, Purging};
use crate::submit::{Coalescer, Submission, SubmitError};
use crate::types::Types;

/// Who is told what happens to the state, by the thread that changes it.
pub trait Observer: Send + Sync {
    /// The commands of one entry were applied, with their outcomes. Comes after the commit and before anyone who waits
    /// for them is told; the entries come in order. Also comes while a node starts, for entries that its state lacked.
    fn applied(&self, position: Position, commands: &[(Command, Outcome)]);

    /// Whatever was kept of the entries applied so far must be durable when this comes back: the log lets them go. Comes on
    /// the thread of [`Observer::applied`].
    ///
    /// # Errors
    /// It is not durable: the log keeps everything, and this is asked again when more was applied.
    fn before_purge(&self) -> io::Result<()> {
        Ok(())
    }

    /// The node can no longer keep its promises: the process must stop. Comes before anyone who waits is told.
    fn failed(&self, error: &str);
}

/// What a node is started with.
pub struct Options {
    /// The folder of the log: the node's own, on the same disk as the state.
    pub dir: PathBuf,
    /// The node's id: drawn at random once per data directory and never used again.
    pub node_id: u64,
    /// What to do when neither log nor state hold anything yet.
    pub fresh: Fresh,
    /// The file system of the log.
    pub fs: Arc<dyn Fs>,
    /// Where segment numbers come from.
    pub entropy: Arc<dyn Entropy>,
    /// Sizes of the log.
    pub log: log::Options,
    /// Bytes of log above which the state is made durable and the log before it purged.
    pub log_bytes_max: u64,
    /// Memory of the state database, should another node's state have to be put in its place.
    pub store: keyward_storage::Options,
    /// Timing of leadership.
    pub timing: Timing,
}

/// What to do with a node that holds nothing yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Found a cluster with this node as its only voter.
    Found,
    /// Refuse: there must be a log.
    Refuse,
}

/// When a leader is missed. Milliseconds; `heartbeat < election_min < election_max`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// The shortest silence after which a follower stands for election.
    pub election_min_ms: u64,
    /// The longest.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 60, election_min_ms: 250, election_max_ms: 500 }
    }
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Log and state do not belong together.
    #[error("raft log and state database do not belong together: {what}; restore both from one backup")]
    Apart {
        /// How that shows.
        what: String,
    },
    /// There is nothing to start from.
    #[error("the raft log is empty: initialise the node, or let it join a cluster")]
    Empty,
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The consensus library refused.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// How a node stands. Everything is as of a moment ago.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// This node.
    pub node_id: u64,
    /// The term it is in.
    pub term: u64,
    /// The node that leads, if one is known.
    pub leader: Option<u64>,
    /// Who votes.
    pub voters: Vec<u64>,
    /// Index of the last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry applied to the state.
    pub applied: Option<u64>,
    /// The last entry that is durable in the state itself.
    pub durable: Option<u64>,
    /// The last entry that the log let go.
    pub purged: Option<u64>,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Commands that wait to be proposed.
    pub waiting: usize,
    /// Whether new commands are refused because the disk is full.
    pub disk_full: bool,
    /// How many times the log was opened.
    pub incarnation: u64,
}

/// A running node. Dropped without [`Node::shutdown`], it stops as if the process had been killed.
pub struct Node {
    node_id: u64,
    raft: Raft<Types, Machine>,
    log: Log,
    coalescer: Arc<Coalescer>,
    purging: Arc<Purging>,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    dirty: Arc<Dirty>,
}

/// A clean stop, and whom to tell.
type Stop = oneshot::Sender<io::Result<()>>;

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a node on `store` and returns once its state is as it was before: everything committed is applied. Blocks.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs then.
    pub fn start(options: Options, store: Store, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        let fatal = Arc::clone(&observer);
        let ground = Ground {
            fs: options.fs,
            dir: options.dir,
            chance: options.entropy,
            failed: Box::new(move |error| fatal.failed(error)),
            inline: false,
        };
        let log = Log::open(ground, options.log)?;
        let mut writer = store.writer()?;
        check_together(&log, writer.applied())?;
        let durable = writer.make_durable()?;
        let purging = Arc::new(Purging::default());
        purging.durable_next.store(durable.map_or(0, |at| at.index + 1), Ordering::Release);
        let checkpointer = store.checkpointer()?;
        let standing = Arc::new(Standing::of(store, &writer).map_err(|error| StartError::Raft(error.to_string()))?);
        let (jobs, job_queue) = mpsc::channel();
        let compact = Arc::new(Notify::new());
        let dirty = Arc::new(Dirty::default());
        let applier = Applier {
            jobs: Jobs::new(job_queue),
            writer: Some(writer),
            store_options: options.store,
            standing: Arc::clone(&standing),
            purging: Arc::clone(&purging),
            log: log.clone(),
            log_bytes_max: options.log_bytes_max,
            observer: Arc::clone(&observer),
            dirty: Arc::clone(&dirty),
            compact: Arc::clone(&compact),
        };
        let mut threads = Vec::new();
        let spawn =
            |name: &str, body: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(body);
        threads.push(spawn("sm-writer", Box::new(move || applier.run())).map_err(StartError::Thread)?);
        let (marks, told) = (Arc::clone(&dirty), Arc::clone(&observer));
        let checkpoints = move || {
            if let Err(error) = marks.run(checkpointer) {
                told.failed(&error.to_string());
            }
        };
        threads.push(spawn("sm-checkpoint", Box::new(checkpoints)).map_err(StartError::Thread)?);

        let coalescer = Arc::new(Coalescer::new(log.clone(), options.log.segment_bytes));
        let core = Core {
            node_id: options.node_id,
            fresh: options.fresh,
            timing: options.timing,
            log: log.clone(),
            purging: Arc::clone(&purging),
            jobs,
            standing,
            coalescer: Arc::clone(&coalescer),
            compact,
            observer,
        };
        let (ready, started) = mpsc::channel();
        let (stop, stopping) = oneshot::channel();
        threads.push(spawn("raft", Box::new(move || core.run(&ready, stopping))).map_err(StartError::Thread)?);
        let raft = match started.recv() {
            Ok(Ok(raft)) => raft,
            failed => {
                dirty.stop();
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return Err(match failed {
                    Ok(Err(error)) => error,
                    _ => StartError::Raft("its thread ended".to_owned()),
                });
            }
        };
        let (stop, threads) = (Mutex::new(Some(stop)), Mutex::new(threads));
        Ok(Self { node_id: options.node_id, raft, log, coalescer, purging, stop, threads, dirty })
    }

    /// Puts `command` at the end of the queue. Commands that one thread enqueues stand in the log in that order; those
    /// of several threads, too, if they enqueue under one lock. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]: the command is not in the queue, and nothing will come of it.
    pub fn enqueue(&self, command: Command) -> Result<Submission, SubmitError> {
        self.coalescer.enqueue(command)
    }

    /// Enqueues `command` and waits for what becomes of it, on whatever runtime it is awaited.
    ///
    /// # Errors
    /// [`SubmitError`]; each variant says whether something may have changed.
    pub fn submit(&self, command: Command) -> impl Future<Output = Result<Outcome, SubmitError>> + Send + 'static {
        let enqueued = self.enqueue(command);
        async move { enqueued?.await }
    }

    /// How the node stands. Cheap; never waits.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
        Status {
            node_id: self.node_id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.voter_ids().collect(),
            last_log_index: metrics.last_log_index,
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            durable: self.purging.durable_next.load(Ordering::Acquire).checked_sub(1),
            purged: self.log.purged().map(|id| id.index),
            log_bytes: self.log.bytes(),
            waiting: self.coalescer.waiting(),
            disk_full: self.log.is_full(),
            incarnation: self.log.incarnation(),
        }
    }

    /// The commands of those entries of `range` that the log still holds, each entry with its position. For records
    /// that a crash kept from being made.
    ///
    /// # Errors
    /// The log cannot be read, or holds commands of a newer version.
    pub fn read_commands(&self, range: RangeInclusive<u64>) -> io::Result<Vec<(Position, Vec<Command>)>> {
        let entries = self.log.read(*range.start()..range.end().saturating_add(1), u64::MAX)?;
        let decode = |error: CommandError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            if let EntryPayload::Normal(batch) = entry.payload {
                found.push((to_position(entry.log_id), decode_batch(batch.bytes()).map_err(decode)?));
            }
        }
        Ok(found)
    }

    /// Stops cleanly: nothing new is taken, what is queued gets its outcome, state and log are made durable. On a full disk
    /// what waits for space is told that its outcome is not known; the next start applies what the log holds of it.
    ///
    /// # Errors
    /// Something could not be made durable; it is in the log nevertheless.
    pub async fn shutdown(&self) -> io::Result<()> {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(stop) = stop else { return Ok(()) };
        self.coalescer.close();
        let (sender, receiver) = oneshot::channel();
        let gone = || io::Error::other("the node stopped before");
        stop.send(sender).map_err(|_| gone())?;
        let result = receiver.await.unwrap_or_else(|_| Err(gone()));
        self.dirty.stop();
        result
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.coalescer.close();
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.dirty.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            drop(thread.join());
        }
        self.coalescer.abandon();
    }
}

/// What the raft thread works with.
struct Core {
    node_id: u64,
    fresh: Fresh,
    timing: Timing,
    log: Log,
    purging: Arc<Purging>,
    jobs: mpsc::Sender<Job>,
    standing: Arc<Standing>,
    coalescer: Arc<Coalescer>,
    compact: Arc<Notify>,
    observer: Arc<dyn Observer>,
}

type Ready = mpsc::Sender<Result<Raft<Types, Machine>, StartError>>;

impl Core {
    /// The thread's body: a runtime of its own, so that no load of requests can delay a heartbeat.
    fn run(self, ready: &Ready, stopping: oneshot::Receiver<Stop>) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.live(ready, stopping)),
            Err(error) => drop(ready.send(Err(StartError::Thread(error)))),
        }
    }

    async fn live(self, ready: &Ready, stopping: oneshot::Receiver<Stop>) {
        let raft = match self.start().await {
            Ok(raft) => raft,
            Err(error) => return drop(ready.send(Err(error))),
        };
        drop(ready.send(Ok(raft.clone())));
        let mut proposing = tokio::spawn(propose(raft.clone(), Arc::clone(&self.coalescer), self.observer));
        let compacting = tokio::spawn(compact(raft.clone(), self.compact));
        let stop = stopping.await;
        if stop.is_ok() {
            let mut starving = self.log.starving();
            let all_landed = async {
                drop((&mut proposing).await);
                self.coalescer.landed().await;
            };
            tokio::select! {
                () = all_landed => {}
                // Nobody knows whether there will ever be space.
                _ = starving.wait_for(|starving| *starving) => {}
            }
        }
        proposing.abort();
        compacting.abort();
        drop(raft.shutdown().await);
        if let Ok(tell) = stop {
            let (sender, receiver) = oneshot::channel();
            let asked = self.jobs.send(Job::Stop(sender));
            let state = if asked.is_ok() { receiver.await.unwrap_or(Ok(())) } else { Ok(()) };
            drop(tell.send(self.log.close().and(state)));
        }
    }

    async fn start(&self) -> Result<Raft<Types, Machine>, StartError> {
        let said = |error: &dyn fmt::Display| StartError::Raft(error.to_string());
        let config = config(self.timing).validate().map_err(|error| said(&error))?;
        let store = LogStore::new(self.log.clone(), Arc::clone(&self.purging));
        let machine = Machine::new(self.jobs.clone(), Arc::clone(&self.standing));
        let raft =
            Raft::new(self.node_id, Arc::new(config), Alone, store, machine).await.map_err(|error| said(&error))?;
        let started = self.lead(&raft).await;
        if started.is_err() {
            drop(raft.shutdown().await);
        }
        started.map(|()| raft)
    }

    async fn lead(&self, raft: &Raft<Types, Machine>) -> Result<(), StartError> {
        let said = |error: &dyn fmt::Display| StartError::Raft(error.to_string());
        if raft.is_initialized().await.map_err(|error| said(&error))? {
            let voters: Vec<u64> = raft.voter_ids().collect();
            if voters == [self.node_id] {
                // Nobody else can lead: no need to wait for a silence.
                raft.trigger().elect(false).await.map_err(|error| said(&error))?;
            } else if !voters.contains(&self.node_id) {
                return Err(StartError::Apart {
                    what: format!("this node is {}, the log's voters are {voters:?}", self.node_id),
                });
            }
        } else if self.fresh == Fresh::Found {
            let members = BTreeMap::from([(self.node_id, BasicNode::default())]);
            raft.initialize(members).await.map_err(|error| said(&error))?;
        } else {
            return Err(StartError::Empty);
        }
        raft.wait_for_recovery(None).await.map_err(|error| said(&error))?;
        Ok(())
    }
}

fn config(timing: Timing) -> Config {
    Config {
        cluster_name: "keyward".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: 10 * 60 * 1000,
        max_payload_entries: 1024,
        snapshot_policy: SnapshotPolicy::Never, // by bytes, from our side
        max_in_snapshot_log_to_keep: 0,
        enable_pre_vote: Some(true),
        ..Config::default()
    }
}

/// Hands batches to the core, in the order of the queue.
async fn propose(raft: Raft<Types, Machine>, coalescer: Arc<Coalescer>, observer: Arc<dyn Observer>) {
    while let Some(proposal) = coalescer.next().await {
        let (batch, answer) = proposal.into_parts();
        if let Err(error) = raft.client_write_ff(batch, Some(answer)).await {
            observer.failed(&format!("raft has stopped: {error}"));
            return coalescer.abandon();
        }
    }
}

/// Makes the state durable when the log has grown; openraft purges the log up to there.
async fn compact(raft: Raft<Types, Machine>, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

fn check_together(log: &Log, applied: Option<Position>) -> Result<(), StartError> {
    let last = log.last().map(|last| last.index);
    let applied = applied.map(|at| at.index);
    if applied > last {
        let show = |index: Option<u64>| index.map_or_else(|| "nothing".to_owned(), |index| format!("entry {index}"));
        return Err(StartError::Apart {
            what: format!("the state holds {}, the log ends with {}", show(applied), show(last)),
        });
    }
    match log.purged().map(|purged| purged.index) {
        Some(purged) if applied < Some(purged) => Err(StartError::Apart {
            what: format!("the log begins after entry {purged}, which the state does not hold"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
