//! Takes policies away whose end has come. They count for nothing from that moment on; this is only about their rows.

use std::cell::RefCell;

use keyward_model::Table;
use keyward_model::event::EventKind;

use crate::app::Worker;
use crate::barrier::storage;
use crate::policies;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Rows that one command removes at most.
const ROWS_MAX: usize = 256;

/// Removes what has ended, in one command, and says how many policies that were.
///
/// # Errors
/// No audit record can be written, a row cannot be read, or nothing can be written.
pub async fn remove_ended(worker: &Worker) -> Result<usize, Refusal> {
    // A policy still stands at its last moment.
    let before = worker.app.barrier.judged_at().0.saturating_sub(1);
    let due = worker.reader().due(Table::Policies, before, ROWS_MAX).map_err(storage)?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("expired policies");
    let (removed, _) = worker
        .write(&RefCell::new(facts), |draft| {
            let mut removed = 0;
            for row in &due {
                // It may have been written anew since it was found.
                let found = draft.get(Table::Policies, &row.key)?.map(|opened| policies::decode(opened.body.expose()));
                if found.transpose()?.is_some_and(|stored| stored.is_expired(draft.now())) {
                    draft.remove(Table::Policies, &row.key)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await?;
    Ok(removed)
}
