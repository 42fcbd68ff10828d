//! What the thread that changes the state is asked to do, in order; and how it waits for space without turning deaf.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use openraft::storage::EntryResponder;
use tokio::sync::oneshot;

use crate::snapshot::SnapshotData;
use crate::types::{SnapshotMeta, Types};

/// Between two attempts to apply entries on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// Whom to tell.
pub(crate) type Done<T> = oneshot::Sender<io::Result<T>>;

/// What can be asked of the thread.
pub(crate) enum Job {
    Apply(Vec<EntryResponder<Types>>, Done<()>),
    MakeDurable(Done<(SnapshotMeta, SnapshotData)>),
    Install(SnapshotMeta, SnapshotData, Done<()>),
    Stop(Done<()>),
}

/// The jobs of the thread.
pub(crate) struct Jobs {
    queue: Receiver<Job>,
    /// Came while another waited for space.
    behind: VecDeque<Job>,
}

impl Jobs {
    /// The jobs that come out of `queue`.
    pub(crate) fn new(queue: Receiver<Job>) -> Self {
        Self { queue, behind: VecDeque::new() }
    }

    /// The next job; waits for it. `None` when nobody can ask for anything any more.
    pub(crate) fn next(&mut self) -> Option<Job> {
        self.behind.pop_front().or_else(|| self.queue.recv().ok())
    }

    /// Whether the thread shall end, whatever it is at.
    pub(crate) fn is_stopping(&mut self) -> bool {
        loop {
            match self.queue.try_recv() {
                Ok(stop @ Job::Stop(_)) => {
                    self.behind.push_front(stop);
                    return true;
                }
                Ok(job) => self.behind.push_back(job),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Lets a moment pass, after which there may be space. False if the thread shall end instead.
    pub(crate) fn wait_for_space(&mut self) -> bool {
        let until = Instant::now() + FULL_RETRY;
        loop {
            match self.queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(stop @ Job::Stop(_)) => {
                    self.behind.push_front(stop);
                    return false;
                }
                Ok(job) => self.behind.push_back(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}
