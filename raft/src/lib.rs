//! One order for all commands: openraft over a log of our own and the state database.
//!
//! Reading order: [`node`] (what everyone else uses), [`options`] and [`observer`] (what it is started with), `core` (the
//! thread it lives on), [`submit`], `flight` and [`arrivals`] (a command on its way there and back), [`reads`] (how a read knows that it is not of the
//! past), [`roster`], [`candidacy`] and [`change`] (who takes part and who leads), [`fs`] (the seam to the disk), [`log`] (the log),
//! [`types`] (our words in the library's places), [`store`] and [`machine`] (log and state as the library asks for them),
//! `jobs`, `applier` and `checkpoint` (the threads that work on the state), [`link`] (the way to other nodes), `network` (as the
//! library asks for it), `transfer` and `transit` (snapshots on their way), `compare` (whether states differ), `loss` (a leader
//! that is gone), [`survivor`] (a node that is all that is left).

pub mod node;

pub mod options;

pub mod observer;

pub mod link;

mod core;

pub mod roster;

pub mod candidacy;

pub mod change;

pub mod reads;

pub mod submit;

mod flight;

pub mod arrivals;

mod answer;

pub mod fs;

pub mod log;

pub mod types;

pub mod store;

pub mod machine;

pub mod snapshot;

pub mod survivor;

mod jobs;

mod applier;

mod checkpoint;

mod compare;

mod network;

mod transfer;

mod transit;

mod loss;

pub use arrivals::Arrivals;
pub use candidacy::Candidacy;
pub use change::ChangeError;
pub use link::{Connection, Dialer};
pub use node::{Node, Status};
pub use observer::Observer;
pub use options::{Fresh, Options, StartError, Timing};
pub use reads::{ReadError, ReadPoint};
pub use roster::{Leadership, Member, REMOVED, Role};
pub use submit::{Submission, SubmitError};
pub use survivor::{Remains, Survivor};

#[cfg(test)]
mod suite;
