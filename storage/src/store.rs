//! The file: opened, locked, brought up to date, and handed out as connections.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connect::{self, Role};
use crate::{Checkpointer, Reader, StoreError, Writer, migrate, snapshot};

/// The state database of one node, in its directory. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

/// How much memory the database may use.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Page cache of the writer, in KiB.
    pub writer_cache_kib: u32,
    /// Page cache of each reader, in KiB.
    pub reader_cache_kib: u32,
    /// How much of the file each reader maps into memory, in bytes; 0 reads through the operating system's page cache.
    /// A mapped page counts as memory of the process, and an I/O error on it ends the process.
    pub reader_mmap_bytes: u64,
    /// Size of the write-ahead log, in bytes, above which the writer itself moves it into the database.
    pub wal_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            writer_cache_kib: 16 * 1024,
            reader_cache_kib: 4 * 1024,
            reader_mmap_bytes: 0,
            wal_bytes_max: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    options: Options,
    writer_taken: AtomicBool,
    /// Held as long as any handle lives: the process that has it is the only one that writes.
    _lock: File,
}

impl Store {
    /// The database's file name in its directory.
    pub const FILE: &'static str = "state.db";

    /// Opens the database in `directory`, making both if they are not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]: in use, foreign, from a newer version, damaged, or failing.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| StoreError::file("making", directory, &e))?;
        let file = directory.join(Self::FILE);
        let lock = lock(&file)?;
        snapshot::finish_install(&file)?;
        private(&file)?;
        connect::check_header(&file)?;
        {
            let mut connection = connect::open(&file, Role::Writer, options)?;
            connect::mark(&connection, &file)?;
            migrate::run(&mut connection, &file)?;
        }
        sync_directory(directory)?;
        Ok(Self(Arc::new(Shared { file, options: *options, writer_taken: AtomicBool::new(false), _lock: lock })))
    }

    /// The writer. There is one at a time.
    ///
    /// # Errors
    /// [`StoreError::WriterTaken`] while another lives; else what opening a connection gives.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        if self.0.writer_taken.swap(true, Ordering::SeqCst) {
            return Err(StoreError::WriterTaken);
        }
        let seat = WriterSeat(self.clone());
        Writer::open(connect::open(self.file(), Role::Writer, self.options())?, seat)
    }

    /// A reader with a connection of its own: one per thread.
    ///
    /// # Errors
    /// What opening a connection gives.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Ok(Reader::new(connect::open(self.file(), Role::Reader, self.options())?, self.clone()))
    }

    /// A connection for the background thread that moves the write-ahead log into the database.
    ///
    /// # Errors
    /// What opening a connection gives.
    pub fn checkpointer(&self) -> Result<Checkpointer, StoreError> {
        Ok(Checkpointer::new(connect::open(self.file(), Role::Checkpointer, self.options())?, self.clone()))
    }

    /// The database file.
    pub fn file(&self) -> &Path {
        &self.0.file
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    /// Makes the names of the files durable.
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        self.file().parent().map_or(Ok(()), sync_directory)
    }

    /// The write-ahead log beside the database.
    pub(crate) fn wal(&self) -> PathBuf {
        beside(self.file(), "-wal")
    }
}

/// The right to be the writer; given back when dropped.
#[derive(Debug)]
pub(crate) struct WriterSeat(pub(crate) Store);

impl Drop for WriterSeat {
    fn drop(&mut self) {
        self.0.0.writer_taken.store(false, Ordering::SeqCst);
    }
}

/// `path` with `ending` added to its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Takes the lock beside the database; the operating system lets go of it when the process ends, however it ends.
pub(crate) fn lock(file: &Path) -> Result<File, StoreError> {
    // WHY: not on the database itself. SQLite locks that one, and closing any other handle of it would drop those locks.
    let path = beside(file, ".lock");
    let lock = private(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: file.to_owned() }),
        Err(TryLockError::Error(e)) => Err(StoreError::file("locking", &path, &e)),
    }
}

/// Opens `path` for writing, readable by its owner alone if it is new.
pub(crate) fn private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::file("opening", path, &e))
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    let opened = File::open(directory).map_err(|e| StoreError::file("opening", directory, &e))?;
    opened.sync_all().map_err(|e| StoreError::flush(directory, &e))
}
