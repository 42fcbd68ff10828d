//! One stream on disk: records are linked, written in one piece, and durable before `append` comes back.
//!
//! Writing happens under a short lock, flushing outside of it: two threads' flushes overlap, and each covers everything
//! that was written before it began. A thread of the journal's own zero-fills the segment ahead of the records, so that a
//! flush never waits for the file system's metadata, and what is filled is also a reserve when the disk runs full.

mod disk;

mod recover;

mod filler;

mod shared_flush;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use keyward_model::{Id, Timestamp};

use crate::chain::{CHECKPOINT_BYTES_MAX, Chain, LINK_BYTES_MAX, Signer};
use crate::checkpoint::{AuditKey, CHECKPOINT_EVENTS, SignedHead};
use crate::record::Batch;
pub use recover::Cut;

use disk::{Disk, Segment, sync_dir};
pub use shared_flush::Flushed;
use shared_flush::Queue;

/// The size that a segment grows to, in bytes, unless told otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// When a record counts as written. There is no default: the weaker one must be chosen by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// When the disk has it: survives a power cut.
    Fsync,
    /// When the kernel has it: survives a crash of the process, not one of the machine.
    Kernel,
}

/// How a journal is kept.
#[derive(Debug)]
pub struct Options {
    /// A segment that would outgrow this many bytes is closed first; [`SEGMENT_BYTES`] is a good number.
    pub segment_bytes: u64,
    /// When a record counts as written.
    pub durability: Durability,
    /// Signs the checkpoints.
    pub key: AuditKey,
}

/// Why a record was not written, or a journal not opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No space. Nothing of the batch is in the stream; it can be appended again, and will succeed once there is space.
    #[error("no space left for the audit journal: free some and requests will be served again")]
    Full,
    /// The disk did not take what was written, and what it holds is uncertain. The journal takes nothing any more: the
    /// node must stop.
    #[error("the audit journal could not be flushed ({0}): the node must stop; check the disk, then start it again")]
    Fatal(Arc<io::Error>),
    /// A file or folder could not be made or opened. Nothing of the batch is in the stream.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that ends as a record does is not the record that belongs there: it was changed, or comes after another one
    /// than it names. Another incarnation begins another stream beside it.
    #[error(
        "{path}: audit record at byte {at} is damaged: keep the file as evidence, run `keyward audit verify`; to go on with a new stream, raise `incarnation` in identity.json by one"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Offset of the line in bytes.
        at: u64,
    },
    /// Another process writes this journal.
    #[error("{0}: the audit journal is in use by another process: stop it first")]
    InUse(PathBuf),
}

/// The audit journal of one node incarnation. Any number of threads may append.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
    flusher: Option<JoinHandle<()>>,
    node: Id,
    cut: Option<Cut>,
    unfinished: Vec<String>,
    /// Held for as long as the journal is open.
    _lock: File,
}

/// A thread's own way to flush a segment.
///
/// WHY: Linux reports a failed write-back once per open file. Threads that shared one could see one failure and one false
/// success; with a file of its own, each sees the failure.
#[derive(Debug)]
pub(crate) struct Flusher {
    segment: Arc<Segment>,
    file: File,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    signer: Signer,
    segment_bytes: u64,
    durability: Durability,
    disk: Disk,
    state: Mutex<State>,
    /// The filler has something to do.
    work: Condvar,
    /// The filler has done something.
    filled: Condvar,
    queue: Queue,
    poisoned: AtomicBool,
}

#[derive(Debug)]
struct State {
    chain: Chain,
    segment: Arc<Segment>,
    /// Where the next record goes.
    end: u64,
    /// Up to where the file is allocated: never less than `end`, zeros in between.
    filled: u64,
    /// The filler is writing zeros from `filled` on; nobody else may write there.
    filling: bool,
    /// The filler met a full disk; it tries again after the next append.
    no_space: bool,
    /// The next segment, zero-filled up to here.
    next: Option<(Segment, u64)>,
    /// Closed segments to be cut to their length.
    closed: Vec<(Arc<Segment>, u64)>,
    stop: bool,
}

/// The name of the stream of `node`'s `incarnation`.
pub fn stream_name(node: Id, incarnation: u64) -> String {
    format!("{node}-{incarnation:04}")
}

impl Journal {
    /// Opens the journal of `node`'s `incarnation` in `dir`, which is made if need be (mode 0700).
    ///
    /// A stream that exists is continued. What an unclean stop left unfinished at its end is cut off and reported by
    /// [`Journal::cut`]; it was never acknowledged.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if an earlier record was changed, [`JournalError::InUse`], `Full` or `Io`.
    pub fn open(dir: &Path, node: Id, incarnation: u64, options: Options) -> Result<Self, JournalError> {
        let failed = |source| io_error(dir, source);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let stream = stream_name(node, incarnation);
        let lock = disk::lock(dir, &stream)?;
        let recovered = recover::recover(dir, &stream)?;
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            signer: Signer { stream, node: node.to_uuid(), key: options.key },
            segment_bytes: options.segment_bytes,
            durability: options.durability,
            disk: Disk::default(),
            state: Mutex::new(State {
                chain: recovered.chain,
                segment: Arc::new(recovered.segment),
                end: recovered.end,
                filled: recovered.end,
                filling: false,
                no_space: false,
                next: None,
                closed: Vec::new(),
                stop: false,
            }),
            work: Condvar::new(),
            filled: Condvar::new(),
            queue: Queue::default(),
            poisoned: AtomicBool::new(false),
        });
        let thread = |name: &str, work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(name.into()).spawn(move || work(&shared)).map(Some).map_err(failed)
        };
        let filler = thread("audit-fill", Shared::fill_ahead)?;
        let flusher = thread("audit-flush", Shared::flush_for_all)?;
        let (cut, unfinished) = (recovered.cut, recovered.unfinished);
        Ok(Self { shared, filler, flusher, node, cut, unfinished, _lock: lock })
    }

    /// An empty batch for this journal.
    pub fn batch(&self) -> Batch {
        Batch::new(self.node)
    }

    /// Puts the batch into the stream, whole and in order, and empties it. When this comes back the records are as
    /// durable as [`Options::durability`] says.
    ///
    /// # Errors
    /// [`JournalError`]; the batch is kept, to be appended again or cleared. After `Fatal` its records may or may not be
    /// in the stream, and nothing can be appended any more.
    pub fn append(&self, batch: &mut Batch) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.write(batch)?;
        if self.shared.durability == Durability::Fsync {
            self.shared.flush(batch)?;
        }
        batch.clear();
        Ok(())
    }

    /// As [`Journal::append`], for a caller who has other work meanwhile: the journal's own thread flushes, once for all who
    /// wait. The batch is empty when this comes back; its records are durable when the answer does.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_shared(&self, batch: &mut Batch) -> Result<Flushed, JournalError> {
        if batch.is_empty() {
            return Ok(self.shared.no_ticket());
        }
        self.shared.write(batch)?;
        batch.clear();
        Ok(match self.shared.durability {
            Durability::Fsync => self.shared.ticket(),
            Durability::Kernel => self.shared.no_ticket(),
        })
    }

    /// As [`Journal::append`], without waiting for the disk: for records whose loss in a power cut can be made good from
    /// the replicated log (see [`Journal::last_index`]).
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_lazy(&self, batch: &mut Batch) -> Result<(), JournalError> {
        if !batch.is_empty() {
            self.shared.write(batch)?;
            batch.clear();
        }
        Ok(())
    }

    /// Makes everything appended so far durable, whatever the mode.
    ///
    /// # Errors
    /// [`JournalError::Fatal`].
    pub fn sync(&self) -> Result<(), JournalError> {
        let segment = Arc::clone(&self.shared.lock().segment);
        self.shared.sync_segment(&segment)
    }

    /// Writes a checkpoint if events have waited for one long enough at the moment `now`. Call it every few seconds: while
    /// records come in, checkpoints take care of themselves, but the last ones before a pause need this.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn checkpoint(&self, now: Timestamp) -> Result<(), JournalError> {
        self.checkpoint_if(now, |chain| chain.checkpoint_due(now))
    }

    /// Writes a checkpoint over what none covers yet: the last one before a stop.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn last_checkpoint(&self, now: Timestamp) -> Result<(), JournalError> {
        self.checkpoint_if(now, |chain| chain.tree.count() > 0)
    }

    fn checkpoint_if(&self, now: Timestamp, wanted: impl Fn(&Chain) -> bool) -> Result<(), JournalError> {
        let mut state = self.shared.room(0, 0)?;
        let mut chain = state.chain;
        if !wanted(&chain) {
            return Ok(());
        }
        chain.latest = chain.latest.max(now);
        let mut lines = Vec::new();
        chain.checkpoint(&self.shared.signer, &mut lines);
        self.shared.put(&mut state, &chain, &lines)?;
        drop(state);
        if self.shared.durability == Durability::Fsync { self.sync() } else { Ok(()) }
    }

    /// The highest Raft index that a record of this stream names, 0 if none does: what the replicated log holds beyond it
    /// has to be recorded again after a crash.
    pub fn last_index(&self) -> u64 {
        self.shared.lock().chain.last_index
    }

    /// The ids of the records of [`Journal::last_index`], where they were the very last when the journal was opened: what
    /// else belongs to that index may not have been written. Empty where another record followed.
    pub fn unfinished(&self) -> &[String] {
        &self.unfinished
    }

    /// The name of the stream: `<node>-<incarnation>`.
    pub fn stream(&self) -> &str {
        &self.shared.signer.stream
    }

    /// The public key that the checkpoints of the stream are signed with.
    pub fn public_key(&self) -> [u8; 32] {
        self.shared.signer.key.public()
    }

    /// `seq` and hash of the last record; 0 and the genesis if there is none.
    pub fn head(&self) -> (u64, [u8; 32]) {
        let chain = self.shared.lock().chain;
        (chain.seq, chain.hash)
    }

    /// Where the stream stands, made durable, and signed for others to keep; `None` before the first record.
    ///
    /// # Errors
    /// [`JournalError::Fatal`].
    pub fn signed_head(&self) -> Result<Option<SignedHead>, JournalError> {
        let (chain, segment) = {
            let state = self.shared.lock();
            (state.chain, Arc::clone(&state.segment))
        };
        if chain.seq == 0 {
            return Ok(None);
        }
        // What others remember must not be lost here. What stands before this segment was flushed when it was begun.
        self.shared.sync_segment(&segment)?;
        let signer = &self.shared.signer;
        let text = String::from_utf8_lossy(&chain.signed(signer)).into_owned();
        let (stream, key) = (signer.stream.clone(), signer.key.public());
        Ok(Some(SignedHead { stream, seq: chain.seq, hash: chain.hash, key, text }))
    }

    /// The hash of record `seq`, as its segment has it; `None` if there is no such record, or its segment was moved away.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn hash_of(&self, seq: u64) -> Result<Option<[u8; 32]>, JournalError> {
        let dir = &self.shared.dir;
        recover::hash_of(dir, self.stream(), seq).map_err(|source| io_error(dir, source))
    }

    /// What was cut off when the journal was opened.
    pub const fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }
}

impl Drop for Journal {
    /// Ends the stream cleanly: flushed, and the file cut to its length.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        self.shared.queue.stop();
        for thread in [self.filler.take(), self.flusher.take()].into_iter().flatten() {
            drop(thread.join());
        }
        if !self.shared.poisoned.load(Ordering::Acquire) {
            let state = self.shared.lock();
            let (segment, end) = (Arc::clone(&state.segment), state.end);
            drop(state);
            // A segment that stays too long is cut when it is opened again.
            drop(segment.file.set_len(end).and_then(|()| segment.file.sync_all()));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Links the batch and writes it, all or nothing.
    fn write(&self, batch: &mut Batch) -> Result<(), JournalError> {
        let mut state = self.room(batch.pieces.bytes.len(), batch.len())?;
        let segment = &state.segment;
        if self.durability == Durability::Fsync
            && !batch.flusher.as_ref().is_some_and(|flusher| Arc::ptr_eq(&flusher.segment, segment))
        {
            // Opened before the write, so that no failure of its write-back is missed.
            let file = File::open(&segment.path).map_err(|source| io_error(&segment.path, source))?;
            batch.flusher = Some(Flusher { segment: Arc::clone(segment), file });
        }
        let mut chain = state.chain;
        batch.lines.clear();
        chain.link_all(&self.signer, &batch.pieces, &mut batch.lines);
        self.put(&mut state, &chain, &batch.lines)
    }

    /// The state, with room in the segment for `records` that have `bytes` before they are linked: nobody else writes
    /// there, and the segment does not outgrow its size.
    fn room(&self, bytes: usize, records: usize) -> Result<MutexGuard<'_, State>, JournalError> {
        let stream = self.signer.stream.len();
        let checkpoints = records / CHECKPOINT_EVENTS as usize + 2;
        let most = bytes + records * (LINK_BYTES_MAX + stream) + checkpoints * (CHECKPOINT_BYTES_MAX + 2 * stream);
        let mut state = self.lock();
        loop {
            self.check_poison()?;
            let end = state.end + most as u64;
            let full = state.end > 0 && end > self.segment_bytes;
            if state.filling && (full || end > state.filled) {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if full {
                self.rotate(&mut state)?;
            } else {
                return Ok(state);
            }
        }
    }

    /// Writes linked lines at the end of the segment and moves the chain on; or leaves both as they were.
    fn put(&self, state: &mut State, chain: &Chain, lines: &[u8]) -> Result<(), JournalError> {
        if let Err((written, source)) = self.disk.write_all_at(&state.segment.file, lines, state.end) {
            return Err(self.undo(state, written, source));
        }
        state.chain = *chain;
        state.end += lines.len() as u64;
        state.filled = state.filled.max(state.end);
        if self.wants_filling(state) {
            state.no_space = false;
            self.work.notify_one();
        }
        Ok(())
    }

    /// Takes back the `written` bytes of a batch that did not fit, so that no half record stays.
    fn undo(&self, state: &mut State, written: u64, source: io::Error) -> JournalError {
        if !disk::is_full(&source) {
            return self.poison(source);
        }
        let zeros = written.min(state.filled - state.end);
        let restored = (self.disk)
            .write_zeros(&state.segment.file, state.end, state.end + zeros)
            .map_err(|(_, error)| error)
            .and_then(|()| if written > zeros { state.segment.file.set_len(state.filled) } else { Ok(()) });
        if let Err(error) = restored {
            return self.poison(error);
        }
        // Or a power cut might leave a page of this batch among those of the next.
        let flushed = if written > 0 { self.sync_segment(&state.segment) } else { Ok(()) };
        flushed.err().unwrap_or(JournalError::Full)
    }

    /// Closes the segment with a checkpoint, so that each segment can be judged alone, and begins the next.
    fn rotate(&self, state: &mut State) -> Result<(), JournalError> {
        let mut chain = state.chain;
        let mut lines = Vec::new();
        chain.checkpoint(&self.signer, &mut lines);
        self.put(state, &chain, &lines)?;
        // Records that were appended lazily go with those that follow them; and whoever flushes the next segment, to sign a
        // head say, need not know of this one, whatever the mode.
        self.sync_segment(&state.segment)?;
        let path = self.dir.join(recover::segment_name(&self.signer.stream, state.chain.seq + 1));
        let (segment, filled) = match state.next.take() {
            Some((prepared, filled)) => (prepared.rename(&path)?, filled),
            None => (Segment::create(&path)?, 0),
        };
        sync_dir(&self.dir).map_err(|error| self.poison(error))?;
        let old = std::mem::replace(&mut state.segment, Arc::new(segment));
        let end = state.end;
        state.closed.push((old, end));
        state.end = 0;
        state.filled = filled;
        self.work.notify_one();
        Ok(())
    }

    /// Flushes the segment that the batch was written to, by the thread's own file.
    fn flush(&self, batch: &Batch) -> Result<(), JournalError> {
        match &batch.flusher {
            Some(flusher) => self.disk.flush(&flusher.file).map_err(|error| self.poison(error)),
            None => Ok(()),
        }
    }

    /// Flushes a segment by its shared file, one caller at a time (see [`Flusher`]).
    fn sync_segment(&self, segment: &Segment) -> Result<(), JournalError> {
        let one = segment.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_poison()?;
        let flushed = self.disk.flush(&segment.file).map_err(|error| self.poison(error));
        drop(one);
        flushed
    }

    fn poison(&self, error: io::Error) -> JournalError {
        self.poisoned.store(true, Ordering::Release);
        self.work.notify_all();
        self.queue.call();
        JournalError::Fatal(Arc::new(error))
    }

    fn check_poison(&self) -> Result<(), JournalError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(JournalError::Fatal(Arc::new(io::Error::other("an earlier flush failed"))));
        }
        Ok(())
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    if disk::is_full(&source) { JournalError::Full } else { JournalError::Io { path: path.to_path_buf(), source } }
}

#[cfg(test)]
mod tests;
