//! What is counted while requests are served, for whoever watches the node.
//!
//! Workers share these: counting is one relaxed addition. What the node knows anyhow is not counted but looked at, when
//! somebody asks (`api::metrics`).

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something happened since the start.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// Requests on their way between nodes, and reads that had to ask how far the others are.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests that were handed to the leader, over a link.
    pub passed_on: Count,
    /// Requests that other nodes handed to this one.
    pub taken: Count,
    /// Links to the leader that could not be made, and requests on one that got no answer.
    pub link_failures: Count,
    /// Requests that waited until the state here held everything acknowledged before.
    pub read_points: Count,
    /// Those of them that waited in vain.
    pub read_points_missed: Count,
}

impl Count {
    /// It happened once more.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
