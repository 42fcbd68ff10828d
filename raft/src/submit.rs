//! Why a command did not get an outcome.

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
    #[error("the disk is full")]
    DiskFull,
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
