//! The thread on which consensus lives, with a runtime of its own, so that no load of requests can delay a heartbeat.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyward_storage::Position;
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::applier::Standing;
use crate::change::Changes;
use crate::compare::compare;
use crate::jobs::Job;
use crate::link::{Board, Dialer, Host};
use crate::log::Log;
use crate::loss::Loss;
use crate::machine::Machine;
use crate::network::Network;
use crate::node::Stop;
use crate::observer::Observer;
use crate::options::{Fresh, StartError, Timing};
use crate::reads::{Reads, Rounds};
use crate::roster::{REMOVED, Roster};
use crate::store::{LogStore, Purging};
use crate::submit::{Coalescer, LANDING_MAX};
use crate::transfer::{self, Outgoing, Receiver};
use crate::transit::Transit;
use crate::types::Types;

/// Between two attempts to hand over, when nobody can take it.
const NOBODY_PAUSE: Duration = Duration::from_millis(250);

/// Between two attempts to make room on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(crate) struct Core {
    pub(crate) node_id: u64,
    pub(crate) address: String,
    pub(crate) fresh: Fresh,
    pub(crate) timing: Timing,
    pub(crate) log: Log,
    pub(crate) purging: Arc<Purging>,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) coalescer: Arc<Coalescer>,
    pub(crate) compact: Arc<Notify>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) transit: Arc<Transit>,
}

/// What others may use of it.
pub(crate) struct Started {
    pub(crate) raft: Raft<Types, Machine>,
    pub(crate) runtime: Handle,
    pub(crate) host: Arc<Host>,
    pub(crate) changes: Arc<Changes>,
}

/// Who waits for the start.
pub(crate) type Ready = mpsc::Sender<Result<Started, StartError>>;

impl Core {
    /// The thread's body.
    pub(crate) fn run(self, ready: &Ready, stopping: oneshot::Receiver<Stop>) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.live(ready, stopping)),
            Err(error) => drop(ready.send(Err(StartError::Thread(error)))),
        }
    }

    async fn live(self, ready: &Ready, stopping: oneshot::Receiver<Stop>) {
        let beat = Duration::from_millis(self.timing.heartbeat_ms);
        let board = Arc::new(Board::new(self.node_id, Arc::clone(&self.dialer), beat, Arc::clone(&self.transit)));
        let raft = match self.start(&board).await {
            Ok(raft) => raft,
            Err(error) => return drop(ready.send(Err(error))),
        };
        self.roster.take(&raft, &board);
        let changes = Arc::new(Changes::new(raft.clone(), Arc::clone(&self.roster), Arc::clone(&board)));
        let loss = Arc::new(Loss::new(raft.clone(), Arc::clone(&board), Arc::clone(&self.roster)));
        let host = Arc::new(Host {
            raft: raft.clone(),
            board: Arc::clone(&board),
            roster: Arc::clone(&self.roster),
            reads: Arc::clone(&self.reads),
            standing: Arc::clone(&self.standing),
            receiver: Receiver::new(&self.standing.directory()),
            loss,
        });
        let started = Started { raft: raft.clone(), runtime: Handle::current(), host, changes: Arc::clone(&changes) };
        drop(ready.send(Ok(started)));
        let rounds = Rounds {
            reads: Arc::clone(&self.reads),
            raft: raft.clone(),
            roster: Arc::clone(&self.roster),
            standing: Arc::clone(&self.standing),
            board: Arc::clone(&board),
        };
        let (roster, alone, handing_over) = (Arc::clone(&self.roster), Arc::clone(&self.roster), Arc::clone(&changes));
        let observer = Arc::clone(&self.observer);
        let comparing = compare(Arc::clone(&board), Arc::clone(&self.roster), Arc::clone(&self.standing), observer);
        let tasks = [
            tokio::spawn(Arc::clone(&self.roster).follow(raft.clone(), Arc::clone(&board))),
            tokio::spawn(rounds.run()),
            tokio::spawn(comparing),
            tokio::spawn(notice_removal(Arc::clone(&board), Arc::clone(&self.observer))),
            tokio::spawn(finish_changes(Arc::clone(&changes), Arc::clone(&roster))),
            tokio::spawn(step_aside(changes, Arc::clone(&roster), Arc::clone(&self.coalescer))),
            tokio::spawn(turn_away(Arc::clone(&self.coalescer), roster)),
            tokio::spawn(compact(raft.clone(), self.compact, self.log.clone())),
        ];
        let mut proposing = tokio::spawn(propose(raft.clone(), Arc::clone(&self.coalescer), self.observer));
        let stop = stopping.await;
        if stop.is_ok() {
            let mut starving = self.log.starving();
            let landing = async {
                drop((&mut proposing).await);
                self.coalescer.landed().await;
            };
            let landed_or_never = async {
                tokio::select! {
                    () = landing => {}
                    // Nobody knows whether there will ever be space.
                    _ = starving.wait_for(|starving| *starving) => {}
                }
            };
            if alone.is_alone() {
                landed_or_never.await;
            } else {
                // Without a majority nothing lands, however long one waits.
                drop(timeout(LANDING_MAX, landed_or_never).await);
                proposing.abort();
                drop(handing_over.hand_over(None).await);
            }
        }
        proposing.abort();
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.reads.stop();
        drop(raft.shutdown().await);
        if let Ok(tell) = stop {
            let (sender, receiver) = oneshot::channel();
            let asked = self.jobs.send(Job::Stop(sender));
            let state = if asked.is_ok() { receiver.await.unwrap_or(Ok(())) } else { Ok(()) };
            drop(tell.send(self.log.close().and(state)));
        }
    }

    async fn start(&self, board: &Arc<Board>) -> Result<Raft<Types, Machine>, StartError> {
        let config = config(self.timing).validate().map_err(|error| said(&error))?;
        let store = LogStore::new(self.log.clone(), Arc::clone(&self.purging));
        let machine = Machine::new(self.jobs.clone(), Arc::clone(&self.standing));
        transfer::clean(&self.standing.directory()).map_err(|error| said(&error))?;
        let network = Network { board: Arc::clone(board), outgoing: Arc::new(Outgoing::new(self.log.clone())) };
        let raft =
            Raft::new(self.node_id, Arc::new(config), network, store, machine).await.map_err(|error| said(&error))?;
        let started = self.take_part(&raft).await;
        if started.is_err() {
            drop(raft.shutdown().await);
        }
        started.map(|()| raft)
    }

    async fn take_part(&self, raft: &Raft<Types, Machine>) -> Result<(), StartError> {
        if raft.is_initialized().await.map_err(|error| said(&error))? {
            let voters: Vec<u64> = raft.voter_ids().collect();
            if voters != [self.node_id] {
                let is_member = voters.contains(&self.node_id) || raft.learner_ids().any(|id| id == self.node_id);
                // A node that joins may find a log in which it does not occur yet, or no more.
                return if is_member || self.fresh == Fresh::Join {
                    Ok(())
                } else {
                    let what = format!("this node is {}, the log's voters are {voters:?}", self.node_id);
                    Err(StartError::Apart { what })
                };
            }
            // Nobody else can lead: no need to wait for a silence.
            raft.trigger().elect(false).await.map_err(|error| said(&error))?;
        } else {
            match self.fresh {
                Fresh::Found => {
                    let members = BTreeMap::from([(self.node_id, BasicNode::new(&self.address))]);
                    raft.initialize(members).await.map_err(|error| said(&error))?;
                }
                Fresh::Join => return Ok(()),
                Fresh::Refuse => return Err(StartError::Empty),
            }
        }
        raft.wait_for_recovery(None).await.map_err(|error| said(&error))?;
        Ok(())
    }
}

fn said(error: &dyn Display) -> StartError {
    StartError::Raft(error.to_string())
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
        enable_elect: false,                // until it is said that it may
        enable_leader_restore: Some(false), // whoever was away asks before it leads again
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

/// Says so when this node is no member any more: by its own log, or by the word of one that is.
async fn notice_removal(board: Arc<Board>, observer: Arc<dyn Observer>) {
    board.removed().await;
    observer.failed(REMOVED);
}

/// Makes the state durable when the log has grown, and for as long as it takes space that is wanted; openraft purges the
/// log up to there.
async fn compact(raft: Raft<Types, Machine>, asked: Arc<Notify>, log: Log) {
    loop {
        tokio::select! {
            () = asked.notified() => {}
            () = log.filled() => {}
            // WHY: the library drops what is asked while it makes a snapshot, and says nothing of it. The one that is made may
            // have been begun before the disk was full, and let nothing go; on a full disk nothing is written that would ask.
            () = tokio::time::sleep(FULL_PAUSE), if log.is_full() => {}
        }
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Finishes what a leader before left half done, whenever this node becomes the leader.
async fn finish_changes(changes: Arc<Changes>, roster: Arc<Roster>) {
    let mut leadership = roster.leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        // What cannot be finished now is finished before the next change, or by the next leader.
        drop(changes.settle().await);
        if leadership.wait_for(|now| !now.leads).await.is_err() {
            return;
        }
    }
}

/// Hands leadership over whenever this node has it and does not want it, as soon as there is somebody to take it.
async fn step_aside(changes: Arc<Changes>, roster: Arc<Roster>, coalescer: Arc<Coalescer>) {
    let mut told = None;
    loop {
        roster.leads_unwillingly().await;
        let hold = coalescer.hold_landed().await;
        let aside = changes.step_aside().await;
        drop(hold);
        if let Err(error) = aside {
            let (term, candidacy) = (roster.leading_term(), roster.candidacy());
            if told.replace((term, candidacy)) != Some((term, candidacy)) {
                tracing::warn!(error = %error, ?candidacy, "this node leads, should not, and no other one can take over yet");
            }
            tokio::time::sleep(NOBODY_PAUSE).await;
        }
    }
}

/// Tells those who wait to write, when this node leads no more.
async fn turn_away(coalescer: Arc<Coalescer>, roster: Arc<Roster>) {
    let mut leadership = roster.leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        let Ok(now) = leadership.wait_for(|now| !now.leads).await.map(|now| *now) else { return };
        coalescer.turn_away(now.leader);
    }
}

/// Says whether log and state can be one node's. A state that was installed as a snapshot up to the entry `installed` may
/// be ahead of the log: the power failed before the log was told.
///
/// # Errors
/// They cannot.
pub(crate) fn check_together(log: &Log, applied: Option<Position>, installed: Option<u64>) -> Result<(), StartError> {
    let last = log.last().map(|last| last.index);
    let applied = applied.map(|at| at.index);
    if applied > last && applied != installed {
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
