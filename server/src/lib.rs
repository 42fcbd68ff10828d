//! The server: the only room where all the others meet.
//!
//! Reading order: [`pep`] (the life of a request, one page), [`refusal`] (why one is not answered), [`barrier`] (sealed
//! reads and writes), [`desk`] (what a thread has there for itself), [`record`] (the audit side), [`app`] (what is shared), [`begun`] (requests that go on to their end), [`authn`] (who calls), [`mounts`] and
//! [`policies`], [`engine`] (what a mount can do), [`api`] (the endpoints), [`jobs`] (what the server does by itself),
//! [`rotation`], [`seal`] and [`identity`], [`files`], [`http`] (the outer shell), [`metrics`] (what is counted), [`boot`] (start and stop), [`config`].

pub mod pep;

pub mod refusal;

pub mod barrier;

pub mod desk;

pub mod keys;

pub mod record;

pub mod app;

pub mod begun;

pub mod forward;

pub mod repeat;

pub mod authn;

pub mod mounts;

pub mod policies;

pub mod engine;

pub mod api;

pub mod jobs;

pub mod rotation;

pub mod seal;

pub mod identity;

pub mod files;

pub mod cluster;

pub mod http;

pub mod boot;

pub mod config;

pub mod telemetry;

pub mod metrics;

pub mod clock;

pub mod build;

#[cfg(test)]
mod testing;
