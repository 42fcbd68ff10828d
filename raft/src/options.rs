//! What a node is started with, and why it may not start.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use keyward_model::Entropy;
use keyward_storage::StoreError;

use crate::fs::Fs;
use crate::link::Dialer;
use crate::log::{self, OpenError};

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
    /// Bytes of log above which the state is made durable and the log before it purged; with other nodes, a quarter of it
    /// stays for those that are a little behind.
    pub log_bytes_max: u64,
    /// Timing of leadership.
    pub timing: Timing,
    /// How to reach other nodes.
    pub dialer: Arc<dyn Dialer>,
    /// Where other nodes reach this one. Goes into the membership that a founder writes.
    pub address: String,
}

/// What to do with a node that holds nothing yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Found a cluster with this node as its only voter.
    Found,
    /// Wait for a leader to call: this node joins a cluster.
    Join,
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
