//! What the server does by itself: ending tokens whose time is up, wrapping data keys anew after a rotation, closing
//! the audit stream's open checkpoint.

pub mod reaper;

pub mod rewrap;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::app::Worker;
use crate::refusal::Refusal;

/// How often the jobs look for work.
const EVERY: Duration = Duration::from_secs(1);
/// Commands of the reaper, and pieces of a rewrap, that one turn does at most, so that requests of the same worker come in between.
const PIECES_PER_TURN: usize = 64;

/// Runs all jobs on one worker until the server stops.
pub async fn run(worker: Rc<Worker>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rewrap = rewrap::Progress::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = worker.app.journal().checkpoint(worker.app.barrier.now()) {
            tracing::warn!(error = %error, "the audit checkpoint is late");
        }
        if worker.app.barrier.is_sealed() {
            continue;
        }
        if let Err(refusal) = turn(&worker, &mut rewrap).await {
            tracing::warn!(?refusal, "a job is put off to its next turn");
        }
    }
}

async fn turn(worker: &Worker, rewrap: &mut rewrap::Progress) -> Result<(), Refusal> {
    for _ in 0..PIECES_PER_TURN {
        if reaper::reap(worker, reaper::REAP_ROWS_MAX).await? < reaper::REAP_ROWS_MAX {
            break;
        }
    }
    for _ in 0..PIECES_PER_TURN {
        if !rewrap.step(worker).await? {
            break;
        }
    }
    Ok(())
}
