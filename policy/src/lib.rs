//! May they? The access rules that a Vault token carries: policy text, and the decision made from it.
//!
//! Pure: text, facts and the time come in as arguments, a [`Verdict`] goes out. Reading order: [`capability`] and [`rule`]
//! (what a policy says), [`text`] (how it is written), [`parameters`], [`template`] and [`filter`] (the finer conditions),
//! [`acl`] (several policies compiled into one table, and the decision), [`sudo`], [`builtin`] and [`names`].

pub mod capability;

pub mod rule;

pub mod text;

pub mod parameters;

pub mod template;

pub mod filter;

mod tree;

pub mod acl;

pub mod sudo;

pub mod builtin;

pub mod names;

pub use acl::{Acl, Ask, Verdict};
pub use builtin::{DEFAULT_POLICY, RESPONSE_WRAPPING_POLICY};
pub use capability::{Capabilities, Operation};
pub use filter::KeysFilter;
pub use names::sanitize_policies;
pub use parameters::Parameters;
pub use rule::{Limits, Policy, Required, Rule};
pub use sudo::needs_sudo;
pub use template::{Alias, Entity, Group, Subject};
pub use text::{PolicyError, accept, parse};
