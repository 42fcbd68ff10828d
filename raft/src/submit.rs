//! Commands on their way into the log: queued in the order they come, proposed in batches, never by a timer.
//!
//! If nothing is in flight a command goes at once. Otherwise it waits until no batch is in the log's hands and at most
//! one is being applied, and then goes with everything else that waits. So log and state both have work, and the slower
//! the disk, the larger the batch: a batch pays one flush and one transaction.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use keyward_model::command::encode_batch;
use keyward_model::{Command, Outcome};
use openraft::errors::ClientWriteError;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::answer::Answer;
use crate::arrivals::{Arrivals, Waiter, tell_all};
use crate::flight::{Flight, Passengers};
use crate::log::Log;
use crate::log::record::BODY_BYTES_MAX;
use crate::roster::Roster;
use crate::types::{Batch, Types};

/// Commands that may wait.
const QUEUE_COMMANDS_MAX: usize = 8192;
/// Bytes of commands that may wait.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Commands of one entry.
const BATCH_COMMANDS_MAX: usize = 512;
/// Batches that are proposed and not applied: one being applied, one being flushed.
const IN_FLIGHT_MAX: usize = 2;
/// Bytes of one entry, unless a single command is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a log record and a segment need beside an entry's bytes.
const ENTRY_OVERHEAD_BYTES: usize = 8 << 10;

/// How long what is under way is waited for before another node is to lead.
pub(crate) const LANDING_MAX: Duration = Duration::from_secs(2);

/// Why a command did not get an outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too many commands wait already; nothing changed.
    #[error("too many writes are waiting; try again")]
    Overloaded,
    /// Another node leads, or none; nothing changed.
    #[error("this node does not lead")]
    NotLeader {
        /// The node that leads, if one is known.
        leader: Option<u64>,
    },
    /// The disk is full; nothing changed. Goes away by itself when there is space.
    #[error("the disk is full: {reserve_bytes} bytes must be free")]
    DiskFull {
        /// Bytes that must be free before writes are taken again.
        reserve_bytes: u64,
    },
    /// The command is larger than the log takes; nothing changed.
    #[error("a write of {bytes} bytes is larger than the {bytes_max} bytes that one entry may have")]
    TooLarge {
        /// The command's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The node is stopping; nothing changed.
    #[error("the node is stopping")]
    Stopped,
    /// The command was proposed, and what became of it is not known: it may or may not take effect.
    #[error("the outcome of the write is not known")]
    Unknown,
}

/// What became of a command.
pub(crate) type Landed = Result<Outcome, SubmitError>;

/// A command that is on its way; awaiting it gives what became of it.
#[derive(Debug)]
#[must_use = "the outcome of a command is known only to who awaits it"]
pub struct Submission(oneshot::Receiver<Landed>);

impl Future for Submission {
    type Output = Landed;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(SubmitError::Unknown)))
    }
}

/// The queue before the log.
pub(crate) struct Coalescer {
    queue: Mutex<Queue>,
    wake: Notify,
    idle: Notify,
    log: Log,
    roster: Arc<Roster>,
    command_bytes_max: usize,
    batch_bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Command, usize, Waiter<Landed>)>,
    bytes: usize,
    /// Batches that are proposed and not applied.
    in_flight: usize,
    /// Those of them that are not durable.
    in_log: usize,
    /// What became of them is still to be told.
    flights: VecDeque<Flight>,
    /// How many hold it: nothing is proposed meanwhile.
    holds: usize,
    closed: bool,
}

impl Queue {
    /// Whether a batch may go. WHY: what is proposed during a flush waits for the next one anyway; here it grows.
    fn is_open(&self) -> bool {
        self.in_log == 0 && self.in_flight < IN_FLIGHT_MAX && self.holds == 0
    }
}

impl Coalescer {
    /// A queue before `log`, whose segments have `segment_bytes`.
    pub(crate) fn new(log: Log, segment_bytes: u32, roster: Arc<Roster>) -> Self {
        let command_bytes_max = BODY_BYTES_MAX.min(segment_bytes as usize).saturating_sub(ENTRY_OVERHEAD_BYTES);
        let batch_bytes_max = BATCH_BYTES_MAX.min(command_bytes_max / 2);
        let (queue, wake, idle) = (Mutex::default(), Notify::new(), Notify::new());
        Self { queue, wake, idle, log, roster, command_bytes_max, batch_bytes_max }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command at the end of the queue. Its outcome comes through `arrivals`, if there are any.
    pub(crate) fn enqueue(&self, command: Command, arrivals: Option<&Arrivals>) -> Result<Submission, SubmitError> {
        let bytes = command.size_hint();
        if bytes > self.command_bytes_max {
            return Err(SubmitError::TooLarge { bytes, bytes_max: self.command_bytes_max });
        }
        if !self.roster.leads() {
            return Err(SubmitError::NotLeader { leader: self.roster.leader() });
        }
        if self.log.is_full() {
            return Err(SubmitError::DiskFull { reserve_bytes: self.log.needed_bytes() });
        }
        let (waiter, receiver) = Waiter::new(arrivals);
        let mut queue = self.queue();
        if queue.closed {
            return Err(SubmitError::Stopped);
        }
        if queue.waiting.len() >= QUEUE_COMMANDS_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(SubmitError::Overloaded);
        }
        queue.bytes += bytes;
        queue.waiting.push_back((command, bytes, waiter));
        // A full pipeline takes the next batch by itself; and whoever came first has woken it.
        let wake = queue.is_open() && queue.waiting.len() == 1;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(Submission(receiver))
    }

    /// Commands that wait to be proposed.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Nothing new from here on; what waits still goes.
    pub(crate) fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_one();
    }

    /// Nothing new from here on, and what waits will not go either.
    pub(crate) fn abandon(&self) {
        self.close();
        let waiting = {
            let mut queue = self.queue();
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        tell_all(waiting.into_iter().map(|(_, _, waiter)| (waiter, Err(SubmitError::Stopped))));
    }

    /// This node leads no more, or without a majority: who waits is told where to go, and who is in flight that nobody knows.
    pub(crate) fn turn_away(&self, leader: Option<u64>) {
        let (waiting, flights) = {
            let mut queue = self.queue();
            queue.bytes = 0;
            (std::mem::take(&mut queue.waiting), queue.flights.clone())
        };
        tell_all(waiting.into_iter().map(|(_, _, waiter)| (waiter, Err(SubmitError::NotLeader { leader }))));
        // WHY: not that nothing changed, even of those that did not reach the log yet: they may still get there.
        flights.iter().for_each(Flight::lose);
    }

    /// Until this is dropped, what comes waits. Whoever is told meanwhile that another node leads was never proposed.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.queue().holds += 1;
        Hold(Arc::clone(self))
    }

    /// As [`Coalescer::hold`], and returns when what is in flight has landed, has no space to, or has had its time: nobody's
    /// outcome shall get lost between two leaders.
    pub(crate) async fn hold_landed(self: &Arc<Self>) -> Hold {
        let hold = self.hold();
        let mut starving = self.log.starving();
        let landing = async {
            tokio::select! {
                () = self.landed() => {}
                _ = starving.wait_for(|starving| *starving) => {}
            }
        };
        drop(timeout(LANDING_MAX, landing).await);
        hold
    }

    /// Returns when no batch is in flight.
    pub(crate) async fn landed(&self) {
        loop {
            let idle = self.idle.notified();
            if self.queue().in_flight == 0 {
                return;
            }
            idle.await;
        }
    }

    /// The next batch, when there may be one more in flight; `None` once closed and empty.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<Proposal> {
        loop {
            if let Some(passengers) = self.take() {
                let encoded = Bytes::from(encode_batch(&passengers.commands));
                let flight = Flight::new(passengers, Arc::downgrade(self));
                self.queue().flights.push_back(flight.clone());
                return Some(Proposal { encoded, guard: Guard { flight, queue: Arc::clone(self) } });
            }
            if self.is_done() {
                return None;
            }
            self.wake.notified().await;
        }
    }

    fn is_done(&self) -> bool {
        let queue = self.queue();
        queue.closed && queue.waiting.is_empty()
    }

    fn take(&self) -> Option<Passengers> {
        let mut queue = self.queue();
        if queue.waiting.is_empty() || !queue.is_open() {
            return None;
        }
        queue.in_flight += 1;
        queue.in_log += 1;
        let room = queue.waiting.len().min(BATCH_COMMANDS_MAX);
        let (mut commands, mut waiters, mut bytes) = (Vec::with_capacity(room), Vec::with_capacity(room), 0);
        while commands.len() < BATCH_COMMANDS_MAX
            && queue.waiting.front().is_some_and(|(_, size, _)| bytes == 0 || bytes + size <= self.batch_bytes_max)
            && let Some((command, size, waiter)) = queue.waiting.pop_front()
        {
            bytes += size;
            commands.push(command);
            waiters.push(waiter);
        }
        queue.bytes -= bytes;
        Some(Passengers { commands, waiters })
    }

    /// A batch left the log: it is durable, or was turned away.
    pub(crate) fn log_is_free(&self) {
        let mut queue = self.queue();
        queue.in_log -= 1;
        let wake = queue.is_open() && !queue.waiting.is_empty();
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }
}

/// Keeps the queue from being proposed.
pub(crate) struct Hold(Arc<Coalescer>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.queue().holds -= 1;
        self.0.wake.notify_one();
    }
}

/// A batch that is about to be proposed.
pub(crate) struct Proposal {
    encoded: Bytes,
    guard: Guard,
}

impl Proposal {
    /// The entry's data, and who is to be told when it is applied or turned away.
    pub(crate) fn into_parts(self) -> (Batch, Answer<openraft::raft::ClientWriteResult<Types>>) {
        let batch = Batch::with_flight(self.encoded, self.guard.flight.clone());
        let guard = self.guard;
        let answer = Answer::new(move |result: openraft::raft::ClientWriteResult<Types>| {
            let leader = match result {
                Ok(_) => return drop(guard),
                Err(ClientWriteError::ForwardToLeader(forward)) => forward.leader_id,
                Err(_) => None,
            };
            guard.flight.refuse(&SubmitError::NotLeader { leader });
        });
        (batch, answer)
    }
}

/// One place in the pipeline; given back when dropped. Whoever still waits then is told.
struct Guard {
    flight: Flight,
    queue: Arc<Coalescer>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flight.refuse(&SubmitError::Stopped);
        self.flight.leave_log();
        let mut queue = self.queue.queue();
        queue.in_flight -= 1;
        queue.flights.retain(|flight| !flight.is(&self.flight));
        let (more, idle) = (queue.is_open() && !queue.waiting.is_empty(), queue.in_flight == 0);
        drop(queue);
        if more {
            self.queue.wake.notify_one();
        }
        if idle {
            self.queue.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::{Id, SeededEntropy, StateSum, Timestamp};

    use super::*;
    use crate::fs::sim::SimFs;
    use crate::log::{Ground, Options};

    fn command(intent: usize) -> Command {
        let (request, before, signature) = (Id([0; 16]), StateSum::default(), [0; 32]);
        Command { request, at: Timestamp(0), before, signature, changes: Vec::new(), intent: vec![0; intent] }
    }

    fn coalescer() -> Arc<Coalescer> {
        let ground = Ground {
            fs: Arc::new(SimFs::new()),
            dir: "log".into(),
            chance: Arc::new(SeededEntropy::new(1)),
            failed: Box::new(|_| {}),
            inline: true,
        };
        let segment_bytes = 4 << 20;
        let log = Log::open(ground, Options { segment_bytes, reserve_bytes: 0, ..Options::default() }).unwrap();
        Arc::new(Coalescer::new(log, segment_bytes, Arc::new(Roster::leading())))
    }

    #[test]
    fn batches_are_bounded_and_keep_the_order() {
        let queue = coalescer();
        let waiting: Vec<_> = (0..600).map(|size| queue.enqueue(command(size), None).unwrap()).collect();
        let first = queue.take().unwrap();
        assert_eq!(first.commands.len(), BATCH_COMMANDS_MAX);
        assert!(first.commands.iter().enumerate().all(|(at, command)| command.intent.len() == at));
        assert!(queue.take().is_none(), "one is in the log's hands");
        queue.log_is_free();
        assert_eq!(queue.take().unwrap().commands.len(), 600 - BATCH_COMMANDS_MAX);
        queue.enqueue(command(1), None).map(drop).unwrap();
        queue.log_is_free();
        assert!(queue.take().is_none(), "two are in flight");
        drop(waiting);

        let queue = coalescer();
        let large: Vec<_> = (0..3).map(|_| queue.enqueue(command(700 << 10), None).unwrap()).collect();
        assert_eq!(queue.take().unwrap().commands.len(), 1, "one fills a batch");
        assert_eq!(large.len(), 3);
        let error = queue.enqueue(command(5 << 20), None).err();
        assert!(matches!(error, Some(SubmitError::TooLarge { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_closed_one_tells_those_who_wait() {
        let queue = coalescer();
        let mut waiting: Vec<_> = (0..QUEUE_COMMANDS_MAX).map(|_| queue.enqueue(command(9), None).unwrap()).collect();
        assert_eq!(queue.enqueue(command(9), None).err(), Some(SubmitError::Overloaded));
        let (first, last) = (waiting.remove(0), waiting.pop().unwrap());
        let proposal = queue.next().await.unwrap();
        proposal.guard.flight.mark_logged();
        drop(proposal);
        assert_eq!(first.await, Err(SubmitError::Unknown), "it was in the log");
        queue.abandon();
        assert_eq!(last.await, Err(SubmitError::Stopped));
        assert_eq!(queue.enqueue(command(9), None).err(), Some(SubmitError::Stopped));
        assert!(queue.next().await.is_none());
        queue.landed().await;
    }
}
