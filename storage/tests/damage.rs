//! Files that are not ours, from the future, or damaged: refused, or found out. Never a panic.

#![expect(clippy::unwrap_used, reason = "a failing set-up is a failing test")]

mod common;

use std::fs;
use std::path::Path;

use common::{Database, add, put, row};
use keyward_model::{Outcome, Row, Table};
use keyward_storage::{Options, Store, StoreError};
use proptest::prelude::*;
use rusqlite::Connection;

fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(folder, &Options::default())
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let other = Connection::open(&file).unwrap();
    other.execute_batch("CREATE TABLE t(a); PRAGMA application_id = 77;").unwrap();
    drop(other);
    let sqlite = fs::read(&file).unwrap();
    for bytes in [sqlite, b"short".to_vec(), vec![b'x'; 9000]] {
        fs::write(&file, &bytes).unwrap();
        let refused = open(folder.path()).unwrap_err();
        assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("state.db") && text.contains("point `data` elsewhere"), "{text}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}

/// Changes a closed database behind our back.
fn meddle(folder: &Path, sql: &str) {
    Connection::open(folder.join("state.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_is_newer_or_otherwise_made_is_refused() {
    type Case = (&'static str, fn(&StoreError) -> bool);
    let cases: [Case; 4] = [
        ("PRAGMA user_version = 4", |e| matches!(e, StoreError::Newer { found: 4, known: 3, .. })),
        ("PRAGMA user_version = -1", |e| matches!(e, StoreError::Newer { .. })),
        ("UPDATE migrations SET checksum = zeroblob(32)", |e| {
            matches!(e, StoreError::OtherMigration { number: 1, .. })
        }),
        ("DELETE FROM migrations", |e| matches!(e, StoreError::Corrupt { table: "migrations", .. })),
    ];
    for (sql, is) in cases {
        let Database { folder, store, writer } = Database::new();
        drop((store, writer));
        meddle(folder.path(), sql);
        let refused = open(folder.path()).unwrap_err();
        assert!(is(&refused), "{sql}: {refused}");
    }
}

#[test]
fn impossible_data_is_named_with_table_and_key() {
    let mut db = Database::new();
    db.change(vec![put(Table::Secrets, row(&[0xab; 20], 1, b"x"))]);
    let Database { folder, store, writer } = db;
    drop((store, writer));
    // The column would take no text; so the schema is bent first.
    meddle(
        folder.path(),
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(replace(sql, 'STRICT, ', ''), 'body BLOB', 'body') WHERE name = 'secrets';
         PRAGMA writable_schema = RESET;
         UPDATE secrets SET body = 'text';",
    );
    let db = Database::open(folder);
    let refused = db.store.reader().unwrap().row(Table::Secrets, &[0xab; 20]).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Corrupt { table: "secrets", key, .. } if *key == "ab".repeat(16)),
        "{refused}"
    );
}

#[test]
fn a_changed_row_does_not_add_up() {
    for sql in [
        "UPDATE secrets SET body = x'99' WHERE key = x'01'",
        "UPDATE secrets SET rev = 1 WHERE key = x'01'",
        "UPDATE secrets SET key = x'03' WHERE key = x'01'",
        "UPDATE secrets SET head = NULL WHERE key = x'01'",
        "DELETE FROM secrets WHERE key = x'02'",
        "INSERT INTO folders SELECT * FROM secrets WHERE key = x'02'",
        "UPDATE applied SET sum = zeroblob(32)",
    ] {
        let mut db = Database::new();
        db.change(vec![put(Table::Secrets, row(&[1], 1, b"one")), put(Table::Secrets, row(&[2], 1, b"two"))]);
        db.change(vec![put(Table::Secrets, Row { head: Some(1), ..row(&[1], 2, b"one") })]);
        let Database { folder, store, writer } = db;
        drop((store, writer));
        meddle(folder.path(), sql);
        let verified = open(folder.path()).unwrap().reader().unwrap().verify().unwrap();
        assert_ne!(verified.found, verified.meta.sum, "{sql}");
    }
}

#[test]
fn a_token_missing_from_its_index_is_found_out() {
    let Database { folder, store, writer } = Database::new();
    drop((store, writer));
    // The index is hidden while a token comes in, then put back.
    meddle(
        folder.path(),
        "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'tokens_grp';
         PRAGMA writable_schema = ON;
         DELETE FROM sqlite_schema WHERE name = 'tokens_grp';",
    );
    let mut db = Database::open(folder);
    db.change(vec![put(Table::Tokens, Row { group: b"parent".to_vec(), ..row(b"t", 1, b"") })]);
    assert!(db.store.reader().unwrap().verify().is_ok());
    let Database { folder, store, writer } = db;
    drop((store, writer));
    meddle(
        folder.path(),
        "PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema SELECT * FROM kept;
         PRAGMA writable_schema = RESET;",
    );
    let db = Database::open(folder);
    let refused = db.store.reader().unwrap().verify().unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

/// A closed database with some of everything, and its rows.
fn specimen() -> (Vec<u8>, Vec<(Table, Row)>) {
    let mut db = Database::new();
    let mut rows = Vec::new();
    for number in 0..60u8 {
        let table = Table::ALL[usize::from(number) % Table::ALL.len()];
        let size = if number % 7 == 0 { 5000 } else { 150 };
        let due = (number % 3 == 0).then_some(i64::from(number));
        let row = Row {
            group: vec![number % 5],
            due,
            head: Some(number.into()),
            ..row(&[number; 20], 1, &vec![number; size])
        };
        rows.push((table, row.clone()));
        let done = db.change(vec![add(u64::from(number) + 1, &[number; 60], &vec![number; size]), put(table, row)]);
        assert_eq!(done, Outcome::Done);
    }
    let Database { folder, store, writer } = db;
    drop((store, writer));
    (fs::read(folder.path().join("state.db")).unwrap(), rows)
}

/// Opens the bytes as a database and reads all of it. If that works and the sum is right, the rows must be.
fn survey(bytes: &[u8], rows: &[(Table, Row)]) -> Result<(), StoreError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state.db"), bytes).unwrap();
    let store = open(folder.path())?;
    let reader = store.reader()?;
    for table in Table::ALL {
        reader.count(table)?;
        reader.scan(table, None, 1000)?;
        reader.group(table, &[1], None, 1000)?;
        reader.due(table, i64::MAX, 1000)?;
        reader.has_child(table, &[9])?;
    }
    for id in 0..70 {
        reader.version(id)?;
    }
    reader.versions_after(0, 1000)?;
    reader.membership()?;
    let verified = reader.verify()?;
    if verified.found == verified.meta.sum {
        for (table, row) in rows {
            assert!(reader.row(*table, &row.key)?.as_ref() == Some(row), "a changed row went unnoticed");
        }
    }
    drop(reader);
    let mut db = Database { writer: store.writer()?, store, folder };
    db.try_change(vec![put(Table::Secrets, row(b"new", 1, b"x"))])?;
    Ok(())
}

#[test]
fn flipped_bits_are_found_out_or_harmless() {
    let (bytes, rows) = specimen();
    survey(&bytes, &rows).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
    let flips = prop::collection::vec((0..bytes.len(), 0..8u8), 1..4);
    runner
        .run(&flips, |flips| {
            let mut bad = bytes.clone();
            for (at, bit) in flips {
                bad[at] ^= 1 << bit;
            }
            drop(survey(&bad, &rows));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_cut_or_blanked_file_is_found_out_or_harmless() {
    let (bytes, rows) = specimen();
    for page in 0..bytes.len() / 4096 {
        // An empty file is a new database; that the log goes on elsewhere is for the log to notice.
        let kept = (page * 4096).max(1);
        drop(survey(&bytes[..kept], &rows));
        drop(survey(&bytes[..page * 4096 + 100], &rows));
        let mut bad = bytes.clone();
        bad[page * 4096..(page + 1) * 4096].fill(0);
        drop(survey(&bad, &rows));
        bad[page * 4096..(page + 1) * 4096].fill(0xff);
        drop(survey(&bad, &rows));
    }
}
