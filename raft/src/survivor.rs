//! What is left of a cluster on one node when the majority is lost for good, and how that node goes on alone.
//!
//! Only for a node that does not run. What it does no majority agreed to: entries of which others knew and this node did
//! not are lost, and the others must never come back as members.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use keyward_model::command::decode_batch;
use keyward_model::{Entropy, Timestamp};
use keyward_storage::{Position, Store};
use openraft::{BasicNode, EntryPayload};

use crate::applier::{to_log_id, to_position};
use crate::fs::OsFs;
use crate::log::record::decode_membership;
use crate::log::{self, Done, Ground, Log};
use crate::options::StartError;
use crate::roster::{Member, Role};
use crate::types::{Entry, LogId, Membership, Vote, log_id};

/// Entries that are read at once when the log is searched from its end.
const SEARCHED_AT_ONCE: u64 = 256;

/// What a node knows that may be the only one left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remains {
    /// The last entry of its log, whether a majority has it or not. `None`: it has nothing.
    pub last: Option<Position>,
    /// The last entry that it knows a majority to have had.
    pub committed: Option<u64>,
    /// The last entry in its state.
    pub applied: Option<u64>,
    /// When the last command in its log was decided, by the clock of the node that led. `None` if the log holds none.
    pub at: Option<Timestamp>,
    /// Who took part by the last membership in its log, itself included.
    pub members: Vec<Member>,
}

/// A node that does not run, opened to be made the only one.
pub struct Survivor {
    node_id: u64,
    log: Log,
    remains: Remains,
}

impl Survivor {
    /// Opens the log in `dir` of the node that has the state `store`. Repairs what a crash left at the log's end, as a start
    /// does, and changes nothing else. Blocks.
    ///
    /// # Errors
    /// [`StartError`]: log and state are not whole, or not of one node.
    pub fn open(
        node_id: u64,
        dir: PathBuf,
        options: log::Options,
        store: &Store,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let failed = Box::new(|error: &str| tracing::error!(error, "the log cannot be used"));
        let ground = Ground { fs: Arc::new(OsFs), dir, chance: entropy, failed, inline: false };
        let log = Log::open(ground, options)?;
        let reader = store.reader()?;
        let (applied, stored) = (reader.meta()?.applied, reader.membership()?);
        if applied.map(|at| at.index) > log.last().map(|last| last.index) {
            // A snapshot was put in place and the log does not know yet: a start tells it.
            let what = "the state is ahead of the log; start the server once, stop it, and try again";
            return Err(StartError::Apart { what: what.to_owned() });
        }
        let unread = |error: io::Error| StartError::Raft(format!("the log cannot be read: {error}"));
        let (membership, at) = search(&log).map_err(unread)?;
        let membership = match (membership, stored) {
            (Some(membership), _) => membership,
            (None, None) => Membership::default(),
            (None, Some((_, bytes))) => decode_membership(&bytes)
                .ok_or_else(|| StartError::Raft("the members in the state cannot be read".to_owned()))?,
        };
        let remains = Remains {
            last: log.last().map(to_position),
            committed: log.committed().map(|last| last.index),
            applied: applied.map(|at| at.index),
            at,
            members: members_of(&membership),
        };
        Ok(Self { node_id, log, remains })
    }

    /// What the node knows.
    pub fn remains(&self) -> &Remains {
        &self.remains
    }

    /// Whether it takes part alone already.
    pub fn is_alone(&self) -> bool {
        matches!(&self.remains.members[..], [only] if only.node == self.node_id && only.role == Role::Voter)
    }

    /// Writes into the log that from here on this node is the only member, reached at `address`; with the next start it
    /// leads, and everything in its log is committed. Nothing happens if it is alone already. Durable when this comes back.
    ///
    /// # Errors
    /// It cannot be written; the members may or may not have changed.
    pub fn stand_alone(self, address: &str) -> io::Result<()> {
        if !self.is_alone() {
            let last = self.remains.last.map(to_log_id);
            let voted = self.log.vote().map_or(0, |vote| vote.leader_id.term);
            // A term that nobody has led: what stands there is nobody else's.
            let term = last.map_or(voted, |last: LogId| voted.max(last.leader_id.term)) + 1;
            let members = BTreeMap::from([(self.node_id, BasicNode::new(address))]);
            let membership =
                Membership::new(vec![BTreeSet::from([self.node_id])], members).map_err(io::Error::other)?;
            let log_id = log_id(term, self.node_id, last.map_or(0, |last| last.index + 1));
            let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
            durably(|done| {
                self.log.save_vote(Vote::new(term, self.node_id), done);
                Ok(())
            })?;
            durably(|done| self.log.append(vec![entry], done))?;
        }
        self.log.close()
    }
}

/// Waits until what `ask` asks of the log is durable.
fn durably(ask: impl FnOnce(Done) -> io::Result<()>) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| drop(sender.send(result))))?;
    receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
}

/// The last membership in the log, and the time of its last command.
fn search(log: &Log) -> io::Result<(Option<Membership>, Option<Timestamp>)> {
    let (mut membership, mut at) = (None, None);
    let first = log.purged().map_or(0, |purged| purged.index + 1);
    let mut end = log.last().map_or(0, |last| last.index + 1);
    while end > first && (membership.is_none() || at.is_none()) {
        let begin = end.saturating_sub(SEARCHED_AT_ONCE).max(first);
        for entry in log.read(begin..end, u64::MAX)?.into_iter().rev() {
            match entry.payload {
                EntryPayload::Membership(found) => drop(membership.get_or_insert(found)),
                EntryPayload::Normal(batch) if at.is_none() => {
                    let commands = decode_batch(batch.bytes()).map_err(io::Error::other)?;
                    at = commands.last().map(|command| command.at);
                }
                EntryPayload::Normal(_) | EntryPayload::Blank => {}
            }
        }
        end = begin;
    }
    Ok((membership, at))
}

fn members_of(membership: &Membership) -> Vec<Member> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, node): (&u64, &BasicNode)| Member {
        node: *id,
        address: node.addr.clone(),
        role: if voters.contains(id) { Role::Voter } else { Role::Learner },
        matched: None,
        heard_ms: None,
    };
    membership.nodes().map(member).collect()
}
