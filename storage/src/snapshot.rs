//! A whole state as one file: made beside the running writer, and put in place of a node's own.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use keyward_model::StateSum;
use rusqlite::Connection;

use crate::connect::{self, Role};
use crate::reader::{self, Meta};
use crate::store::{Place, sync_directory};
use crate::{Options, Position, Store, StoreError, migrate};

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
        let place = self.place();
        let connection = connect::open(place.file(), Role::Reader, self.options())?;
        let (written, flushed) = flushing(made, || connection.execute(SNAPSHOT, [name]));
        written.map_err(|e| StoreError::doing("writing a snapshot", &e))?;
        flushed.and_then(|()| made.sync_all()).map_err(|e| StoreError::flush(file, &e))?;
        if let Some(directory) = file.parent() {
            sync_directory(directory)?;
        }
        reader::meta(&connect::open(file, Role::Reader, self.options())?)
    }

    /// Puts the snapshot in `snapshot` in the place of the state. The file must have passed [`examine`] and lie in the
    /// store's folder, from where it is taken. Whenever the power fails, one of the two states counts, whole. Readers see the
    /// new one from their next look-up on; who has the old one pinned keeps it until then. No writer may be there.
    ///
    /// # Errors
    /// [`StoreError::WriterTaken`], else as [`Store::open`]; before the new state counts, the old one is untouched.
    pub fn install(&self, snapshot: &Path) -> Result<(), StoreError> {
        let _seat = self.take_seat()?;
        let directory = self.directory();
        let held = reader::meta(&connect::open(snapshot, Role::Reader, self.options())?)?;
        let next = self.place().current().next(held.applied);
        let file = next.file(directory);
        File::open(snapshot).and_then(|opened| opened.sync_all()).map_err(|e| StoreError::flush(snapshot, &e))?;
        rename(snapshot, &file).map_err(|e| StoreError::file("renaming", snapshot, &e))?;
        let place = Place::open(directory, next, self.options())?;
        place.current().write(directory)?;
        self.replace(place);
        Ok(())
    }
}

/// Runs `write`, which fills `file`, and meanwhile flushes what is there again and again. WHY: left to itself the system
/// collects gigabytes and then writes them all at once, and each flush of the Raft log stands behind them.
fn flushing<T>(file: &File, write: impl FnOnce() -> T) -> (T, io::Result<()>) {
    thread::scope(|scope| {
        let (over, is_over) = mpsc::channel::<()>();
        let flusher = thread::Builder::new().spawn_scoped(scope, move || {
            while is_over.recv_timeout(FLUSH_EVERY) == Err(RecvTimeoutError::Timeout) {
                file.sync_data()?;
            }
            Ok(())
        });
        let written = write();
        drop(over);
        // Without a thread it is only slower for others.
        let flushed = flusher.map_or(Ok(()), |flusher| {
            flusher.join().unwrap_or_else(|_| Err(io::Error::other("the thread that flushes ended")))
        });
        (written, flushed)
    })
}

/// What a snapshot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// How far it is, and what it adds up to.
    pub meta: Meta,
    /// The membership in it, and where that stood in the log.
    pub membership: Option<(Position, Vec<u8>)>,
}

/// Looks whether `file` is a sound state, of a schema that this keyward knows, whose rows add up to what it says. Reads all
/// of it.
///
/// # Errors
/// It is not, or cannot be read.
pub fn examine(file: &Path, options: &Options) -> Result<Snapshot, StoreError> {
    connect::check_header(file)?;
    let connection = connect::open(file, Role::Reader, options)?;
    let meta = check(&connection, file)?;
    Ok(Snapshot { meta, membership: reader::membership(&connection)? })
}

fn check(connection: &Connection, file: &Path) -> Result<Meta, StoreError> {
    migrate::check_version(connection, file)?;
    let failed = |e: rusqlite::Error| StoreError::doing("checking a snapshot", &e);
    let answer: String = connection.query_row(QUICK_CHECK, [], |row| row.get(0)).map_err(failed)?;
    if answer != "ok" {
        return Err(StoreError::corrupt("sqlite_schema", &[], answer));
    }
    let (meta, mut found) = (reader::meta(connection)?, StateSum::default());
    reader::each_digest(connection, |digest| found = found.plus(digest))?;
    if found != meta.sum {
        return Err(StoreError::corrupt("applied", &[], "the rows do not add up to the stored sum"));
    }
    Ok(meta)
}

fn new_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::file("making", path, &e))
}

/// Between two flushes of a snapshot that is being written: a few MiB on a fast disk.
const FLUSH_EVERY: Duration = Duration::from_millis(10);

const SNAPSHOT: &str = "-- storage::snapshot::into\nVACUUM INTO ?1";
const QUICK_CHECK: &str = "-- storage::snapshot::quick_check\nPRAGMA quick_check(1)";
