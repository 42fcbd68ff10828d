//! Whether a command fits the state, decided before anything of it is written.

use std::collections::BTreeMap;

use keyward_model::{Change, Command, StateSum, Table};
use rusqlite::Connection;

use crate::sql::{PerTable, per_table};
use crate::{StoreError, reader, row_digest};

/// What the state adds up to after a command that fits.
pub(crate) struct Fit {
    pub(crate) sum: StateSum,
    pub(crate) last_version: u64,
}

/// Looks whether `command` fits the state that `sum` and `last_version` describe; `None` if it does not.
///
/// It fits if it was decided on this very sum and every change of it finds the revision it expects, where a later change
/// sees what an earlier one of the same command did.
pub(crate) fn fit(
    connection: &Connection,
    sum: StateSum,
    last_version: u64,
    command: &Command,
) -> Result<Option<Fit>, StoreError> {
    if command.before != sum {
        return Ok(None);
    }
    let mut fit = Fit { sum, last_version };
    let mut touched: BTreeMap<(Table, &[u8]), Option<Standing>> = BTreeMap::new();
    for change in &command.changes {
        match change {
            Change::Put { table, row } => {
                let place = (*table, row.key.as_slice());
                let old = standing(connection, &touched, place)?;
                let expected = old.as_ref().map_or(Some(1), |old| old.rev.checked_add(1));
                if expected != Some(row.rev) || row.rev > SIGNED_MAX {
                    return Ok(None);
                }
                let digest = row_digest(*table, row);
                fit.sum = old.map_or(fit.sum, |old| fit.sum.minus(old.digest)).plus(digest);
                touched.insert(place, Some(Standing { rev: row.rev, digest }));
            }
            Change::Remove { table, key, rev } => {
                let place = (*table, key.as_slice());
                match standing(connection, &touched, place)? {
                    Some(old) if old.rev == *rev => fit.sum = fit.sum.minus(old.digest),
                    _ => return Ok(None),
                }
                touched.insert(place, None);
            }
            Change::AddVersion { id, .. } => {
                if *id <= fit.last_version || *id > SIGNED_MAX {
                    return Ok(None);
                }
                fit.last_version = *id;
            }
            // Both are content with a blob that is gone.
            Change::Rewrap { .. } | Change::EraseVersion { .. } => {}
        }
    }
    Ok(Some(fit))
}

/// What counts of a row that stands in its place.
#[derive(Clone, Copy)]
struct Standing {
    rev: u64,
    digest: [u8; 32],
}

fn standing(
    connection: &Connection,
    touched: &BTreeMap<(Table, &[u8]), Option<Standing>>,
    place: (Table, &[u8]),
) -> Result<Option<Standing>, StoreError> {
    if let Some(known) = touched.get(&place) {
        return Ok(*known);
    }
    let (table, key) = place;
    let failed = |e: rusqlite::Error| StoreError::at(table.name(), key, &e);
    let mut statement = connection.prepare_cached(STANDING.of(table)).map_err(failed)?;
    let mut rows = statement.query([key]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let parts = reader::parts(row, 0).map_err(failed)?;
    Ok(Some(Standing { rev: parts.rev, digest: parts.digest(table, key) }))
}

pub(crate) const STANDING: PerTable =
    per_table!("-- storage::plan::standing\nSELECT rev, grp, due, head, body FROM ", " WHERE key = ?1");

/// SQLite's integers are signed; nothing counts that far.
const SIGNED_MAX: u64 = i64::MAX as u64;
