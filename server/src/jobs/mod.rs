//! What the server does by itself: ending tokens and policies whose time is up, rotating the keyring and wrapping data keys
//! anew, going on with mounts that were closed and are not done, forgetting the ids of old writes, closing the audit
//! stream's open checkpoint, renewing the certificate of the local CA.

pub mod reaper;

pub mod rotation;

pub mod rewrap;

pub mod closing;

pub mod members;

pub mod repeats;

pub mod policies;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::app::Worker;
use crate::cluster::heads;
use crate::http::tls::Acceptor;
use crate::refusal::Refusal;

/// How often the jobs look for work.
const EVERY: Duration = Duration::from_secs(1);
/// Commands of each job that one turn does at most, so that requests of the same worker come in between.
const PIECES_PER_TURN: usize = 64;

/// How often the certificate is looked at, in seconds.
const CERTIFICATE_EVERY_S: i64 = 86_400;

/// Runs all jobs on one worker until the server stops.
pub async fn run(worker: Rc<Worker>, tls: Option<Acceptor>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::default();
    let mut certificate_seen_s = worker.app.barrier.now().seconds(); // the start saw to it
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // Refused writes only look: each of them would try all that waits.
        worker.app.catch_up_audit();
        if let Err(error) = worker.app.journal().checkpoint(worker.app.barrier.now()) {
            tracing::warn!(error = %error, "the audit checkpoint is late");
        }
        heads::turn(&worker, &mut progress.heads).await;
        let now_s = worker.app.barrier.now().seconds();
        if let Some(tls) = tls.as_ref().filter(|_| now_s - certificate_seen_s >= CERTIFICATE_EVERY_S) {
            certificate_seen_s = now_s;
            match tls.renew_if_due(now_s) {
                Ok(true) => tracing::info!("the certificate was renewed"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %error, "the certificate could not be renewed; tried again in a day")
                }
            }
        }
        // What changes the state is the leader's to do.
        if worker.app.barrier.is_sealed() || !worker.app.barrier.node().leads() {
            continue;
        }
        let Progress { rewrap, closing, .. } = &mut progress;
        for (job, done) in [
            ("reaper", reap(&worker).await),
            ("rotation", rotation::turn(&worker).await.map(drop)),
            ("rewrap", rewrap_some(&worker, rewrap).await),
            ("closing", closing.turn(&worker).await),
            ("policies", policies::remove_ended(&worker).await.map(drop)),
            ("repeats", repeats::forget(&worker).await.map(drop)),
        ] {
            if let Err(refusal) = done {
                tracing::warn!(job, ?refusal, "a job is put off to its next turn");
            }
        }
    }
}

/// Where the jobs stand that have a place.
#[derive(Debug, Default)]
struct Progress {
    rewrap: rewrap::Progress,
    closing: closing::Progress,
    heads: heads::Progress,
}

async fn reap(worker: &Worker) -> Result<(), Refusal> {
    for _ in 0..PIECES_PER_TURN {
        if reaper::reap(worker, reaper::REAP_ROWS_MAX).await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn rewrap_some(worker: &Worker, rewrap: &mut rewrap::Progress) -> Result<(), Refusal> {
    for _ in 0..PIECES_PER_TURN {
        if !rewrap.step(worker).await? {
            break;
        }
    }
    Ok(())
}
