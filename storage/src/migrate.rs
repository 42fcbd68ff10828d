//! The schema, brought up to date one step at a time. Forward only.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use sha2::{Digest, Sha256};

use crate::StoreError;

/// One step of the schema: a file of `migrations/`, its reason at the top.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// Every step, in order; the first has number 1. A step that was released never changes.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_state", sql: include_str!("../migrations/0001_state.sql") },
    Migration { name: "0002_repeats", sql: include_str!("../migrations/0002_repeats.sql") },
    Migration { name: "0003_newest", sql: include_str!("../migrations/0003_newest.sql") },
];

/// Refuses a database that a newer keyward made; else says how many steps it has.
pub(crate) fn check_version(connection: &Connection, file: &Path) -> Result<i64, StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(|e| failed(&e))?;
    let known = MIGRATIONS.len() as i64;
    if found > known || found < 0 {
        return Err(StoreError::Newer { path: file.to_owned(), found, known });
    }
    Ok(found)
}

/// Runs the steps that `file` does not have yet, each in one transaction.
pub(crate) fn run(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let found = check_version(connection, file)?;
    for (number, migration) in (1..).zip(MIGRATIONS) {
        let checksum: [u8; 32] = Sha256::digest(migration.sql).into();
        if number <= found {
            let recorded: [u8; 32] = connection.query_row(RECORDED, [number], |r| r.get(0)).map_err(|e| match e {
                rusqlite::Error::QueryReturnedNoRows => StoreError::corrupt("migrations", &[], "a step is missing"),
                other => failed(&other),
            })?;
            if recorded != checksum {
                return Err(StoreError::OtherMigration { path: file.to_owned(), number });
            }
            continue;
        }
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| failed(&e))?;
        step.execute_batch(migration.sql).map_err(|e| failed(&e))?;
        step.execute(RECORD, (number, migration.name, checksum)).map_err(|e| failed(&e))?;
        step.pragma_update(None, "user_version", number).map_err(|e| failed(&e))?;
        step.commit().map_err(|e| failed(&e))?;
    }
    Ok(())
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::doing("migrating", error)
}

const RECORDED: &str = "-- storage::migrate::recorded
SELECT checksum FROM migrations WHERE number = ?1";

const RECORD: &str = "-- storage::migrate::record
INSERT INTO migrations(number, name, checksum) VALUES (?1, ?2, ?3)";
