//! What one thread has for itself at the barrier: where it reads, and where answers of Raft arrive.
//!
//! It reads in one transaction for all requests of an event-loop turn. Each look-up on its own would take and drop a lock
//! on the database, two system calls that cost more than the look-up.
//! A transaction sees one state, so it is given up as soon as anything was applied since it began: whoever reads after a
//! write was acknowledged sees that write, on every worker. At the end of the turn it ends in any case, so that it never
//! holds back a checkpoint.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use keyward_raft::Arrivals;
use keyward_storage::Reader;

use crate::barrier::Generations;

/// The desk of one thread.
#[derive(Debug)]
pub struct Desk {
    snapshots: Rc<Snapshots>,
    arrivals: OnceCell<Arrivals>,
}

#[derive(Debug)]
struct Snapshots {
    reader: Reader,
    generations: Arc<Generations>,
    /// The generation of the state that the open transaction sees, if one is open.
    pinned: Cell<Option<u64>>,
}

impl Desk {
    /// Reads through `reader`, on the thread that calls.
    pub fn new(reader: Reader, generations: Arc<Generations>) -> Self {
        let snapshots = Rc::new(Snapshots { reader, generations, pinned: Cell::new(None) });
        Self { snapshots, arrivals: OnceCell::new() }
    }

    /// Where outcomes of this thread's commands, and its read points, arrive.
    pub fn arrivals(&self) -> &Arrivals {
        self.arrivals.get_or_init(|| {
            let (arrivals, dealer) = Arrivals::new();
            drop(tokio::task::spawn_local(dealer.run()));
            arrivals
        })
    }

    /// The reader, at a state that holds everything applied before this call. To be used before the next await.
    pub fn reader(&self) -> &Reader {
        let snapshots = &self.snapshots;
        let now = snapshots.generations.applied();
        match snapshots.pinned.get() {
            Some(pinned) if pinned == now => {}
            Some(_) => {
                snapshots.end();
                snapshots.begin(now);
            }
            None => {
                snapshots.begin(now);
                let snapshots = Rc::clone(snapshots);
                // Queued behind everything that is ready in this turn.
                drop(tokio::task::spawn_local(async move { snapshots.end() }));
            }
        }
        &snapshots.reader
    }
}

impl Snapshots {
    /// Without a transaction each look-up sees the newest state by itself: slower, never wrong.
    fn begin(&self, generation: u64) {
        if self.reader.pin().is_ok() {
            self.pinned.set(Some(generation));
        }
    }

    fn end(&self) {
        if self.pinned.take().is_some()
            && let Err(error) = self.reader.unpin()
        {
            tracing::error!(error = %error, "a read transaction did not end");
        }
    }
}
