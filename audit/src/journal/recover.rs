//! Finding the end of a stream after a stop, clean or not.
//!
//! Unwritten bytes of a segment are zeros, and nothing is ever overwritten by something else. So what a power cut leaves
//! is an unfinished last line, or holes of zeros where a page did not reach the disk; neither was acknowledged. A complete
//! line that is not what was written is something else: damage, and no reason to go on.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyward_crypto::chain::next;
use keyward_model::Timestamp;
use keyward_model::event::EventKind;

use super::disk::{Segment, sync_dir};
use super::{JournalError, io_error};
use crate::chain::Chain;
use crate::checkpoint::{CHECKPOINT_EVENTS, Signed};
use crate::line;
use crate::reader::{Reader, Token};

/// A part of a segment that is looked through from its beginning; a good deal longer than any line.
const READ_THROUGH_BYTES: u64 = 512 << 10;

/// What was cut off the end of a stream that was not stopped cleanly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// From where, in bytes.
    pub at: u64,
    /// How many bytes, but for zeros at the end.
    pub bytes: u64,
    /// Where they are kept, if more than an unfinished line was cut.
    pub kept: Option<PathBuf>,
}

/// Where the stream goes on.
pub(super) struct Recovered {
    pub(super) chain: Chain,
    pub(super) segment: Segment,
    pub(super) end: u64,
    pub(super) cut: Option<Cut>,
    /// See [`Journal::unfinished`](super::Journal::unfinished).
    pub(super) unfinished: Vec<String>,
}

/// What a segment holds.
struct Scan {
    chain: Chain,
    /// The ids of the last records, as far back as they name the highest index of the log.
    unfinished: Vec<String>,
    /// End of the last record.
    end: u64,
    /// Whether the segment says how far the log is recorded.
    knows_index: bool,
    /// End of the last byte that is not zero.
    used: u64,
    /// Complete lines behind the first hole.
    lines_behind: bool,
}

/// The file name of the segment that begins with record `first`: names sort as their records do.
pub(super) fn segment_name(stream: &str, first: u64) -> String {
    format!("{stream}.{first:020}.jsonl")
}

/// Finds the end of the stream, cuts off what is unfinished, and opens the last segment; or begins the stream.
pub(super) fn recover(dir: &Path, stream: &str) -> Result<Recovered, JournalError> {
    let mut segments = segments(dir, stream).map_err(|source| io_error(dir, source))?;
    let mut cut = None;
    while let Some((first, path)) = segments.pop() {
        let scan = scan(&path, stream, first)?;
        if scan.used > scan.end {
            cut = Some(set_aside(&path, &scan).map_err(|source| io_error(&path, source))?);
        }
        if scan.end == 0 {
            fs::remove_file(&path).and_then(|()| sync_dir(dir)).map_err(|source| io_error(&path, source))?;
            continue;
        }
        let segment = Segment::open(&path)?;
        let trimmed = segment.file.set_len(scan.end).and_then(|()| segment.file.sync_all());
        trimmed.map_err(|source| io_error(&path, source))?;
        let mut chain = scan.chain;
        if let (false, Some((first, path))) = (scan.knows_index, segments.pop()) {
            // It ends with a checkpoint.
            chain.last_index = chain.last_index.max(self::scan(&path, stream, first)?.chain.last_index);
        }
        return Ok(Recovered { chain, segment, end: scan.end, cut, unfinished: scan.unfinished });
    }
    let segment = Segment::create(&dir.join(segment_name(stream, 1)))?;
    sync_dir(dir).map_err(|source| io_error(dir, source))?;
    Ok(Recovered { chain: Chain::start(stream), segment, end: 0, cut, unfinished: Vec::new() })
}

/// The stream's segments with their first `seq`, in order.
fn segments(dir: &Path, stream: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix(stream)?.strip_prefix('.')?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(first) = first {
            out.push((first, entry.path()));
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// The hash of record `seq` of the stream, if it is there. Lines that are no records are passed over.
pub(super) fn hash_of(dir: &Path, stream: &str, seq: u64) -> io::Result<Option<[u8; 32]>> {
    let Some((_, path)) = segments(dir, stream)?.into_iter().rfind(|(first, _)| *first <= seq) else { return Ok(None) };
    let file = fs::File::open(&path)?;
    // They stand in order: halve the part of the file in which the wanted one begins.
    let (mut from, mut to) = (0, file.metadata()?.len());
    while to - from > READ_THROUGH_BYTES {
        let middle = from + (to - from) / 2;
        match first_record(&file, middle..to, |_| true)? {
            Some(found) if found.seq <= seq => from = found.at,
            Some(found) => to = found.at,
            None => to = middle,
        }
    }
    Ok(first_record(&file, from..to, |found| found == seq)?.map(|found| found.hash))
}

/// A record in a segment.
struct Found {
    at: u64,
    seq: u64,
    hash: [u8; 32],
}

/// The first record that begins in this part of a segment and has a wanted `seq`. The part may begin within a line: what is
/// left of that is no record.
fn first_record(mut file: &fs::File, part: Range<u64>, wanted: impl Fn(u64) -> bool) -> io::Result<Option<Found>> {
    file.seek(SeekFrom::Start(part.start))?;
    let mut reader = Reader::new(file);
    while let Some((at, token)) = reader.token()? {
        let at = part.start + at;
        if at >= part.end {
            break;
        }
        let Token::Line(bytes) = token else { continue };
        if let Ok(line) = line::parse(bytes)
            && wanted(line.seq)
        {
            return Ok(Some(Found { at, seq: line.seq, hash: line.hash }));
        }
    }
    Ok(None)
}

/// Follows the chain through a segment to its end.
fn scan(path: &Path, stream: &str, first: u64) -> Result<Scan, JournalError> {
    let failed = |source| io_error(path, source);
    let mut reader = Reader::open(path).map_err(failed)?;
    let mut scan = Scan {
        chain: Chain::start(stream),
        unfinished: Vec::new(),
        end: 0,
        knows_index: false,
        used: 0,
        lines_behind: false,
    };
    let mut torn = false;
    while let Some((at, token)) = reader.token().map_err(failed)? {
        match token {
            Token::Line(_) if torn => scan.lines_behind = true,
            Token::Line(bytes) => {
                let damaged = || JournalError::Damaged { path: path.to_path_buf(), at };
                let line = line::parse(bytes).map_err(|line::NonCanonical| damaged())?;
                if at == 0 && first > 1 {
                    // The segment before ended with a checkpoint.
                    scan.chain.seq = first - 1;
                    scan.chain.hash = line.prev;
                    scan.chain.covered(line.prev);
                }
                let follows = line.seq == scan.chain.seq + 1 && line.prev == scan.chain.hash && line.stream == stream;
                if !follows || next(&line.prev, &line.covered) != line.hash {
                    return Err(damaged());
                }
                scan.chain.seq = line.seq;
                scan.chain.hash = line.hash;
                let mut index = line.index.unwrap_or(0);
                let mut is_next = line.index != Some(scan.chain.last_index);
                if line.event == EventKind::AuditCheckpoint.name() {
                    let signed = Signed::parse(line.checkpoint.unwrap_or_default());
                    let says = signed.map_err(|line::NonCanonical| damaged())?.says;
                    index = says.index;
                    is_next = says.count < CHECKPOINT_EVENTS; // else it may stand amid the records of one index
                    scan.knows_index = true;
                    scan.chain.covered(line.hash);
                } else {
                    let ts = Timestamp::parse_rfc3339(line.ts).ok_or_else(damaged)?;
                    scan.chain.covered_later(&line.hash, ts);
                }
                if is_next {
                    scan.unfinished.clear();
                }
                scan.chain.last_index = scan.chain.last_index.max(index);
                let of_last = line.id.filter(|_| line.index == Some(scan.chain.last_index));
                scan.unfinished.extend(of_last.map(str::to_owned));
                scan.end = at + bytes.len() as u64 + 1;
            }
            Token::Unfinished(_) | Token::Hole => torn = true,
        }
        if !matches!(token, Token::Hole) {
            scan.used = reader.at();
        }
    }
    Ok(scan)
}

/// Reports what is to be cut, and keeps a copy if there are whole lines in it.
fn set_aside(path: &Path, scan: &Scan) -> io::Result<Cut> {
    let mut cut = Cut { path: path.to_path_buf(), at: scan.end, bytes: scan.used - scan.end, kept: None };
    if scan.lines_behind {
        let kept = path.with_extension(format!("torn-{}", cut.at));
        let mut from = fs::File::open(path)?;
        from.seek(SeekFrom::Start(cut.at))?;
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&kept)?;
        io::copy(&mut from.take(cut.bytes), &mut to)?;
        to.sync_all()?;
        cut.kept = Some(kept);
    }
    Ok(cut)
}
