//! One order for all commands: openraft over a log of our own and the state database.
//!
//! Reading order: [`types`] (our words in the library's places), [`fs`] (the seam to the disk), [`log`] (the log),
//! [`submit`] and `flight` (a command on its way).

pub mod types;

pub mod fs;

pub mod log;

pub mod submit;

mod flight;
