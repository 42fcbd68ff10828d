//! Looking things up.

use std::cell::{Ref, RefCell};
use std::sync::Arc;

use keyward_model::{Row, StateSum, Table, Timestamp, VersionBlob};
use rusqlite::{Connection, OptionalExtension, params};

use crate::connect::{self, Role};
use crate::digest::Parts;
use crate::sql::{PerTable, per_table};
use crate::store::Place;
use crate::{Position, Store, StoreError};

/// A read-only connection: one per thread. Each call sees all that was applied before it, also when another state was put
/// in the place of the one before; what is read between [`Reader::pin`] and [`Reader::unpin`] is of one state.
#[derive(Debug)]
pub struct Reader {
    held: RefCell<Held>,
    store: Store,
}

/// A connection to one of the states that a store had.
#[derive(Debug)]
struct Held {
    connection: Connection,
    /// Keeps the files. WHY: after the connection, so that they go when it is closed.
    place: Arc<Place>,
}

/// How far the state is, and what it adds up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The last applied log entry.
    pub applied: Option<Position>,
    /// The sum over all rows, as kept by `apply`.
    pub sum: StateSum,
    /// The leader's signature over the sum; zeros before the first command.
    pub signature: [u8; 32],
    /// The highest version number ever used; 0 before the first.
    pub last_version: u64,
}

/// What a scan of all rows found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    /// What the database says about itself, in the same moment.
    pub meta: Meta,
    /// What its rows really add up to. If that is not `meta.sum`, it was changed from outside.
    pub found: StateSum,
    /// How many rows there are.
    pub rows: u64,
}

impl Reader {
    pub(crate) fn open(store: Store) -> Result<Self, StoreError> {
        Ok(Self { held: RefCell::new(Held::open(&store)?), store })
    }

    /// The connection to the state that counts, or to the one that is pinned.
    fn connection(&self) -> Result<Ref<'_, Connection>, StoreError> {
        let held = self.held.borrow();
        if held.place.counts() || !held.connection.is_autocommit() {
            return Ok(Ref::map(held, |held| &held.connection));
        }
        drop(held);
        let fresh = Held::open(&self.store)?;
        self.held.replace(fresh);
        Ok(Ref::map(self.held.borrow(), |held| &held.connection))
    }

    /// Opens a read transaction: look-ups until [`Reader::unpin`] see one state, and take no lock each. The state is that
    /// of the first look-up.
    ///
    /// # Errors
    /// As all look-ups; also if a transaction is open.
    pub fn pin(&self) -> Result<(), StoreError> {
        self.transaction(BEGIN)
    }

    /// Ends the transaction of [`Reader::pin`].
    ///
    /// # Errors
    /// As all look-ups; also if none is open.
    pub fn unpin(&self) -> Result<(), StoreError> {
        self.transaction(COMMIT)
    }

    fn transaction(&self, statement: &'static str) -> Result<(), StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at("transaction", &[], &e);
        self.connection()?.prepare_cached(statement).and_then(|mut begin| begin.execute([])).map(drop).map_err(failed)
    }

    /// The row under `key`.
    ///
    /// # Errors
    /// As all look-ups: [`StoreError`] if the database fails or is damaged.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), key, &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(ROW.of(table)).map_err(failed)?;
        let mut rows = statement.query([key]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        Ok(Some(owned(key.to_vec(), &parts(row, 0).map_err(failed)?)))
    }

    /// The row under `key`, and the version blob that its `head` names, in one look-up. The blob is `None` if the row
    /// names none, or one that was erased.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn row_with_head(&self, table: Table, key: &[u8]) -> Result<Option<(Row, Option<VersionBlob>)>, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), key, &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(ROW_WITH_HEAD.of(table)).map_err(failed)?;
        let mut rows = statement.query([key]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let blob = || -> rusqlite::Result<_> {
            let Some(wrapped) = row.get_ref(5)?.as_blob_or_null()? else { return Ok(None) };
            let payload = row.get_ref(6)?.as_blob()?;
            Ok(Some(VersionBlob { wrapped: wrapped.to_vec(), payload: payload.to_vec() }))
        };
        let blob = blob().map_err(failed)?;
        Ok(Some((owned(key.to_vec(), &parts(row, 0).map_err(failed)?), blob)))
    }

    /// The blob with this number, unless it was erased.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn version(&self, id: u64) -> Result<Option<VersionBlob>, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at("versions", &id.to_be_bytes(), &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(VERSION).map_err(failed)?;
        statement
            .query_row([id.cast_signed()], |row| Ok(VersionBlob { wrapped: row.get(0)?, payload: row.get(1)? }))
            .optional()
            .map_err(failed)
    }

    /// At most `limit` rows whose key begins with `prefix`, by key, from the first one after `after`.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn children(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        let from = first(prefix, after);
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), &from, &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(FROM.of(table)).map_err(failed)?;
        let mut rows = statement.query(params![from, bound(limit)]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = key(row).map_err(failed)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push(owned(key.to_vec(), &parts(row, 1).map_err(failed)?));
        }
        Ok(found)
    }

    /// Whether any row's key begins with `prefix`.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn has_child(&self, table: Table, prefix: &[u8]) -> Result<bool, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), prefix, &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(FIRST_KEY.of(table)).map_err(failed)?;
        let mut rows = statement.query([prefix]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(false) };
        Ok(key(row).map_err(failed)?.starts_with(prefix))
    }

    /// How many rows the table has. Reads all of it.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn count(&self, table: Table) -> Result<u64, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), &[], &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(COUNT.of(table)).map_err(failed)?;
        statement.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(failed)
    }

    /// At most `limit` rows of the group, by key, from the first one after `after`. An index look-up in `tokens`; in any
    /// other table it reads all rows.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn group(
        &self,
        table: Table,
        group: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let from = first(&[], after);
        self.rows(table, GROUP.of(table), params![group, from, bound(limit)], &from)
    }

    /// At most `limit` rows that fall due at `until` (nanoseconds since 1970) or before, the most overdue first. An index
    /// look-up in `tokens`, `wrapped` and `repeats`; in any other table it reads all rows.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn due(&self, table: Table, until: i64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.rows(table, DUE.of(table), params![until, bound(limit)], &[])
    }

    /// At most `limit` rows, by key, from the first one after `after`: for walking through a whole table.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.children(table, &[], after, limit)
    }

    /// The numbers and wrapped keys of at most `limit` version blobs after `id`, in order: for wrapping them anew.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn versions_after(&self, id: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at("versions", &id.to_be_bytes(), &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(VERSIONS_AFTER).map_err(failed)?;
        let rows = statement
            .query_map(params![id.cast_signed(), bound(limit)], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// How far the state is, and what it adds up to.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn meta(&self) -> Result<Meta, StoreError> {
        meta(&*self.connection()?)
    }

    /// The newest moment that a command in this state was stamped with; 0 before the first.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn newest(&self) -> Result<Timestamp, StoreError> {
        newest(&*self.connection()?)
    }

    /// The last applied membership and where it stood in the log.
    ///
    /// # Errors
    /// As all look-ups.
    pub fn membership(&self) -> Result<Option<(Position, Vec<u8>)>, StoreError> {
        membership(&*self.connection()?)
    }

    /// Reads every row and adds it up, all in one moment, beside whatever the writer does. Also holds the indexes against
    /// their tables, since a token that is missing from one would escape revocation.
    ///
    /// # Errors
    /// As all look-ups, and [`StoreError::Corrupt`] for an index that does not match. Rows that do not add up are no error here; see [`Verification`].
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::doing("a read transaction", &e);
        // Ends when dropped; there is nothing to commit.
        let connection = self.connection()?;
        let _moment = connection.unchecked_transaction().map_err(failed)?;
        let meta = meta(&connection)?;
        let (mut found, mut rows) = (StateSum::default(), 0);
        each_digest(&connection, |digest| {
            found = found.plus(digest);
            rows += 1;
        })?;
        for text in CHECK_INDEXES {
            let failed = |e: rusqlite::Error| StoreError::doing("checking an index", &e);
            let mut statement = connection.prepare_cached(text).map_err(failed)?;
            let answer: String = statement.query_row([], |row| row.get(0)).map_err(failed)?;
            if answer != "ok" {
                return Err(StoreError::corrupt("sqlite_schema", &[], answer));
            }
        }
        Ok(Verification { meta, found, rows })
    }

    fn rows(
        &self,
        table: Table,
        sql: &str,
        values: impl rusqlite::Params,
        from: &[u8],
    ) -> Result<Vec<Row>, StoreError> {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), from, &e);
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(values).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let key = key(row).map_err(failed)?;
            found.push(owned(key.to_vec(), &parts(row, 1).map_err(failed)?));
        }
        Ok(found)
    }
}

impl Held {
    fn open(store: &Store) -> Result<Self, StoreError> {
        let place = store.place();
        Ok(Self { connection: connect::open(place.file(), Role::Reader, store.options())?, place })
    }
}

pub(crate) fn meta(connection: &Connection) -> Result<Meta, StoreError> {
    let failed = |e: rusqlite::Error| StoreError::at("applied", &[], &e);
    let mut statement = connection.prepare_cached(META).map_err(failed)?;
    statement
        .query_row([], |row| {
            let index: Option<i64> = row.get(2)?;
            let (term, leader): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Meta {
                applied: index.map(|index| position(term, leader, index)),
                sum: StateSum::from_bytes(row.get(3)?),
                signature: row.get(4)?,
                last_version: row.get::<_, i64>(5)?.cast_unsigned(),
            })
        })
        .map_err(failed)
}

/// Not a part of [`Meta`], which a snapshot of an older schema has, too.
pub(crate) fn newest(connection: &Connection) -> Result<Timestamp, StoreError> {
    let failed = |e: rusqlite::Error| StoreError::at("applied", &[], &e);
    let mut statement = connection.prepare_cached(NEWEST).map_err(failed)?;
    statement.query_row([], |row| row.get(0).map(Timestamp)).map_err(failed)
}

pub(crate) fn membership(connection: &Connection) -> Result<Option<(Position, Vec<u8>)>, StoreError> {
    let failed = |e: rusqlite::Error| StoreError::at("membership", &[], &e);
    let mut statement = connection.prepare_cached(MEMBERSHIP).map_err(failed)?;
    statement
        .query_row([], |row| Ok((position(row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)))
        .optional()
        .map_err(failed)
}

/// Hands over the digest of every row of every table, without copying any.
pub(crate) fn each_digest(connection: &Connection, mut take: impl FnMut([u8; 32])) -> Result<(), StoreError> {
    for table in Table::ALL {
        let failed = |e: rusqlite::Error| StoreError::at(table.name(), &[], &e);
        let mut statement = connection.prepare_cached(ALL.of(table)).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = key(row).map_err(failed)?;
            let parts = parts(row, 1).map_err(|e| StoreError::at(table.name(), key, &e))?;
            take(parts.digest(table, key));
        }
    }
    Ok(())
}

/// The key in the first column, as it lies in the page.
fn key<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(0)?.as_blob()?)
}

/// The columns rev, grp, due, head and body from column `at` on, as they lie in the page.
pub(crate) fn parts<'a>(row: &'a rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Parts<'a>> {
    Ok(Parts {
        rev: row.get_ref(at)?.as_i64()?.cast_unsigned(),
        group: row.get_ref(at + 1)?.as_blob()?,
        due: row.get_ref(at + 2)?.as_i64_or_null()?,
        head: row.get_ref(at + 3)?.as_i64_or_null()?.map(i64::cast_unsigned),
        body: row.get_ref(at + 4)?.as_blob()?,
    })
}

fn owned(key: Vec<u8>, parts: &Parts<'_>) -> Row {
    Row {
        key,
        rev: parts.rev,
        group: parts.group.to_vec(),
        due: parts.due,
        head: parts.head,
        body: parts.body.to_vec(),
    }
}

const BEGIN: &str = "-- storage::reader::pin
BEGIN DEFERRED";

const COMMIT: &str = "-- storage::reader::unpin
COMMIT";

const fn position(term: i64, leader: i64, index: i64) -> Position {
    Position { term: term.cast_unsigned(), leader: leader.cast_unsigned(), index: index.cast_unsigned() }
}

/// The smallest key of a range: `prefix` itself, or what comes right after `after`.
fn first(prefix: &[u8], after: Option<&[u8]>) -> Vec<u8> {
    match after {
        Some(after) if after >= prefix => [after, &[0]].concat(),
        _ => prefix.to_vec(),
    }
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(crate) const ROW: PerTable =
    per_table!("-- storage::reader::row\nSELECT rev, grp, due, head, body FROM ", " WHERE key = ?1");
pub(crate) const ROW_WITH_HEAD: PerTable = per_table!(
    "-- storage::reader::row_with_head\nSELECT t.rev, t.grp, t.due, t.head, t.body, v.wrapped, v.payload FROM ",
    " t LEFT JOIN versions v ON v.id = t.head WHERE t.key = ?1"
);
pub(crate) const FROM: PerTable = per_table!(
    "-- storage::reader::from\nSELECT key, rev, grp, due, head, body FROM ",
    " WHERE key >= ?1 ORDER BY key LIMIT ?2"
);
pub(crate) const FIRST_KEY: PerTable =
    per_table!("-- storage::reader::first_key\nSELECT key FROM ", " WHERE key >= ?1 ORDER BY key LIMIT 1");
const COUNT: PerTable = per_table!("-- storage::reader::count\nSELECT count(*) FROM ", "");
pub(crate) const GROUP: PerTable = per_table!(
    "-- storage::reader::group\nSELECT key, rev, grp, due, head, body FROM ",
    " WHERE grp = ?1 AND key >= ?2 ORDER BY key LIMIT ?3"
);
pub(crate) const DUE: PerTable = per_table!(
    "-- storage::reader::due\nSELECT key, rev, grp, due, head, body FROM ",
    " WHERE due <= ?1 ORDER BY due, key LIMIT ?2"
);
const ALL: PerTable = per_table!("-- storage::reader::all\nSELECT key, rev, grp, due, head, body FROM ", "");

/// The tables with an index of their own.
const CHECK_INDEXES: [&str; 3] = [
    "-- storage::reader::check_tokens\nPRAGMA integrity_check(tokens)",
    "-- storage::reader::check_wrapped\nPRAGMA integrity_check(wrapped)",
    "-- storage::reader::check_repeats\nPRAGMA integrity_check(repeats)",
];

pub(crate) const VERSION: &str = "-- storage::reader::version\nSELECT wrapped, payload FROM versions WHERE id = ?1";
pub(crate) const VERSIONS_AFTER: &str =
    "-- storage::reader::versions_after\nSELECT id, wrapped FROM versions WHERE id > ?1 ORDER BY id LIMIT ?2";
pub(crate) const META: &str = "-- storage::reader::meta
SELECT term, leader, idx, sum, signature, last_version FROM applied WHERE one = 1";
const NEWEST: &str = "-- storage::reader::newest
SELECT newest FROM applied WHERE one = 1";
const MEMBERSHIP: &str = "-- storage::reader::membership
SELECT term, leader, idx, members FROM membership WHERE one = 1";
