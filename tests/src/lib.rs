//! The harness of the black-box suites: a real `keyward` process, and a client that says exactly what it is told to.
//!
//! [`server`] starts and kills nodes, on a [`disk`] that can run full if it must be, [`client`] speaks HTTP to them byte by byte, [`replay`] repeats recorded
//! scenarios and compares, [`disguise`] looks for secrets where none may be, [`fuzz`] holds what fuzzers call, [`suite`]
//! finds what a suite needs in the repository and on the machine.
//!
//! Everything here panics when it cannot go on: that is how a test fails.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "a failing test says what it saw")]

pub mod server;

pub mod disk;

pub mod client;

pub mod replay;

pub mod disguise;

pub mod fuzz;

pub mod suite;
