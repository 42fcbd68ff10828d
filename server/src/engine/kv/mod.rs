//! KV v2 as pure functions: what a secret's metadata record says, how each operation changes it, and how it is shown.
//!
//! No I/O, no clock, no keys: the barrier reads and opens a record, asks here what becomes of it, seals and submits.
//! The rules are Vault's for the compatible face and those of the native lifecycle (statuses, aliases) for the other;
//! both work on one record, so a secret made by either is the same object in the other.

mod record;

mod versions;

mod metadata;

mod lifecycle;

mod config;

pub mod patch;

pub mod render;

pub mod subkeys;

pub use config::{ConfigChange, KvConfig};
pub use lifecycle::{ALIASES_MAX, Demote, Disable, Expected, LifecycleError, Scope, is_alias};
pub use metadata::{CustomMetadata, MetadataChange, Verb};
pub use record::{Aliases, Deletion, Pointer, RecordError, Resolution, SecretRecord, Selector, Status, Version};
pub use versions::{NewVersion, Written, cas_parameter};

use crate::http::fields::FieldError;

/// Why the compatible face refuses a request. The text is the caller's answer; the status is 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KvError {
    /// A parameter of the wrong type.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// `options.cas` is not a whole number.
    #[error("error parsing check-and-set parameter")]
    CasUnreadable,
    /// `cas_required`, and none came.
    #[error("check-and-set parameter required for this call")]
    CasRequired,
    /// `options.cas` is not the current version.
    #[error("check-and-set parameter did not match the current version")]
    CasMismatch,
    /// `metadata_cas_required`, and none came.
    #[error("metadata check-and-set parameter required for this call")]
    MetadataCasRequired,
    /// A new key's metadata can only be expected to be at 0.
    #[error("metadata_cas must be 0 when creating new metadata")]
    MetadataCasNotZero,
    /// `metadata_cas` is not the current version of the metadata.
    #[error("metadata check-and-set parameter does not match the current version")]
    MetadataCasMismatch,
    /// `custom_metadata` breaks its limits; the whole text.
    #[error("{0}")]
    CustomMetadata(String),
    /// `max_versions` is out of range.
    #[error("max_versions must be between 0 and 4294967295, not {0}")]
    MaxVersionsRange(i64),
}

#[cfg(test)]
mod sequences;
