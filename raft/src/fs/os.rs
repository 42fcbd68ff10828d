//! The operating system's files. What is appended, and what is written in whole aligned blocks, goes past the page cache
//! where the file system allows it: a flush then is one write and the device's own flush, and nothing is left to be
//! written in one burst later.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{File, Fs, Open};

/// What direct writes are aligned to, in the file and in memory: no device asks for more.
const BLOCK: usize = 4096;

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).mode(0o600).create_new(how == Open::New).open(path)?;
        Ok(Arc::new(OsFile { file, direct: direct(path).map(Mutex::new) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn available(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct OsFile {
    file: fs::File,
    direct: Option<Mutex<Direct>>,
}

/// The way past the page cache.
struct Direct {
    file: fs::File,
    /// Where the last append ended, and the bytes of the block in which it did.
    end: u64,
    tail: Vec<u8>,
    /// Room for an aligned copy.
    room: Vec<u8>,
    /// The file's length when last asked: it never shrinks.
    length: u64,
}

/// `None` where the file system has no such way (some in memory, some over a network).
fn direct(path: &Path) -> Option<Direct> {
    let flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let file = fs::OpenOptions::new().write(true).custom_flags(flag).open(path).ok()?;
    Some(Direct { file, end: u64::MAX, tail: Vec::new(), room: Vec::new(), length: 0 })
}

impl File for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let whole = offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK);
        if let Some(direct) = &self.direct
            && whole
            && bytes.as_ptr().align_offset(BLOCK) == 0
        {
            let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
            direct.end = u64::MAX;
            return direct.file.write_all_at(bytes, offset);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
            if direct.append(&self.file, offset, bytes)? {
                return direct.file.sync_data();
            }
        }
        self.write_at(offset, bytes)?;
        self.sync()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(&self.file, rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Direct {
    /// Writes `bytes` at `offset` in whole blocks; false if the file ends before its last block does.
    fn append(&mut self, file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let lead = usize::try_from(offset % BLOCK as u64).unwrap_or_default();
        let start = offset - lead as u64;
        let size = (lead + bytes.len()).next_multiple_of(BLOCK);
        if self.length < start + size as u64 {
            self.length = file.metadata()?.len();
            if self.length < start + size as u64 {
                return Ok(false);
            }
        }
        if self.end != offset {
            self.tail.resize(lead, 0);
            file.read_exact_at(&mut self.tail, start)?;
        }
        // Not known any more, should the write fail.
        self.end = u64::MAX;
        self.room.clear();
        self.room.reserve(size + BLOCK);
        let skip = self.room.as_ptr().align_offset(BLOCK);
        self.room.resize(skip, 0);
        self.room.extend_from_slice(&self.tail);
        self.room.extend_from_slice(bytes);
        self.room.resize(skip + size, 0);
        let blocks = self.room.get(skip..).unwrap_or_default();
        self.file.write_all_at(blocks, start)?;
        let end = lead + bytes.len();
        let last = end - end % BLOCK;
        self.tail.clear();
        self.tail.extend_from_slice(blocks.get(last..end).unwrap_or_default());
        self.end = offset + bytes.len() as u64;
        if self.room.capacity() > 4 << 20 {
            self.room = Vec::new();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_of_any_size_stand_where_they_belong() {
        // Beside the build's files: a folder in memory may have no way past the page cache.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("file");
        let length = (1 << 20) + 77;
        let mut expected = vec![0; length];
        {
            let file = OsFs.open(&path, Open::New).unwrap();
            file.write_at(0, &expected).unwrap();
        }
        let mut at = 0;
        for (round, size) in [1, 4095, 1, 52, 4096, 8192, 3, 70_000, 12_288, 5000].into_iter().cycle().enumerate() {
            // Opened anew now and then: what the last block holds must be found.
            let file = OsFs.open(&path, Open::Existing).unwrap();
            for _ in 0..3 {
                let size = size.min(length - at);
                let bytes = vec![u8::try_from(round % 250).unwrap() + 1; size];
                file.append(at as u64, &bytes).unwrap();
                expected[at..at + size].copy_from_slice(&bytes);
                at += size;
            }
            let mut found = vec![0; length];
            assert_eq!(file.read_at(0, &mut found).unwrap(), length);
            assert!(found == expected, "after {at}");
            assert_eq!(file.length().unwrap(), length as u64);
            if at == length {
                break;
            }
        }
    }
}
