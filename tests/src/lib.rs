//! The harness of the black-box suites: a real `keyward` process, and a client that says exactly what it is told to.
//!
//! [`server`] starts and kills nodes, on a [`disk`] that can run full or a [`slow_disk`] if it must be, [`client`] speaks HTTP to them byte by
//! byte, [`replay`] repeats recorded scenarios and compares, [`disguise`] looks for secrets where none may be, [`fuzz`] holds
//! what fuzzers call, [`suite`] finds what a suite needs in the repository and on the machine.
//!
//! Of clusters: [`cluster`] runs three nodes and hurts them, [`network`] cuts them off from each other, [`load`] has
//! clients work on them and keeps a [`history`], which [`order`] and [`linearizable`] judge, with what [`owners`] tells.
//!
//! Everything here panics when it cannot go on: that is how a test fails.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "a failing test says what it saw")]

pub mod server;

pub mod disk;

pub mod slow_disk;

pub mod client;

pub mod network;

pub mod cluster;

pub mod history;

pub mod owners;

pub mod order;

pub mod linearizable;

pub mod load;

pub mod replay;

pub mod disguise;

pub mod fuzz;

pub mod suite;
