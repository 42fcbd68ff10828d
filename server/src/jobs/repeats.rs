//! Forgets writes that came with an id of their caller's, when their time is up. They count for nothing from that moment
//! on; this is only about their rows.

use std::cell::RefCell;

use keyward_model::Table;
use keyward_model::event::EventKind;

use crate::app::Worker;
use crate::barrier::storage;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Rows that one command removes at most.
const ROWS_MAX: usize = 256;
/// How long rows wait for others whose time is up, in seconds: fewer commands, and fewer records of them.
const WAIT_S: i64 = 60;

/// Removes what is due, in one command, and says how many rows that were: 0 when nothing has waited long enough.
///
/// # Errors
/// No audit record can be written, a row cannot be read, or nothing can be written.
pub async fn forget(worker: &Worker) -> Result<usize, Refusal> {
    let now = worker.app.barrier.judged_at();
    let due = worker.reader().due(Table::Repeats, now.0, ROWS_MAX).map_err(storage)?;
    let waited = due.first().and_then(|row| row.due).is_some_and(|due| due <= now.plus_seconds(-WAIT_S).0);
    if !waited && due.len() < ROWS_MAX {
        return Ok(0);
    }
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.set(EventKind::SysConfig, "", "");
    facts.object = Some("ids of writes");
    let (removed, _) = worker
        .write(&RefCell::new(facts), |draft| {
            let mut removed = 0;
            for row in &due {
                // Another write may have taken the place of the one that was found.
                let now = draft.now().0;
                if draft.get(Table::Repeats, &row.key)?.is_some_and(|row| row.due.is_some_and(|due| due <= now)) {
                    draft.remove(Table::Repeats, &row.key)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await?;
    Ok(removed)
}
