//! The words of the consensus library, with our types in their places.

use std::fmt;

use bytes::Bytes;
use openraft::BasicNode;

use crate::answer::Answer;
use crate::flight::Flight;

/// Our types for openraft. Nothing of openraft's own goes to disk: `log::record` has the encodings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Types;

type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

impl openraft::RaftTypeConfig for Types {
    type D = Batch;
    type R = ();
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = openraft::EntryPayload<Batch, u64, BasicNode>;
    type Entry = openraft::Entry<LeaderId, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Term, leader and index: which entry.
pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// Term, candidate and whether it won.
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
/// One place in the log.
pub type Entry = openraft::type_config::alias::EntryOf<Types>;
/// What an entry carries.
pub type Payload = openraft::type_config::alias::PayloadOf<Types>;
/// Who takes part.
pub type Membership = openraft::Membership<u64, BasicNode>;

/// Who takes part, and which entry says so.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// How far a snapshot reaches.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// The log id of `index` by the leader `node` of `term`.
pub fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: node }, index)
}

/// The application's part of an entry: a batch of commands as `keyward_model::encode_batch` wrote them.
#[derive(Clone)]
pub struct Batch {
    bytes: Bytes,
    flight: Flight,
}

impl Batch {
    /// A batch that came from elsewhere: nobody here waits for it.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, flight: Flight::default() }
    }

    /// A batch with those who wait for it.
    pub(crate) fn with_flight(bytes: Bytes, flight: Flight) -> Self {
        Self { bytes, flight }
    }

    /// The encoded commands.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Those who wait, and the commands as they were before they were encoded.
    pub(crate) fn flight(&self) -> &Flight {
        &self.flight
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.bytes.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
