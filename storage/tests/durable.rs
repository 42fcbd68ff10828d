//! What survives: a lost process, a cut write-ahead log, a snapshot; and what must not: erased bytes.

#![expect(clippy::unwrap_used, reason = "a failing set-up is a failing test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Database, add, put, row};
use keyward_model::{Change, Outcome, Row, Table};
use keyward_storage::{Kind, Options, Store, StoreError, examine};

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

    assert!(matches!(db.store.install(&file), Err(StoreError::WriterTaken)));
    let Database { folder, store, writer } = db;
    drop(writer);
    let inside = folder.path().join("arrived");
    fs::copy(&file, &inside).unwrap();
    let (seeing, pinned) = (store.reader().unwrap(), store.reader().unwrap());
    pinned.pin().unwrap();
    assert!(pinned.row(Table::Mounts, b"m").unwrap().is_some());
    assert_eq!(examine(&inside, &Options::default()).unwrap().meta, held);
    store.install(&inside).unwrap();

    let verified = seeing.verify().unwrap();
    assert_eq!((verified.meta, verified.found), (held, held.sum));
    assert_eq!(seeing.row(Table::Mounts, b"m").unwrap(), None);
    assert!(pinned.row(Table::Mounts, b"m").unwrap().is_some(), "a pinned reader stays in its state");
    let mut db = Database { folder, writer: store.writer().unwrap(), store };
    assert_eq!(db.change(vec![put(Table::Mounts, row(b"m", 1, b"again"))]), Outcome::Done);
    assert_eq!(pinned.row(Table::Mounts, b"m").unwrap().unwrap().body, b"later");
    pinned.unpin().unwrap();
    // The old state's files go with the last that holds it, and take nothing of the new one along.
    assert_eq!(pinned.row(Table::Mounts, b"m").unwrap().unwrap().body, b"again");
    assert_eq!(names(&db.folder), ["state-1.db", "state-1.db-shm", "state-1.db-wal", "state.current", "state.db.lock"]);
    assert_eq!(db.store.installed(), held.applied.map(|at| at.index));
    let Database { folder, store, writer } = db;
    let sum = writer.sum();
    drop((writer, store, seeing, pinned));
    let db = Database::open(folder);
    assert_eq!(db.writer.sum(), sum);
    assert_eq!(db.store.reader().unwrap().verify().unwrap().found, sum);
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_install_that_was_cut_off_leaves_one_of_the_two_states_whole() {
    let db = busy(20);
    let elsewhere = tempfile::tempdir().unwrap();
    let snapshot = elsewhere.path().join("snapshot.db");
    let held = db.store.snapshot_into(&snapshot).unwrap();
    drop(db);
    // Each step of an install, as a power cut right after it leaves the folder.
    let steps: [&[(&str, &[u8])]; 4] =
        [&[], &[("state.current.new", b"1 1")], &[("state.current.new", b"1 19\n")], &[("state.current", b"1 19\n")]];
    for (number, files) in (0..).zip(steps) {
        let old = busy(7);
        let Database { folder, store, writer } = old;
        let sum = writer.sum();
        drop((store, writer));
        fs::copy(&snapshot, folder.path().join("state-1.db")).unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let after = Database::open(folder);
        let verified = after.store.reader().unwrap().verify().unwrap();
        let expected = if number == 3 { held.sum } else { sum };
        assert_eq!((verified.found, verified.meta.sum), (expected, expected), "step {number}");
        let file = if number == 3 { "state-1.db" } else { "state.db" };
        let others = names(&after.folder).into_iter().filter(|name| name.ends_with(".db") && name != file);
        assert_eq!(others.count(), 0, "step {number}");
    }
    let damaged = tempfile::tempdir().unwrap();
    fs::write(damaged.path().join("state.current"), b"1").unwrap();
    assert!(matches!(Store::open(damaged.path(), &Options::default()), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_bad_snapshot_is_known() {
    let mut db = busy(9);
    db.change(vec![put(Table::Mounts, row(b"m", 1, b"MARKER"))]);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("snapshot.db");
    db.store.snapshot_into(&file).unwrap();
    let held = db.store.reader().unwrap().meta().unwrap();
    let good = fs::read(&file).unwrap();
    let at = good.windows(6).position(|window| window == b"MARKER").unwrap();
    let cut = good[..good.len() / 2].to_vec();
    for at in [at, 0, 70] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(examine(&file, &Options::default()).is_err(), "{at}");
    }
    fs::write(&file, cut).unwrap();
    assert!(examine(&file, &Options::default()).is_err());
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
