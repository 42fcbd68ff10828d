//! Opening a log: reads every segment, cuts off what a power cut tore, and refuses everything else that is not whole.
//!
//! The rule: a broken record at the end of the last segment, after which nothing shows that it was once durable, was
//! never acknowledged and is cut off. Any other break is damage. See [`record`](super::record) on what shows that.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::horizon::Point;
use super::memory::{Memory, Slot};
use super::record::{Chain, FrameError, HEAD_BYTES, Record, chain, frame};
use super::segment::{self, Header, HeaderState, RECORDS_AT, Segment, Spare};
use crate::fs::{File, Fs, Open};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 << 10;

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) memory: Memory,
    pub(super) chain: Chain,
    pub(super) spare: Option<Spare>,
    pub(super) next_seq: u64,
}

/// Reads the log in `dir`. `names` are the files there, `sizes` the lengths that a spare segment may have.
pub(super) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    names: &[String],
    sizes: &[u32],
    horizon: Option<Point>,
) -> Result<Recovered, OpenError> {
    let mut files = open_all(fs, dir, names)?;
    let mut memory = Memory::default();
    let mut chain = Chain::default();
    let mut next_seq = files.front().map_or(1, |file| file.seq);
    let mut spare = None;
    while let Some(mut file) = files.pop_front() {
        if file.seq != next_seq {
            return Err(file.damaged(0, format!("segment {next_seq:016x} before it is missing")));
        }
        next_seq += 1;
        let header = match file.header()? {
            HeaderState::Good(header) if header.seq == file.seq => header,
            HeaderState::Blank | HeaderState::Broken if files.is_empty() => {
                spare = file.never_flushed(fs, dir, sizes)?;
                if spare.is_none() {
                    next_seq -= 1;
                }
                break;
            }
            HeaderState::Good(_) | HeaderState::Blank | HeaderState::Broken => {
                return Err(file.damaged(0, "its header is broken".to_owned()));
            }
        };
        if memory.segments.is_empty() {
            chain = header.chain;
        } else if header.chain != chain {
            let at = memory.segments.back().map_or(0, |segment| segment.end);
            let before = segment::path(dir, file.seq - 1);
            return Err(damaged(before, at.into(), "records are missing before the next segment".to_owned()));
        }
        let end = file.replay(&header, &mut chain, &mut memory, horizon.filter(|point| point.seq == file.seq))?;
        let length = u32::try_from(file.length).unwrap_or(u32::MAX);
        memory.segments.push_back(Segment {
            seq: file.seq,
            epoch: header.epoch,
            capacity: length,
            end,
            highest: file.highest,
            file: Arc::clone(&file.file),
        });
        let unused = files.front_mut().map(SegmentFile::header).transpose()?;
        if files.len() <= 1 && !matches!(unused, Some(HeaderState::Good(_))) {
            file.cut(end, header.epoch)?;
        }
    }
    check_hole(dir, &memory)?;
    check_horizon(dir, &memory, horizon)?;
    memory.durable = Point { chain, ..durable(&memory) };
    Ok(Recovered { memory, chain, spare, next_seq })
}

fn durable(memory: &Memory) -> Point {
    let (seq, end) = memory.segments.back().map_or((0, 0), |segment| (segment.seq, segment.end));
    memory.point(seq, end, Chain::default())
}

fn check_hole(dir: &Path, memory: &Memory) -> Result<(), OpenError> {
    match (memory.purged, memory.first_index()) {
        (Some(purged), Some(first)) if first > purged.index + 1 => Err(OpenError::Lost {
            dir: dir.to_path_buf(),
            what: format!("entries {} to {} are missing", purged.index + 1, first - 1),
        }),
        _ => Ok(()),
    }
}

fn check_horizon(dir: &Path, memory: &Memory, horizon: Option<Point>) -> Result<(), OpenError> {
    let found = durable(memory);
    let lost = |what| Err(OpenError::Lost { dir: dir.to_path_buf(), what });
    match horizon {
        Some(point) if (point.seq, point.end) > (found.seq, found.end) => lost(format!(
            "it was durable up to segment {:016x} offset {} (next entry {}), but ends at segment {:016x} offset {} (next entry {})",
            point.seq, point.end, point.next_index, found.seq, found.end, found.next_index
        )),
        None if found.seq > 0 => {
            lost("the file `horizon`, which says how far it reached, is missing or broken".to_owned())
        }
        _ => Ok(()),
    }
}

fn damaged(path: PathBuf, offset: u64, what: String) -> OpenError {
    OpenError::Damaged { path, offset, what }
}

/// A segment being read.
struct SegmentFile {
    seq: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
    highest: Option<u64>,
    window: Vec<u8>,
    window_at: u64,
}

fn open_all(fs: &dyn Fs, dir: &Path, names: &[String]) -> Result<VecDeque<SegmentFile>, OpenError> {
    let mut seqs: Vec<u64> = names.iter().filter_map(|name| segment::seq_of(name)).collect();
    seqs.sort_unstable();
    let open = |seq| {
        let path = segment::path(dir, seq);
        let opened = fs.open(&path, Open::Existing).and_then(|file| Ok((file.length()?, file)));
        let (length, file) =
            opened.map_err(|error| OpenError::Io { doing: "open the log segment", path: path.clone(), error })?;
        Ok(SegmentFile { seq, path, file, length, highest: None, window: Vec::new(), window_at: 0 })
    };
    seqs.into_iter().map(open).collect()
}

impl SegmentFile {
    fn damaged(&self, offset: u64, what: String) -> OpenError {
        damaged(self.path.clone(), offset, what)
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.path.clone();
        move |error| OpenError::Io { doing, path, error }
    }

    /// Up to `want` bytes at `at`; fewer only at the end of the file.
    fn bytes(&mut self, at: u64, want: usize) -> Result<&[u8], OpenError> {
        let inside = at >= self.window_at && at + want as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            self.window.resize(want.max(WINDOW_BYTES), 0);
            let read = self.file.read_at(at, &mut self.window).map_err(self.io("read the log segment"))?;
            self.window.truncate(read);
            self.window_at = at;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let end = start.saturating_add(want).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }

    fn header(&mut self) -> Result<HeaderState, OpenError> {
        Ok(Header::read(self.bytes(0, RECORDS_AT as usize)?))
    }

    /// The bytes of the record at `at`, or why there is none.
    fn record_bytes(&mut self, at: u64) -> Result<Result<&[u8], FrameError>, OpenError> {
        let mut need = HEAD_BYTES;
        let length = self.length;
        loop {
            match frame(self.bytes(at, need)?) {
                Err(FrameError::Short(more)) if more > need && at + more as u64 <= length => need = more,
                Err(FrameError::Short(_)) => return Ok(Err(FrameError::Broken)),
                Err(error) => return Ok(Err(error)),
                Ok(_) => return Ok(Ok(self.bytes(at, need)?)),
            }
        }
    }

    /// Takes all whole records into `memory` and gives the offset after the last one.
    fn replay(
        &mut self,
        header: &Header,
        running: &mut Chain,
        memory: &mut Memory,
        horizon: Option<Point>,
    ) -> Result<u32, OpenError> {
        let mut at = RECORDS_AT;
        loop {
            if horizon.is_some_and(|point| point.end == at && point.chain != *running) {
                return Err(self.damaged(at.into(), "the records before do not agree with the horizon".to_owned()));
            }
            let seq = self.seq;
            let Ok(bytes) = self.record_bytes(at.into())? else { break };
            let Ok(found) = frame(bytes) else { break };
            if found.epoch != header.epoch {
                break;
            }
            let size = u32::try_from(found.size()).unwrap_or(u32::MAX);
            let after = chain(running, found.kind, found.body);
            let in_chain = after == found.chain;
            let record = found.record();
            if !in_chain {
                return Err(self.damaged(at.into(), "a record does not follow the one before it".to_owned()));
            }
            *running = after;
            let slot = Slot { seq, offset: at, size };
            let taken = match record {
                Ok(Record::Entry(entry)) => {
                    self.highest = self.highest.max(Some(entry.log_id.index));
                    memory.recover(entry.log_id, slot).map_err(|error| error.to_string())
                }
                Ok(Record::Vote(vote)) => {
                    memory.vote = Some(vote);
                    Ok(())
                }
                Ok(Record::Truncate(from)) => self.truncate(memory, from),
                Ok(Record::Committed(upto)) => {
                    memory.committed = memory.committed.max(Some(upto));
                    Ok(())
                }
                Ok(Record::Purge(upto)) => {
                    memory.purge(upto);
                    Ok(())
                }
                Err(unknown) => Err(unknown.to_string()),
            };
            taken.map_err(|what| self.damaged(at.into(), what))?;
            at = at.saturating_add(size);
        }
        Ok(at)
    }

    fn truncate(&self, memory: &mut Memory, from: u64) -> Result<(), String> {
        let before = match from.checked_sub(1) {
            Some(index) => memory.places(index..from, 0).pop(),
            None => None,
        };
        // The entry before may stand in the segment that is being read, which `memory` does not hold yet.
        let last = match before {
            Some(place) => Some(place.entry().map_err(|error| error.to_string())?.log_id),
            None => memory.slot_of(from).map(|slot| self.log_id_at(slot)).transpose()?,
        };
        memory.truncate(from, last);
        Ok(())
    }

    fn log_id_at(&self, slot: Slot) -> Result<crate::types::LogId, String> {
        let mut bytes = vec![0; slot.size as usize];
        self.file.read_at(slot.offset.into(), &mut bytes).map_err(|error| error.to_string())?;
        match frame(&bytes).ok().and_then(|frame| frame.record().ok()) {
            Some(Record::Entry(entry)) => Ok(entry.log_id),
            _ => Err("the entry before a truncation cannot be read".to_owned()),
        }
    }

    /// Erases what a torn write left from `at` on, unless it was once durable.
    fn cut(&mut self, at: u32, epoch: u64) -> Result<(), OpenError> {
        let Some(rest) = self.rest(at)? else { return Ok(()) };
        if let Some(proof) = later_proof(&rest, at, Some(epoch)) {
            let what = format!("a broken record, and a whole one that was written after it at offset {proof}");
            return Err(self.damaged(at.into(), what));
        }
        let end = at.saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX));
        segment::fill(&*self.file, at, end)
            .and_then(|()| self.file.sync())
            .map_err(self.io("cut the torn end off the log segment"))
    }

    /// The last segment has no header: it is a spare, or the first write to it was torn.
    fn never_flushed(&mut self, fs: &dyn Fs, dir: &Path, sizes: &[u32]) -> Result<Option<Spare>, OpenError> {
        if let Some(rest) = self.rest(0)? {
            if let Some(proof) = later_proof(&rest, 0, None) {
                let what = format!("its header is broken, and a whole record was written after it at offset {proof}");
                return Err(self.damaged(0, what));
            }
            let end = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            segment::fill(&*self.file, 0, end).map_err(self.io("cut the torn end off the log segment"))?;
        }
        match u32::try_from(self.length).ok().filter(|length| sizes.contains(length)) {
            Some(capacity) => {
                self.file.sync().map_err(self.io("flush the log segment"))?;
                Ok(Some(Spare { seq: self.seq, capacity, file: Arc::clone(&self.file) }))
            }
            None => {
                let removed = fs.remove(&self.path).and_then(|()| fs.sync_dir(dir));
                removed.map_err(self.io("remove the half-made log segment"))?;
                Ok(None)
            }
        }
    }

    /// The bytes from `at` to the last one that is not zero; `None` if there is none.
    fn rest(&mut self, at: u32) -> Result<Option<Vec<u8>>, OpenError> {
        let mut from = u64::from(at);
        let mut end = None;
        while from < self.length {
            let bytes = self.bytes(from, WINDOW_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = last_used(bytes) {
                end = Some(from + last as u64 + 1);
            }
            from += bytes.len() as u64;
        }
        self.window = Vec::new();
        let Some(end) = end else { return Ok(None) };
        let mut rest = vec![0; usize::try_from(end - u64::from(at)).unwrap_or(usize::MAX)];
        self.file.read_at(at.into(), &mut rest).map_err(self.io("read the log segment"))?;
        Ok(Some(rest))
    }
}

/// The place of the last byte that is not zero. A segment is nearly all zeros: they are compared by the page.
fn last_used(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let (number, page) = bytes.chunks(ZEROS.len()).enumerate().rfind(|(_, page)| **page != ZEROS[..page.len()])?;
    page.iter().rposition(|byte| *byte != 0).map(|last| number * ZEROS.len() + last)
}

/// The offset of a whole record in `rest` (which starts at offset `at`) that was written when `at` was already durable.
fn later_proof(rest: &[u8], at: u32, epoch: Option<u64>) -> Option<u64> {
    let number = |bytes: Option<&[u8]>| bytes?.try_into().ok().map(u32::from_le_bytes);
    (0..rest.len()).find_map(|start| {
        let candidate = rest.get(start..)?;
        let offset = u64::from(at) + start as u64;
        // Cheap tests first: the checksum of every position would take hours.
        if !(1..=5).contains(candidate.get(8)?) {
            return None;
        }
        if let Some(epoch) = epoch
            && candidate.get(9..17)? != epoch.to_le_bytes()
        {
            return None;
        }
        let flushed = number(candidate.get(17..21))?;
        if flushed <= at || u64::from(flushed) > offset {
            return None;
        }
        frame(candidate).ok().map(|_| offset)
    })
}
