//! The thread on which consensus runs, and the tasks beside it: one that proposes, one that keeps the log short.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};

use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::sync::{Notify, oneshot};

use crate::applier::{Job, Standing};
use crate::log::Log;
use crate::machine::Machine;
use crate::network::Alone;
use crate::node::{Fresh, Observer, StartError, Timing};
use crate::store::{LogStore, Purging};
use crate::submit::Coalescer;
use crate::types::Types;

/// A clean stop, and whom to tell.
pub(crate) type Stop = oneshot::Sender<io::Result<()>>;

/// What the raft thread works with.
pub(crate) struct Core {
    pub(crate) node_id: u64,
    pub(crate) fresh: Fresh,
    pub(crate) timing: Timing,
    pub(crate) log: Log,
    pub(crate) purging: Arc<Purging>,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) coalescer: Arc<Coalescer>,
    pub(crate) compact: Arc<Notify>,
    pub(crate) observer: Arc<dyn Observer>,
}

/// Where whoever starts the node waits for it.
pub(crate) type Ready = mpsc::Sender<Result<Raft<Types, Machine>, StartError>>;

impl Core {
    /// The thread's body: a runtime of its own, so that no load of requests can delay a heartbeat.
    pub(crate) fn run(self, ready: &Ready, stopping: oneshot::Receiver<Stop>) {
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
        let proposing = tokio::spawn(propose(raft.clone(), Arc::clone(&self.coalescer), self.observer));
        let compacting = tokio::spawn(compact(raft.clone(), self.compact));
        let stop = stopping.await;
        if stop.is_ok() {
            drop(proposing.await);
            self.coalescer.landed().await;
        } else {
            proposing.abort();
        }
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
