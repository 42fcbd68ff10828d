//! What survives: a lost process, a cut write-ahead log, a snapshot; and what must not: erased bytes.

#![expect(clippy::unwrap_used, reason = "a failing set-up is a failing test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Database, add, put, row};
use keyward_model::{Change, Outcome, Row, Table};
use keyward_storage::{Kind, Options, Store, StoreError};

/// A database with `commands` commands: each changes a row of four and adds a version.
fn busy(commands: u64) -> Database {
    let mut db = Database::new();
    for number in 0..commands {
        let secret = Row { head: Some(number + 1), ..row(&[number as u8 % 4], number / 4 + 1, &[number as u8; 700]) };
        let done = db.change(vec![add(number + 1, &[1; 60], &[number as u8; 900]), put(Table::Secrets, secret)]);
        assert_eq!(done, Outcome::Done);
    }
    db
}

/// What a power loss would leave: the files as they are, at most `wal_bytes` of the write-ahead log.
fn crash_copy(from: &Path, to: &Path, wal_bytes: usize) {
    fs::copy(from.join("state.db"), to.join("state.db")).unwrap();
    let wal = fs::read(from.join("state.db-wal")).unwrap();
    fs::write(to.join("state.db-wal"), &wal[..wal_bytes.min(wal.len())]).unwrap();
}

#[test]
fn nothing_applied_is_lost_with_the_process() {
    let mut db = busy(30);
    for durable in [false, true] {
        if durable {
            assert_eq!(db.writer.make_durable().unwrap(), db.writer.applied());
        }
        let copy = tempfile::tempdir().unwrap();
        crash_copy(db.folder.path(), copy.path(), usize::MAX);
        let after = Database::open(copy);
        assert_eq!(after.writer.applied(), db.writer.applied());
        let verified = after.store.reader().unwrap().verify().unwrap();
        assert_eq!((verified.found, verified.rows), (db.writer.sum(), 4));
    }
    // After `make_durable` without readers, not even the write-ahead log is needed.
    let copy = tempfile::tempdir().unwrap();
    crash_copy(db.folder.path(), copy.path(), 0);
    assert_eq!(Database::open(copy).writer.applied(), db.writer.applied());
}

#[test]
fn a_cut_log_leaves_an_earlier_state_whole() {
    let db = busy(12);
    let length = fs::metadata(db.folder.path().join("state.db-wal")).unwrap().len() as usize;
    let mut seen = Vec::new();
    for bytes in (0..length).step_by(4120 / 2).chain([length]) {
        let copy = tempfile::tempdir().unwrap();
        crash_copy(db.folder.path(), copy.path(), bytes);
        let after = Database::open(copy);
        let verified = after.store.reader().unwrap().verify().unwrap();
        assert_eq!(verified.found, verified.meta.sum, "cut at {bytes}");
        let index = verified.meta.applied.map_or(-1, |at| at.index as i64);
        assert_eq!(verified.meta.last_version as i64, index + 1, "cut at {bytes}");
        seen.push(index);
    }
    assert!(seen.is_sorted());
    seen.dedup();
    assert_eq!(seen.len(), 12 + 1, "every state was seen: {seen:?}");
}

#[test]
fn a_reader_does_not_hold_durability_back() {
    let mut db = busy(3);
    let reader = db.store.reader().unwrap();
    let first = reader.meta().unwrap();
    // A moment that stays open would be inside `verify`; a second connection shows that the log is not needed to be empty.
    assert!(db.store.checkpointer().unwrap().run(Kind::Passive).unwrap().complete);
    db.change(vec![put(Table::Config, row(b"k", 1, b"v"))]);
    assert_eq!(db.writer.make_durable().unwrap(), db.writer.applied());
    assert_ne!(reader.meta().unwrap(), first);
}

#[test]
fn a_look_at_the_log_moves_nothing() {
    let db = busy(5);
    let mut checkpointer = db.store.checkpointer().unwrap();
    let before = checkpointer.look().unwrap();
    assert!(before.pages > 0 && before.moved == 0 && !before.complete, "{before:?}");
    assert_eq!(checkpointer.look().unwrap(), before);
    assert!(checkpointer.run(Kind::Passive).unwrap().complete);
    let after = checkpointer.look().unwrap();
    assert_eq!((after.pages, after.moved, after.complete), (before.pages, before.pages, true));
}

#[test]
fn a_long_reader_does_not_hold_up_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { wal_bytes_max: 100_000, ..Options::default() };
    let store = Store::open(folder.path(), &options).unwrap();
    let writer = store.writer().unwrap();
    let mut db = Database { folder, store, writer };
    db.change(vec![put(Table::Secrets, row(b"k", 1, &[7; 3000]))]);
    let reader = db.store.reader().unwrap();
    reader.pin().unwrap();
    let first = reader.meta().unwrap();
    let began = std::time::Instant::now();
    for rev in 2..40 {
        db.change(vec![put(Table::Secrets, row(b"k", rev, &[7; 3000]))]);
    }
    assert!(!db.writer.checkpoint(Kind::Restart).unwrap().complete);
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(reader.meta().unwrap(), first);
    reader.unpin().unwrap();
    assert!(db.writer.checkpoint(Kind::Restart).unwrap().complete);
    db.change(vec![put(Table::Secrets, row(b"k", 40, &[7; 3000]))]);
    let log = db.store.checkpointer().unwrap().look().unwrap();
    assert!(log.pages < 10, "it began anew: {log:?}");
}

#[test]
fn the_log_stays_small_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { wal_bytes_max: 100_000, ..Options::default() };
    let store = Store::open(folder.path(), &options).unwrap();
    let writer = store.writer().unwrap();
    let mut db = Database { folder, store, writer };
    for rev in 1..200 {
        db.change(vec![put(Table::Secrets, row(b"k", rev, &[7; 3000]))]);
        assert!(fs::metadata(db.folder.path().join("state.db-wal")).unwrap().len() <= 120_000);
    }
}

#[test]
fn erased_bytes_are_gone_from_every_file() {
    let marker = |fill: u8| [&b"MARKER-"[..], &[fill; 40]].concat();
    let mut db = busy(8);
    let large = marker(b'L').repeat(400);
    db.change(vec![add(100, &marker(b'W'), &marker(b'P')), add(101, &marker(b'V'), &large)]);
    db.change(vec![put(Table::Tokens, row(b"t", 1, &marker(b'T'))), put(Table::Entries, row(b"e", 1, &marker(b'E')))]);
    let fills = [b'W', b'P', b'V', b'L', b'T', b'E'];
    let left = |db: &Database| -> Vec<char> {
        let mut bytes = Vec::new();
        for name in ["state.db", "state.db-wal"] {
            bytes.extend(fs::read(db.folder.path().join(name)).unwrap());
        }
        let is_left = |fill: &&u8| bytes.windows(20).any(|window| window == &marker(**fill)[..20]);
        fills.iter().filter(is_left).map(|fill| char::from(*fill)).collect()
    };
    assert_eq!(left(&db).len(), fills.len(), "the search finds what is there");
    // First the wrapping and a row change, then all of it goes.
    db.change(vec![Change::Rewrap { id: 100, wrapped: vec![1; 47] }, put(Table::Entries, row(b"e", 2, &[2; 47]))]);
    assert!(db.writer.checkpoint(Kind::Truncate).unwrap().complete);
    assert_eq!(left(&db), ['P', 'V', 'L', 'T']);
    db.change(vec![
        Change::EraseVersion { id: 100 },
        Change::EraseVersion { id: 101 },
        Change::Remove { table: Table::Tokens, key: b"t".to_vec(), rev: 1 },
    ]);
    assert!(db.writer.checkpoint(Kind::Truncate).unwrap().complete);
    assert_eq!(left(&db), [] as [char; 0]);
}

#[test]
fn a_snapshot_is_the_state_and_takes_its_place() {
    let mut db = busy(20);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("snapshot.db");
    let held = db.store.snapshot_into(&file).unwrap();
    assert_eq!(held, db.store.reader().unwrap().meta().unwrap());
    assert!(matches!(db.store.snapshot_into(&file), Err(StoreError::Io { .. })), "never over another file");
    assert!(file.exists());
    let moved_on = db.change(vec![put(Table::Mounts, row(b"m", 1, b"later"))]);
    assert_eq!(moved_on, Outcome::Done);

    assert!(matches!(Store::install(db.folder.path(), &file, &Options::default()), Err(StoreError::InUse { .. })));
    let Database { folder, store, writer } = db;
    // The process dies here, with a write-ahead log that must not be taken for the new file's.
    let wal = fs::read(folder.path().join("state.db-wal")).unwrap();
    drop((store, writer));
    fs::write(folder.path().join("state.db-wal"), wal).unwrap();
    let store = Store::install(folder.path(), &file, &Options::default()).unwrap();
    let reader = store.reader().unwrap();
    let verified = reader.verify().unwrap();
    assert_eq!((verified.meta, verified.found), (held, held.sum));
    assert_eq!(reader.row(Table::Mounts, b"m").unwrap(), None);
    drop(reader);
    let writer = store.writer().unwrap();
    let mut db = Database { folder, store, writer };
    assert_eq!(db.change(vec![put(Table::Mounts, row(b"m", 1, b"again"))]), Outcome::Done);
    let mut names: Vec<_> = fs::read_dir(db.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["state.db", "state.db-shm", "state.db-wal", "state.db.lock"]);
}

#[test]
fn a_bad_snapshot_leaves_the_old_state() {
    let mut db = busy(9);
    db.change(vec![put(Table::Mounts, row(b"m", 1, b"MARKER"))]);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("snapshot.db");
    db.store.snapshot_into(&file).unwrap();
    let held = db.store.reader().unwrap().meta().unwrap();
    let Database { folder, store, writer } = db;
    drop((store, writer));
    let good = fs::read(&file).unwrap();
    let at = good.windows(6).position(|window| window == b"MARKER").unwrap();
    let cut = good[..good.len() / 2].to_vec();
    for at in [at, 0, 70] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(Store::install(folder.path(), &file, &Options::default()).is_err(), "{at}");
    }
    fs::write(&file, cut).unwrap();
    assert!(Store::install(folder.path(), &file, &Options::default()).is_err());
    let db = Database::open(folder);
    assert_eq!(db.store.reader().unwrap().meta().unwrap(), held);
}

#[test]
fn files_are_for_their_owner_alone() {
    let db = busy(1);
    let file = db.folder.path().join("snapshot.db");
    db.store.snapshot_into(&file).unwrap();
    for entry in fs::read_dir(db.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}
