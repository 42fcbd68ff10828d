//! What `apply` does with each kind of command, and what it refuses.

mod common;

use common::{Database, add, blob, command, next, put, row};
use keyward_model::{Change, Outcome, Row, StateSum, Table};
use keyward_storage::{Content, Entry, Position, StoreError, row_digest};

/// What there is before each case: one secret of revision 1 with one version blob, number 5.
fn start() -> Database {
    let mut db = Database::new();
    let secret = Row { head: Some(5), ..row(b"a", 1, b"old") };
    assert_eq!(db.change(vec![add(5, b"w", b"p"), put(Table::Secrets, secret)]), Outcome::Done);
    db
}

#[test]
fn a_command_is_done_whole_or_leaves_nothing() {
    use Outcome::{Done, Stale};
    let new = || put(Table::Secrets, row(b"b", 1, b"new"));
    let cases: &[(&str, Vec<Change>, Outcome)] = &[
        ("nothing to do", vec![], Done),
        ("a new row", vec![new()], Done),
        ("a new row that is there", vec![new(), put(Table::Secrets, row(b"a", 1, b"x"))], Stale),
        ("a new row that does not begin at 1", vec![new(), put(Table::Folders, row(b"a", 2, b"x"))], Stale),
        ("the next revision", vec![put(Table::Secrets, row(b"a", 2, b"x"))], Done),
        ("a revision left out", vec![new(), put(Table::Secrets, row(b"a", 3, b"x"))], Stale),
        ("a revision 0", vec![new(), put(Table::Mounts, row(b"a", 0, b"x"))], Stale),
        ("the same key in another table", vec![put(Table::Folders, row(b"a", 1, b"x"))], Done),
        (
            "two steps of one row",
            vec![put(Table::Secrets, row(b"a", 2, b"x")), put(Table::Secrets, row(b"a", 3, b"y"))],
            Done,
        ),
        (
            "two steps, the second wrong",
            vec![put(Table::Secrets, row(b"a", 2, b"x")), put(Table::Secrets, row(b"a", 2, b"y"))],
            Stale,
        ),
        ("a removal", vec![Change::Remove { table: Table::Secrets, key: b"a".to_vec(), rev: 1 }], Done),
        (
            "a removal and a new beginning",
            vec![
                Change::Remove { table: Table::Secrets, key: b"a".to_vec(), rev: 1 },
                put(Table::Secrets, row(b"a", 1, b"x")),
            ],
            Done,
        ),
        (
            "a removal of another revision",
            vec![new(), Change::Remove { table: Table::Secrets, key: b"a".to_vec(), rev: 2 }],
            Stale,
        ),
        (
            "a removal of nothing",
            vec![new(), Change::Remove { table: Table::Tokens, key: b"a".to_vec(), rev: 1 }],
            Stale,
        ),
        ("a version", vec![add(6, b"w", b"p")], Done),
        ("a version number that is taken", vec![new(), add(5, b"x", b"y")], Stale),
        ("a version number from the past", vec![new(), add(4, b"x", b"y")], Stale),
        ("a version number out of range", vec![new(), add(u64::MAX, b"x", b"y")], Stale),
        ("a new wrapping", vec![Change::Rewrap { id: 5, wrapped: b"x".to_vec() }], Done),
        ("a new wrapping of nothing", vec![Change::Rewrap { id: 99, wrapped: b"x".to_vec() }], Done),
        ("an erasure", vec![Change::EraseVersion { id: 5 }], Done),
        ("an erasure of nothing", vec![Change::EraseVersion { id: 99 }], Done),
    ];
    for (name, changes, outcome) in cases {
        let mut db = start();
        let before = (db.writer.sum(), db.store.reader().unwrap().meta().unwrap());
        assert_eq!(db.change(changes.clone()), *outcome, "{name}");
        let reader = db.store.reader().unwrap();
        let after = reader.verify().unwrap();
        assert_eq!(after.found, after.meta.sum, "{name}: rows and sum disagree");
        assert_eq!(db.writer.sum(), after.meta.sum, "{name}");
        assert_eq!(after.meta.applied, db.writer.applied(), "{name}");
        assert_eq!(after.meta.applied.map(|at| at.index), Some(1), "{name}");
        if *outcome == Stale {
            assert_eq!(after.meta.sum, before.0, "{name}");
            assert_eq!(after.meta.last_version, before.1.last_version, "{name}");
            assert_eq!(reader.row(Table::Secrets, b"b").unwrap(), None, "{name}: something was left");
            assert_eq!(reader.version(5).unwrap(), Some(blob(b"w", b"p")), "{name}");
        }
    }
}

#[test]
fn a_stale_command_does_not_stop_the_others() {
    let mut db = start();
    let sum = db.writer.sum();
    let first = row(b"b", 1, b"x");
    let later = row(b"c", 1, b"y");
    let after_first = sum.plus(row_digest(Table::Secrets, &first));
    let outcomes = db.commands(&[
        command(sum, vec![put(Table::Secrets, first.clone())]),
        command(sum, vec![put(Table::Secrets, row(b"stale", 1, b"x"))]),
        command(after_first, vec![put(Table::Secrets, row(b"a", 7, b"x"))]),
        command(after_first, vec![put(Table::Secrets, later.clone())]),
    ]);
    assert_eq!(outcomes, [Outcome::Done, Outcome::Stale, Outcome::Stale, Outcome::Done]);
    let reader = db.store.reader().unwrap();
    assert_eq!(reader.row(Table::Secrets, b"b").unwrap(), Some(first));
    assert_eq!(reader.row(Table::Secrets, b"stale").unwrap(), None);
    assert_eq!(reader.row(Table::Secrets, b"c").unwrap(), Some(later));
    assert_eq!(reader.count(Table::Secrets).unwrap(), 3);
}

#[test]
fn several_entries_are_one_step_with_everything_beside_it() {
    let mut db = Database::new();
    let zero = StateSum::default();
    let secret = Row { group: b"g".to_vec(), due: Some(-9), head: Some(1 << 40), ..row(b"k", 1, b"body") };
    let mut signed = command(zero, vec![put(Table::Secrets, secret.clone()), add(1 << 40, b"w", b"p")]);
    signed.signature = [9; 32];
    let at = |index| Position { term: 3, leader: u64::MAX - 1, index };
    let outcomes = db
        .writer
        .apply(&[
            Entry { position: at(0), content: Content::Membership(b"us") },
            Entry { position: at(1), content: Content::Commands(&[signed]) },
            Entry { position: at(2), content: Content::Blank },
        ])
        .unwrap();
    assert_eq!(outcomes, [vec![], vec![Outcome::Done], vec![]]);
    let db = db.reopen();
    let meta = db.store.reader().unwrap().meta().unwrap();
    assert_eq!(meta.applied, Some(at(2)));
    assert_eq!(meta.sum, zero.plus(row_digest(Table::Secrets, &secret)));
    assert_eq!((meta.signature, meta.last_version), ([9; 32], 1 << 40));
    assert_eq!(db.writer.membership(), Some((at(0), b"us".to_vec())));
    assert_eq!(db.store.reader().unwrap().membership().unwrap(), db.writer.membership());
    let found = db.store.reader().unwrap().row_with_head(Table::Secrets, b"k").unwrap();
    assert_eq!(found, Some((secret, Some(blob(b"w", b"p")))));
}

#[test]
fn the_newest_moment_stays_whatever_comes_after_it() {
    let mut db = Database::new();
    let at = |moment, before, key: &[u8]| keyward_model::Command {
        at: keyward_model::Timestamp(moment),
        ..command(before, vec![put(Table::Secrets, row(key, 1, b""))])
    };
    let newest = |db: &Database| db.store.reader().unwrap().newest().unwrap().0;
    assert_eq!(newest(&db), 0);
    let zero = StateSum::default();
    assert_eq!(db.commands(&[at(900, zero, b"a"), at(950, zero, b"stale")]), [Outcome::Done, Outcome::Stale]);
    assert_eq!(newest(&db), 900);
    // The next leader's clock is behind.
    assert_eq!(db.commands(&[at(300, db.writer.sum(), b"b")]), [Outcome::Done]);
    let mut db = db.reopen();
    assert_eq!(newest(&db), 900);
    assert_eq!(db.commands(&[at(400, db.writer.sum(), b"c")]), [Outcome::Done]);
    let file = db.folder.path().join("snapshot");
    db.store.snapshot_into(&file).unwrap();
    let Database { folder, store, writer } = db;
    drop(writer);
    store.install(&file).unwrap();
    assert_eq!(newest(&Database { writer: store.writer().unwrap(), folder, store }), 900);
}

#[test]
fn entries_out_of_order_stop_the_writer() {
    let at = |term, index| Position { term, leader: 1, index };
    for (first, second) in [(at(1, 0), at(1, 0)), (at(1, 1), at(1, 0)), (at(1, 0), at(1, 2)), (at(2, 0), at(1, 1))] {
        let mut db = Database::new();
        db.writer.apply(&[Entry { position: first, content: Content::Blank }]).unwrap();
        let refused = db.writer.apply(&[Entry { position: second, content: Content::Blank }]);
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "{first:?} {second:?}");
        assert_eq!(db.writer.applied(), Some(first));
        let position = at(2, first.index + 1);
        let after = db.writer.apply(&[Entry { position, content: Content::Blank }]);
        assert!(matches!(after, Err(StoreError::Broken)));
        assert!(matches!(db.writer.make_durable(), Err(StoreError::Broken)));
    }
    let mut db = Database::new();
    assert!(db.writer.apply(&[]).unwrap().is_empty());
    let gap = db.writer.apply(&[Entry { position: at(1, 2), content: Content::Blank }]);
    assert!(matches!(gap, Err(StoreError::OutOfOrder { applied: None, .. })));
}

#[test]
fn version_blobs_are_rewrapped_and_erased_for_good() {
    let mut db = start();
    let reader = db.store.reader().unwrap();
    db.change(vec![Change::Rewrap { id: 5, wrapped: b"again".to_vec() }, add(9, b"w9", b"p9")]);
    assert_eq!(reader.version(5).unwrap(), Some(blob(b"again", b"p")));
    assert_eq!(reader.versions_after(0, 9).unwrap(), [(5, b"again".to_vec()), (9, b"w9".to_vec())]);
    assert_eq!(reader.versions_after(5, 1).unwrap(), [(9, b"w9".to_vec())]);
    db.change(vec![Change::EraseVersion { id: 9 }, Change::EraseVersion { id: 5 }]);
    db.change(vec![Change::Rewrap { id: 5, wrapped: b"more".to_vec() }]);
    assert_eq!(reader.version(5).unwrap(), None);
    assert_eq!(reader.row_with_head(Table::Secrets, b"a").unwrap().map(|(_, blob)| blob), Some(None));
    drop(reader);
    let mut db = db.reopen();
    assert_eq!(db.store.reader().unwrap().meta().unwrap().last_version, 9);
    assert_eq!(db.change(vec![add(9, b"w", b"p")]), Outcome::Stale, "a number is never used again");
    assert_eq!(db.change(vec![add(10, b"w", b"p")]), Outcome::Done);
}

#[test]
fn one_writer_one_process() {
    let db = Database::new();
    assert!(matches!(db.store.writer(), Err(StoreError::WriterTaken)));
    let again = keyward_storage::Store::open(db.folder.path(), &keyward_storage::Options::default());
    assert!(matches!(again, Err(StoreError::InUse { .. })));
    drop(db.writer);
    let writer = db.store.writer().unwrap();
    assert_eq!(next(writer.applied()).index, 0);
}
