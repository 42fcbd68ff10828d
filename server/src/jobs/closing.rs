//! Goes on with mounts that were closed and are not done: after a restart, or where the request that closed them ended
//! before its work.

use std::cell::RefCell;
use std::collections::BTreeMap;

use keyward_model::Id;

use super::PIECES_PER_TURN;
use crate::api::mounts::closing::{self, Left};
use crate::app::Worker;
use crate::refusal::Refusal;

/// Where the work on each closed mount stands.
#[derive(Debug, Default)]
pub struct Progress(BTreeMap<Id, closing::Closing>);

impl Progress {
    /// Does some pieces for each closed mount. One that cannot be done now does not keep the others.
    ///
    /// # Errors
    /// Sealed, or the mounts cannot be read.
    pub async fn turn(&mut self, worker: &Worker) -> Result<(), Refusal> {
        let tables = worker.tables()?;
        let closed = |id: &Id| tables.mounts.iter().find(|mount| mount.id == *id && mount.closed.is_some());
        self.0.retain(|id, _| closed(id).is_some());
        for mount in tables.mounts.iter().filter(|mount| mount.closed.is_some()) {
            self.0.entry(mount.id).or_insert_with(|| closing::Closing::of(mount));
        }
        for closing in self.0.values_mut() {
            if let Err(refusal) = pieces(worker, closing).await {
                tracing::warn!(?refusal, "the work on a closed mount is put off to the next turn");
            }
        }
        Ok(())
    }
}

async fn pieces(worker: &Worker, closing: &mut closing::Closing) -> Result<(), Refusal> {
    let facts = RefCell::new(closing::facts_of_server(worker));
    for _ in 0..PIECES_PER_TURN {
        if closing.step(worker, &facts).await? == Left::Nothing {
            break;
        }
    }
    Ok(())
}
