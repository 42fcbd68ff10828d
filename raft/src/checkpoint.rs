//! The thread that moves SQLite's write-ahead log into the database, so that hardly a write has to wait for it.
//!
//! Durability does not need it: the Raft log holds what the database might lose. It bounds the file and what a start has to
//! read. A flush of the Raft log that comes meanwhile waits for as long as the disk needs for all that was moved, so that
//! is little at a time; but not so little that its own flushes count.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyward_storage::{Checkpointer, Kind, StoreError};

/// Between two looks while there are writes.
const ROUND: Duration = Duration::from_millis(20);
/// Pages that are worth a checkpoint: 1 MiB.
const MOVE_PAGES: u64 = 256;
/// Pages in the file above which it shall begin anew: 40 MiB. Below the size at which the writer itself steps in.
const RESTART_PAGES: u64 = 10_240;
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
    finish: bool,
    waiting: bool,
    stop: bool,
    /// Another state is in place: its own is to be used from now on.
    next: Option<Checkpointer>,
}

impl Dirty {
    /// There were writes. True if the writer shall move what is left of the log into the database: only between two of
    /// its transactions can that be all of it, and only then does the file begin anew.
    #[must_use]
    pub(crate) fn mark(&self) -> bool {
        let mut state = self.state();
        state.dirty = true;
        // The thread looks again by itself while there are writes; a wake-up for each would cost the writer.
        if state.waiting {
            self.changed.notify_one();
        }
        std::mem::take(&mut state.finish)
    }

    /// Another state is in the place of the one before.
    pub(crate) fn switch(&self, checkpointer: Checkpointer) {
        let mut state = self.state();
        state.next = Some(checkpointer);
        state.dirty = true;
        state.finish = false;
        self.changed.notify_one();
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
                if let Some(next) = self.state().next.take() {
                    checkpointer = next;
                }
                if !self.pause() {
                    return Ok(());
                }
                if self.take() {
                    self.round(&mut checkpointer)?;
                } else if !self.wait(Some(QUIET)) {
                    return Ok(());
                } else if !self.state().dirty && checkpointer.run(Kind::Truncate)?.complete {
                    break;
                }
            }
        }
    }

    fn round(&self, checkpointer: &mut Checkpointer) -> Result<(), StoreError> {
        let log = checkpointer.look()?;
        if log.pages.saturating_sub(log.moved) < MOVE_PAGES {
            return Ok(());
        }
        let moved = checkpointer.run(Kind::Passive)?;
        if moved.pages >= RESTART_PAGES {
            // What came meanwhile is moved as well, so that little is left for the writer.
            checkpointer.run(Kind::Passive)?;
            self.state().finish = true;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use keyward_model::{Change, Command, Id, Timestamp, VersionBlob};
    use keyward_storage::{Content, Entry, Options, Position, Store, Writer};

    use super::*;

    fn add(writer: &mut Writer, id: u64, size: usize) {
        let blob = VersionBlob { wrapped: vec![1], payload: vec![2; size] };
        let command = Command {
            request: Id([0; 16]),
            at: Timestamp(0),
            before: writer.sum(),
            signature: [0; 32],
            changes: vec![Change::AddVersion { id, blob }],
            intent: Vec::new(),
        };
        let position = Position { term: 1, leader: 1, index: id };
        writer.apply(&[Entry { position, content: Content::Commands(&[command]) }]).unwrap();
    }

    #[test]
    fn a_small_log_is_left_alone_and_a_large_one_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        let (mut writer, mut checkpointer, dirty) =
            (store.writer().unwrap(), store.checkpointer().unwrap(), Dirty::default());
        add(&mut writer, 1, 100 << 10);
        dirty.round(&mut checkpointer).unwrap();
        assert_eq!(checkpointer.look().unwrap().moved, 0);
        assert!(!dirty.mark());

        for id in 2..12 {
            add(&mut writer, id, 4 << 20);
        }
        dirty.round(&mut checkpointer).unwrap();
        add(&mut writer, 12, 100);
        assert!(dirty.mark(), "the writer is asked, once");
        assert!(!dirty.mark());
        assert!(writer.checkpoint(Kind::Restart).unwrap().complete);
        add(&mut writer, 13, 100);
        let log = checkpointer.look().unwrap();
        assert!(log.pages < 20 && log.moved == 0, "{log:?}");
    }
}
