//! What happened, provably: the canonical record, the hash chain, the segment files, the verifier.
//!
//! Reading order: [`record`] (an event as canonical JSON, in a [`Batch`]), `chain` (each record names the one before),
//! [`checkpoint`] (a signed statement about the chain so far), [`journal`] (one stream on disk, durable before the
//! answer), `line` and `reader` (reading records back, strictly), [`verify`] (is this what was written?).

pub mod record;

mod chain;

pub mod checkpoint;

pub mod journal;

mod line;

mod reader;

pub mod verify;

pub use checkpoint::{AuditKey, HeadError, SignedHead};
pub use journal::{Cut, Durability, Flushed, Journal, JournalError, Options, stream_name};
pub use record::{Batch, IntentError, id_of, intent};
pub use verify::{Expected, Report, verify};
