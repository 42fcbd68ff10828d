//! What happens to segments away from the write path: the next one is filled with zeroes ahead of time, old ones are
//! erased, the horizon is moved on, and the space left on the disk is watched. One thread does all of it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shared;
use super::horizon::Horizon;
use super::segment::{self, Segment, Spare};

/// How often the free space of a full disk is looked at.
const SPACE_LOOK: Duration = Duration::from_secs(1);

/// Between two parts of a segment that is filled or erased while there is time: 8 MiB/s.
const PAUSE: Duration = Duration::from_millis(32);
/// The same when the segment being written fills faster than the next one: 128 MiB/s.
const SHORT_PAUSE: Duration = Duration::from_millis(2);

/// Segments in waiting, and what is to be done.
pub(super) struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next: Option<Spare>,
    next_seq: u64,
    wanted: bool,
    /// The writer waits for the next segment: no time for pauses.
    awaited: bool,
    full: bool,
    /// Entries wait for space to be applied: full, whatever the disk says of itself.
    unapplied: bool,
    /// Entries wait for something else to be applied.
    held: bool,
    /// Nothing waits for space any more.
    closing: bool,
    erase: VecDeque<Segment>,
    horizon: Horizon,
    horizon_due: bool,
    stop: bool,
}

impl Shelf {
    pub(super) fn new(next: Option<Spare>, next_seq: u64, horizon: Horizon) -> Self {
        let wanted = next.is_none();
        let state = State {
            next,
            next_seq,
            wanted,
            awaited: false,
            full: false,
            unapplied: false,
            held: false,
            closing: false,
            erase: VecDeque::new(),
            horizon,
            horizon_due: false,
            stop: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the next segment.
    pub(super) fn want_next(&self) {
        self.state().wanted = true;
        self.changed.notify_all();
    }

    /// Asks for the horizon to be moved on.
    pub(super) fn want_horizon(&self) {
        self.state().horizon_due = true;
        self.changed.notify_all();
    }

    /// Hands over segments to be erased.
    pub(super) fn erase(&self, segments: Vec<Segment>) {
        self.state().erase.extend(segments);
        self.changed.notify_all();
    }

    /// The disk has less space left than the reserve: nothing new until that has changed.
    pub(super) fn mark_full(&self, shared: &Shared) {
        let mut state = self.state();
        state.full = true;
        tell(shared, &state);
        self.changed.notify_all();
    }

    /// Entries wait, or wait no longer, for space to be applied.
    pub(super) fn mark_unapplied(&self, shared: &Shared, unapplied: bool) {
        let mut state = self.state();
        state.unapplied = unapplied;
        state.full |= unapplied;
        tell(shared, &state);
        self.changed.notify_all();
    }

    /// Bytes that must be free for the disk not to count as full.
    pub(super) fn needed_bytes(&self, shared: &Shared) -> u64 {
        needed_bytes(shared, &self.state())
    }

    /// Entries wait, or wait no longer, to be applied, for something else than space on this disk.
    pub(super) fn mark_held(&self, shared: &Shared, held: bool) {
        let mut state = self.state();
        state.held = held;
        tell(shared, &state);
    }

    /// From here on nothing waits for space: what has none fails.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    /// Ends the thread once it has done what was asked.
    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_all();
    }

    /// Takes the next segment; waits for it if it is being made, or if the disk is full. `None`: it will not come.
    pub(super) fn take_next(&self, shared: &Shared) -> Option<Spare> {
        if shared.inline {
            self.work(shared);
            return self.state().next.take();
        }
        let mut state = self.state();
        loop {
            if let Some(spare) = state.next.take() {
                return Some(spare);
            }
            if state.stop || (state.closing && state.full) {
                shared.end("the raft log was closed before there was space for all of it");
            }
            if shared.failed().is_some() {
                return None;
            }
            if !state.awaited {
                (state.wanted, state.awaited) = (true, true);
                self.changed.notify_all();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes the horizon durable now.
    pub(super) fn write_horizon(&self, shared: &Shared) -> io::Result<()> {
        let point = shared.memory().durable;
        self.state().horizon.write(&point)
    }

    /// The thread's body.
    pub(super) fn run(&self, shared: &Shared) {
        loop {
            self.work(shared);
            let state = self.state();
            if shared.failed().is_some() || (state.stop && !state.is_due()) {
                return;
            }
            if state.full {
                let idle = |state: &mut State| !state.stop && !state.is_due();
                let waited = self.changed.wait_timeout_while(state, SPACE_LOOK, idle);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            } else {
                let idle = |state: &mut State| !state.stop && !state.is_due() && !state.full;
                drop(self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Lets the disk serve others between two parts of a long work. The horizon does not wait for its end.
    fn pause(&self, shared: &Shared, time: Duration) {
        if shared.inline {
            return;
        }
        let patient = |state: &mut State| !state.awaited && !state.stop && !state.horizon_due;
        let waited = self.changed.wait_timeout_while(self.state(), time, patient);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if std::mem::take(&mut state.horizon_due) {
            drop(state);
            if let Err(error) = self.write_horizon(shared) {
                self.give_up(shared, "write the horizon", &error);
            }
        }
    }

    fn give_up(&self, shared: &Shared, doing: &str, error: &io::Error) {
        shared.fail(&format!("cannot {doing} of the raft log in `{}`: {error}", shared.dir.display()));
        self.changed.notify_all();
    }

    /// The more there is to erase, the shorter; and nothing shall keep the next segment waiting.
    fn erase_pause(&self) -> Duration {
        let state = self.state();
        let backlog = u32::try_from(state.erase.len()).unwrap_or(u32::MAX);
        if state.wanted { SHORT_PAUSE } else { PAUSE / backlog.saturating_add(1) }
    }

    /// Does all that is to be done now.
    pub(super) fn work(&self, shared: &Shared) {
        if shared.failed().is_some() {
            return;
        }
        if let Err((doing, error)) = self.try_work(shared) {
            self.give_up(shared, doing, &error);
        }
    }

    fn try_work(&self, shared: &Shared) -> Result<(), (&'static str, io::Error)> {
        let mut no_space = false;
        let mut state = self.state();
        loop {
            // The horizon goes first: it must not name a segment that is gone. Then what the writer may soon wait for.
            if std::mem::take(&mut state.horizon_due) {
                drop(state);
                self.write_horizon(shared).map_err(|error| ("write the horizon", error))?;
            } else if state.wanted && !no_space {
                let seq = state.next_seq;
                drop(state);
                let made = self.prepare(shared, seq);
                state = self.state();
                match made {
                    Ok(spare) => {
                        state.next = Some(spare);
                        state.next_seq += 1;
                        (state.wanted, state.awaited) = (false, false);
                        self.changed.notify_all();
                    }
                    Err(error) if is_full(&error) => (state.full, no_space) = (true, true),
                    Err(error) => return Err(("make the next segment", error)),
                }
                continue;
            } else if let Some(segment) = state.erase.pop_front() {
                drop(state);
                let pause = |_| self.pause(shared, self.erase_pause());
                segment::erase(&*shared.fs, &shared.dir, segment.seq, pause)
                    .map_err(|error| ("erase an old segment", error))?;
            } else {
                break;
            }
            state = self.state();
        }
        if state.full || shared.is_full() {
            let free = shared.fs.available(&shared.dir).map_err(|error| ("ask for the free space", error))?;
            state.full = state.unapplied || state.wanted || free < shared.options.reserve_bytes;
            tell(shared, &state);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Makes segment `seq`, if it has room: what is left of a full disk is left to others.
    fn prepare(&self, shared: &Shared, seq: u64) -> io::Result<Spare> {
        let bytes = shared.next_bytes();
        if shared.fs.available(&shared.dir)? < bytes.into() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // On a full disk there are no writes to be in the way of; there would be, were it not for this.
        let relaxed = |done| !shared.is_full() && is_ahead(shared, done, bytes);
        let pause = |done| self.pause(shared, if relaxed(done) { PAUSE } else { SHORT_PAUSE });
        segment::prepare(&*shared.fs, &shared.dir, seq, bytes, pause)
    }
}

impl State {
    /// Whether there is something to do that needs no further space.
    fn is_due(&self) -> bool {
        !self.erase.is_empty() || self.horizon_due || (self.wanted && !self.full)
    }
}

/// Tells everyone who asks, without this lock, how `state` stands.
fn tell(shared: &Shared, state: &State) {
    shared.set_full(state.full, needed_bytes(shared, state));
    // Whoever hears of this finds the disk full.
    shared.set_starving(state.unapplied || state.held || (state.awaited && state.full));
}

fn needed_bytes(shared: &Shared, state: &State) -> u64 {
    let segment = if state.wanted { shared.options.segment_bytes } else { 0 };
    shared.options.reserve_bytes.saturating_add(segment.into())
}

/// Whether a larger part of the next segment is ready, `done` of `bytes`, than of the one being written is used; by an
/// eighth, since it must be ready first.
fn is_ahead(shared: &Shared, done: u32, bytes: u32) -> bool {
    let memory = shared.memory();
    let (end, capacity) = memory.segments.back().map_or((0, 1), |segment| (segment.end, segment.capacity));
    let (end, capacity, done, bytes) = (u64::from(end), u64::from(capacity), u64::from(done), u64::from(bytes));
    done * capacity > (end + capacity / 8) * bytes
}

/// The disk or the quota has no space left.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
