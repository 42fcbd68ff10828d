//! The node among its peers: who may be one, how they prove it, and how a new one comes in.
//!
//! Reading order: [`rows`] (what the cluster knows of itself), `document` (how the node keeps its files), [`authority`] and
//! [`certificate`] (what makes a member), [`names`] and [`tls`] (how members know each other), [`token`], [`wire`] and
//! [`join`] (how a node becomes one),
//! [`renewal`] (certificates after the first), [`rotation`] (authorities after the first), [`peer_unseal`] (the root key for
//! one that people would have to unseal), [`heads`] (where the audit of all
//! nodes stands), [`node`] (this one), [`listener`] with `movable`, and [`dialer`] (its port, and theirs), [`recovery`] (when
//! most of them are lost).

pub mod rows;

mod document;

pub mod authority;

pub mod certificate;

pub mod names;

pub mod tls;

pub mod token;

pub mod secret_text;

pub mod wire;

pub mod join;

pub mod renewal;

pub mod peer_unseal;

pub mod heads;

pub mod rotation;

pub mod node;

mod movable;

pub mod listener;

pub mod dialer;

pub mod recovery;

pub use node::Cluster;

#[cfg(test)]
pub(crate) mod tests;
