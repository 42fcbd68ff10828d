//! The flush that many share: a thread of the journal's own, for those who have other work while the disk takes its time.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{JournalError, Shared};

/// Who waits for the disk. A ticket stands for everything that was in the stream when it was drawn.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: Mutex<Line>,
    /// A ticket was drawn, or the journal is being closed.
    called: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    /// The newest ticket.
    drawn: u64,
    /// Up to which ticket everything is durable.
    durable: u64,
    waiting: Vec<(u64, Waker)>,
    stop: bool,
}

/// Comes back when what was appended is durable; made by [`Journal::append_shared`](super::Journal::append_shared).
#[derive(Debug)]
#[must_use = "the records are not durable before it comes back"]
pub struct Flushed {
    shared: Arc<Shared>,
    /// `None`: nothing to wait for.
    ticket: Option<u64>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for what is in the stream now.
    fn draw(&self) -> u64 {
        let mut line = self.lock();
        line.drawn += 1;
        self.called.notify_one();
        line.drawn
    }

    /// Has the thread look at how things stand.
    pub(super) fn call(&self) {
        // Under the lock: or it could come between a look and the wait that follows it.
        let _line = self.lock();
        self.called.notify_one();
    }

    /// Wakes who waits with a ticket up to `last`; not under the lock, since who is woken looks at once.
    fn call_up<'a>(&'a self, mut line: MutexGuard<'a, Line>, last: u64) -> MutexGuard<'a, Line> {
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut line.waiting).into_iter().partition(|(ticket, _)| *ticket <= last);
        line.waiting = waiting;
        if done.is_empty() {
            return line;
        }
        drop(line);
        done.into_iter().for_each(|(_, waker)| waker.wake());
        self.lock()
    }

    /// Ends the thread once nobody waits any more.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.called.notify_one();
    }
}

impl Shared {
    /// Flushes for whoever waits, until the journal is closed. After a failed flush everybody is told at once.
    pub(super) fn flush_for_all(&self) {
        let mut line = self.queue.lock();
        loop {
            let drawn = line.drawn;
            if self.poisoned.load(Ordering::Acquire) {
                line = self.queue.call_up(line, u64::MAX);
            } else if line.durable < drawn {
                drop(line);
                // A segment that was closed since is durable: closing it saw to that.
                let segment = Arc::clone(&self.lock().segment);
                let flushed = self.sync_segment(&segment);
                line = self.queue.lock();
                if flushed.is_ok() {
                    line.durable = drawn;
                    line = self.queue.call_up(line, drawn);
                }
                continue;
            }
            if line.stop {
                return;
            }
            line = self.queue.called.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn ticket(self: &Arc<Self>) -> Flushed {
        Flushed { shared: Arc::clone(self), ticket: Some(self.queue.draw()) }
    }

    pub(super) fn no_ticket(self: &Arc<Self>) -> Flushed {
        Flushed { shared: Arc::clone(self), ticket: None }
    }
}

impl Future for Flushed {
    type Output = Result<(), JournalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(own) = self.ticket else { return Poll::Ready(Ok(())) };
        let mut line = self.shared.queue.lock();
        if line.durable >= own {
            return Poll::Ready(Ok(()));
        }
        if let Err(error) = self.shared.check_poison() {
            return Poll::Ready(Err(error));
        }
        match line.waiting.iter_mut().find(|(ticket, _)| *ticket == own) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => line.waiting.push((own, context.waker().clone())),
        }
        Poll::Pending
    }
}
