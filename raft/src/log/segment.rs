//! Segments: the files that the log consists of, filled with zeroes before they are used so that a flush never has to
//! touch the file system's metadata.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Chain, Fields};
use crate::fs::{File, Fs, Open};

/// Where the records begin; before it stands the header, alone in its block.
pub(super) const RECORDS_AT: u32 = 4096;

const MAGIC: &[u8; 8] = b"KWRAFT\x00\x01";
const HEADER_BYTES: usize = 52;

/// Zeroes that are written at a time: few enough that a flush which comes between does not wait long. Aligned, so that
/// they may go past the page cache.
#[repr(align(4096))]
struct Zeroes([u8; 256 << 10]);

static ZEROES: Zeroes = Zeroes([0; 256 << 10]);

/// A segment that holds records, or will with the next flush.
#[derive(Clone)]
pub(super) struct Segment {
    /// Its place among the segments: one more than that of the segment before.
    pub(super) seq: u64,
    /// Drawn at random when it was put to use: only records with it belong here.
    pub(super) epoch: u64,
    /// Bytes that it can hold, header included.
    pub(super) capacity: u32,
    /// Where the durable records end.
    pub(super) end: u32,
    /// The highest index of the entries in it, valid or truncated since.
    pub(super) highest: Option<u64>,
    /// Its file.
    pub(super) file: Arc<dyn File>,
}

/// A segment of zeroes that waits to be used.
pub(super) struct Spare {
    pub(super) seq: u64,
    pub(super) capacity: u32,
    pub(super) file: Arc<dyn File>,
}

/// What stands at the front of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) seq: u64,
    pub(super) epoch: u64,
    /// The chain before the first record.
    pub(super) chain: Chain,
}

/// What was found where a header should stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderState {
    Good(Header),
    Blank,
    Broken,
}

impl Header {
    /// The whole block before the records.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = MAGIC.to_vec();
        block.extend(self.seq.to_le_bytes());
        block.extend(self.epoch.to_le_bytes());
        block.extend(self.chain);
        block.extend([0; 8]); // room for what a later version may add, inside the checksum
        block.extend(crc32c::crc32c(&block).to_le_bytes());
        block.resize(RECORDS_AT as usize, 0);
        block
    }

    /// Reads a header back. Never panics.
    pub(super) fn read(bytes: &[u8]) -> HeaderState {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return HeaderState::Broken;
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return HeaderState::Blank;
        }
        let crc = crc32c::crc32c(bytes.get(..HEADER_BYTES - 4).unwrap_or_default());
        let mut fields = Fields(bytes);
        match (fields.array::<8>(), fields.u64(), fields.u64(), fields.array(), fields.u64(), fields.u32()) {
            (Some(magic), Some(seq), Some(epoch), Some(chain), Some(_), Some(sum)) if magic == *MAGIC && sum == crc => {
                HeaderState::Good(Self { seq, epoch, chain })
            }
            _ => HeaderState::Broken,
        }
    }
}

/// The name of segment `seq` in `dir`.
pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("log-{seq:016x}"))
}

/// The number in a segment's name; `None` if it is not one.
pub(super) fn seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Makes a segment of zeroes, durable with its name. What was made before an error is taken away again. `pause` is called
/// between two parts with the bytes that are done.
pub(super) fn prepare(fs: &dyn Fs, dir: &Path, seq: u64, capacity: u32, pause: impl FnMut(u32)) -> io::Result<Spare> {
    let path = path(dir, seq);
    let file = fs.open(&path, Open::New)?;
    let made = fill_slowly(&*file, 0, capacity, pause).and_then(|()| file.sync()).and_then(|()| fs.sync_dir(dir));
    match made {
        Ok(()) => Ok(Spare { seq, capacity, file }),
        Err(error) => {
            drop(file);
            if fs.remove(&path).is_ok() {
                fs.sync_dir(dir)?;
            }
            Err(error)
        }
    }
}

/// Overwrites `[from, to)` with zeroes.
pub(super) fn fill(file: &dyn File, from: u32, to: u32) -> io::Result<()> {
    fill_slowly(file, from, to, |_| {})
}

fn fill_slowly(file: &dyn File, from: u32, to: u32, mut pause: impl FnMut(u32)) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let part = ZEROES.0.get(..(to - at) as usize).unwrap_or(&ZEROES.0);
        file.write_at(at.into(), part)?;
        at = at.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
        if at < to {
            pause(at);
        }
    }
    Ok(())
}

/// Erases a segment that is no longer needed: its bytes, then its name. It gets another name first, so that a half-erased
/// one is not taken for damage. `pause` is called between two parts with the bytes that are done.
pub(super) fn erase(fs: &dyn Fs, dir: &Path, seq: u64, pause: impl FnMut(u32)) -> io::Result<()> {
    let dead = dir.join(format!("erase-{seq:016x}"));
    fs.rename(&path(dir, seq), &dead)?;
    fs.sync_dir(dir)?;
    erase_dead(fs, dir, &dead, pause)
}

/// Ends what a crash interrupted.
pub(super) fn finish_erasing(fs: &dyn Fs, dir: &Path, names: &[String]) -> io::Result<()> {
    names
        .iter()
        .filter(|name| name.starts_with("erase-"))
        .try_for_each(|name| erase_dead(fs, dir, &dir.join(name), |_| {}))
}

fn erase_dead(fs: &dyn Fs, dir: &Path, dead: &Path, pause: impl FnMut(u32)) -> io::Result<()> {
    let file = fs.open(dead, Open::Existing)?;
    fill_slowly(&*file, 0, u32::try_from(file.length()?).unwrap_or(u32::MAX), pause)?;
    file.sync()?;
    drop(file);
    fs.remove(dead)?;
    fs.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_a_flipped_one_does_not() {
        let header = Header { seq: 3, epoch: 0x0102_0304_0506_0708, chain: [9; 16] };
        let block = header.block();
        assert_eq!(block.len(), RECORDS_AT as usize);
        assert_eq!(Header::read(&block), HeaderState::Good(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut broken = block.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&broken), HeaderState::Broken, "bit {bit}");
        }
        assert_eq!(Header::read(&[0; 4096]), HeaderState::Blank);
        assert_eq!(seq_of(path(Path::new("d"), 26).file_name().unwrap().to_str().unwrap()), Some(26));
        assert_eq!(seq_of("log-1"), None);
    }
}
