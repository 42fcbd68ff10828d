//! Takes policies away whose end has come. They count for nothing from that moment on; this is only about their rows.

use std::cell::RefCell;

use keyward_model::Table;
use keyward_model::event::EventKind;

use crate::app::Worker;
use crate::barrier::storage;
use crate::policies;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Policies that one turn removes at most.
const REMOVED_MAX: usize = 64;

/// Removes what has ended, one command for each so that its record names it, and says how many policies that were.
///
/// # Errors
/// No audit record can be written, a row cannot be read, or nothing can be written.
pub async fn remove_ended(worker: &Worker) -> Result<usize, Refusal> {
    let now = worker.app.barrier.judged_at();
    // WHY: the table has no index for this, and what is in memory knows it, too.
    if policies::first_end(&worker.tables()?.policies).is_none_or(|end| now <= end) {
        return Ok(0);
    }
    // A policy still stands at its last moment.
    let due = worker.reader().due(Table::Policies, now.0.saturating_sub(1), REMOVED_MAX).map_err(storage)?;
    let mut removed = 0;
    for row in &due {
        removed += usize::from(remove(worker, &row.key).await?);
    }
    Ok(removed)
}

/// Removes the policy of this row, unless it was written anew since it was found.
async fn remove(worker: &Worker, key: &[u8]) -> Result<bool, Refusal> {
    let keys = worker.app.barrier.keyring()?;
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("expired policy");
    let facts = RefCell::new(facts);
    let (removed, _) = worker
        .write(&facts, |draft| {
            let Some(opened) = draft.get(Table::Policies, key)? else { return Ok(false) };
            let stored = policies::decode(opened.body.expose())?;
            if !stored.is_expired(draft.now()) {
                return Ok(false);
            }
            facts.borrow_mut().resource_ref = Some(policies::reference(&keys, &stored.name));
            draft.remove(Table::Policies, key)?;
            Ok(true)
        })
        .await?;
    Ok(removed)
}
