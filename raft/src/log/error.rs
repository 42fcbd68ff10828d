//! Why a log cannot be opened.

use std::io;
use std::path::PathBuf;

/// Why a log cannot be opened. Each says which file, what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Its answer.
        #[source]
        error: io::Error,
    },
    /// Bytes that were durable have changed.
    #[error(
        "the raft log is damaged: `{}` at offset {offset}: {what}\n\
         nothing was changed; restore this node from a backup, or remove it from the cluster and let it join anew",
        path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The log is intact but ends too early, or its horizon is gone.
    #[error(
        "the raft log in `{}` has lost acknowledged entries: {what}\n\
         nothing was changed; restore this node from a backup, or remove it from the cluster and let it join anew",
        dir.display()
    )]
    Lost {
        /// The folder of the log.
        dir: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The options make no sense.
    #[error("a log segment must have between {min} and {max} bytes, not {given}")]
    SegmentBytes {
        /// What was asked for.
        given: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}
