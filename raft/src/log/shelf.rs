//! What happens to segments away from the write path: the next one is filled with zeroes ahead of time, old ones are
//! erased, the horizon is moved on, and the space left on the disk is watched. One thread does all of it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shared;
use super::horizon::Horizon;
use super::segment::{self, Segment, Spare};

/// How often a full disk is looked at again.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// Segments in waiting, and what is to be done.
pub(super) struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next: Option<Spare>,
    next_seq: u64,
    wanted: bool,
    full: bool,
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
            full: false,
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
        self.state().full = true;
        shared.set_full(true);
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
            if state.stop || shared.failed().is_some() {
                return None;
            }
            state.wanted = true;
            self.changed.notify_all();
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
            let due = !state.erase.is_empty() || state.horizon_due || (state.wanted && !state.full);
            if shared.failed().is_some() || (state.stop && !due) {
                return;
            }
            if due {
                continue;
            }
            if state.full {
                drop(self.changed.wait_timeout(state, FULL_RETRY).unwrap_or_else(PoisonError::into_inner));
            } else {
                drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Does all that is to be done now.
    pub(super) fn work(&self, shared: &Shared) {
        if shared.failed().is_some() {
            return;
        }
        if let Err((doing, error)) = self.try_work(shared) {
            shared.fail(&format!("cannot {doing} of the raft log in `{}`: {error}", shared.dir.display()));
            self.changed.notify_all();
        }
    }

    fn try_work(&self, shared: &Shared) -> Result<(), (&'static str, io::Error)> {
        // The horizon goes first: it must not name a segment that is gone.
        let mut state = self.state();
        if std::mem::take(&mut state.horizon_due) {
            drop(state);
            self.write_horizon(shared).map_err(|error| ("write the horizon", error))?;
            state = self.state();
        }
        while let Some(segment) = state.erase.pop_front() {
            drop(state);
            segment::erase(&*shared.fs, &shared.dir, segment.seq).map_err(|error| ("erase an old segment", error))?;
            state = self.state();
        }
        if state.wanted {
            let seq = state.next_seq;
            drop(state);
            let made = segment::prepare(&*shared.fs, &shared.dir, seq, shared.next_bytes());
            state = self.state();
            match made {
                Ok(spare) => {
                    state.next = Some(spare);
                    state.next_seq += 1;
                    state.wanted = false;
                }
                Err(error) if is_full(&error) => state.full = true,
                Err(error) => return Err(("make the next segment", error)),
            }
        }
        if state.full || shared.is_full() {
            let free = shared.fs.available(&shared.dir).map_err(|error| ("ask for the free space", error))?;
            state.full = state.wanted || free < shared.options.reserve_bytes;
            shared.set_full(state.full);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

/// The disk or the quota has no space left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
