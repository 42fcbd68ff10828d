//! openraft's own tests of a log store and a state machine, run on ours.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use futures_util::{Stream, StreamExt, stream};

use keyward_model::{Command, Outcome, SeededEntropy};
use keyward_storage::{Position, Store};
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::applier::{Applier, Standing};
use crate::checkpoint::Dirty;
use crate::fs::OsFs;
use crate::log::{Ground, Log, Options};
use crate::machine::{Machine, MachineSnapshot};
use crate::observer::Observer;
use crate::snapshot::SnapshotData;
use crate::store::{LogStore, Purging};
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, Types};

struct Builder;

struct Quiet;

impl Observer for Quiet {
    fn applied(&self, _position: Position, _commands: &[(Command, Outcome)]) {}
    fn replaced(&self, _store: &Store) {}
    fn failed(&self, _error: &str) {}
}

impl StoreBuilder<Types, LogStore, Padded, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Padded), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let ground = Ground {
            fs: Arc::new(OsFs),
            dir: dir.path().join("log"),
            chance: Arc::new(SeededEntropy::new(5)),
            failed: Box::new(|_| {}), // the folder goes away under the running threads
            inline: false,
        };
        let log = Log::open(ground, Options { segment_bytes: 16 << 10, ..Options::default() }).unwrap();
        let store_options = keyward_storage::Options::default();
        let store = Store::open(&dir.path().join("state"), &store_options).unwrap();
        let writer = store.writer().unwrap();
        let purging = Arc::new(Purging::default());
        // The suite purges without ever having made a snapshot.
        purging.durable_next.store(u64::MAX, std::sync::atomic::Ordering::Release);
        let standing = Arc::new(Standing::of(store, &writer).unwrap());
        let (jobs, queue) = mpsc::channel();
        let applier = Applier {
            jobs: crate::jobs::Jobs::new(queue),
            writer: Some(writer),
            standing: Arc::clone(&standing),
            purging: Arc::default(),
            log: log.clone(),
            log_bytes_max: u64::MAX,
            log_bytes_kept: 0,
            transit: Arc::default(),
            observer: Arc::new(Quiet),
            dirty: Arc::new(Dirty::default()),
            compact: Arc::new(Notify::new()),
        };
        thread::spawn(move || applier.run());
        Ok((dir, LogStore::new(log, purging), Padded(Machine::new(jobs, standing))))
    }
}

/// The suite applies entries with gaps before them, which the state database refuses, as no log has any: they are filled.
struct Padded(Machine);

impl RaftStateMachine<Types> for Padded {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let mut next = self.0.applied_state().await?.0.map_or(0, |last| last.index + 1);
        let mut padded = Vec::new();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            for index in next..entry.log_id.index {
                padded.push(Ok((Entry::new_blank(LogId::new(entry.log_id.leader_id, index)), None)));
            }
            next = entry.log_id.index + 1;
            padded.push(Ok((entry, responder)));
        }
        self.0.apply(stream::iter(padded)).await
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.0.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<MachineSnapshot>> {
        self.0.get_current_snapshot().await
    }
}

#[tokio::test]
async fn the_librarys_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
