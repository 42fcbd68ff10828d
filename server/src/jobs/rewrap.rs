//! Rewrap: after a rotation of the keyring, data keys and rows move to the newest epoch, a bounded piece at a time.
//!
//! Only the wrapping of a data key is made anew; values are not touched. The job is driven by a timer of its worker and
//! can stop anywhere: what is done is done, and the next pass starts where an old epoch is still in use.

use std::cell::RefCell;

use keyward_crypto::keyring::{row_epoch, wrap_epoch};
use keyward_model::Table;
use keyward_model::event::EventKind;

use crate::api::kv2;
use crate::app::Worker;
use crate::barrier::{Columns, storage};
use crate::engine::kv::Status;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Rows that one command seals anew at most; fewer where they are large.
const ROWS_PER_COMMAND: usize = 64;

/// Where a pass over all rows stands. `None` for the table: nothing to do.
#[derive(Debug, Default)]
pub struct Progress {
    table: usize,
    after: Option<Vec<u8>>,
    /// The epoch that everything is being moved to.
    epoch: u32,
}

impl Progress {
    /// Does a bounded piece of the pass. Whether there is more to do now.
    ///
    /// # Errors
    /// Sealed, a row does not open, or nothing can be written.
    pub async fn step(&mut self, worker: &Worker) -> Result<bool, Refusal> {
        let keys = worker.app.barrier.keyring()?;
        if self.epoch != keys.active_epoch() {
            *self = Self { epoch: keys.active_epoch(), ..Self::default() };
            if self.epoch == 1 {
                self.table = Table::ALL.len(); // nothing can be older than the first
            }
        }
        let Some(table) = Table::ALL.get(self.table).copied() else { return Ok(false) };
        if table == Table::Config {
            self.table += 1;
            return Ok(true);
        }
        let rows = worker.reader().scan(table, self.after.as_deref(), ROWS_PER_COMMAND).map_err(storage)?;
        let Some(last) = rows.last().map(|row| row.key.clone()) else {
            self.table += 1;
            self.after = None;
            return Ok(true);
        };
        let old: Vec<Vec<u8>> =
            rows.into_iter().filter(|row| row_epoch(&row.body) != Some(self.epoch)).map(|row| row.key).collect();
        // Only what is done is passed: after a refusal the same rows are looked at again.
        self.after = Some(reseal(worker, table, &old).await?.unwrap_or(last));
        Ok(true)
    }
}

/// Seals rows anew, as many as one command takes. The last of them, if that was not all.
async fn reseal(worker: &Worker, table: Table, rows: &[Vec<u8>]) -> Result<Option<Vec<u8>>, Refusal> {
    if rows.is_empty() {
        return Ok(None);
    }
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("keyring");
    let (last, _) = worker
        .write(&RefCell::new(facts), |draft| {
            let mut last = None;
            for key in rows {
                let Some(opened) = draft.get(table, key)? else { continue };
                if !draft.has_room(opened.body.expose().len()) {
                    return Ok(last);
                }
                if table == Table::Secrets {
                    let record = kv2::decode(&opened)?;
                    for version in record.versions.iter().filter(|version| version.status != Status::Destroyed) {
                        let Some(wrapped) = draft.wrapped(version.blob)? else { continue };
                        if wrap_epoch(&wrapped) == Some(draft.keyring().active_epoch()) {
                            continue;
                        }
                        let anew = draft
                            .keyring()
                            .rewrap(record.id, version.number, &wrapped, draft.entropy())
                            .map_err(crate::barrier::integrity)?;
                        if let Some(anew) = anew {
                            draft.rewrap_version(version.blob, anew);
                        }
                    }
                }
                let columns = Columns { group: opened.group.clone(), due: opened.due, head: opened.head };
                draft.put(table, key, columns, opened.body.expose())?;
                last = Some(key.clone());
            }
            Ok(None)
        })
        .await?;
    Ok(last)
}
