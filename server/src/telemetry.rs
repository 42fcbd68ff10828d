//! The log: one line per event on standard error, for people. It is not the audit.
//!
//! `KEYWARD_LOG` sets what is shown, in the usual form (`info`, `keyward_server=debug`). Values, tokens and paths are
//! never among the fields. Of openraft only errors are shown: it warns of every heartbeat that a dead node does not answer.

use tracing_subscriber::EnvFilter;

/// Starts logging. A second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("KEYWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init());
}
