//! How a node becomes a member: [`guest`] is the side of the node that comes, [`host`] that of the cluster.

pub mod guest;

pub(in crate::cluster) mod pending;

pub mod host;
