//! How members and leader are changed: one change at a time, each by joint consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::VoteRequest;
use openraft::{BasicNode, ChangeMembers, Instant as _, Raft};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::candidacy::Candidacy;
use crate::link::Board;
use crate::link::frame::Kind;
use crate::link::message::Lane;
use crate::machine::Machine;
use crate::roster::{Member, Role, Roster};
use crate::types::{Types, Vote};

/// How long a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How long one voter is given to take over.
const TAKE_OVER_MAX: Duration = Duration::from_secs(1);
/// Whoever was not heard for so long is not asked to take over unless by name.
const SILENT_MS: u64 = 250;
/// Nor is whoever lacks more entries than this: it would first have to get them, in the moment in which nobody can read or
/// write.
///
/// WHY: appends that are under way go on when a leader hands over, but there may be 64 of them with 1024 entries each. This is
/// about what one that keeps up lacks at any moment.
const LAG_MAX: u64 = 64;

/// Why the members or the leader did not change as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads, or none; nothing changed.
    #[error("this node does not lead")]
    NotLeader {
        /// The node that leads, if one is known.
        leader: Option<u64>,
    },
    /// No such member; nothing changed.
    #[error("node {node:016x} is not a member")]
    NotMember {
        /// The node.
        node: u64,
    },
    /// The last voter cannot go; nothing changed.
    #[error("node {node:016x} is the only voter")]
    LastVoter {
        /// The node.
        node: u64,
    },
    /// It did not happen in time. It may still happen: look at the members before asking again.
    #[error("the change did not come to an end in time")]
    Timeout,
    /// It was refused; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// Makes changes. Lives on the raft thread.
pub(crate) struct Changes {
    raft: Raft<Types, Machine>,
    roster: Arc<Roster>,
    board: Arc<Board>,
    turn: Mutex<()>,
}

impl Changes {
    pub(crate) fn new(raft: Raft<Types, Machine>, roster: Arc<Roster>, board: Arc<Board>) -> Self {
        Self { raft, roster, board, turn: Mutex::new(()) }
    }

    pub(crate) async fn add_learner(&self, node: u64, address: String) -> Result<(), ChangeError> {
        if let Some(member) = self.member(node) {
            return match member.address == address {
                true => Ok(()),
                false => Err(ChangeError::Refused(format!("node {node:016x} is a member with another address"))),
            };
        }
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, BasicNode::new(address))]))).await
    }

    pub(crate) async fn promote(&self, node: u64) -> Result<(), ChangeError> {
        match self.member(node).map(|member| member.role) {
            None => Err(ChangeError::NotMember { node }),
            Some(Role::Voter) => self.settle().await,
            Some(Role::Learner) => self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node]))).await,
        }
    }

    pub(crate) async fn remove(&self, node: u64) -> Result<(), ChangeError> {
        let Some(member) = self.member(node) else { return self.settle().await };
        let gone = BTreeSet::from([node]);
        match member.role {
            Role::Learner => self.change(ChangeMembers::RemoveNodes(gone)).await,
            Role::Voter if self.is_only_voter() => Err(ChangeError::LastVoter { node }),
            Role::Voter if node == self.roster.node_id() => {
                // The next leader does it, with this one no longer in a place where its going would leave a gap.
                self.hand_over(None).await?;
                Err(ChangeError::NotLeader { leader: self.roster.leader() })
            }
            Role::Voter => self.change(ChangeMembers::RemoveVoters(gone)).await,
        }
    }

    pub(crate) async fn replace(&self, old: u64, new: u64) -> Result<(), ChangeError> {
        let role = |node| self.member(node).map(|member| member.role);
        match (role(old), role(new)) {
            (_, None) => Err(ChangeError::NotMember { node: new }),
            (None, _) => self.promote(new).await,
            (Some(Role::Learner), _) | (_, Some(Role::Voter)) => {
                self.promote(new).await?;
                self.remove(old).await
            }
            // There is nobody to hand over to: the new one votes first, and then takes over.
            (Some(Role::Voter), Some(Role::Learner)) if self.is_only_voter() => self.promote(new).await,
            (Some(Role::Voter), Some(Role::Learner)) if old == self.roster.node_id() => {
                self.hand_over(None).await?;
                Err(ChangeError::NotLeader { leader: self.roster.leader() })
            }
            // In one step: with a voter more in between, one that is lost would count, and nobody in its place.
            (Some(Role::Voter), Some(Role::Learner)) => {
                let steps = [ChangeMembers::AddVoterIds([new].into()), ChangeMembers::RemoveVoters([old].into())];
                self.change(ChangeMembers::Batch(steps.into())).await
            }
        }
    }

    pub(crate) async fn readdress(&self, node: u64, address: String) -> Result<(), ChangeError> {
        match self.member(node) {
            None => Err(ChangeError::NotMember { node }),
            Some(member) if member.address == address => Ok(()),
            Some(_) => self.change(ChangeMembers::SetNodes(BTreeMap::from([(node, BasicNode::new(address))]))).await,
        }
    }

    /// Finishes a change that a leader before left half done.
    pub(crate) async fn settle(&self) -> Result<(), ChangeError> {
        let joint = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if joint { self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await } else { Ok(()) }
    }

    /// Lets `to` lead, or whoever is the readiest: somebody asked for it, or this node ends. If nobody can but one that lacks
    /// too much, it is given a moment to catch up.
    pub(crate) async fn hand_over(&self, to: Option<u64>) -> Result<(), ChangeError> {
        let least = match self.roster.candidacy() {
            Candidacy::Barred | Candidacy::Reluctant => Candidacy::Reluctant,
            // Whoever is less ready than this node would give it back.
            Candidacy::Willing => Candidacy::Willing,
        };
        let (until, mut metrics) = (Instant::now() + TAKE_OVER_MAX, self.raft.metrics());
        while !self.hand_over_to(to, least).await? {
            if to.is_some() || Instant::now() >= until || !self.has_heir(least).await? {
                return Err(ChangeError::Timeout);
            }
            // Looked at once more when the time is up.
            if let Ok(changed) = timeout_at(until, metrics.changed()).await {
                changed.map_err(|_| ChangeError::Stopped)?;
            }
        }
        Ok(())
    }

    /// Lets somebody lead who is readier to than this node.
    pub(crate) async fn step_aside(&self) -> Result<(), ChangeError> {
        let least = match self.roster.candidacy() {
            Candidacy::Barred => Candidacy::Reluctant,
            Candidacy::Reluctant => Candidacy::Willing,
            Candidacy::Willing => return Ok(()), // nobody is readier
        };
        if self.hand_over_to(None, least).await? { Ok(()) } else { Err(ChangeError::Timeout) }
    }

    /// Returns whether this node leads no more; `false` if there was nobody to ask.
    async fn hand_over_to(&self, to: Option<u64>, least: Candidacy) -> Result<bool, ChangeError> {
        if to == Some(self.roster.node_id()) && self.roster.leads() {
            return Ok(true);
        }
        let mut leadership = self.roster.leadership();
        let mut asked = None;
        let candidates = self.candidates(to, LAG_MAX)?;
        let turns = [Candidacy::Willing, Candidacy::Reluctant].into_iter().filter(|turn| *turn >= least);
        let turns: Vec<_> = turns.flat_map(|turn| candidates.iter().map(move |candidate| (turn, *candidate))).collect();
        for (turn, candidate) in turns {
            // WHY: the library's leader takes nothing more once it has asked somebody to take over, whatever comes of it.
            if self.candidacy(candidate).await != Some(turn) {
                continue;
            }
            let leading = *leadership.borrow_and_update();
            if !leading.leads {
                break;
            }
            asked = Some((self.vote(), candidate));
            self.raft.trigger().transfer_leader(candidate).await.map_err(|_| ChangeError::Stopped)?;
            let other = leadership.wait_for(|now| !now.leads && now.leader.is_some());
            match timeout_at(Instant::now() + TAKE_OVER_MAX, other).await {
                Ok(Ok(_)) => return Ok(true),
                Ok(Err(_)) => return Err(ChangeError::Stopped),
                Err(_) => {}
            }
        }
        match asked {
            Some((vote, candidate)) if self.vote() == vote => {
                self.stand_down(vote, candidate).await?;
                Err(ChangeError::Timeout)
            }
            _ => Ok(!self.roster.leads()),
        }
    }

    /// Whether somebody is heard who would lead, however much it lacks. Whoever does not answer just now may.
    async fn has_heir(&self, least: Candidacy) -> Result<bool, ChangeError> {
        for node in self.candidates(None, u64::MAX)? {
            if self.candidacy(node).await.is_none_or(|candidacy| candidacy >= least) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn vote(&self) -> Vote {
        self.raft.server_metrics().borrow_watched().vote
    }

    /// Ends the leadership of `vote`, which `candidate` agreed to take over and did not: the library's leader would do nothing
    /// more for ever. It leads no more once it voted for another, and then may stand itself.
    async fn stand_down(&self, vote: Vote, candidate: u64) -> Result<(), ChangeError> {
        let request = VoteRequest {
            // For the one that was to have it: should it stand after all, it has this vote.
            vote: Vote::new(vote.leader_id.term + 1, candidate),
            last_log_id: self.raft.data_metrics().borrow_watched().last_log,
            leadership_transfer: true,
        };
        let voted = self.raft.vote(request).await.map_err(|_| ChangeError::Stopped)?;
        tracing::warn!(
            node = format!("{candidate:016x}"),
            stood_down = voted.vote_granted,
            "it was to lead, and does not"
        );
        if self.roster.candidacy() != Candidacy::Barred {
            self.raft.trigger().elect(true).await.map_err(|_| ChangeError::Stopped)?;
        }
        Ok(())
    }

    /// How ready `node` is to take over, if it answers.
    async fn candidacy(&self, node: u64) -> Option<Candidacy> {
        // Not behind the log: who has much to send may have to hand over all the same.
        let link = self.board.link(node, Lane::Beat, None)?;
        Candidacy::decode(&link.call(Kind::Stands, Vec::new(), TAKE_OVER_MAX).await.ok()?)
    }

    /// Whom to ask to take over, the one that has most first: `to`, or those that lack `lag_max` entries at the most.
    fn candidates(&self, to: Option<u64>, lag_max: u64) -> Result<Vec<u64>, ChangeError> {
        if !self.roster.leads() {
            return Err(ChangeError::NotLeader { leader: self.roster.leader() });
        }
        let own = self.roster.node_id();
        let last = self.raft.data_metrics().borrow_watched().last_log.map(|last| last.index);
        let mut voters = members(&self.raft);
        voters.retain(|member| member.role == Role::Voter && member.node != own);
        if let Some(node) = to {
            let known = voters.iter().any(|voter| voter.node == node);
            return if known { Ok(vec![node]) } else { Err(ChangeError::NotMember { node }) };
        }
        if voters.is_empty() {
            return Err(ChangeError::LastVoter { node: own });
        }
        let length = |last: Option<u64>| last.map_or(0, |index| index + 1);
        let lag = |matched| length(last).saturating_sub(length(matched));
        voters.retain(|voter| voter.heard_ms.is_some_and(|ms| ms < SILENT_MS) && lag(voter.matched) <= lag_max);
        voters.sort_by_key(|voter| std::cmp::Reverse(voter.matched));
        Ok(voters.into_iter().map(|voter| voter.node).collect())
    }

    fn is_only_voter(&self) -> bool {
        members(&self.raft).iter().filter(|member| member.role == Role::Voter).count() == 1
    }

    fn member(&self, node: u64) -> Option<Member> {
        members(&self.raft).into_iter().find(|member| member.node == node)
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ChangeError> {
        let until = Instant::now() + CHANGE_MAX;
        let changing = async {
            let _turn = self.turn.lock().await;
            let _change = self.roster.change();
            loop {
                // What a removed voter leaves behind must not stay as a learner.
                match self.raft.change_membership(change.clone(), false).await {
                    Ok(_) => return Ok(()),
                    Err(error) => self.wait_or_fail(error).await?,
                }
            }
        };
        let changed = timeout_at(until, changing).await.unwrap_or(Err(ChangeError::Timeout));
        self.roster.take(&self.raft, &self.board);
        changed
    }

    /// Waits until the change before is committed, if that is all that was in the way.
    async fn wait_or_fail(&self, error: RaftError<Types, ClientWriteError<Types>>) -> Result<(), ChangeError> {
        match error {
            RaftError::Fatal(_) => Err(ChangeError::Stopped),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                Err(ChangeError::NotLeader { leader: forward.leader_id })
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
                let mut metrics = self.raft.server_metrics();
                let pending = {
                    let now = metrics.borrow_watched();
                    now.membership_config.log_id() != now.committed_membership_config.log_id()
                };
                if pending && metrics.changed().await.is_err() {
                    return Err(ChangeError::Stopped);
                }
                Ok(())
            }
            RaftError::APIError(error) => Err(ChangeError::Refused(error.to_string())),
        }
    }
}

/// Who takes part, as `raft` knows it.
pub(crate) fn members(raft: &Raft<Types, Machine>) -> Vec<Member> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let matched = |node| metrics.replication.as_ref()?.get(&node)?.map(|id| id.index);
    let heard = |node| {
        let elapsed = metrics.heartbeat.as_ref()?.get(&node)?.as_ref()?.elapsed();
        Some(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    };
    let member = |(id, node): (&u64, &BasicNode)| Member {
        node: *id,
        address: node.addr.clone(),
        role: if voters.contains(id) { Role::Voter } else { Role::Learner },
        matched: matched(*id),
        heard_ms: heard(*id),
    };
    metrics.membership_config.nodes().map(member).collect()
}
