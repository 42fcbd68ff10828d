//! One order for all commands: openraft over a log of our own and the state database.
//!
//! Reading order: [`node`] (what everyone else uses), [`submit`] and `flight` (a command on its way), [`fs`] (the seam to
//! the disk), [`log`] (the log), [`types`] (our words in the library's places), [`store`] and [`machine`] (log and state as
//! the library asks for them), `jobs`, `applier` and `checkpoint` (the threads that work on the state), [`network`].

pub mod node;

pub mod submit;

mod flight;

mod answer;

pub mod fs;

pub mod log;

pub mod types;

pub mod store;

pub mod machine;

pub mod snapshot;

mod jobs;

mod applier;

mod checkpoint;

pub mod network;

pub use node::{Fresh, Node, Observer, Options, StartError, Status, Timing};
pub use submit::{Submission, SubmitError};

#[cfg(test)]
mod suite;
