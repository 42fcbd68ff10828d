//! What can go wrong with the state database. Nothing here is an answer to a caller: all of it is for the operator.

use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use crate::Position;

/// Why the state database cannot do what was asked.
///
/// Out of [`crate::Writer::apply`], every one of them but [`StoreError::DiskFull`] means: stop the node. The writer refuses
/// all further work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the quota has no space left. Nothing was changed: the same can be asked again when there is space.
    #[error("no space left for the state database; free some space")]
    DiskFull,
    /// Reading or writing failed in the operating system.
    #[error("input or output error on the state database while {doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the operating system or SQLite said.
        cause: String,
    },
    /// The database holds what this build never wrote.
    #[error(
        "impossible data in table `{table}`, key `{key}` of the state database: {what}; \
         restore the node from a backup, or let it join the cluster anew"
    )]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key of the row, or the start of the range that was read, in hex; at most 16 bytes of it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The file is not a state database of keyward.
    #[error("`{}` is not a state database of keyward: {what}; point `data` elsewhere, or move the file away", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// A newer keyward made the database.
    #[error(
        "`{}` has schema version {found}, this keyward knows versions up to {known}; start the newer keyward that wrote it",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest one that this build knows.
        known: i64,
    },
    /// A migration that made the database is not the one that this build holds under the same number.
    #[error(
        "`{}` was made by another migration {number} than this keyward has; start the keyward that wrote it",
        .path.display()
    )]
    OtherMigration {
        /// The file.
        path: PathBuf,
        /// The migration's number.
        number: i64,
    },
    /// Another process, or another [`crate::Store`] of this one, has the database open.
    #[error("`{}` is in use by another keyward; stop that one first", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is one writer, and it is taken.
    #[error("the state database already has its writer")]
    WriterTaken,
    /// An earlier failure left the writer in doubt.
    #[error(
        "the state database failed earlier and takes no more writes; see the first error, then start the node again"
    )]
    Broken,
    /// An entry does not follow the last applied one: a bug in whoever keeps the log.
    #[error("log entry {found:?} does not follow the last applied one, {applied:?}; this is a bug, please report it")]
    OutOfOrder {
        /// The last applied entry.
        applied: Option<Position>,
        /// The entry that came.
        found: Position,
    },
    /// SQLite refused for a reason that should not exist.
    #[error("the state database refused {doing}: {cause}; this is a bug, please report it")]
    Unexpected {
        /// What was being done.
        doing: String,
        /// What SQLite said.
        cause: String,
    },
}

impl StoreError {
    /// Sorts what SQLite says about a row, or about a range that starts at `key`.
    pub(crate) fn at(table: &'static str, key: &[u8], error: &rusqlite::Error) -> Self {
        match Self::fatal(error, || format!("working on table `{table}`")) {
            Ok(fatal) => fatal,
            Err(what) => Self::corrupt(table, key, what),
        }
    }

    /// Sorts what SQLite says about something that concerns no single row.
    pub(crate) fn doing(doing: &str, error: &rusqlite::Error) -> Self {
        match Self::fatal(error, || doing.to_owned()) {
            Ok(fatal) => fatal,
            Err(what) => Self::corrupt("sqlite_schema", &[], format!("{what} while {doing}")),
        }
    }

    /// A failure of the operating system on a file of ours.
    pub(crate) fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull;
        }
        Self::Io { doing: format!("{doing} `{}`", path.display()), cause: error.to_string() }
    }

    /// A flush of a file of ours that failed, for whatever reason: what was written before may be lost, and a second flush
    /// that succeeds says nothing.
    pub(crate) fn flush(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { doing: format!("flushing `{}`", path.display()), cause: error.to_string() }
    }

    /// Impossible data under `key`.
    pub(crate) fn corrupt(table: &'static str, key: &[u8], what: impl Into<String>) -> Self {
        let shown = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self::Corrupt { table, key: shown, what: what.into() }
    }

    /// The failure of the machine or of us that `error` is, or else what is wrong with the data.
    fn fatal(error: &rusqlite::Error, doing: impl FnOnce() -> String) -> Result<Self, String> {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Ok(Self::DiskFull),
            // The write-ahead log's index could not grow: nothing was written with it.
            Some(_) if error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE) => {
                Ok(Self::DiskFull)
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport,
            ) => Ok(Self::Io { doing: doing(), cause: error.to_string() }),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Err(error.to_string()),
            Some(_) => Ok(Self::Unexpected { doing: doing(), cause: error.to_string() }),
            None => Err(error.to_string()),
        }
    }
}
