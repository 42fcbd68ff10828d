//! What the log hands to the state machine.

use keyward_model::Command;

/// A place in the replicated log: which leader of which term wrote the entry, and its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The leader's term.
    pub term: u64,
    /// The leader's node id.
    pub leader: u64,
    /// The number of the entry: 0 or 1 for the first, then one more each.
    pub index: u64,
}

/// One log entry to apply.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it stands in the log.
    pub position: Position,
    /// What it says.
    pub content: Content<'a>,
}

/// What a log entry says.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands, applied in order, each one all or nothing.
    Commands(&'a [Command]),
    /// Who belongs to the cluster from here on, in the encoding of whoever wrote it.
    Membership(&'a [u8]),
}
