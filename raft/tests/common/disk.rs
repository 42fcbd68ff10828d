//! A disk that can be slow: what is appended to files on it may be held up.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use keyward_raft::fs::{File, Fs, Open, OsFs};

/// The operating system's files, behind a gate. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<(Mutex<bool>, Condvar)>);

impl Disk {
    /// From now on nothing is appended until [`Disk::release`].
    pub fn hold(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    /// What was held up goes on.
    pub fn release(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }
}

impl Fs for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsFs.create_dir(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Held { file: OsFs.open(path, how)?, disk: self.clone() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsFs.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsFs.sync_dir(dir)
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        OsFs.available(dir)
    }
}

struct Held {
    file: Arc<dyn File>,
    disk: Disk,
}

impl File for Held {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (held, changed) = &*self.disk.0;
        drop(changed.wait_while(held.lock().unwrap(), |held| *held).unwrap());
        self.file.append(offset, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
