//! The state database: sealed rows and version blobs in SQLite, changed by `apply` alone.
//!
//! This crate sees ciphertext only and holds no key: it keeps rows where they are put, keeps the sum over all of them in
//! the transaction of every change, and says so when the file under it is not what it wrote.
//!
//! One [`Writer`] applies log entries; a [`Reader`] per thread looks things up; a [`Checkpointer`] moves the write-ahead
//! log into the database in the background. Reading order: [`entry`] (what is applied), [`digest`] (what a row adds to
//! the sum), [`store`] (the file), `current` (which one), `connect` and `migrate` (how it is opened), [`writer`], [`reader`] [`checkpoint`],
//! [`snapshot`].

pub mod error;

pub mod entry;

pub mod digest;

pub mod store;

mod current;

mod connect;

mod migrate;

mod sql;

pub mod writer;

mod plan;

pub mod reader;

pub mod checkpoint;

pub mod snapshot;

#[cfg(test)]
mod query_plans;

pub use checkpoint::{Checkpoint, Checkpointer, Kind};
pub use digest::row_digest;
pub use entry::{Content, Entry, Position};
pub use error::StoreError;
pub use reader::{Meta, Reader, Verification};
pub use snapshot::{Snapshot, examine};
pub use store::{Options, Store};
pub use writer::Writer;
