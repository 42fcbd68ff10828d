//! A disk that can be slow: what is appended to files on it may be held up.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use keyward_raft::fs::{File, Fs, Open, OsFs};

/// The operating system's files, behind a gate. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<(Mutex<Gate>, Condvar)>);

#[derive(Default)]
struct Gate {
    held: bool,
    waiting: usize,
}

impl Disk {
    /// From now on nothing is appended until [`Disk::release`].
    pub fn hold(&self) {
        self.0.0.lock().unwrap().held = true;
    }

    /// What was held up goes on.
    pub fn release(&self) {
        self.0.0.lock().unwrap().held = false;
        self.0.1.notify_all();
    }

    /// Whether something waits to be appended.
    pub fn is_waited_for(&self) -> bool {
        self.0.0.lock().unwrap().waiting > 0
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
        let (gate, changed) = &*self.disk.0;
        let mut gate = gate.lock().unwrap();
        gate.waiting += 1;
        let mut gate = changed.wait_while(gate, |gate| gate.held).unwrap();
        gate.waiting -= 1;
        drop(gate);
        self.file.append(offset, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
