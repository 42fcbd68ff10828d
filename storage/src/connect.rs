//! How a connection is opened: who it is for, and what SQLite must and must not do on it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::StoreError;
use crate::store::Options;

/// Who a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Applies.
    Writer,
    /// Looks things up; cannot write.
    Reader,
    /// Moves the write-ahead log into the database.
    Checkpointer,
}

/// Marks a file as ours (`KWST`), in the place SQLite keeps for that.
pub(crate) const APPLICATION_ID: i32 = 0x4b57_5354;

/// Opens a connection on `file`, which must be there.
pub(crate) fn open(file: &Path, role: Role, options: &Options) -> Result<Connection, StoreError> {
    let failed = |e: rusqlite::Error| StoreError::doing("opening", &e);
    let access =
        if role == Role::Reader { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    // WHY: no mutex in SQLite. A connection is used by one thread at a time, which its Rust type sees to.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(file, flags).map_err(failed)?;
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // WHY: plans must not depend on bound values. Without this, SQLite parses and plans a statement anew each time
        // another value is bound, which costs three times the look-up itself.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(config, on).map_err(failed)?;
    }
    // A checkpoint never waits for readers: what is busy now is done the next time.
    let wait = if role == Role::Checkpointer { Duration::ZERO } else { BUSY_WAIT };
    connection.busy_timeout(wait).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let (cache_kib, mmap_bytes) = match role {
        Role::Writer => (options.writer_cache_kib, 0),
        Role::Reader => (options.reader_cache_kib, options.reader_mmap_bytes),
        Role::Checkpointer => (256, 0),
    };
    if role != Role::Reader {
        // Before the log exists; a database that has one keeps its page size.
        set(&connection, "page_size", 4096)?;
    }
    set(&connection, "cache_size", -i64::from(cache_kib))?;
    set(&connection, "mmap_size", i64::try_from(mmap_bytes).unwrap_or(i64::MAX))?;
    set(&connection, "cell_size_check", 1)?;
    set(&connection, "foreign_keys", 1)?;
    set(&connection, "secure_delete", 1)?;
    set(&connection, "temp_store", MEMORY)?;
    set(&connection, "synchronous", NORMAL)?;
    set(&connection, "wal_autocheckpoint", 0)?;
    set(&connection, "journal_size_limit", i64::try_from(options.wal_bytes_max).unwrap_or(i64::MAX))?;
    Ok(connection)
}

/// Says whether `file` is empty or bears our mark, without letting SQLite near it: a foreign database stays untouched.
pub(crate) fn check_header(file: &Path) -> Result<(), StoreError> {
    let mut header = [0u8; 100];
    let mut opened = File::open(file).map_err(|e| StoreError::file("reading", file, &e))?;
    match opened.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            let length = opened.metadata().map_err(|e| StoreError::file("reading", file, &e))?.len();
            if length == 0 {
                return Ok(());
            }
            return Err(foreign(file, "too short for a database"));
        }
        Err(e) => return Err(StoreError::file("reading", file, &e)),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(foreign(file, "not an SQLite file, or its first page is damaged"));
    }
    let mark: [u8; 4] = [header[68], header[69], header[70], header[71]];
    if i32::from_be_bytes(mark) != APPLICATION_ID {
        return Err(foreign(file, "another program's mark"));
    }
    Ok(())
}

/// Puts our mark on a new database and turns on its write-ahead log.
pub(crate) fn mark(connection: &Connection, file: &Path) -> Result<(), StoreError> {
    // WHY: the mark first, in a transaction of its own that is durable in the file, so that `check_header` finds it there.
    let failed = |e: rusqlite::Error| StoreError::doing("marking a new database", &e);
    let found: i32 = connection.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(failed)?;
    if found == 0 {
        set(connection, "application_id", i64::from(APPLICATION_ID))?;
    } else if found != APPLICATION_ID {
        return Err(foreign(file, "another program's mark"));
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::Unexpected { doing: "a write-ahead log".to_owned(), cause: format!("got `{mode}`") });
    }
    Ok(())
}

fn set(connection: &Connection, pragma: &str, value: i64) -> Result<(), StoreError> {
    // Some pragmas answer with the new value, some with nothing.
    connection.pragma_update(None, pragma, value).map_err(|e| StoreError::doing(&format!("setting `{pragma}`"), &e))
}

fn foreign(file: &Path, what: &str) -> StoreError {
    StoreError::Foreign { path: file.to_owned(), what: what.to_owned() }
}

/// How long a connection waits for another one's lock: only recovery and a truncating checkpoint ever hold one.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// More than there are statements, so none is ever parsed twice.
const STATEMENTS_MAX: usize = 128;

const MEMORY: i64 = 2;
const NORMAL: i64 = 1;
