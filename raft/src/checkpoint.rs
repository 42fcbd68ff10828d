//! The thread that moves SQLite's write-ahead log into the database, so that no write has to wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_storage::{Checkpointer, Kind, StoreError};

/// Between two rounds while there are writes.
const ROUND: Duration = Duration::from_millis(50);
/// After so long without a write the write-ahead log is emptied: erased bytes shall not stay in it.
const QUIET: Duration = Duration::from_secs(1);

/// Whether there is something to do.
#[derive(Default, Debug)]
pub(crate) struct Dirty {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct State {
    dirty: bool,
    waiting: bool,
    stop: bool,
}

impl Dirty {
    /// There were writes.
    pub(crate) fn mark(&self) {
        let mut state = self.state();
        state.dirty = true;
        // The thread looks again by itself while there are writes; a wake-up for each would cost the writer.
        if state.waiting {
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_one();
    }

    /// The thread's body.
    ///
    /// # Errors
    /// What SQLite met.
    pub(crate) fn run(&self, mut checkpointer: Checkpointer) -> Result<(), StoreError> {
        loop {
            if !self.wait(None) {
                return Ok(());
            }
            loop {
                if !self.pause() {
                    return Ok(());
                }
                if self.take() {
                    checkpointer.run(Kind::Passive)?;
                } else if !self.wait(Some(QUIET)) {
                    return Ok(());
                } else if !self.state().dirty {
                    checkpointer.run(Kind::Truncate)?;
                    break;
                }
            }
        }
    }

    /// Waits until there were writes, or `at_most`; false when the thread shall end.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut state = self.state();
        state.waiting = true;
        let idle = |state: &mut State| !state.dirty && !state.stop;
        let mut state = match at_most {
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.changed.wait_timeout_while(state, time, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.waiting = false;
        !state.stop
    }

    /// Lets a round pass; false when the thread shall end.
    fn pause(&self) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), ROUND, |state| !state.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Whether there were writes since the last time.
    fn take(&self) -> bool {
        std::mem::take(&mut self.state().dirty)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
