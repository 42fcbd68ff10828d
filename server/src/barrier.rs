//! The barrier: what stands between plaintext and the replicated rows.
//!
//! Reads open rows; writes decide, seal and propose. Deciding happens under one lock, on the newest state there is:
//! the rows in the database, with the rows of commands still under way laid over them. Since the order in which
//! commands are enqueued under that lock is their order in the log, each command can name the state sum that it will
//! find, and apply needs neither keys nor judgement. A command that finds another state changes nothing; then the
//! overlay is dropped and the decision made anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyward_crypto::Keyring;
use keyward_model::{
    Change, Clock, Command, Entropy, Id, Outcome, Row, SecretBytes, StateSum, Table, Timestamp, VersionBlob,
};
use keyward_raft::{Node, SubmitError};
use keyward_storage::{Reader, Store, row_digest};
use tokio::sync::Notify;

use crate::desk::Desk;
use crate::keys::{KeySlot, Keys};
use crate::refusal::Refusal;
use crate::repeat::Remembered;
use crate::seal::{self, OpenedKeys};

use pipeline::{Overlay, Pipeline, Seen, UnderWay, came_true};

mod pipeline;

/// How often a decision is made anew before the caller is told to come back.
const ATTEMPTS_MAX: usize = 8;

/// Changes of one command of work that is done in pieces, unless a single step has more.
const PIECE_CHANGES_MAX: usize = 4096;
/// Bytes of one command of such work, unless a single step has more.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a change beside its key and its content.
const CHANGE_OVERHEAD_BYTES: usize = 48;

/// Sealed reads and writes over the replicated state.
pub struct Barrier {
    node: Node,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    keys: Arc<KeySlot>,
    pipeline: Mutex<Pipeline>,
    drained: Notify,
    generations: Arc<Generations>,
}

/// Counters that grow when rows of a kind change: whoever keeps opened copies compares before using them.
#[derive(Debug, Default)]
pub struct Generations {
    applied: AtomicU64,
    /// The newest stamp in the state, on whichever node it was given.
    newest: AtomicI64,
    mounts: AtomicU64,
    policies: AtomicU64,
    tokens: AtomicU64,
    /// Rows of [`Table::Repeats`]: how many writes are remembered.
    repeats: Mutex<Remembered>,
}

/// How far stamps are followed before this node's clock, in seconds: as far as clocks of members may differ when they join.
const AHEAD_MAX_S: i64 = 300;

/// Proof that a command with its audit intent is committed and applied. Only [`Barrier::write`] makes one.
#[derive(Debug)]
pub struct Committed(());

/// An opened row.
#[derive(Debug)]
pub struct Opened {
    /// Secondary index.
    pub group: Vec<u8>,
    /// When it falls due.
    pub due: Option<i64>,
    /// Blob of the current version.
    pub head: Option<u64>,
    /// The content.
    pub body: SecretBytes,
}

/// The columns of a row that stay in clear.
#[derive(Debug, Default, Clone)]
pub struct Columns {
    /// Secondary index.
    pub group: Vec<u8>,
    /// When it falls due.
    pub due: Option<i64>,
    /// Blob of the current version.
    pub head: Option<u64>,
}

impl Barrier {
    /// A barrier over a running node, with the place where its observer finds the keys.
    pub fn new(
        node: Node,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        generations: Arc<Generations>,
        keys: Arc<KeySlot>,
    ) -> Self {
        Self { node, clock, entropy, keys, pipeline: Mutex::default(), drained: Notify::new(), generations }
    }

    /// The node below.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The clock. Rows that have a time are judged by [`Barrier::judged_at`].
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The source of randomness.
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// The keyring, while unsealed.
    ///
    /// # Errors
    /// [`Refusal::Sealed`].
    pub fn keyring(&self) -> Result<Arc<Keys>, Refusal> {
        self.keys.load().ok_or(Refusal::Sealed)
    }

    /// Whether the keys are absent.
    pub fn is_sealed(&self) -> bool {
        self.keys.is_empty()
    }

    /// Puts the keys in place: the node can open and seal from now on. Should the keyring have been rotated since they were
    /// opened, the one that stands in `store` takes their place.
    ///
    /// # Errors
    /// The state cannot be read, or its keyring does not open: nothing is in place then.
    pub fn unseal(&self, opened: OpenedKeys, store: &Store) -> Result<(), Refusal> {
        self.keys.fill(opened);
        let followed = self.follow(store);
        if followed.is_err() {
            self.keys.clear();
        }
        self.generations.all();
        followed
    }

    /// Opens the keyring that stands in `store`, where the node is unsealed and there is one.
    fn follow(&self, store: &Store) -> Result<(), Refusal> {
        match seal::keyring_row(&store.reader().map_err(storage)?)? {
            Some(sealed) => self.keys.follow(&sealed).map_err(integrity),
            None => Ok(()),
        }
    }

    /// Takes the keys away. Requests under way finish with the copy they hold, which is wiped with the last of them.
    pub fn seal(&self) {
        self.keys.clear();
        self.generations.all();
    }

    /// Counters for those who keep opened copies.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// Reads and opens one row as it is in the database.
    ///
    /// # Errors
    /// Sealed, or the row does not open.
    pub fn read(&self, reader: &Reader, table: Table, key: &[u8]) -> Result<Option<Opened>, Refusal> {
        let keyring = self.keyring()?;
        reader.row(table, key).map_err(storage)?.map(|row| open(&keyring, table, &row)).transpose()
    }

    /// Decides and writes. `decide` sees the newest state through the [`Draft`] and says what to change; it runs again
    /// if the state moved under it. `intent` is the audit record that travels with the command, made once it is decided what
    /// to change: it may say the number of a new version.
    ///
    /// Without a change nothing is proposed, and the second part is `None`. Such an answer, and a refusal, wait for the
    /// commands under way that `decide` saw: nobody is told what a crash could undo, or a read could contradict.
    ///
    /// # Errors
    /// What `decide` refuses; sealed; no leader; the disk is full; or an outcome that is not known.
    pub async fn write<T>(
        self: &Arc<Self>,
        desk: &Desk,
        request: Id,
        intent: &dyn Fn() -> Vec<u8>,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<(T, Option<Committed>), Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            let keyring = self.keyring()?;
            let (decided, under_way) = match self.propose(&keyring, desk, request, intent, &mut decide)? {
                Proposal::NotYet => {
                    self.until_drained().await;
                    continue;
                }
                Proposal::Nothing(decided, seen) => {
                    if came_true(seen).await {
                        return decided.map(|decided| (decided, None));
                    }
                    continue;
                }
                Proposal::UnderWay(decided, under_way) => (decided, under_way),
            };
            match under_way.land().await {
                Ok(Outcome::Done) => return Ok((decided, Some(Committed(())))),
                Ok(Outcome::Stale) => {}
                Err(error) => return Err(submit(&error)),
            }
        }
        Err(Refusal::Unavailable("the state changed too often while this was decided; try again".into()))
    }

    /// The synchronous half of a write: everything under the lock, nothing awaited.
    fn propose<T>(
        self: &Arc<Self>,
        keyring: &Keyring,
        desk: &Desk,
        request: Id,
        intent: &dyn Fn() -> Vec<u8>,
        decide: &mut impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<Proposal<T>, Refusal> {
        let Some(mut pipeline) = self.settled_pipeline() else { return Ok(Proposal::NotYet) };
        // Under the lock: what the overlay no longer holds is in the state that is read from now on.
        let reader = desk.reader();
        let (before, at) = self.prepare(&mut pipeline, reader)?;
        let mut draft = Draft {
            keyring,
            entropy: &*self.entropy,
            reader,
            next_blob: pipeline.next_blob.unwrap_or(1),
            overlay: &pipeline.overlay,
            blobs: &pipeline.blobs,
            touched: Vec::new(),
            changes: Vec::new(),
            bytes: 0,
            sum: before,
            mounts_generation: self.generations.of(Table::Mounts),
            at,
        };
        let decided = decide(&mut draft);
        let Draft { touched, changes, sum, next_blob, .. } = draft;
        let decided = match decided {
            Ok(decided) if !changes.is_empty() => decided,
            nothing => return Ok(Proposal::Nothing(nothing, pipeline.newest_under_way())),
        };
        let added = changes.iter().filter_map(|change| match change {
            Change::AddVersion { id, blob } => Some((*id, blob.clone())),
            _ => None,
        });
        let added: Vec<(u64, VersionBlob)> = added.collect();
        let command = Command { request, at, before, signature: keyring.sign_sum(sum), changes, intent: intent() };
        let ticket = self.node.enqueue_for(desk.arrivals(), command).map_err(|error| submit(&error))?;
        let cargo = pipeline.enqueued(touched, added, sum, next_blob);
        drop(pipeline);
        Ok(Proposal::UnderWay(decided, UnderWay::new(Arc::clone(self), ticket, cargo)))
    }

    fn lock(&self) -> MutexGuard<'_, Pipeline> {
        // A panic aborts the process in release builds; in tests the state under the lock is still consistent enough.
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pipeline, unless commands that missed their state are still under way.
    fn settled_pipeline(&self) -> Option<MutexGuard<'_, Pipeline>> {
        let mut pipeline = self.lock();
        if pipeline.stale {
            if pipeline.in_flight > 0 {
                return None;
            }
            pipeline.forget();
        }
        Some(pipeline)
    }

    async fn until_drained(&self) {
        let notified = self.drained.notified();
        let draining = {
            let pipeline = self.lock();
            pipeline.stale && pipeline.in_flight > 0
        };
        if draining {
            notified.await;
        }
    }

    /// The moment by which rows are judged that have a time: whether a token has ended, whether a version's deletion is due.
    /// This node's clock, or the newest stamp of the state where that lies ahead: what had ended when the newest write was
    /// decided has ended for whoever reads that write. By more than [`AHEAD_MAX_S`] no stamp is followed. So what takes effect
    /// at once must not lean on its stamp: it says that it is done (`Deletion::Done`, `Token::REVOKED`, a row that is gone).
    pub fn judged_at(&self) -> Timestamp {
        following(self.generations.newest(), self.clock.now())
    }

    fn prepare(&self, pipeline: &mut Pipeline, reader: &Reader) -> Result<(StateSum, Timestamp), Refusal> {
        let before = match pipeline.sum {
            Some(sum) => sum,
            None => *pipeline.sum.insert(reader.meta().map_err(storage)?.sum),
        };
        if pipeline.next_blob.is_none() {
            pipeline.next_blob = Some(reader.meta().map_err(storage)?.last_version + 1);
        }
        pipeline.last = following(pipeline.last.max(self.generations.newest()), self.clock.now());
        Ok((before, pipeline.last))
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("sealed", &self.is_sealed()).finish_non_exhaustive()
    }
}

/// What became of the synchronous half of a write.
enum Proposal<T> {
    /// Commands that missed their state are still under way: wait for them.
    NotYet,
    /// Refused, or nothing to change; with what was under way when that was decided.
    Nothing(Result<T, Refusal>, Option<Seen>),
    /// Decided and enqueued.
    UnderWay(T, UnderWay),
}

/// One row that a decision looked at or changed.
struct Touched {
    table: Table,
    key: Vec<u8>,
    now: Option<Row>,
    changed: bool,
}

/// A decision in the making: the newest state to look at, and the changes so far.
pub struct Draft<'a> {
    keyring: &'a Keyring,
    entropy: &'a dyn Entropy,
    reader: &'a Reader,
    overlay: &'a Overlay,
    blobs: &'a HashMap<u64, VersionBlob>,
    touched: Vec<Touched>,
    changes: Vec<Change>,
    /// Of the changes, near enough.
    bytes: usize,
    sum: StateSum,
    next_blob: u64,
    mounts_generation: u64,
    at: Timestamp,
}

impl Draft<'_> {
    /// Whether the mounts are still those of this generation, also after all commands under way.
    pub fn mounts_stand(&self, generation: u64) -> bool {
        self.mounts_generation == generation && self.overlay.count(Table::Mounts) == 0
    }

    /// Whether anything is to be changed so far.
    pub fn changes_anything(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a step of work that is done in pieces may come into this command, with `bytes` more. The first always may.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.changes.is_empty()
            || (self.changes.len() < PIECE_CHANGES_MAX && self.bytes.saturating_add(bytes) <= PIECE_BYTES_MAX)
    }

    fn change(&mut self, change: Change) {
        self.bytes += CHANGE_OVERHEAD_BYTES
            + match &change {
                Change::Put { row, .. } => row.key.len() + row.group.len() + row.body.len(),
                Change::Remove { key, .. } => key.len(),
                Change::AddVersion { blob, .. } => blob.wrapped.len() + blob.payload.len(),
                Change::Rewrap { wrapped, .. } => wrapped.len(),
                Change::EraseVersion { .. } => 0,
            };
        self.changes.push(change);
    }

    /// The leader's clock for this command.
    pub fn now(&self) -> Timestamp {
        self.at
    }

    /// Names, keyed hashes and the like.
    pub fn keyring(&self) -> &Keyring {
        self.keyring
    }

    /// The source of randomness.
    pub fn entropy(&self) -> &dyn Entropy {
        self.entropy
    }

    /// The opened row, as all commands before this one leave it.
    ///
    /// # Errors
    /// The row cannot be read or does not open.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Opened>, Refusal> {
        let at = self.look(table, key)?;
        let keyring = self.keyring;
        self.touched.get(at).and_then(|touched| touched.now.as_ref()).map(|row| open(keyring, table, row)).transpose()
    }

    /// Whether the row exists.
    ///
    /// # Errors
    /// The row cannot be read.
    pub fn exists(&mut self, table: Table, key: &[u8]) -> Result<bool, Refusal> {
        let at = self.look(table, key)?;
        Ok(self.touched.get(at).is_some_and(|touched| touched.now.is_some()))
    }

    /// Puts a row in place, new or over the old one.
    ///
    /// # Errors
    /// The row's predecessor cannot be read.
    pub fn put(&mut self, table: Table, key: &[u8], columns: Columns, body: &[u8]) -> Result<(), Refusal> {
        let at = self.look(table, key)?;
        let Some(touched) = self.touched.get_mut(at) else { return Err(Refusal::internal("draft lost a row")) };
        let rev = touched.now.as_ref().map_or(1, |row| row.rev + 1);
        let Columns { group, due, head } = columns;
        let body = match table {
            Table::Config => body.to_vec(), // sealed by its own key, and needed before there is a keyring
            _ => self.keyring.seal_row(table, key, rev, &group, due, head, body, self.entropy),
        };
        let row = Row { key: key.to_vec(), rev, group, due, head, body };
        if let Some(old) = &touched.now {
            self.sum = self.sum.minus(row_digest(table, old));
        }
        self.sum = self.sum.plus(row_digest(table, &row));
        touched.now = Some(row.clone());
        touched.changed = true;
        self.change(Change::Put { table, row });
        Ok(())
    }

    /// Takes a row away; no row is no error.
    ///
    /// # Errors
    /// The row cannot be read.
    pub fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), Refusal> {
        let at = self.look(table, key)?;
        let Some(touched) = self.touched.get_mut(at) else { return Err(Refusal::internal("draft lost a row")) };
        if let Some(old) = touched.now.take() {
            self.sum = self.sum.minus(row_digest(table, &old));
            touched.changed = true;
            self.change(Change::Remove { table, key: key.to_vec(), rev: old.rev });
        }
        Ok(())
    }

    /// A number for the blob of a version to be added.
    pub fn reserve_blob(&mut self) -> u64 {
        let id = self.next_blob;
        self.next_blob += 1;
        id
    }

    /// Seals `value` as version `number` of `secret` into the reserved blob `id`.
    pub fn put_version(&mut self, id: u64, secret: Id, number: u64, value: &[u8]) {
        let blob = self.keyring.seal_version(secret, number, value, self.entropy);
        self.change(Change::AddVersion { id, blob });
    }

    /// The wrapped data key of a version's blob.
    ///
    /// # Errors
    /// The blob cannot be read.
    pub fn wrapped(&mut self, id: u64) -> Result<Option<Vec<u8>>, Refusal> {
        match self.blobs.get(&id) {
            Some(blob) => Ok(Some(blob.wrapped.clone())),
            None => Ok(self.reader.version(id).map_err(storage)?.map(|blob| blob.wrapped)),
        }
    }

    /// Puts a new wrapping of a version's data key in place.
    pub fn rewrap_version(&mut self, id: u64, wrapped: Vec<u8>) {
        self.change(Change::Rewrap { id, wrapped });
    }

    /// Erases the blob of a version.
    pub fn erase_version(&mut self, id: u64) {
        self.change(Change::EraseVersion { id });
    }

    /// Opens the blob of a version, also one that a command under way adds.
    ///
    /// # Errors
    /// The blob cannot be read or does not open.
    pub fn version(&mut self, secret: Id, number: u64, id: u64) -> Result<Option<SecretBytes>, Refusal> {
        let blob = match self.blobs.get(&id) {
            Some(blob) => Some(blob.clone()),
            None => self.reader.version(id).map_err(storage)?,
        };
        let Some(VersionBlob { wrapped, payload }) = blob else { return Ok(None) };
        self.keyring.open_version(secret, number, &wrapped, &payload).map(Some).map_err(integrity)
    }

    /// Keys of all rows of `table` whose key begins with `prefix` and comes after `after`, as all commands before this one,
    /// and this one, leave them. At most `limit`, in order.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn keys_below(
        &mut self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let over = self.overlay.of(table).map(|(key, row)| (key, row.is_some()));
        let mine = self.touched.iter().filter(|t| t.changed && t.table == table).map(|t| (&t.key, t.now.is_some()));
        let wanted = |key: &[u8]| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let news: Vec<_> = over.chain(mine).filter(|(key, _)| wanted(key)).collect();
        // Each of these may stand for one of those that are read.
        let rows = self.reader.children(table, prefix, after, limit.saturating_add(news.len())).map_err(storage)?;
        let mut keys: Vec<Vec<u8>> = rows.into_iter().map(|row| row.key).collect();
        for (key, there) in news {
            let at = keys.iter().position(|k| k == key);
            match (at, there) {
                (None, true) => keys.push(key.clone()),
                (Some(at), false) => drop(keys.swap_remove(at)),
                _ => {}
            }
        }
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }

    /// Keys of rows of a group (the children of a token), as all commands before this one leave them. At most `limit`, in
    /// no particular order.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn keys_in_group(&mut self, table: Table, group: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        let hidden = self.touched.iter().filter(|t| t.changed && t.table == table).count() + self.overlay.count(table);
        let mut keys: Vec<Vec<u8>> = self
            .reader
            .group(table, group, None, limit.saturating_add(hidden))
            .map_err(storage)?
            .into_iter()
            .map(|row| row.key)
            .collect();
        let mine = self.touched.iter().filter(|t| t.changed && t.table == table).map(|t| (&t.key, &t.now));
        for (key, row) in self.overlay.of(table).chain(mine) {
            let belongs = row.as_ref().is_some_and(|row| row.group == group);
            let at = keys.iter().position(|k| k == key);
            match (at, belongs) {
                (None, true) => keys.push(key.clone()),
                (Some(at), false) => drop(keys.swap_remove(at)),
                _ => {}
            }
        }
        keys.truncate(limit);
        Ok(keys)
    }

    /// Finds the row among those touched, or fetches it from the overlay or the database.
    fn look(&mut self, table: Table, key: &[u8]) -> Result<usize, Refusal> {
        if let Some(at) = self.touched.iter().position(|t| t.table == table && t.key == key) {
            return Ok(at);
        }
        let now = match self.overlay.get(table, key) {
            Some(row) => row.clone(),
            None => self.reader.row(table, key).map_err(storage)?,
        };
        self.touched.push(Touched { table, key: key.to_vec(), now, changed: false });
        Ok(self.touched.len() - 1)
    }
}

/// The time after a stamp, by a node's clock: not before the stamp, so that time does not go back within the log, unless the
/// stamp lies ahead by more than [`AHEAD_MAX_S`]. Then time goes back to that: a clock that was wrong by a year must not be
/// right for a year, and what is made meanwhile would live for a year too long.
fn following(stamp: Timestamp, clock: Timestamp) -> Timestamp {
    clock.max(stamp.min(clock.plus_seconds(AHEAD_MAX_S)))
}

impl Generations {
    fn counter(&self, table: Table) -> Option<&AtomicU64> {
        match table {
            Table::Mounts => Some(&self.mounts),
            Table::Policies => Some(&self.policies),
            Table::Tokens => Some(&self.tokens),
            _ => None,
        }
    }

    /// Rows of this table changed. Called for every applied command before its submitter is answered.
    pub fn touched(&self, table: Table) {
        if let Some(counter) = self.counter(table) {
            counter.fetch_add(1, Ordering::Release);
        }
    }

    /// A log entry was applied and its effects can be read. Called before its submitters are answered.
    pub fn advance(&self) {
        self.applied.fetch_add(1, Ordering::Release);
    }

    /// A command of this moment was applied, here or by whoever this state is from.
    pub fn note_time(&self, at: Timestamp) {
        self.newest.fetch_max(at.0, Ordering::AcqRel);
    }

    /// The newest moment that was noted: what is stamped next is not older.
    pub fn newest(&self) -> Timestamp {
        Timestamp(self.newest.load(Ordering::Acquire))
    }

    /// How many writes are remembered with an id of their caller's, those under way left out.
    pub fn repeats(&self) -> MutexGuard<'_, Remembered> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many log entries were applied since the start.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Everything may have changed.
    pub fn all(&self) {
        for table in [Table::Mounts, Table::Policies, Table::Tokens] {
            self.touched(table);
        }
    }

    /// The generation of a table's rows; 0 for tables of which nobody keeps copies.
    pub fn of(&self, table: Table) -> u64 {
        self.counter(table).map_or(0, |counter| counter.load(Ordering::Acquire))
    }
}

/// Opens a row that came from the database or from a command under way.
///
/// # Errors
/// [`Refusal::Internal`]: the row is not what was sealed for this place.
pub fn open(keyring: &Keyring, table: Table, row: &Row) -> Result<Opened, Refusal> {
    let body = match table {
        Table::Config => SecretBytes::new(row.body.clone()),
        _ => keyring.open_row(table, row).map_err(integrity)?,
    };
    Ok(Opened { group: row.group.clone(), due: row.due, head: row.head, body })
}

/// A storage error as a refusal. The detail is for the log.
#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
pub fn storage(error: keyward_storage::StoreError) -> Refusal {
    tracing::error!(error = %error, "the state database cannot be read");
    Refusal::internal(format!("storage: {error}"))
}

/// A failed seal as a refusal: damaged or foreign data, never served.
pub fn integrity(error: keyward_crypto::CryptoError) -> Refusal {
    tracing::error!(error = %error, "a row or version does not open: the data was changed outside of Keyward");
    Refusal::internal(format!("integrity: {error}"))
}

fn submit(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::DiskFull { reserve_bytes } => {
            let mib = reserve_bytes.div_ceil(1 << 20);
            let text = format!("the disk is full: nothing was written; writes are taken again when {mib} MiB are free");
            Refusal::Unavailable(text.into())
        }
        SubmitError::Overloaded => Refusal::Unavailable("too many writes are under way; try again".into()),
        SubmitError::NotLeader { .. } => Refusal::NotLeader,
        SubmitError::TooLarge { bytes, bytes_max } => Refusal::EntryTooLarge { bytes: *bytes, bytes_max: *bytes_max },
        SubmitError::Stopped => Refusal::Unavailable("the node is stopping: nothing was written".into()),
        SubmitError::Unknown => Refusal::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests;
