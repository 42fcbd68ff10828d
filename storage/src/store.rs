//! The file: opened, locked, brought up to date, and handed out as connections.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::connect::{self, Role};
use crate::current::{Current, discard_state};
use crate::{Checkpointer, Reader, StoreError, Writer, migrate};

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
            // The inner pages of a million secrets: a look-up reads the disk for leaves only.
            reader_cache_kib: 12 * 1024,
            reader_mmap_bytes: 0,
            wal_bytes_max: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// The state that counts.
    place: Mutex<Arc<Place>>,
    options: Options,
    writer_taken: AtomicBool,
    /// Held as long as any handle lives: the process that has it is the only one that writes.
    _lock: File,
}

/// Where one state is. When another one took its place, its files go with the last that holds it.
#[derive(Debug)]
pub(crate) struct Place {
    file: PathBuf,
    current: Current,
    replaced: AtomicBool,
}

impl Place {
    /// Readies the database that `current` names in `directory`.
    pub(crate) fn open(directory: &Path, current: Current, options: &Options) -> Result<Self, StoreError> {
        let file = current.file(directory);
        private(&file)?;
        connect::check_header(&file)?;
        {
            let mut connection = connect::open(&file, Role::Writer, options)?;
            connect::mark(&connection, &file)?;
            migrate::run(&mut connection, &file)?;
        }
        sync_directory(directory)?;
        Ok(Self { file, current, replaced: AtomicBool::new(false) })
    }

    /// The database file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Which one it is.
    pub(crate) fn current(&self) -> &Current {
        &self.current
    }

    /// Whether no other state took its place.
    pub(crate) fn counts(&self) -> bool {
        !self.replaced.load(Ordering::Acquire)
    }

    /// The write-ahead log beside the database.
    pub(crate) fn wal(&self) -> PathBuf {
        beside(&self.file, "-wal")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.counts() {
            // What stays is taken away at the next start.
            drop(discard_state(&self.file));
        }
    }
}

impl Store {
    /// The database's file name in its directory, before a snapshot was installed.
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
        let lock = lock(&directory.join(Self::FILE))?;
        let current = Current::read(directory)?;
        current.clean(directory)?;
        let place = Mutex::new(Arc::new(Place::open(directory, current, options)?));
        let (directory, options, writer_taken) = (directory.to_owned(), *options, AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { directory, place, options, writer_taken, _lock: lock })))
    }

    /// The writer. There is one at a time.
    ///
    /// # Errors
    /// [`StoreError::WriterTaken`] while another lives; else what opening a connection gives.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        let seat = self.take_seat()?;
        Writer::open(connect::open(seat.place.file(), Role::Writer, self.options())?, seat)
    }

    /// The right to be the writer, if nobody has it.
    pub(crate) fn take_seat(&self) -> Result<WriterSeat, StoreError> {
        if self.0.writer_taken.swap(true, Ordering::SeqCst) {
            return Err(StoreError::WriterTaken);
        }
        Ok(WriterSeat { store: self.clone(), place: self.place() })
    }

    /// A reader with a connection of its own: one per thread.
    ///
    /// # Errors
    /// What opening a connection gives.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(self.clone())
    }

    /// A connection for the background thread that moves the write-ahead log into the database.
    ///
    /// # Errors
    /// What opening a connection gives.
    pub fn checkpointer(&self) -> Result<Checkpointer, StoreError> {
        let place = self.place();
        let connection = connect::open(place.file(), Role::Checkpointer, self.options())?;
        Ok(Checkpointer::new(connection, place, self.clone()))
    }

    /// If this state came as a snapshot: the last entry that it held then.
    pub fn installed(&self) -> Option<u64> {
        self.place().current.installed()
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// The state that counts.
    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.0.place.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `place` in the place of the state that counts.
    pub(crate) fn replace(&self, place: Place) {
        let mut counting = self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *counting, Arc::new(place));
        before.replaced.store(true, Ordering::Release);
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    /// Makes the names of the files durable.
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        sync_directory(self.directory())
    }
}

/// The right to be the writer; given back when dropped.
#[derive(Debug)]
pub(crate) struct WriterSeat {
    pub(crate) store: Store,
    pub(crate) place: Arc<Place>,
}

impl Drop for WriterSeat {
    fn drop(&mut self) {
        self.store.0.writer_taken.store(false, Ordering::SeqCst);
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
