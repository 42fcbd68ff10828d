//! What a worker reads from: one read transaction for all requests of an event-loop turn.
//!
//! Each look-up on its own would take and drop a lock on the database, two system calls that cost more than the look-up.
//! A transaction sees one state, so it is given up as soon as anything was applied since it began: whoever reads after a
//! write was acknowledged sees that write, on every worker. At the end of the turn it ends in any case, so that it never
//! holds back a checkpoint.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use keyward_storage::Reader;

use crate::barrier::Generations;

/// The reader of one thread.
#[derive(Debug, Clone)]
pub struct Snapshots(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Reader,
    generations: Arc<Generations>,
    /// The generation of the state that the open transaction sees, if one is open.
    pinned: Cell<Option<u64>>,
}

impl Snapshots {
    /// Reads through `reader`, on the thread that calls.
    pub fn new(reader: Reader, generations: Arc<Generations>) -> Self {
        Self(Rc::new(Inner { reader, generations, pinned: Cell::new(None) }))
    }

    /// The reader, at a state that holds everything applied before this call. To be used before the next await.
    pub fn reader(&self) -> &Reader {
        let inner = &self.0;
        let now = inner.generations.applied();
        match inner.pinned.get() {
            Some(pinned) if pinned == now => {}
            Some(_) => {
                inner.end();
                inner.begin(now);
            }
            None => {
                inner.begin(now);
                let inner = Rc::clone(inner);
                // Queued behind everything that is ready in this turn.
                drop(tokio::task::spawn_local(async move { inner.end() }));
            }
        }
        &inner.reader
    }
}

impl Inner {
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
