//! The Raft log: entries and votes, durable before anyone is told, in files of our own.
//!
//! Reading order: [`record`] (what stands there), `segment` (the files), `memory` (what is at hand), `writer` (the only
//! way in), `shelf` (what happens besides), `recover` and `horizon` (how a log is found again), [`error`].

pub mod record;

mod segment;

mod memory;

mod writer;

mod shelf;

mod recover;

mod horizon;

pub mod error;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use keyward_model::Entropy;
use tokio::sync::{Notify, watch};

pub use error::OpenError;
pub use writer::Done;

use crate::fs::Fs;
use crate::types::{Entry, LogId, Vote};
use memory::{Memory, Place};
use shelf::Shelf;
use writer::{Op, Writer};

/// The least and the most bytes of a segment.
const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 16 << 10..=1 << 30;
/// The first segment of a new log: small, so that a first start is quick.
const FIRST_SEGMENT_BYTES: u32 = 4 << 20;

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Bytes of recent entries kept in memory after they were applied.
    pub tail_bytes: usize,
    /// Bytes of entries kept in memory before they are applied; beyond them they are read again from the disk.
    pub unapplied_bytes: usize,
    /// Bytes that must stay free on the disk; with less, [`Log::is_full`] says so.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, tail_bytes: 8 << 20, unapplied_bytes: 64 << 20, reserve_bytes: 32 << 20 }
    }
}

/// What the log stands on.
pub struct Ground {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The folder; the log's own.
    pub dir: PathBuf,
    /// Where segment numbers come from.
    pub chance: Arc<dyn Entropy>,
    /// Called once, with the reason, when the log can no longer promise anything: the process must stop. It comes before
    /// anyone who waits is told of the failure.
    pub failed: Box<dyn Fn(&str) + Send + Sync>,
    /// True: no threads, everything happens in the caller. For simulations.
    pub inline: bool,
}

/// The log. Clones are the same log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    writer: Mutex<Option<Writer>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: Options,
    chance: Arc<dyn Entropy>,
    inline: bool,
    memory: Mutex<Memory>,
    shelf: Shelf,
    failure: OnceLock<String>,
    failed: Box<dyn Fn(&str) + Send + Sync>,
    full: AtomicBool,
    /// The disk became full.
    filled: Notify,
    starving: watch::Sender<bool>,
    flushes: AtomicU64,
    incarnation: u64,
}

#[derive(Default)]
struct Queue {
    state: Mutex<(VecDeque<Op>, bool)>,
    filled: Condvar,
}

impl Log {
    /// Opens the log in `ground.dir`, or makes it.
    ///
    /// # Errors
    /// [`OpenError`]: what was found is not whole; nothing was changed.
    pub fn open(ground: Ground, options: Options) -> Result<Self, OpenError> {
        if !SEGMENT_BYTES.contains(&options.segment_bytes) {
            let (min, max) = (u64::from(*SEGMENT_BYTES.start()), u64::from(*SEGMENT_BYTES.end()));
            return Err(OpenError::SegmentBytes { given: options.segment_bytes.into(), min, max });
        }
        let Ground { fs, dir, chance, failed, inline } = ground;
        let io = |doing, path: &PathBuf| {
            let path = path.clone();
            move |error| OpenError::Io { doing, path, error }
        };
        fs.create_dir(&dir).map_err(io("make the folder", &dir))?;
        let names = fs.list(&dir).map_err(io("list the folder", &dir))?;
        segment::finish_erasing(&*fs, &dir, &names).map_err(io("erase old segments in", &dir))?;
        let horizon_path = horizon::path(&dir);
        let found = horizon::Horizon::open(&*fs, &dir, names.iter().any(|name| name == "horizon"))
            .map_err(io("open", &horizon_path))?;
        let first_bytes = FIRST_SEGMENT_BYTES.min(options.segment_bytes);
        let recovered = recover::recover(&*fs, &dir, &names, &[first_bytes, options.segment_bytes], found.point)?;
        let mut horizon = found.horizon;
        let incarnation = horizon.count_start();
        let writer = Writer::new(recovered.chain, &recovered.memory);
        let (writer, threaded) = if inline { (Some(writer), None) } else { (None, Some(writer)) };
        let shared = Arc::new(Shared {
            shelf: Shelf::new(recovered.spare, recovered.next_seq, horizon),
            memory: Mutex::new(recovered.memory),
            fs,
            dir,
            options,
            chance,
            inline,
            failure: OnceLock::new(),
            failed,
            full: AtomicBool::new(false),
            filled: Notify::new(),
            starving: watch::Sender::new(false),
            flushes: AtomicU64::new(0),
            incarnation,
        });
        shared.shelf.write_horizon(&shared).map_err(io("write", &horizon_path))?;
        let log = Self(Arc::new(Inner {
            shared: Arc::clone(&shared),
            queue: Arc::default(),
            writer: Mutex::new(writer),
            threads: Mutex::default(),
        }));
        if let Some(writer) = threaded {
            log.start_threads(writer).map_err(io("start the threads of", &log.0.shared.dir))?;
        }
        Ok(log)
    }

    fn start_threads(&self, mut writer: Writer) -> io::Result<()> {
        let (shared, queue) = (Arc::clone(&self.0.shared), Arc::clone(&self.0.queue));
        let write = move || {
            while let Some(ops) = queue.take() {
                writer.process(&shared, ops);
            }
        };
        let shared = Arc::clone(&self.0.shared);
        let keep = move || shared.shelf.run(&shared);
        let mut threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(thread::Builder::new().name("raft-log".to_owned()).spawn(write)?);
        threads.push(thread::Builder::new().name("raft-shelf".to_owned()).spawn(keep)?);
        Ok(())
    }

    /// Appends entries that follow the last one. They can be read when this returns, and are durable when `done` is called.
    ///
    /// # Errors
    /// The log has failed, or the entries do not follow.
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        self.check()?;
        let mut memory = self.0.shared.memory();
        for entry in &entries {
            memory.append(entry.clone())?;
        }
        drop(memory);
        self.submit(vec![Op::Append(entries, done)]);
        Ok(())
    }

    /// Makes the node's vote durable, then calls `done`.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        self.0.shared.memory().vote = Some(vote);
        self.submit(vec![Op::Vote(vote, done)]);
    }

    /// Voids all entries after `last`; all, if it is `None`.
    pub fn truncate_after(&self, last: Option<LogId>) {
        let from = last.map_or(0, |last| last.index + 1);
        self.0.shared.memory().truncate(from, last);
        self.submit(vec![Op::Truncate(from)]);
    }

    /// Lets entries up to `upto` go. Segments with nothing else are erased in the background.
    pub fn purge(&self, upto: LogId) {
        self.0.shared.memory().purge(upto);
        self.submit(vec![Op::Purge(upto)]);
    }

    /// Notes how far entries are committed. It becomes durable with the next append.
    pub fn set_committed(&self, committed: Option<LogId>) {
        self.0.shared.memory().committed = committed;
    }

    /// Calls `done` when everything asked before is durable.
    pub fn flush(&self, done: Done) {
        self.submit(vec![Op::Flush(done)]);
    }

    /// Entries below `index` were applied: they need not stay in memory.
    pub fn release(&self, index: u64) {
        let mut memory = self.0.shared.memory();
        memory.released = index;
        memory.trim(&self.0.shared.options);
    }

    /// The entries of `range` that there are, in order without a gap; at least one if there is one, and no more after
    /// `bytes_max` of payload.
    ///
    /// # Errors
    /// A segment cannot be read, or an entry in it is damaged.
    pub fn read(&self, range: Range<u64>, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let places = self.0.shared.memory().places(range.clone(), bytes_max);
        let read: io::Result<Vec<Entry>> = places.into_iter().map(Place::entry).collect();
        let read = match read {
            // A purge may have erased a segment between the look-up and the read.
            Err(_) if self.purged().is_some_and(|purged| purged.index >= range.start) => {
                let rest = self.0.shared.memory().places(range, bytes_max);
                rest.into_iter().map(Place::entry).collect()
            }
            read => read,
        };
        // What cannot be read was acknowledged once: going on without it would be a lie.
        read.inspect_err(|error| self.0.shared.fail(&error.to_string()))
    }

    /// Whether the entries from `index` on are in memory.
    pub fn is_at_hand(&self, index: u64) -> bool {
        self.0.shared.memory().is_at_hand(index)
    }

    /// Whether the entry `index` is durable, and not only queued.
    pub fn is_durable(&self, index: u64) -> bool {
        index < self.0.shared.memory().durable_next()
    }

    /// The node's vote.
    pub fn vote(&self) -> Option<Vote> {
        self.0.shared.memory().vote
    }

    /// How far entries were known to be committed.
    pub fn committed(&self) -> Option<LogId> {
        self.0.shared.memory().committed
    }

    /// The last entry that was let go.
    pub fn purged(&self) -> Option<LogId> {
        self.0.shared.memory().purged
    }

    /// The last entry; the purged one if there is none.
    pub fn last(&self) -> Option<LogId> {
        self.0.shared.memory().last
    }

    /// Bytes that all segments take.
    pub fn bytes(&self) -> u64 {
        self.0.shared.memory().bytes()
    }

    /// The last entry that may go if the segments at the end that hold `bytes` are to stay; `None` if none may.
    pub fn before_last(&self, bytes: u64) -> Option<u64> {
        self.0.shared.memory().before_last(bytes)
    }

    /// Whether the disk is too full to take more. What is asked nevertheless waits until there is room.
    pub fn is_full(&self) -> bool {
        self.0.shared.is_full()
    }

    /// Returns when the disk became full.
    pub async fn filled(&self) {
        self.0.shared.filled.notified().await;
    }

    /// Entries cannot be applied for want of space: the disk counts as full until [`Log::unmark_full`], whatever it says
    /// of itself.
    pub fn mark_full(&self) {
        self.0.shared.shelf.mark_unapplied(&self.0.shared, true);
    }

    /// What could not be applied is: whether the disk is full is a matter of its free space again.
    pub fn unmark_full(&self) {
        self.0.shared.shelf.mark_unapplied(&self.0.shared, false);
    }

    /// Whether entries wait to be applied for something else than space here: nothing is refused for that, and a stop does not
    /// wait for it.
    pub fn mark_held(&self, held: bool) {
        self.0.shared.shelf.mark_held(&self.0.shared, held);
    }

    /// Bytes that must be free on a full disk for it not to count as full.
    pub fn needed_bytes(&self) -> u64 {
        self.0.shared.shelf.needed_bytes(&self.0.shared)
    }

    /// Turns true while something that was accepted waits for space, in the log or on its way out of it.
    pub fn starving(&self) -> watch::Receiver<bool> {
        self.0.shared.starving.subscribe()
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.0.shared.flushes.load(Ordering::Relaxed)
    }

    /// How many times this log was opened.
    pub fn incarnation(&self) -> u64 {
        self.0.shared.incarnation
    }

    /// Makes everything durable, the committed position and the horizon included, and ends the threads. Does not wait for
    /// space.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn close(&self) -> io::Result<()> {
        self.0.shared.shelf.close();
        let (sender, receiver) = std::sync::mpsc::channel();
        self.flush(Box::new(move |result| drop(sender.send(result))));
        let flushed = receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the raft log is closed already")));
        self.0.stop_threads();
        flushed?;
        self.0.shared.shelf.write_horizon(&self.0.shared)
    }

    fn check(&self) -> io::Result<()> {
        self.0.shared.failed().map_or(Ok(()), |message| Err(io::Error::other(message)))
    }

    fn submit(&self, ops: Vec<Op>) {
        if self.0.shared.inline {
            let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(writer) = writer.as_mut() {
                writer.process(&self.0.shared, ops);
            }
            drop(writer);
            self.0.shared.shelf.work(&self.0.shared);
        } else {
            self.0.queue.put(ops);
        }
    }
}

impl Inner {
    /// Ends the threads, and waits for them, so that nobody works in the folder any more.
    fn stop_threads(&self) {
        self.queue.close();
        self.shared.shelf.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The last handle may go on one of them: what they call when something is durable may hold one.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != thread::current().id()) {
            drop(thread.join());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn fail(&self, message: &str) {
        if self.failure.set(message.to_owned()).is_ok() {
            (self.failed)(message);
        }
    }

    /// As [`Shared::fail`] on a clean way out: nothing more is taken, and nobody is alarmed.
    fn end(&self, message: &str) {
        drop(self.failure.set(message.to_owned()));
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Says so once per change. `needed` bytes must be free for a full disk not to be one.
    fn set_full(&self, full: bool, needed: u64) {
        if self.full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        let (dir, free) = (self.dir.display(), self.fs.available(&self.dir).unwrap_or_default());
        if full {
            self.filled.notify_one();
            // A quota may be less than the disk says it has: then all of it has to come from somewhere.
            let missing = needed.checked_sub(free).filter(|missing| *missing > 0).unwrap_or(needed);
            tracing::error!(
                "the disk is full: {} MiB are left for `{dir}`, no writes are taken; free at least {} MiB",
                free >> 20,
                missing.div_ceil(1 << 20)
            );
        } else {
            tracing::info!("the disk has space again: writes are taken");
        }
    }

    fn set_starving(&self, starving: bool) {
        self.starving.send_if_modified(|now| std::mem::replace(now, starving) != starving);
    }

    /// Bytes of the next segment to be made: a new log begins with a small one.
    fn next_bytes(&self) -> u32 {
        let first = self.memory().segments.is_empty();
        if first { FIRST_SEGMENT_BYTES.min(self.options.segment_bytes) } else { self.options.segment_bytes }
    }

    /// Looks at the free space, so that a full disk is known before something cannot be written.
    fn watch_space(&self) {
        if !self.is_full() && self.fs.available(&self.dir).is_ok_and(|free| free < self.options.reserve_bytes) {
            self.shelf.mark_full(self);
        }
    }
}

impl Queue {
    fn put(&self, ops: Vec<Op>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.1 {
            state.0.extend(ops);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Everything that is queued; waits for something. `None` once closed and empty.
    fn take(&self) -> Option<Vec<Op>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0.is_empty() {
            if state.1 {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(state.0.drain(..).collect())
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests;
