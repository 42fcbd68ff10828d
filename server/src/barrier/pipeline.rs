//! What the commands under way will have made of the state.

use std::collections::HashMap;
use std::sync::Arc;

use keyward_model::{Outcome, Row, StateSum, Table, Timestamp, VersionBlob};
use keyward_raft::{Submission, SubmitError};
use tokio::sync::SetOnce;

use super::{Barrier, Touched};

/// Rows as they will be, over those in the database.
#[derive(Default)]
pub(super) struct Overlay(HashMap<Table, HashMap<Vec<u8>, Coming>>);

struct Coming {
    /// `None`: it will be gone.
    row: Option<Row>,
    /// Commands under way that touch it.
    commands: usize,
}

impl Overlay {
    /// The row as it will be, if a command under way touches it.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Row>> {
        self.0.get(&table)?.get(key).map(|coming| &coming.row)
    }

    /// All rows of a table that commands under way touch, in no particular order.
    pub(super) fn of(&self, table: Table) -> impl Iterator<Item = (&Vec<u8>, &Option<Row>)> {
        self.0.get(&table).into_iter().flatten().map(|(key, coming)| (key, &coming.row))
    }

    /// How many those are.
    pub(super) fn count(&self, table: Table) -> usize {
        self.0.get(&table).map_or(0, HashMap::len)
    }

    fn put(&mut self, table: Table, key: Vec<u8>, row: Option<Row>) {
        let coming = self.0.entry(table).or_default().entry(key).or_insert(Coming { row: None, commands: 0 });
        coming.row = row;
        coming.commands += 1;
    }

    /// One command that touches the row has landed.
    fn landed(&mut self, table: Table, key: &[u8]) {
        let Some(rows) = self.0.get_mut(&table) else { return };
        if let Some(coming) = rows.get_mut(key) {
            coming.commands -= 1;
            if coming.commands == 0 {
                rows.remove(key);
            }
        }
    }
}

/// What a decision is made on, beside the database, and in which order commands are enqueued.
#[derive(Default)]
pub(super) struct Pipeline {
    /// The sum after all commands enqueued so far; `None` until read from the database.
    pub(super) sum: Option<StateSum>,
    pub(super) overlay: Overlay,
    /// Blobs that commands under way add: a patch may build on a value that is not in the database yet.
    pub(super) blobs: HashMap<u64, VersionBlob>,
    /// Commands enqueued and not yet landed.
    pub(super) in_flight: usize,
    /// How the command enqueued last ends.
    newest: Option<Seen>,
    /// A command found another state: nothing more is enqueued until the rest has landed.
    pub(super) stale: bool,
    /// The next number of a version blob; `None` until read from the database.
    pub(super) next_blob: Option<u64>,
    /// The newest stamp given out, also by commands that are not in the state yet.
    pub(super) last: Timestamp,
}

impl Pipeline {
    /// Takes note of a command that was just enqueued, of what it touches, and of what it leaves.
    pub(super) fn enqueued(
        &mut self,
        touched: Vec<Touched>,
        added: Vec<(u64, VersionBlob)>,
        sum: StateSum,
        next_blob: u64,
    ) -> Cargo {
        self.sum = Some(sum);
        self.next_blob = Some(next_blob);
        self.in_flight += 1;
        let seen = Seen::default();
        self.newest = Some(Seen::clone(&seen));
        let blobs = added.iter().map(|(id, _)| *id).collect();
        self.blobs.extend(added);
        let changed = touched.into_iter().filter(|row| row.changed);
        let rows = changed.map(|Touched { table, key, now, .. }| {
            self.overlay.put(table, key.clone(), now);
            (table, key)
        });
        Cargo { rows: rows.collect(), blobs, came: seen }
    }

    /// How the newest command under way ends, if there is one.
    pub(super) fn newest_under_way(&self) -> Option<Seen> {
        self.newest.clone().filter(|_| self.in_flight > 0)
    }

    /// A command has landed, or was lost on its way: the database says what its rows are.
    fn landed(&mut self, cargo: &Cargo) {
        self.in_flight -= 1;
        for id in &cargo.blobs {
            self.blobs.remove(id);
        }
        for (table, key) in &cargo.rows {
            self.overlay.landed(*table, key);
        }
    }

    /// Starts anew from the database.
    pub(super) fn forget(&mut self) {
        self.sum = None;
        self.next_blob = None;
        self.overlay = Overlay::default();
        self.blobs.clear();
        self.stale = false;
    }
}

/// How a command ends: whether it came to pass as it was decided. One that does tells so of all before it, since each is
/// decided on the sum that the one before leaves.
pub(super) type Seen = Arc<SetOnce<bool>>;

/// Waits for the newest command that a decision saw under way; `false`: it did not see the state as it became.
pub(super) async fn came_true(seen: Option<Seen>) -> bool {
    match seen {
        None => true,
        Some(newest) => *newest.wait().await,
    }
}

/// What a command holds of the pipeline until it has landed.
pub(super) struct Cargo {
    rows: Vec<(Table, Vec<u8>)>,
    blobs: Vec<u64>,
    came: Seen,
}

/// A command on its way. WHY: who waits for it may hang up, and what lies over the state must neither outlive the command
/// nor be outlived by it; so if this is dropped, a task of its own waits in its place.
pub(super) struct UnderWay(Option<Flight>);

/// A command and what it holds. Dropped before it has landed, with its thread, it counts as lost: what comes next is decided
/// on the database, and anew if this lands all the same.
struct Flight {
    barrier: Arc<Barrier>,
    ticket: Submission,
    cargo: Cargo,
}

impl UnderWay {
    pub(super) fn new(barrier: Arc<Barrier>, ticket: Submission, cargo: Cargo) -> Self {
        Self(Some(Flight { barrier, ticket, cargo }))
    }

    /// Returns when the command has landed.
    pub(super) async fn land(mut self) -> Result<Outcome, SubmitError> {
        let Some(flight) = &mut self.0 else { return Err(SubmitError::Unknown) };
        let outcome = flight.land().await;
        self.0 = None;
        outcome
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(mut flight) = self.0.take() {
            drop(tokio::task::spawn_local(async move { flight.land().await }));
        }
    }
}

impl Flight {
    async fn land(&mut self) -> Result<Outcome, SubmitError> {
        let outcome = (&mut self.ticket).await;
        self.end(matches!(outcome, Ok(Outcome::Done)));
        outcome
    }

    fn end(&self, done: bool) {
        if self.cargo.came.initialized() {
            return;
        }
        let mut pipeline = self.barrier.lock();
        pipeline.landed(&self.cargo);
        pipeline.stale |= !done;
        let drained = pipeline.stale && pipeline.in_flight == 0;
        if drained {
            pipeline.forget();
        }
        drop(pipeline);
        self.cargo.came.set(done).ok(); // nobody else sets it
        if drained {
            self.barrier.drained.notify_waiters();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.end(false);
    }
}
