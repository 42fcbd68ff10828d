//! The few things the log asks of a file system, as a seam: the real one, and (for tests) a simulated one that can
//! lose power between any two writes.

use std::io;
use std::path::Path;
use std::sync::Arc;

mod os;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// It must be there.
    Existing,
    /// It must not be there yet; it is made, readable and writable by the owner only.
    New,
}

/// A folder of files, and what the log needs of it. Errors are those of the operating system.
pub trait Fs: Send + Sync + 'static {
    /// Makes `dir` and its parents, for the owner only; no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// The names of the files in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name in the same folder. Durable after [`Fs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away. Durable after [`Fs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an ordinary user can still write below `dir`.
    fn available(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file, used from several threads at explicit offsets.
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`, growing the file if needed. Not durable before [`File::sync`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset` and makes them durable, and with them everything written before. What stands behind
    /// them in the file must be zeroes.
    fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Makes everything written so far durable (fdatasync). An error is final: what was written may be lost.
    fn sync(&self) -> io::Result<()>;
}

pub use os::OsFs;
