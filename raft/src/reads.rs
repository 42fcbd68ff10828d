//! The point from which a read is linearizable.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::Raft;
use openraft::errors::RaftError;
use openraft::raft::linearizable_read::LinearizerOption;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::applier::Standing;
use crate::arrivals::{Arrivals, Waiter, tell_all};
use crate::link::Board;
use crate::link::frame::Kind;
use crate::link::message::{Lane, decode_read_point};
use crate::machine::Machine;
use crate::roster::Roster;
use crate::types::Types;

/// How long a read may wait for its point.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two looks for a leader, should none be announced.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a read may not be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody leads, or the leader cannot be reached.
    #[error("no leader is known")]
    NoLeader,
    /// The leader did not answer in time, or this node is too far behind.
    #[error("the leader did not answer in time")]
    Timeout,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// Becomes ready when this node's state holds everything that was acknowledged before it was made.
#[derive(Debug)]
#[must_use = "a read before this is ready may be of the past"]
pub struct ReadPoint(State);

#[derive(Debug)]
enum State {
    Reached,
    Waiting(oneshot::Receiver<Result<(), ReadError>>),
}

impl ReadPoint {
    /// Nothing to wait for.
    pub(crate) fn reached() -> Self {
        Self(State::Reached)
    }
}

impl Future for ReadPoint {
    type Output = Result<(), ReadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Reached => Poll::Ready(Ok(())),
            State::Waiting(answer) => {
                Pin::new(answer).poll(context).map(|answer| answer.unwrap_or(Err(ReadError::Stopped)))
            }
        }
    }
}

/// Those who wait for a read point. One round answers all who waited when it began.
pub(crate) struct Reads {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Asked>,
    stopped: bool,
}

/// Who waits.
enum Asked {
    /// For this node's state to be far enough.
    State(Waiter<Result<(), ReadError>>),
    /// For the entry up to which another node's state must be.
    Index(Waiter<Result<u64, ReadError>>),
}

impl Reads {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::default(), wake: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this node's state. The answer comes through `arrivals`, if there are any.
    pub(crate) fn state(&self, arrivals: Option<&Arrivals>) -> ReadPoint {
        let (waiter, receiver) = Waiter::new(arrivals);
        self.push(Asked::State(waiter));
        ReadPoint(State::Waiting(receiver))
    }

    /// Waits for the entry that another node's state must hold. It never comes from a third node: only a leader knows.
    pub(crate) fn index(&self) -> oneshot::Receiver<Result<u64, ReadError>> {
        let (waiter, receiver) = Waiter::new(None);
        self.push(Asked::Index(waiter));
        receiver
    }

    fn push(&self, asked: Asked) {
        let mut queue = self.queue();
        if !queue.stopped {
            queue.waiting.push(asked);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Nobody waits any more, or will.
    pub(crate) fn stop(&self) {
        let mut queue = self.queue();
        queue.stopped = true;
        queue.waiting.clear();
    }

    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.queue().waiting)
    }
}

/// What holds the rounds.
pub(crate) struct Rounds {
    pub(crate) reads: Arc<Reads>,
    pub(crate) raft: Raft<Types, Machine>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) board: Arc<Board>,
}

impl Rounds {
    /// Holds a round whenever somebody waits.
    pub(crate) async fn run(self) {
        loop {
            self.reads.wake.notified().await;
            let waiting = self.reads.take();
            if waiting.is_empty() {
                continue;
            }
            let until = Instant::now() + WAIT_MAX;
            let (mut here, mut there) = (Vec::new(), Vec::new());
            for asked in waiting {
                match asked {
                    Asked::State(waiter) => here.push(waiter),
                    Asked::Index(waiter) => there.push(waiter),
                }
            }
            // Who asked for others is told at once when this node does not lead.
            if !there.is_empty() && !self.roster.leads() {
                tell_all(there.drain(..).map(|waiter| (waiter, Err(ReadError::NoLeader))));
            }
            let index = timeout_at(until, self.index()).await.unwrap_or(Err(ReadError::NoLeader));
            tell_all(there.into_iter().map(|waiter| (waiter, index)));
            let standing = Arc::clone(&self.standing);
            // The next round need not wait until this one's point is applied.
            tokio::spawn(async move {
                let reached = match index {
                    Ok(index) => timeout_at(until, standing.reach(index)).await.map_err(|_| ReadError::Timeout),
                    Err(error) => Err(error),
                };
                tell_all(here.into_iter().map(|waiter| (waiter, reached)));
            });
        }
    }

    /// The entry up to which a state must be applied to hold everything acknowledged before now.
    async fn index(&self) -> Result<u64, ReadError> {
        let mut leadership = self.roster.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            let asking = async {
                match now.leader {
                    Some(_) if now.leads => self.own_index().await,
                    Some(leader) => self.leaders_index(leader).await,
                    None => Ok(None),
                }
            };
            let found = tokio::select! {
                found = asking => found?,
                // WHY: a leader that leads no more may never answer, and all who come later wait behind this round.
                changed = leadership.wait_for(|seen| *seen != now) => match changed {
                    Ok(_) => continue,
                    Err(_) => return Err(ReadError::Stopped),
                },
            };
            if let Some(index) = found {
                return Ok(index);
            }
            // Somebody else leads, or will; it is known at the latest when the pause is over.
            if let Ok(Err(_)) = timeout(PAUSE, leadership.changed()).await {
                return Err(ReadError::Stopped);
            }
        }
    }

    /// Makes sure that this node still leads; `None` if it does not.
    async fn own_index(&self) -> Result<Option<u64>, ReadError> {
        // WHY: no lease. It would trust a clock, and a process that was stopped does not know for how long.
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(WAIT_MAX);
        match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => Ok(Some(linearizer.read_log_id().index())),
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
            Err(RaftError::APIError(_)) => Ok(None),
        }
    }

    /// Asks the leader; `None` if it cannot be reached or does not lead.
    async fn leaders_index(&self, leader: u64) -> Result<Option<u64>, ReadError> {
        let Some(link) = self.board.link(leader, Lane::Log, None) else { return Ok(None) };
        match link.call(Kind::ReadPoint, Vec::new(), WAIT_MAX).await {
            Ok(answer) => Ok(decode_read_point(&answer).and_then(Result::ok)),
            Err(_) => Ok(None),
        }
    }
}
