//! Moving the write-ahead log into the database.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use crate::store::Place;
use crate::{Store, StoreError};

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// As far as readers allow, in nobody's way.
    Passive,
    /// All of it, and the next transaction writes the log from its start. Not done while a reader uses it.
    Restart,
    /// All of it, and the log's file is cut to nothing: erased bytes are gone from it. Not done while a reader uses it.
    Truncate,
}

/// What a checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Whether it went as far as its [`Kind`] says. If not, a reader or another checkpoint was in the way, or the disk is
    /// full; try later.
    pub complete: bool,
    /// Pages in the log.
    pub pages: u64,
    /// Those of them that are in the database now.
    pub moved: u64,
}

/// Runs checkpoints on a connection of its own, for a background thread: beside the writer, never in its way.
#[derive(Debug)]
pub struct Checkpointer {
    connection: Connection,
    /// Keeps the files.
    _place: Arc<Place>,
    /// Keeps the lock of the database.
    _store: Store,
}

impl Checkpointer {
    pub(crate) fn new(connection: Connection, place: Arc<Place>, store: Store) -> Self {
        Self { connection, _place: place, _store: store }
    }

    /// Says how the log stands and moves nothing. Cheap: nothing is locked, nothing is read from the disk.
    ///
    /// # Errors
    /// What SQLite met: stop the node.
    pub fn look(&self) -> Result<Checkpoint, StoreError> {
        ask(&self.connection, LOOK)
    }

    /// Runs one checkpoint. Each costs two flushes of the disk: better few large ones than many small ones.
    ///
    /// # Errors
    /// What SQLite met: stop the node.
    pub fn run(&mut self, kind: Kind) -> Result<Checkpoint, StoreError> {
        run(&self.connection, kind)
    }
}

pub(crate) fn run(connection: &Connection, kind: Kind) -> Result<Checkpoint, StoreError> {
    let text = match kind {
        Kind::Passive => PASSIVE,
        Kind::Restart => RESTART,
        Kind::Truncate => TRUNCATE,
    };
    ask(connection, text)
}

fn ask(connection: &Connection, text: &str) -> Result<Checkpoint, StoreError> {
    let answer = connection.prepare_cached(text).and_then(|mut statement| {
        statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
    });
    match answer {
        Ok((busy, pages, moved)) => Ok(Checkpoint {
            complete: busy == 0 && pages == moved,
            pages: u64::try_from(pages).unwrap_or(0),
            moved: u64::try_from(moved).unwrap_or(0),
        }),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(NOT_NOW),
        Err(e) => match StoreError::doing("moving the write-ahead log into the database", &e) {
            // What was moved does not count, and the log still holds all of it.
            StoreError::DiskFull => Ok(NOT_NOW),
            other => Err(other),
        },
    }
}

const NOT_NOW: Checkpoint = Checkpoint { complete: false, pages: 0, moved: 0 };

const LOOK: &str = "-- storage::checkpoint::look\nPRAGMA wal_checkpoint(NOOP)";
const PASSIVE: &str = "-- storage::checkpoint::passive\nPRAGMA wal_checkpoint(PASSIVE)";
const RESTART: &str = "-- storage::checkpoint::restart\nPRAGMA wal_checkpoint(RESTART)";
const TRUNCATE: &str = "-- storage::checkpoint::truncate\nPRAGMA wal_checkpoint(TRUNCATE)";
