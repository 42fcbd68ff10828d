//! The words of Keyward: plain data that every other crate agrees on. No I/O, no clock, no HTTP.
//!
//! Reading order: [`secret`] (custody of plaintext), [`id`], [`time`] and [`entropy`] (the two seams through which the
//! outside world comes in), [`row`] (what the replicated state is made of), [`command`] (how it changes),
//! [`event`] (what an audit record says).

pub mod secret;

pub mod id;

pub mod time;

pub mod entropy;

pub mod row;

pub mod command;

pub mod event;

pub use command::{Change, Command, CommandError, Outcome};
pub use entropy::{Entropy, SeededEntropy};
pub use event::{Event, EventKind, EventOutcome, Ulid};
pub use id::Id;
pub use row::{Row, StateSum, Table, VersionBlob};
pub use secret::{Secret, SecretBytes, Wipe};
pub use time::{Clock, Fraction, ManualClock, Timestamp};
