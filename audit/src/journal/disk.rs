//! The few things a journal asks of the file system, in one place so that a test can make them fail.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{JournalError, io_error};

/// One file of the stream.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Held while `file` is flushed: two flushes of one open file could hide a failure from each other.
    pub(super) flushing: Mutex<()>,
}

impl Segment {
    /// Makes a new file, readable by its owner alone; there must be none.
    pub(super) fn create(path: &Path) -> Result<Self, JournalError> {
        Self::with(path, OpenOptions::new().create_new(true))
    }

    /// Opens the file that is there.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        Self::with(path, &mut OpenOptions::new())
    }

    fn with(path: &Path, options: &mut OpenOptions) -> Result<Self, JournalError> {
        let file = options.read(true).write(true).mode(0o600).open(path).map_err(|source| io_error(path, source))?;
        Ok(Self { path: path.to_path_buf(), file, flushing: Mutex::new(()) })
    }

    /// The same file under another name. The folder is not flushed.
    pub(super) fn rename(mut self, path: &Path) -> Result<Self, JournalError> {
        std::fs::rename(&self.path, path).map_err(|source| io_error(path, source))?;
        self.path = path.to_path_buf();
        Ok(self)
    }
}

/// Writes and flushes.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// The zeros that one call writes: small, so that records get in between.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Disk {
    /// Writes all of `bytes`; a failure says how many were written before it.
    pub(super) fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), (u64, io::Error)> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(file, &bytes[done..], at + done as u64) {
                Ok(0) => return Err((done as u64, io::ErrorKind::WriteZero.into())),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done as u64, error)),
            }
        }
        Ok(())
    }

    /// Writes zeros from `from` up to `to`; a failure says how many were written before it.
    pub(super) fn write_zeros(&self, file: &File, from: u64, to: u64) -> Result<(), (u64, io::Error)> {
        let mut at = from;
        while at < to {
            let piece = ZEROS.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            self.write_all_at(file, &ZEROS[..piece], at).map_err(|(n, error)| (at - from + n, error))?;
            at += piece as u64;
        }
        Ok(())
    }

    /// Waits until the disk has what was written to the file.
    pub(super) fn flush(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.flush()?;
        file.sync_data()
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        #[cfg(test)]
        let bytes = self.faults.cut(file, bytes, at)?;
        file.write_at(bytes, at)
    }
}

/// Whether the error says that there is no space, as opposed to something being broken.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Claims the stream for this process; the claim ends when the file is closed, however that comes about.
pub(super) fn lock(dir: &Path, stream: &str) -> Result<File, JournalError> {
    let path = dir.join(format!("{stream}.lock"));
    let file = Segment::with(&path, OpenOptions::new().create(true))?.file;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(path)),
        Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
    }
}

#[cfg(test)]
pub(super) mod faults {
    //! A disk that runs full or breaks when told.

    use std::fs::File;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[derive(Debug)]
    pub(crate) struct Faults {
        /// No file may grow beyond this many bytes.
        pub(crate) file_bytes_max: AtomicU64,
        pub(crate) flush_fails: AtomicBool,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self { file_bytes_max: AtomicU64::new(u64::MAX), flush_fails: AtomicBool::new(false) }
        }
    }

    impl Faults {
        pub(super) fn flush(&self) -> io::Result<()> {
            if self.flush_fails.load(Ordering::SeqCst) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
        }

        /// What of `bytes` still fits.
        pub(super) fn cut<'a>(&self, file: &File, bytes: &'a [u8], at: u64) -> io::Result<&'a [u8]> {
            let max = self.file_bytes_max.load(Ordering::SeqCst).max(file.metadata()?.len());
            let fits = usize::try_from(max.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(&bytes[..fits]) }
        }
    }
}
