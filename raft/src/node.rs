//! A node: its log, its state and the consensus between nodes, behind one handle that any thread may use.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyward_model::command::decode_batch;
use keyward_model::{Command, CommandError, Outcome};
use keyward_storage::{Position, Store};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{EntryPayload, Raft};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use crate::applier::{Applier, Standing, to_position};
use crate::arrivals::Arrivals;
use crate::candidacy::Candidacy;
use crate::change::{ChangeError, Changes, members};
use crate::checkpoint::Dirty;
use crate::core::{Core, Started, check_together};
use crate::jobs::Jobs;
use crate::link::frame::Kind;
use crate::link::message::Lane;
use crate::link::{Connection, Host};
use crate::log::{Ground, Log};
use crate::machine::Machine;
use crate::observer::Observer;
use crate::options::{Options, StartError};
use crate::reads::{ReadPoint, Reads};
use crate::roster::{Leadership, Member, Roster};
use crate::store::Purging;
use crate::submit::{Coalescer, Submission, SubmitError};
use crate::transit::Transit;
use crate::types::Types;

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
    /// Who takes part.
    pub members: Vec<Member>,
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
    runtime: Handle,
    roster: Arc<Roster>,
    reads: Arc<Reads>,
    changes: Arc<Changes>,
    host: Arc<Host>,
}

/// How long another node may take to answer a greeting.
const GREETING_MAX: Duration = Duration::from_secs(1);

/// A clean stop, and whom to tell.
pub(crate) type Stop = oneshot::Sender<io::Result<()>>;

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a node on `store` and returns once its state is as it was before: everything known to be committed is applied;
    /// a node that is the only voter leads. With others it is barred from leading until [`Node::campaign`] says otherwise: only
    /// its caller knows whether it can answer anybody. Blocks.
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
        check_together(&log, writer.applied(), store.installed())?;
        let durable = writer.make_durable()?;
        let purging = Arc::new(Purging::default());
        purging.durable_next.store(durable.map_or(0, |at| at.index + 1), Ordering::Release);
        let checkpointer = store.checkpointer()?;
        let standing = Arc::new(Standing::of(store, &writer).map_err(|error| StartError::Raft(error.to_string()))?);
        let (jobs, job_queue) = mpsc::channel();
        let compact = Arc::new(Notify::new());
        let dirty = Arc::new(Dirty::default());
        let transit = Arc::new(Transit::default());
        let applier = Applier {
            jobs: Jobs::new(job_queue),
            writer: Some(writer),
            standing: Arc::clone(&standing),
            purging: Arc::clone(&purging),
            log: log.clone(),
            log_bytes_max: options.log_bytes_max,
            log_bytes_kept: options.log_bytes_max / 4,
            transit: Arc::clone(&transit),
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

        let silence_max = Duration::from_millis(options.timing.election_max_ms);
        let (roster, reads) = (Arc::new(Roster::new(options.node_id, silence_max)), Arc::new(Reads::new()));
        let coalescer = Arc::new(Coalescer::new(log.clone(), options.log.segment_bytes, Arc::clone(&roster)));
        let core = Core {
            node_id: options.node_id,
            address: options.address,
            fresh: options.fresh,
            timing: options.timing,
            log: log.clone(),
            purging: Arc::clone(&purging),
            jobs,
            standing,
            coalescer: Arc::clone(&coalescer),
            compact,
            observer,
            roster: Arc::clone(&roster),
            reads: Arc::clone(&reads),
            dialer: options.dialer,
            transit,
        };
        let (ready, started) = mpsc::channel();
        let (stop, stopping) = oneshot::channel();
        threads.push(spawn("raft", Box::new(move || core.run(&ready, stopping))).map_err(StartError::Thread)?);
        let Started { raft, runtime, host, changes } = match started.recv() {
            Ok(Ok(started)) => started,
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
        let node_id = options.node_id;
        Ok(Self { node_id, raft, log, coalescer, purging, stop, threads, dirty, runtime, roster, reads, changes, host })
    }

    /// Puts `command` at the end of the queue. Commands that one thread enqueues stand in the log in that order; those
    /// of several threads, too, if they enqueue under one lock. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]: the command is not in the queue, and nothing will come of it.
    pub fn enqueue(&self, command: Command) -> Result<Submission, SubmitError> {
        self.coalescer.enqueue(command, None)
    }

    /// As [`Node::enqueue`]. The outcome comes through `arrivals`, together with those of the same batch.
    ///
    /// # Errors
    /// [`SubmitError`]: the command is not in the queue, and nothing will come of it.
    pub fn enqueue_for(&self, arrivals: &Arrivals, command: Command) -> Result<Submission, SubmitError> {
        self.coalescer.enqueue(command, Some(arrivals))
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
        // WHY: before the borrow below. A second one on the same thread waits for a writer that waits for the first.
        let members = members(&self.raft);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
        Status {
            node_id: self.node_id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.voter_ids().collect(),
            members,
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

    /// Takes an inbound connection whose peer was authenticated as `peer`, and serves it until it closes. A peer that is not
    /// a member is turned away, unless this node does not know any members yet.
    pub fn accept(&self, peer: u64, connection: Box<dyn Connection>) {
        let host = Arc::clone(&self.host);
        self.spawn(async move { host.accept(peer, connection) });
    }

    /// As [`Node::accept`], for a peer that was removed, as the state says: it is told so, and stops, once no membership
    /// needs it any more.
    pub fn turn_away(&self, peer: u64, connection: Box<dyn Connection>) {
        let host = Arc::clone(&self.host);
        self.spawn(async move { host.turn_away(peer, connection) });
    }

    /// Runs a future on the raft thread's runtime: a listener for other nodes, say. It must not block.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(future));
    }

    /// Adds `node` at `address` as a member that gets everything and counts for nothing. Returns when that is committed, not
    /// when the node has caught up. Nothing happens if it is one already.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, node: u64, address: &str) -> Result<(), ChangeError> {
        let address = address.to_owned();
        self.change(|changes| async move { changes.add_learner(node, address).await }).await
    }

    /// Makes the learner `node` a voter. Nothing happens if it is one already.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn promote(&self, node: u64) -> Result<(), ChangeError> {
        self.change(|changes| async move { changes.promote(node).await }).await
    }

    /// Removes `node` and closes its links. Its id must never be used again. Nothing happens if it is not a member. A leader
    /// that is to remove itself hands over first and says who leads.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove(&self, node: u64) -> Result<(), ChangeError> {
        self.change(|changes| async move { changes.remove(node).await }).await
    }

    /// Gives the vote of `old` to the learner `new`, in one step, and removes `old`: as [`Node::promote`] and [`Node::remove`]
    /// together, with no moment in which both vote.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), ChangeError> {
        self.change(|changes| async move { changes.replace(old, new).await }).await
    }

    /// Notes that the member `node` is now reached at `address`.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn readdress(&self, node: u64, address: &str) -> Result<(), ChangeError> {
        let address = address.to_owned();
        self.change(|changes| async move { changes.readdress(node, address).await }).await
    }

    /// Hands leadership to `to`, or to the readiest of the voters, and of those to the one that has most: somebody asked for
    /// it, or this node ends. A node that is willing hands over only to one that is, too. Returns when another leads.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn hand_over(&self, to: Option<u64>) -> Result<(), ChangeError> {
        let coalescer = Arc::clone(&self.coalescer);
        let handing_over = |changes: Arc<Changes>| async move {
            let _hold = coalescer.hold_landed().await;
            changes.hand_over(to).await
        };
        self.change(handing_over).await
    }

    /// Runs a change on the raft thread, where its timers are.
    async fn change<F>(&self, change: impl FnOnce(Arc<Changes>) -> F) -> Result<(), ChangeError>
    where
        F: Future<Output = Result<(), ChangeError>> + Send + 'static,
    {
        self.runtime.spawn(change(Arc::clone(&self.changes))).await.unwrap_or(Err(ChangeError::Stopped))
    }

    /// Sets how ready this node is to lead. It stands for election by itself only if it is willing. If it is not and leads, it
    /// hands over as soon as one that is readier can take it.
    pub fn campaign(&self, candidacy: Candidacy) {
        self.roster.set_candidacy(candidacy);
        self.raft.runtime_config().elect(candidacy == Candidacy::Willing);
        // Looked at last: the node may have been retired meanwhile.
        if self.roster.candidacy() == Candidacy::Barred {
            self.raft.runtime_config().elect(false);
        }
    }

    /// Says that this node is about to end: from now on it is barred, whatever [`Node::campaign`] says. If it leads, call
    /// [`Node::hand_over`] next: whoever takes over does not hand it back.
    pub fn retire(&self) {
        self.roster.retire();
        self.raft.runtime_config().elect(false);
    }

    /// Reaches out to all other members: should this node have been removed, they say so, and it stops. For one that does not
    /// stand for election and hears no leader: it has nothing else to ask them.
    pub fn greet(&self) {
        let (board, own, members) = (Arc::clone(&self.host.board), self.node_id, self.members());
        self.spawn(async move {
            for member in members.iter().filter(|member| member.node != own) {
                if let Some(link) = board.link(member.node, Lane::Beat, None) {
                    // WHY: the greeting of the link is what it is about.
                    drop(link.call(Kind::Ping, Vec::new(), GREETING_MAX).await);
                }
            }
        });
    }

    /// Who takes part, as this node knows it.
    pub fn members(&self) -> Vec<Member> {
        members(&self.raft)
    }

    /// Who leads, from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.roster.leadership()
    }

    /// Whether this node leads. Cheap.
    pub fn leads(&self) -> bool {
        self.roster.leads()
    }

    /// The term in which this node leads, once its state holds everything that was committed before it did. Cheap.
    ///
    /// Another may lead by now. What was read from the state was of its time if, after a read point, this is as it was before.
    pub fn settled_term(&self) -> Option<u64> {
        // The first entry of a term is applied after all that came before.
        self.roster.leading_term().filter(|term| self.host.standing.applied_term() == *term)
    }

    /// For how long this node has led without a settled term. Cheap.
    pub fn unsettled_for(&self) -> Option<Duration> {
        self.roster.led_for().filter(|_| self.settled_term().is_none())
    }

    /// Whether this node is the only voter, leads, and nobody is being added. Cheap.
    pub fn is_alone(&self) -> bool {
        self.roster.is_alone()
    }

    /// How old the state of this node may be, which follows: since when it has all that its leader had committed then.
    /// `None` as long as it does not know. Cheap.
    pub fn age(&self) -> Option<Duration> {
        self.roster.age(self.host.standing.applied_next())
    }

    /// Waits until this node's state holds everything that was acknowledged before the call. A node alone has it at once;
    /// a leader makes sure that it still leads, a follower asks the leader: one question for all who wait.
    pub fn read_point(&self) -> ReadPoint {
        if self.is_alone() { ReadPoint::reached() } else { self.reads.state(None) }
    }

    /// As [`Node::read_point`]. The answer comes through `arrivals`, together with those of the same question.
    pub fn read_point_for(&self, arrivals: &Arrivals) -> ReadPoint {
        if self.is_alone() { ReadPoint::reached() } else { self.reads.state(Some(arrivals)) }
    }

    /// Stops cleanly: nothing new is taken, what is queued gets its outcome, state and log are made durable. On a full disk
    /// what waits for space is told that its outcome is not known; the next start applies what the log holds of it.
    ///
    /// # Errors
    /// Something could not be made durable; it is in the log nevertheless.
    pub async fn shutdown(&self) -> io::Result<()> {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(stop) = stop else { return Ok(()) };
        self.retire();
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

#[cfg(test)]
mod tests;
