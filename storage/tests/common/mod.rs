//! What the suites share: a database in a folder that goes away, and commands that fit.

#![allow(dead_code, reason = "each suite is its own crate and uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a failing set-up is a failing test")]

use keyward_model::{Change, Command, Id, Outcome, Row, StateSum, Table, Timestamp, VersionBlob};
use keyward_storage::{Content, Entry, Options, Position, Store, StoreError, Writer};
use tempfile::TempDir;

/// A database in a folder that goes away with it.
pub(crate) struct Database {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
}

impl Database {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open(folder)
    }

    pub(crate) fn open(folder: TempDir) -> Self {
        let store = Store::open(folder.path(), &Options::default()).unwrap();
        let writer = store.writer().unwrap();
        Self { folder, store, writer }
    }

    /// Closes everything and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { folder, store, writer } = self;
        drop((store, writer));
        Self::open(folder)
    }

    /// Applies `changes` as one command that was decided on the state as it is.
    pub(crate) fn change(&mut self, changes: Vec<Change>) -> Outcome {
        let command = command(self.writer.sum(), changes);
        self.commands(&[command])[0]
    }

    /// As [`Self::change`], on a database that may be damaged.
    pub(crate) fn try_change(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let command = command(self.writer.sum(), changes);
        let position = next(self.writer.applied());
        self.writer.apply(&[Entry { position, content: Content::Commands(&[command]) }]).map(drop)
    }

    /// Applies `commands` as one log entry.
    pub(crate) fn commands(&mut self, commands: &[Command]) -> Vec<Outcome> {
        let position = next(self.writer.applied());
        self.writer.apply(&[Entry { position, content: Content::Commands(commands) }]).unwrap().remove(0)
    }
}

/// The place in the log after `applied`.
pub(crate) fn next(applied: Option<Position>) -> Position {
    Position { term: 1, leader: u64::MAX, index: applied.map_or(0, |at| at.index + 1) }
}

pub(crate) fn command(before: StateSum, changes: Vec<Change>) -> Command {
    Command { request: Id([1; 16]), at: Timestamp(0), before, signature: [7; 32], changes, intent: Vec::new() }
}

pub(crate) fn row(key: &[u8], rev: u64, body: &[u8]) -> Row {
    Row { key: key.to_vec(), rev, group: Vec::new(), due: None, head: None, body: body.to_vec() }
}

pub(crate) fn put(table: Table, row: Row) -> Change {
    Change::Put { table, row }
}

pub(crate) fn add(id: u64, wrapped: &[u8], payload: &[u8]) -> Change {
    Change::AddVersion { id, blob: blob(wrapped, payload) }
}

pub(crate) fn blob(wrapped: &[u8], payload: &[u8]) -> VersionBlob {
    VersionBlob { wrapped: wrapped.to_vec(), payload: payload.to_vec() }
}
