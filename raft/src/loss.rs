//! The loss of a leader: its process is gone, and nobody needs to wait until its silence shows it.
//!
//! However a process ends, the system closes its connections, and nobody listens any more where it listened. A follower that
//! finds both asks the other voters whether they found the same, and would vote for it. If a majority says so, it stands at
//! once, and the leader's lease does not count: whoever granted that lease knows that nobody holds it.
//!
//! A follower that is wrong about its leader changes nothing: those who still hear the leader say no.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use tokio::time::{Instant, sleep, timeout_at};

use crate::candidacy::Candidacy;
use crate::link::Board;
use crate::link::frame::Kind;
use crate::link::message::{Lane, decode_voted, encode_vote};
use crate::machine::Machine;
use crate::roster::Roster;
use crate::types::{LogId, Membership, Types, Vote};

/// The pause before it is looked, or asked, again: a process that ends is taken apart piece by piece, and the others hear of
/// it a moment sooner or later.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How long whoever would rather not lead lets the others go first.
const HEAD_START: Duration = Duration::from_millis(50);

/// Finds out whether a leader is gone. Lives on the raft thread.
pub(crate) struct Loss {
    raft: Raft<Types, Machine>,
    board: Arc<Board>,
    roster: Arc<Roster>,
    /// Somebody is looking.
    looking: AtomicBool,
    /// The leader that is gone.
    lost: Mutex<Option<Vote>>,
}

impl Loss {
    /// Nobody is lost.
    pub(crate) fn new(raft: Raft<Types, Machine>, board: Arc<Board>, roster: Arc<Roster>) -> Self {
        Self { raft, board, roster, looking: AtomicBool::new(false), lost: Mutex::default() }
    }

    fn lost(&self) -> MutexGuard<'_, Option<Vote>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node votes for, and where its log ends, as of a moment ago.
    fn own(&self) -> (Vote, Option<LogId>) {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        (vote, self.raft.data_metrics().borrow_watched().last_log)
    }

    /// A link from `node` began: it is there.
    pub(crate) fn link_began(&self, node: u64) {
        self.lost().take_if(|lost| lost.leader_id.node_id == node);
    }

    /// A link from `node` broke. If it leads, it may be gone.
    pub(crate) fn link_broke(self: &Arc<Self>, node: u64) {
        let vote = self.own().0;
        let follows = vote.committed && vote.leader_id.node_id == node && node != self.roster.node_id();
        if follows && !self.looking.swap(true, Ordering::AcqRel) {
            let loss = Arc::clone(self);
            drop(tokio::spawn(async move {
                // When that is over, the ordinary way is as fast.
                loss.look(vote, Instant::now() + loss.roster.silence_max()).await;
                loss.looking.store(false, Ordering::Release);
            }));
        }
    }

    async fn look(&self, leader: Vote, until: Instant) {
        if !self.is_gone(leader.leader_id.node_id, until).await {
            return;
        }
        tracing::info!(node = format!("{:016x}", leader.leader_id.node_id), "the leader's process is gone");
        *self.lost() = Some(leader);
        if self.roster.candidacy() == Candidacy::Reluctant {
            sleep(HEAD_START).await;
        }
        while Instant::now() < until && self.own().0 == leader && *self.lost() == Some(leader) {
            if self.roster.candidacy() != Candidacy::Barred && self.would_win(leader, until).await {
                // As if it had been handed over: nobody holds this node, or those who vote for it, to the lease.
                let request = TransferLeaderRequest::new(leader, self.roster.node_id(), None);
                drop(self.raft.handle_transfer_leader(request).await);
                return;
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Whether the process of `node` ended: none of its links is left, and nobody listens at its address. A node that does
    /// not answer is none that is gone.
    async fn is_gone(&self, node: u64, until: Instant) -> bool {
        while let Some(address) = self.board.address(node, None) {
            match timeout_at(until, self.board.dialer().dial(node, &address)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused && !self.board.hears(node) => {
                    return true;
                }
                Ok(Err(_)) if Instant::now() < until => sleep(AGAIN_AFTER).await,
                _ => return false,
            }
        }
        false
    }

    /// Whether a majority would vote for this node, since it has lost `leader`, too.
    async fn would_win(&self, leader: Vote, until: Instant) -> bool {
        let own = self.roster.node_id();
        let membership = self.raft.server_metrics().borrow_watched().membership_config.membership().clone();
        let (mut granted, last) = (BTreeSet::from([own]), self.own().1);
        let request = VoteRequest {
            vote: Vote::new(leader.leader_id.term + 1, own),
            last_log_id: last,
            leadership_transfer: true,
        };
        let others = membership.voter_ids().filter(|node| *node != own && *node != leader.leader_id.node_id);
        let ask = |node| {
            // On the lane on which it will ask for votes: the link is then there.
            let link = self.board.link(node, Lane::Log, None);
            let body = encode_vote(&request);
            async move {
                let answer = link?.call(Kind::PreVote, body, until - Instant::now()).await.ok()?;
                decode_voted(&answer)?.vote_granted.then_some(node)
            }
        };
        let mut answers: FuturesUnordered<_> = others.map(ask).collect();
        let is_voter = membership.voter_ids().any(|node| node == own);
        while is_voter && let Some(answer) = answers.next().await {
            granted.extend(answer);
            if is_majority(&membership, &granted) {
                return true;
            }
        }
        false
    }

    /// What this node says to somebody who lost the leader and wants to know whether it would win; `None` if this node did
    /// not lose its own.
    pub(crate) fn judge(&self, request: &VoteRequest<Types>) -> Option<VoteResponse<Types>> {
        let (vote, last) = self.own();
        let lost = request.leadership_transfer && *self.lost() == Some(vote);
        lost.then(|| VoteResponse::new(vote, last, request.vote >= vote && request.last_log_id >= last))
    }
}

/// Whether `nodes` are a majority of the voters; of the old and the new ones, while these change.
fn is_majority(membership: &Membership, nodes: &BTreeSet<u64>) -> bool {
    membership.get_joint_config().iter().all(|voters| voters.intersection(nodes).count() > voters.len() / 2)
}
