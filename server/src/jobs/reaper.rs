//! Takes tokens away whose time is up, with all that descends from them.
//!
//! An expired token is refused from the moment on at which it expires, and so is every token below it; this is only
//! about their rows. It is done by the leader, in commands of bounded size, the most overdue first.

use std::cell::RefCell;

use keyward_model::Table;
use keyward_model::event::EventKind;

use crate::app::Worker;
use crate::authn::token;
use crate::barrier::storage;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Tokens and cubbyhole entries that one command of the reaper removes at most.
pub const REAP_ROWS_MAX: usize = 256;

/// Removes expired tokens with their descendants, in one command of at most `limit` tokens and cubbyhole entries, and says
/// how many it removed: 0 when nothing is due, or while sealed.
///
/// # Errors
/// No audit record can be written, a row cannot be read, or nothing can be written.
pub async fn reap(worker: &Worker, limit: usize) -> Result<usize, Refusal> {
    let barrier = &worker.app.barrier;
    if barrier.is_sealed() {
        return Ok(0);
    }
    let due = worker.reader().due(Table::Tokens, barrier.judged_at().0, limit).map_err(storage)?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut facts = Facts::of_server(barrier);
    facts.set(EventKind::TokenRevoked, "", "token");
    facts.object = Some("expired tokens");
    let (removed, _) = worker
        .write(&RefCell::new(facts), |draft| {
            let mut left = limit;
            for row in &due {
                // It may have been renewed, or removed with its parent, since it was found.
                let expired = token::get(draft, &row.key)?.is_some_and(|(token, _)| token.is_expired(draft.now()));
                if expired && !token::revoke_some(draft, &row.key, &mut left)? {
                    break;
                }
            }
            Ok(limit - left)
        })
        .await?;
    Ok(removed)
}

#[cfg(test)]
mod tests;
