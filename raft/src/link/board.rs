//! All links of a node: those it made and those that came in, one of each lane per node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Dialer;
use super::call::{Link, Target};
use super::message::{Hello, Lane, VERSION, VERSION_MIN};
use crate::transit::Transit;
use crate::types::{LogId, Vote};

/// The links of a node. Lives on the raft thread.
pub(crate) struct Board {
    node_id: u64,
    dialer: Arc<dyn Dialer>,
    beat: Duration,
    transit: Arc<Transit>,
    state: Mutex<State>,
    /// This node was removed.
    removed: Notify,
}

#[derive(Default)]
struct State {
    /// Members and their addresses.
    book: BTreeMap<u64, String>,
    /// The index of the membership that says so.
    membership_index: u64,
    /// Who was a member and is no more, as far as this node has seen.
    departed: BTreeSet<u64>,
    /// Members by the last membership that was known to be committed.
    settled: Option<BTreeSet<u64>>,
    /// Who was removed, as the state says.
    gone: BTreeSet<u64>,
    /// Of those and of others, who was removed for good: no membership needs it any more.
    removed: BTreeSet<u64>,
    /// What members acknowledged to this leader.
    acknowledged: BTreeMap<u64, Acknowledged>,
    made: BTreeMap<(u64, Lane), (String, Link)>,
    taken: BTreeMap<(u64, Lane), AbortHandle>,
}

/// How far a member's log reaches by its own word.
#[derive(Clone, Copy)]
struct Acknowledged {
    /// Of the leader that it was said to.
    vote: Vote,
    upto: LogId,
    /// It went back on its word, and that was reported.
    broken: bool,
}

impl Board {
    /// No links yet.
    pub(crate) fn new(node_id: u64, dialer: Arc<dyn Dialer>, beat: Duration, transit: Arc<Transit>) -> Self {
        Self { node_id, dialer, beat, transit, state: Mutex::default(), removed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to reach other nodes.
    pub(crate) fn dialer(&self) -> &dyn Dialer {
        &*self.dialer
    }

    /// The greeting for `node`.
    pub(crate) fn hello(&self, to: u64, lane: Lane) -> Hello {
        let state = self.state();
        let member_since = if state.book.contains_key(&self.node_id) { state.membership_index } else { 0 };
        drop(state);
        Hello { versions: (VERSION_MIN, VERSION), lane, from: self.node_id, to, member_since }
    }

    /// The link of `lane` to `node`, which is where the members' book says, or else at `address`. `None` if it is known
    /// nowhere, or was removed.
    pub(crate) fn link(self: &Arc<Self>, node: u64, lane: Lane, address: Option<&str>) -> Option<Link> {
        let address = self.address(node, address)?;
        let mut state = self.state();
        if let Some((_, link)) = state.made.get(&(node, lane)).filter(|(at, _)| *at == address) {
            return Some(link.clone());
        }
        let (board, own) = (Arc::downgrade(self), self.node_id);
        let told = Weak::clone(&board);
        let removed = move || told.upgrade().iter().for_each(|board| board.removed.notify_one());
        let hello = move || match board.upgrade() {
            Some(board) => board.hello(node, lane),
            None => Hello { versions: (VERSION_MIN, VERSION), lane, from: own, to: node, member_since: 0 },
        };
        let dialer = Arc::clone(&self.dialer);
        let (hello, removed) = (Box::new(hello), Box::new(removed));
        let link = Link::new(Target { dialer, address: address.clone(), hello, removed, beat: self.beat });
        if let Some((_, before)) = state.made.insert((node, lane), (address, link.clone())) {
            before.close();
        }
        Some(link)
    }

    /// Where `node` is: where the members' book says, or else at `otherwise`.
    pub(crate) fn address(&self, node: u64, otherwise: Option<&str>) -> Option<String> {
        let state = self.state();
        let address = state.book.get(&node).map(String::as_str).or(otherwise)?;
        (!state.departed.contains(&node)).then(|| address.to_owned())
    }

    /// Whether a link from `node` is welcome: it is a member; or this node knows no members; or the other knows of a newer
    /// membership, by which it is one. A node that was removed knows only of an older one; whatever it says, once the state
    /// tells of its removal only the membership here counts.
    pub(crate) fn admits(&self, node: u64, member_since: u64) -> bool {
        let state = self.state();
        let may_be_news = || state.book.is_empty() || member_since > state.membership_index;
        let is_member = state.book.contains_key(&node) || (!state.gone.contains(&node) && may_be_news());
        is_member && !state.departed.contains(&node) && !state.removed.contains(&node)
    }

    /// Snapshots that are on their way.
    pub(crate) fn transit(&self) -> &Transit {
        &self.transit
    }

    /// Whether `node` was removed for good.
    pub(crate) fn was_removed(&self, node: u64) -> bool {
        self.state().removed.contains(&node)
    }

    /// Notes that the state says that `node` was removed: for good, unless a membership may still need it.
    pub(crate) fn mark_removed(&self, node: u64) {
        let mut state = self.state();
        state.gone.insert(node);
        if state.settled.as_ref().is_some_and(|members| !members.contains(&node)) {
            state.removed.insert(node);
        }
    }

    /// Returns when this node was removed.
    pub(crate) async fn removed(&self) {
        self.removed.notified().await;
    }

    /// Notes that `node` has the log up to `upto`, by its word to the leader of `vote`.
    pub(crate) fn acknowledge(&self, node: u64, vote: Vote, upto: LogId) {
        self.transit.arrived(node, upto.index);
        let mut state = self.state();
        let said = state.acknowledged.entry(node).or_insert(Acknowledged { vote, upto, broken: false });
        if said.vote != vote {
            *said = Acknowledged { vote, upto, broken: false };
        }
        said.upto = said.upto.max(upto);
    }

    /// Whether `node`, which now lacks `entry`, had acknowledged it to the same leader. Such a node counts for nothing: what
    /// it said was durable is gone, or another one uses its name.
    pub(crate) fn went_back(&self, node: u64, vote: Vote, entry: LogId) -> bool {
        let mut state = self.state();
        let Some(said) = state.acknowledged.get_mut(&node).filter(|said| said.vote == vote && said.upto >= entry)
        else {
            return false;
        };
        if !std::mem::replace(&mut said.broken, true) {
            tracing::error!(
                node = format!("{node:016x}"),
                index = entry.index,
                "a node lacks log entries that it had acknowledged: its data folder was put back to an older state, or \
                 copied and started twice; it gets nothing more: remove it, and let it join anew with an empty folder"
            );
        }
        true
    }

    /// Notes a link that came in, and ends the one that it replaces.
    pub(crate) fn take(&self, node: u64, lane: Lane, task: AbortHandle) {
        let mut state = self.state();
        for ((_, _), (_, link)) in state.made.range((node, Lane::Log)..=(node, Lane::Snapshot)) {
            link.wake();
        }
        if let Some(before) = state.taken.insert((node, lane), task) {
            before.abort();
        }
    }

    /// Whether a link that `node` made for consensus is open.
    pub(crate) fn hears(&self, node: u64) -> bool {
        let state = self.state();
        let mut links = state.taken.range((node, Lane::Log)..=(node, Lane::Beat));
        links.any(|(_, task)| !task.is_finished())
    }

    /// Notes who the members are, and ends the links of those who were and are no more. What is not `settled`, committed,
    /// may be taken back.
    pub(crate) fn keep(&self, book: BTreeMap<u64, String>, membership_index: u64, settled: bool) {
        let mut state = self.state();
        if settled {
            let members: BTreeSet<u64> = book.keys().copied().collect();
            let before = state.settled.replace(members).unwrap_or_default();
            let gone = state.gone.clone();
            state.removed.extend(before.into_iter().chain(gone).filter(|node| !book.contains_key(node)));
            if state.removed.contains(&self.node_id) {
                self.removed.notify_one();
            }
        }
        let gone: Vec<u64> = state.book.keys().filter(|node| !book.contains_key(node)).copied().collect();
        for node in gone {
            state.close(node);
            state.departed.insert(node);
        }
        // A membership that was not committed may have been taken back, and may come again.
        state.departed.retain(|node| !book.contains_key(node));
        let readdressed: Vec<(u64, Lane)> = state
            .made
            .iter()
            .filter(|((node, _), (address, _))| book.get(node).is_some_and(|now| now != address))
            .map(|(key, _)| *key)
            .collect();
        for key in readdressed {
            state.made.remove(&key).iter().for_each(|(_, link)| link.close());
        }
        state.membership_index = membership_index;
        state.book = book;
    }
}

impl State {
    fn close(&mut self, node: u64) {
        for lane in [Lane::Log, Lane::Beat, Lane::Snapshot] {
            self.made.remove(&(node, lane)).iter().for_each(|(_, link)| link.close());
            self.taken.remove(&(node, lane)).iter().for_each(AbortHandle::abort);
        }
        self.acknowledged.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Nobody;

    fn board() -> Board {
        Board::new(1, Arc::new(Nobody), Duration::from_millis(100), Arc::default())
    }

    fn book(nodes: &[u64]) -> BTreeMap<u64, String> {
        nodes.iter().map(|node| (*node, String::new())).collect()
    }

    #[test]
    fn whoever_knows_of_a_newer_membership_is_welcome() {
        let board = board();
        assert!(board.admits(2, 0), "this node knows nobody");
        board.keep(book(&[1, 3]), 7, false);
        assert!(board.admits(3, 0) && board.admits(2, 8));
        assert!(!board.admits(2, 7), "by an older one it was a member");
    }

    #[test]
    fn a_removed_node_is_let_in_by_a_membership_here_alone() {
        let board = board();
        board.keep(book(&[1, 2, 3]), 7, false);
        board.mark_removed(2);
        board.mark_removed(4);
        assert!(board.admits(2, 0), "a membership that is not settled may need its word");
        assert!(!board.admits(4, u64::MAX) && !board.was_removed(4), "its own word for it is none");
        board.keep(book(&[1, 3]), 8, true);
        assert!(!board.admits(2, u64::MAX));
        assert!(board.was_removed(2) && board.was_removed(4), "nothing needs them any more");
    }
}
