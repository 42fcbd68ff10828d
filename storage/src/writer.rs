//! The one that changes the state.

use std::fs::File;
use std::time::{Duration, Instant};

use keyward_model::{Change, Outcome, StateSum, Timestamp};
use rusqlite::{Connection, params};

use crate::checkpoint::{self, Checkpoint, Kind};
use crate::reader::{self, Meta};
use crate::sql::{PerTable, per_table};
use crate::store::{WriterSeat, private};
use crate::{Content, Entry, Position, StoreError, connect, plan};

/// Applies log entries to the state: keyless, and with the same result on every node.
///
/// After any error of [`Writer::apply`] but [`StoreError::DiskFull`] it refuses all further work. A failed write leaves the
/// disk in doubt, and a commit that seems to succeed after it would be a lie.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    meta: Meta,
    newest: Timestamp,
    membership: Option<(Position, Vec<u8>)>,
    /// WHY: held open, so that an error while the system wrote the log back in the background is reported to us.
    wal: File,
    broken: bool,
    /// When, and at what size, the write-ahead log could not be emptied.
    held_up: Option<(Instant, u64)>,
    seat: WriterSeat,
}

impl Writer {
    pub(crate) fn open(connection: Connection, seat: WriterSeat) -> Result<Self, StoreError> {
        let meta = reader::meta(&connection)?;
        let (newest, membership) = (reader::newest(&connection)?, reader::membership(&connection)?);
        let wal = private(&seat.place.wal())?;
        seat.store.sync_names()?;
        Ok(Self { connection, meta, newest, membership, wal, broken: false, held_up: None, seat })
    }

    /// Applies `entries` in one transaction and says what became of each command of each entry, in order.
    ///
    /// A command that was not decided on the state as it is now, or whose revisions do not fit, is [`Outcome::Stale`]: it
    /// leaves nothing, the others go on. The position of the last entry, the sum, its signature and the newest moment are part
    /// of the transaction. The changes are visible to readers afterwards; they are durable after [`Writer::make_durable`].
    ///
    /// # Errors
    /// [`StoreError::DiskFull`]: everything is as it was before, and the same entries can be applied again when there is
    /// space. [`StoreError::OutOfOrder`] if an entry does not follow the one before, else what SQLite met: nothing of the
    /// transaction is in place then either, and the writer is of no more use.
    pub fn apply(&mut self, entries: &[Entry<'_>]) -> Result<Vec<Vec<Outcome>>, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        // Taken back only when all went well.
        self.broken = true;
        check_order(self.meta.applied, entries)?;
        let (mut next, mut newest) = (Meta { applied: Some(last.position), ..self.meta }, self.newest);
        let outcomes = self.run(BEGIN).and_then(|()| self.write(entries, &mut next, &mut newest));
        let outcomes = match outcomes.and_then(|outcomes| self.run(COMMIT).map(|()| outcomes)) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // The first error is the one to tell; SQLite may have rolled back already.
                drop(self.run(ROLLBACK));
                self.broken = !(matches!(error, StoreError::DiskFull) && self.connection.is_autocommit());
                return Err(error);
            }
        };
        (self.meta, self.newest) = (next, newest);
        for entry in entries {
            if let Content::Membership(members) = entry.content {
                self.membership = Some((entry.position, members.to_vec()));
            }
        }
        self.keep_wal_small()?;
        self.broken = false;
        Ok(outcomes)
    }

    /// The last applied entry.
    pub fn applied(&self) -> Option<Position> {
        self.meta.applied
    }

    /// The sum over all rows.
    pub fn sum(&self) -> StateSum {
        self.meta.sum
    }

    /// The last applied membership and where it stood in the log.
    pub fn membership(&self) -> Option<(Position, Vec<u8>)> {
        self.membership.clone()
    }

    /// Moves the write-ahead log into the database. Waits a moment, no longer, for readers that are in the way.
    ///
    /// # Errors
    /// What SQLite met. A full disk is none: nothing, or not all, was moved.
    pub fn checkpoint(&mut self, kind: Kind) -> Result<Checkpoint, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        let done = self.move_log(kind);
        self.broken = done.is_err();
        done
    }

    fn move_log(&self, kind: Kind) -> Result<Checkpoint, StoreError> {
        let wait = |time| self.connection.busy_timeout(time).map_err(|e| StoreError::doing("setting a wait", &e));
        // WHY: a look-up is over in no time; a scan of everything is not, and must not hold up the writes for so long.
        wait(READERS_WAIT)?;
        let done = checkpoint::run(&self.connection, kind)?;
        wait(connect::BUSY_WAIT)?;
        Ok(done)
    }

    /// Makes everything applied so far durable and says how far that is. After it returns, the state up to that position
    /// survives a power loss, so the log may be purged up to there.
    ///
    /// # Errors
    /// What the disk met; the writer is of no more use then, since nobody knows what is on the disk.
    pub fn make_durable(&mut self) -> Result<Option<Position>, StoreError> {
        if self.broken {
            return Err(StoreError::Broken);
        }
        self.broken = true;
        // As much as possible goes into the database itself. What a reader or a full disk holds back stays in the
        // write-ahead log, from which SQLite recovers: syncing that file makes the rest durable, whatever readers do.
        checkpoint::run(&self.connection, Kind::Passive)?;
        self.wal.sync_data().map_err(|e| StoreError::flush(&self.seat.place.wal(), &e))?;
        self.broken = false;
        Ok(self.meta.applied)
    }

    fn write(
        &self,
        entries: &[Entry<'_>],
        next: &mut Meta,
        newest: &mut Timestamp,
    ) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut of_entry = Vec::new();
            match entry.content {
                Content::Blank => {}
                Content::Membership(members) => self.put_membership(entry.position, members)?,
                Content::Commands(commands) => {
                    of_entry.reserve_exact(commands.len());
                    for command in commands {
                        let fit = plan::fit(&self.connection, next.sum, next.last_version, command)?;
                        let Some(fit) = fit else {
                            of_entry.push(Outcome::Stale);
                            continue;
                        };
                        for change in &command.changes {
                            self.change(change)?;
                        }
                        next.sum = fit.sum;
                        next.last_version = fit.last_version;
                        next.signature = command.signature;
                        *newest = command.at.max(*newest);
                        of_entry.push(Outcome::Done);
                    }
                }
            }
            outcomes.push(of_entry);
        }
        self.put_meta(next, *newest)?;
        Ok(outcomes)
    }

    /// Writes one change of a command that fits.
    fn change(&self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Put { table, row } => {
                let text = if row.rev == 1 { INSERT.of(*table) } else { UPDATE.of(*table) };
                let head = row.head.map(u64::cast_signed);
                let values = params![row.key, row.rev.cast_signed(), row.group, row.due, head, row.body];
                let touched = self.execute(text, values).map_err(|e| StoreError::at(table.name(), &row.key, &e))?;
                one_row(touched, table.name(), &row.key)
            }
            Change::Remove { table, key, .. } => {
                let touched =
                    self.execute(REMOVE.of(*table), [key]).map_err(|e| StoreError::at(table.name(), key, &e))?;
                one_row(touched, table.name(), key)
            }
            Change::AddVersion { id, blob } => self
                .execute(ADD_VERSION, params![id.cast_signed(), blob.wrapped, blob.payload])
                .map_err(|e| StoreError::at("versions", &id.to_be_bytes(), &e))
                .and_then(|touched| one_row(touched, "versions", &id.to_be_bytes())),
            Change::Rewrap { id, wrapped } => self
                .execute(REWRAP, params![id.cast_signed(), wrapped])
                .map(drop)
                .map_err(|e| StoreError::at("versions", &id.to_be_bytes(), &e)),
            Change::EraseVersion { id } => self
                .execute(ERASE, [id.cast_signed()])
                .map(drop)
                .map_err(|e| StoreError::at("versions", &id.to_be_bytes(), &e)),
        }
    }

    fn put_meta(&self, meta: &Meta, newest: Timestamp) -> Result<(), StoreError> {
        let Some(at) = meta.applied else { return Ok(()) };
        let values = params![
            at.term.cast_signed(),
            at.leader.cast_signed(),
            at.index.cast_signed(),
            meta.sum.to_bytes(),
            meta.signature,
            meta.last_version.cast_signed(),
            newest.0,
        ];
        let touched = self.execute(PUT_META, values).map_err(|e| StoreError::at("applied", &[], &e))?;
        one_row(touched, "applied", &[])
    }

    fn put_membership(&self, at: Position, members: &[u8]) -> Result<(), StoreError> {
        let values = params![at.term.cast_signed(), at.leader.cast_signed(), at.index.cast_signed(), members];
        self.execute(PUT_MEMBERSHIP, values).map(drop).map_err(|e| StoreError::at("membership", &[], &e))
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        self.execute(sql, []).map(drop).map_err(|e| StoreError::doing("a transaction", &e))
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(values)
    }

    /// Empties the write-ahead log when the background thread did not keep up with it.
    fn keep_wal_small(&mut self) -> Result<(), StoreError> {
        let size = self.wal.metadata().map_err(|e| StoreError::file("reading", &self.seat.place.wal(), &e))?.len();
        if size > self.seat.store.options().wal_bytes_max {
            // Each attempt waits for readers, and one that reads everything is there for long.
            let vain = |(at, of): (Instant, u64)| at.elapsed() < AGAIN && size < of.saturating_mul(2);
            if !self.held_up.is_some_and(vain) {
                let emptied = self.move_log(Kind::Truncate)?.complete;
                self.held_up = (!emptied).then(|| (Instant::now(), size));
            }
        }
        Ok(())
    }
}

/// Every entry follows the one before: the next number, and no earlier term.
fn check_order(applied: Option<Position>, entries: &[Entry<'_>]) -> Result<(), StoreError> {
    let mut applied = applied;
    for entry in entries {
        let found = entry.position;
        let follows = match applied {
            None => found.index <= 1,
            Some(last) => last.index.checked_add(1) == Some(found.index) && last.term <= found.term,
        };
        if !follows {
            return Err(StoreError::OutOfOrder { applied, found });
        }
        applied = Some(found);
    }
    Ok(())
}

/// A change that was found to fit touches one row; anything else means that the table and its look-up disagree.
fn one_row(touched: usize, table: &'static str, key: &[u8]) -> Result<(), StoreError> {
    if touched == 1 { Ok(()) } else { Err(StoreError::corrupt(table, key, format!("a change touched {touched} rows"))) }
}

/// How long a checkpoint of the writer waits for readers.
const READERS_WAIT: Duration = Duration::from_millis(20);
/// After an attempt in vain to empty the write-ahead log, unless that has doubled.
const AGAIN: Duration = Duration::from_secs(1);

const BEGIN: &str = "-- storage::writer::begin\nBEGIN IMMEDIATE";
const COMMIT: &str = "-- storage::writer::commit\nCOMMIT";
const ROLLBACK: &str = "-- storage::writer::rollback\nROLLBACK";

const INSERT: PerTable = per_table!(
    "-- storage::writer::insert\nINSERT INTO ",
    "(key, rev, grp, due, head, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
);
pub(crate) const UPDATE: PerTable = per_table!(
    "-- storage::writer::update\nUPDATE ",
    " SET rev = ?2, grp = ?3, due = ?4, head = ?5, body = ?6 WHERE key = ?1"
);
pub(crate) const REMOVE: PerTable = per_table!("-- storage::writer::remove\nDELETE FROM ", " WHERE key = ?1");

const ADD_VERSION: &str =
    "-- storage::writer::add_version\nINSERT INTO versions(id, wrapped, payload) VALUES (?1, ?2, ?3)";
pub(crate) const REWRAP: &str = "-- storage::writer::rewrap\nUPDATE versions SET wrapped = ?2 WHERE id = ?1";
pub(crate) const ERASE: &str = "-- storage::writer::erase\nDELETE FROM versions WHERE id = ?1";

pub(crate) const PUT_META: &str = "-- storage::writer::put_meta
UPDATE applied SET term = ?1, leader = ?2, idx = ?3, sum = ?4, signature = ?5, last_version = ?6, newest = ?7 WHERE one = 1";
const PUT_MEMBERSHIP: &str = "-- storage::writer::put_membership
INSERT OR REPLACE INTO membership(one, term, leader, idx, members) VALUES (1, ?1, ?2, ?3, ?4)";

#[cfg(test)]
mod tests;
