//! Who takes part and who leads, for everyone to see: kept by a task on the raft thread, read by anyone.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::candidacy::Candidacy;
use crate::link::Board;
use crate::machine::Machine;
use crate::types::Types;

/// What a node says that was removed.
pub const REMOVED: &str = "this node was removed from the cluster, and takes no part in it any more\n\
    its data folder holds a sealed copy of the state: empty it; with an empty one it may join anew";

/// A node that takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub node: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// What its word counts for.
    pub role: Role,
    /// The last entry that it is known to have, durably. Known to the leader alone.
    pub matched: Option<u64>,
    /// Milliseconds since it last answered. Known to the leader alone; `None` before the first answer.
    pub heard_ms: Option<u64>,
}

/// What a member's word counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It votes, and its copy counts.
    Voter,
    /// It gets everything and counts for nothing.
    Learner,
}

/// Who leads, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The term it is in.
    pub term: u64,
    /// The node that leads, if one is known.
    pub leader: Option<u64>,
    /// Whether it is this one.
    pub leads: bool,
}

/// What is known of members and leader.
pub(crate) struct Roster {
    node_id: u64,
    alone: AtomicBool,
    leads: AtomicBool,
    candidacy: watch::Sender<Candidacy>,
    /// This node is about to end.
    retired: AtomicBool,
    leadership: watch::Sender<Leadership>,
    /// Changes under way. While there are any, this node is not alone.
    changes: AtomicUsize,
    sole_voter: AtomicBool,
    began: Instant,
    /// When a leader was last heard, in milliseconds after `began`.
    heard_ms: AtomicU64,
    news: Mutex<News>,
    /// How long a leader may be silent.
    silence_max: Duration,
    woken: Notify,
    /// A term, and since when this node has seen it.
    leads_since: Mutex<(u64, Instant)>,
    /// Held while it is judged whether this node is alone.
    judging: Mutex<()>,
}

/// Since when this node's state is what a leader had committed. Milliseconds after the roster began.
#[derive(Default)]
struct News {
    /// The newest word of a leader of which everything is applied.
    reached_ms: Option<u64>,
    /// A newer one: index after the last committed entry, and when it came.
    awaited: Option<(u64, u64)>,
}

impl News {
    fn settle(&mut self, applied_next: u64) {
        if let Some((_, at_ms)) = self.awaited.take_if(|(commit_next, _)| *commit_next <= applied_next) {
            self.reached_ms = Some(at_ms);
        }
    }
}

impl Roster {
    /// Nobody yet. A leader that is silent for longer than `silence_max` is none.
    pub(crate) fn new(node_id: u64, silence_max: Duration) -> Self {
        Self {
            node_id,
            alone: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            candidacy: watch::Sender::new(Candidacy::Barred), // until it is said what it is
            retired: AtomicBool::new(false),
            leadership: watch::Sender::new(Leadership::default()),
            changes: AtomicUsize::new(0),
            sole_voter: AtomicBool::new(false),
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            news: Mutex::default(),
            silence_max,
            woken: Notify::new(),
            leads_since: Mutex::new((0, Instant::now())),
            judging: Mutex::new(()),
        }
    }

    /// A roster of one that leads.
    #[cfg(test)]
    pub(crate) fn leading() -> Self {
        let roster = Self::new(1, Duration::ZERO);
        roster.leads.store(true, Ordering::Release);
        roster
    }

    /// This node.
    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// How long a leader may be silent.
    pub(crate) fn silence_max(&self) -> Duration {
        self.silence_max
    }

    /// Whether this node is the only voter, leads, and no change of that is under way.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// The term in which this node leads.
    pub(crate) fn leading_term(&self) -> Option<u64> {
        let leadership = *self.leadership.borrow();
        leadership.leads.then_some(leadership.term)
    }

    /// How long this node has led, at the most: since when it has seen the term in which it leads.
    pub(crate) fn led_for(&self) -> Option<Duration> {
        let term = self.leading_term()?;
        let (seen, since) = *self.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
        (seen == term).then(|| since.elapsed())
    }

    /// How ready this node is to lead.
    pub(crate) fn candidacy(&self) -> Candidacy {
        if self.is_retired() { Candidacy::Barred } else { *self.candidacy.borrow() }
    }

    /// Sets how ready this node is to lead; it counts until the node is about to end.
    pub(crate) fn set_candidacy(&self, candidacy: Candidacy) {
        self.candidacy.send_replace(candidacy);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// This node is about to end: it is barred for good.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Returns when this node leads and does not want to. Not for one that is about to end: whoever ends it hands over, once
    /// what is under way has landed.
    pub(crate) async fn leads_unwillingly(&self) {
        let (mut leadership, mut candidacy) = (self.leadership(), self.candidacy.subscribe());
        while !self.leads() || self.is_alone() || self.is_retired() || self.candidacy() == Candidacy::Willing {
            // Fails only without a sender, which is here.
            tokio::select! {
                _ = candidacy.changed() => {}
                _ = leadership.changed() => {}
            }
        }
    }

    /// The node that leads, if one is known.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.leadership.borrow().leader
    }

    /// Who leads, from now on.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Until it is dropped, this node is not alone: another voter may be about to come.
    pub(crate) fn change(self: &Arc<Self>) -> Change {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.judge();
        Change(Arc::clone(self))
    }

    /// Somebody who leads, or thinks so, gave a sign of life: everything before `commit_next` is committed. This node has
    /// applied everything before `applied_next`.
    pub(crate) fn hear(&self, commit_next: u64, applied_next: u64) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now, Ordering::Release);
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.settle(applied_next);
        news.awaited.get_or_insert((commit_next, now));
        news.settle(applied_next);
        drop(news);
        if !self.leads() && self.leader().is_none() {
            self.woken.notify_one();
        }
    }

    fn is_silent(&self) -> bool {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(heard) > self.silence_max
    }

    /// How old the state of this node may be, which follows a leader and has applied everything before `applied_next`. `None`
    /// as long as no leader told it how far it should be, or it has not come that far.
    pub(crate) fn age(&self, applied_next: u64) -> Option<Duration> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.settle(applied_next);
        let reached = Duration::from_millis(news.reached_ms?);
        drop(news);
        Some(self.began.elapsed().saturating_sub(reached))
    }

    /// Whether a majority answered this leader of late. A leader of one needs none.
    fn has_majority(&self, raft: &Raft<Types, Machine>) -> bool {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.current_term;
        let mut since = self.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.0 != term {
            *since = (term, Instant::now());
        }
        let began = since.1.elapsed();
        drop(since);
        let answered = metrics.last_quorum_acked.as_ref().map_or(began, |at| at.elapsed());
        metrics.membership_config.voter_ids().eq([self.node_id]) || answered.min(began) <= self.silence_max * 2
    }

    /// Takes over what the library says, whenever it changes. A leader that fell silent counts as none.
    pub(crate) async fn follow(self: Arc<Self>, raft: Raft<Types, Machine>, board: Arc<Board>) {
        let mut metrics = raft.server_metrics();
        loop {
            // Only time shows that a leader fell silent, or that a majority did, or came back.
            let watches = !self.is_alone();
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                () = self.woken.notified() => {}
                () = tokio::time::sleep(self.silence_max / 2), if watches => {}
            }
            self.take(&raft, &board);
        }
    }

    /// Takes over what the library says now. Links of those who are no longer members end.
    pub(crate) fn take(&self, raft: &Raft<Types, Machine>, board: &Board) {
        let has_majority = self.has_majority(raft);
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let (members, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        let book = members.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        // A membership that is not committed may be taken back.
        let settled = members.log_id() == committed.log_id();
        board.keep(book, members.log_id().as_ref().map_or(0, |id| id.index), settled);
        self.sole_voter.store(settled && members.voter_ids().eq([self.node_id]), Ordering::Release);
        let leads = metrics.current_leader == Some(self.node_id) && has_majority;
        self.leads.store(leads, Ordering::Release);
        self.judge();
        let others = metrics.current_leader.filter(|leader| *leader != self.node_id && !self.is_silent());
        let leader = if leads { Some(self.node_id) } else { others };
        let leadership = Leadership { term: metrics.vote.leader_id.term, leader, leads };
        self.leadership.send_if_modified(|known| std::mem::replace(known, leadership) != leadership);
    }

    fn judge(&self) {
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let sole_voter = self.sole_voter.load(Ordering::Acquire);
        let alone = sole_voter && self.leads() && self.changes.load(Ordering::Acquire) == 0;
        self.alone.store(alone, Ordering::Release);
    }
}

/// A change of the members that is under way.
pub(crate) struct Change(Arc<Roster>);

impl Drop for Change {
    fn drop(&mut self) {
        self.0.changes.fetch_sub(1, Ordering::AcqRel);
        self.0.judge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_an_age_once_it_is_what_a_leader_said() {
        let roster = Roster::new(1, Duration::ZERO);
        assert!(roster.age(9).is_none(), "nobody said anything");
        roster.hear(5, 3);
        assert!(roster.age(4).is_none(), "it lacks an entry");
        roster.hear(9, 4);
        assert!(roster.age(4).is_none(), "the first word still counts");
        assert!(roster.age(5).is_some());
        roster.hear(9, 5);
        assert!(roster.age(5).is_some(), "it was up to date a moment ago");
    }
}
