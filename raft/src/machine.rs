//! The state database as openraft asks for it. The work is done by the thread `sm-writer`.

use std::io;
use std::sync::{Arc, mpsc};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder, Snapshot};
use tokio::sync::oneshot;

use crate::applier::Standing;
use crate::jobs::Job;
use crate::snapshot::SnapshotData;
use crate::types::{LogId, SnapshotMeta, StoredMembership, Types};

pub(crate) type MachineSnapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotData>;

/// Bytes of entries that are applied in one transaction, unless one has more.
const APPLIED_BYTES_MAX: usize = 8 << 20;

/// A handle of the state machine. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    jobs: mpsc::Sender<Job>,
    standing: Arc<Standing>,
}

impl Machine {
    /// The machine whose thread takes `jobs`.
    pub(crate) fn new(jobs: mpsc::Sender<Job>, standing: Arc<Standing>) -> Self {
        Self { jobs, standing }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Job) -> io::Result<T> {
        let stopped = || io::Error::other("the state machine has stopped");
        let (sender, receiver) = oneshot::channel();
        self.jobs.send(job(sender)).map_err(|_| stopped())?;
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.standing.applied())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            if let EntryPayload::Normal(commands) = &entry.payload {
                bytes += commands.bytes().len();
            }
            batch.push((entry, responder));
            if bytes >= APPLIED_BYTES_MAX {
                let full = std::mem::take(&mut batch);
                self.ask(|done| Job::Apply(full, done)).await?;
                bytes = 0;
            }
        }
        self.ask(|done| Job::Apply(batch, done)).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let meta = meta.clone();
        self.ask(|done| Job::Install(meta, snapshot, done)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<MachineSnapshot>> {
        Ok(self.standing.snapshot().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = SnapshotData;

    // A snapshot here is a promise about the database as it is: durable up to the position it names. No file is made
    // before a follower needs one.
    async fn build_snapshot(&mut self) -> io::Result<MachineSnapshot> {
        let (meta, snapshot) = self.ask(Job::MakeDurable).await?;
        Ok(Snapshot { meta, snapshot })
    }
}
