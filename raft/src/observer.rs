//! Who is told what happens to the state.

use std::io;

use keyward_model::{Command, Outcome};
use keyward_storage::{Position, Store};

/// Who is told what happens to the state, by the thread that changes it.
pub trait Observer: Send + Sync {
    /// The commands of one entry were applied, with their outcomes. Comes after the commit and before anyone who waits
    /// for them is told; the entries come in order. Also comes while a node starts, for entries that its state lacked.
    fn applied(&self, position: Position, commands: &[(Command, Outcome)]);

    /// Whether what [`Observer::applied`] keeps of one more entry has a place. While it has none nothing is applied, and this
    /// is asked again every moment: the log keeps the entries, which are committed. Comes on the thread of
    /// [`Observer::applied`].
    fn has_room(&self) -> bool {
        true
    }

    /// Whatever was kept of the entries applied so far must be durable when this comes back: the log lets them go. Comes on
    /// the thread of [`Observer::applied`].
    ///
    /// # Errors
    /// It is not durable: the log keeps everything, and this is asked again when more was applied.
    fn before_purge(&self) -> io::Result<()> {
        Ok(())
    }

    /// Another state was put in the place of the old one: a snapshot came from the leader. Readers of `store` see it from
    /// their next look-up on; whatever was kept of the old state is void. Comes on the thread of [`Observer::applied`], which
    /// goes on with the entries after it.
    fn replaced(&self, store: &Store);

    /// The node can no longer keep its promises: the process must stop. Comes before anyone who waits is told.
    fn failed(&self, error: &str);
}
