//! A whole state as one file: made beside the running writer, and put in place of a node's own.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyward_model::StateSum;

use crate::connect::{self, Role};
use crate::reader::{self, Meta};
use crate::store::{beside, lock, sync_directory};
use crate::{Options, Store, StoreError, migrate};

impl Store {
    /// Writes the state as of now into the new file `file`, compact and without a trace of what was erased, and makes it
    /// durable. Says what it holds: the position in it is the snapshot's. Readers and the writer go on meanwhile, but the
    /// write-ahead log grows until it is done.
    ///
    /// # Errors
    /// What SQLite or the operating system met, also if `file` is there already; a partial file is taken away.
    pub fn snapshot_into(&self, file: &Path) -> Result<Meta, StoreError> {
        let made = new_file(file)?;
        let written = self.write_snapshot(file, &made);
        if written.is_err() {
            // The first error is the one to tell.
            drop(remove_file(file));
        }
        written
    }

    fn write_snapshot(&self, file: &Path, made: &File) -> Result<Meta, StoreError> {
        let Some(name) = file.to_str() else {
            let cause = "its name is not UTF-8, choose another".to_owned();
            return Err(StoreError::Io { doing: format!("opening `{}`", file.display()), cause });
        };
        let connection = connect::open(self.file(), Role::Reader, self.options())?;
        connection.execute(SNAPSHOT, [name]).map_err(|e| StoreError::doing("writing a snapshot", &e))?;
        made.sync_all().map_err(|e| StoreError::flush(file, &e))?;
        if let Some(directory) = file.parent() {
            sync_directory(directory)?;
        }
        reader::meta(&connect::open(file, Role::Reader, self.options())?)
    }

    /// Puts the snapshot in `snapshot` in the place of the state in `directory` and opens it. The snapshot is copied and
    /// checked first; whenever the power fails, one of the two states is there, whole. No handle of the old one may live.
    ///
    /// # Errors
    /// As [`Store::open`], also about the snapshot: then the old state is untouched.
    pub fn install(directory: &Path, snapshot: &Path, options: &Options) -> Result<Self, StoreError> {
        let file = directory.join(Self::FILE);
        {
            let _lock = lock(&file)?;
            let arriving = beside(&file, ".arriving");
            discard(&arriving)?;
            connect::check_header(snapshot)?;
            copy(snapshot, &arriving)?;
            check(&arriving, options)?;
            rename(&arriving, ready(&file)).map_err(|e| StoreError::file("renaming", &arriving, &e))?;
            sync_directory(directory)?;
        }
        Self::open(directory, options)
    }
}

/// Puts an installed snapshot in place, if one waits. Can be cut off anywhere and begun again.
pub(crate) fn finish_install(file: &Path) -> Result<(), StoreError> {
    let ready = ready(file);
    if !ready.try_exists().map_err(|e| StoreError::file("looking for", &ready, &e))? {
        return Ok(());
    }
    // The old write-ahead log first: SQLite would take it for that of the new file.
    discard(&beside(file, "-wal"))?;
    discard(&beside(file, "-shm"))?;
    let sync = || file.parent().map_or(Ok(()), sync_directory);
    sync()?;
    rename(&ready, file).map_err(|e| StoreError::file("renaming", &ready, &e))?;
    sync()
}

/// The name of a snapshot that is whole, checked and about to be the database.
fn ready(file: &Path) -> PathBuf {
    beside(file, ".ready")
}

/// A snapshot is taken only if it is sound, of a schema we know, and adds up to what it says.
fn check(file: &Path, options: &Options) -> Result<(), StoreError> {
    let connection = connect::open(file, Role::Reader, options)?;
    migrate::check_version(&connection, file)?;
    let failed = |e: rusqlite::Error| StoreError::doing("checking a snapshot", &e);
    let answer: String = connection.query_row(QUICK_CHECK, [], |row| row.get(0)).map_err(failed)?;
    if answer != "ok" {
        return Err(StoreError::corrupt("sqlite_schema", &[], answer));
    }
    let (meta, mut found) = (reader::meta(&connection)?, StateSum::default());
    reader::each_digest(&connection, |digest| found = found.plus(digest))?;
    if found != meta.sum {
        return Err(StoreError::corrupt("applied", &[], "the rows do not add up to the stored sum"));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|e| StoreError::file("reading", from, &e))?;
    let mut target = new_file(to)?;
    std::io::copy(&mut source, &mut target).map_err(|e| StoreError::file("writing", to, &e))?;
    target.sync_all().map_err(|e| StoreError::flush(to, &e))
}

fn new_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::file("making", path, &e))
}

fn discard(path: &Path) -> Result<(), StoreError> {
    match remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::file("removing", path, &e)),
        _ => Ok(()),
    }
}

const SNAPSHOT: &str = "-- storage::snapshot::into\nVACUUM INTO ?1";
const QUICK_CHECK: &str = "-- storage::snapshot::quick_check\nPRAGMA quick_check(1)";
