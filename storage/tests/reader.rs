//! Ranges, groups and due rows.

mod common;

use common::{Database, put, row};
use keyward_model::{Outcome, Row, Table};

fn keys(rows: &[Row]) -> Vec<&[u8]> {
    rows.iter().map(|row| row.key.as_slice()).collect()
}

#[test]
fn children_are_a_range_of_keys() {
    let mut db = Database::new();
    let all: &[&[u8]] =
        &[b"", b"\x01", b"\x01\xff", b"a", b"aa", b"ab", b"ab\x00", b"b", b"\xff", b"\xff\xff", b"\xff\xff\x01"];
    let changes = all.iter().rev().map(|key| put(Table::Folders, row(key, 1, key))).collect();
    assert_eq!(db.change(changes), Outcome::Done);
    let reader = db.store.reader().unwrap();
    let list =
        |prefix: &[u8], after: Option<&[u8]>, limit| reader.children(Table::Folders, prefix, after, limit).unwrap();
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, usize, &'a [&'a [u8]]);
    let cases: &[Case<'_>] = &[
        (b"a", None, 9, &[b"a", b"aa", b"ab", b"ab\x00"]),
        (b"a", None, 2, &[b"a", b"aa"]),
        (b"a", None, 0, &[]),
        (b"a", Some(b"aa"), 9, &[b"ab", b"ab\x00"]),
        (b"a", Some(b"a"), 1, &[b"aa"]),
        (b"a", Some(b"\x01"), 1, &[b"a"]),
        (b"a", Some(b"b"), 9, &[]),
        (b"\xff", None, 9, &[b"\xff", b"\xff\xff", b"\xff\xff\x01"]),
        (b"\xff\xff", Some(b"\xff\xff"), 9, &[b"\xff\xff\x01"]),
        (b"c", None, 9, &[]),
        (b"", Some(b""), 1, &[b"\x01"]),
        (b"", None, 99, all),
    ];
    for (prefix, after, limit, expected) in cases {
        assert_eq!(keys(&list(prefix, *after, *limit)), *expected, "{prefix:?} after {after:?}");
    }
    assert_eq!(keys(&reader.scan(Table::Folders, Some(b"ab"), 2).unwrap()), [&b"ab\x00"[..], b"b"]);
    for (prefix, has) in [(&b"a"[..], true), (b"ab\x00", true), (b"ac", false), (b"\xff\xff\xff", false), (b"", true)] {
        assert_eq!(reader.has_child(Table::Folders, prefix).unwrap(), has, "{prefix:?}");
    }
    assert!(!reader.has_child(Table::Secrets, b"").unwrap());
    assert_eq!(reader.count(Table::Folders).unwrap(), all.len() as u64);
}

#[test]
fn groups_and_due_rows_are_found() {
    let mut db = Database::new();
    let token =
        |key: &[u8], group: &[u8], due| put(Table::Tokens, Row { group: group.to_vec(), due, ..row(key, 1, b"") });
    let done = db.change(vec![
        token(b"1", b"p", Some(30)),
        token(b"2", b"p", Some(-10)),
        token(b"3", b"", None),
        token(b"4", b"p", Some(20)),
        token(b"5", b"pp", Some(20)),
    ]);
    assert_eq!(done, Outcome::Done);
    let reader = db.store.reader().unwrap();
    let group = |group: &[u8], after: Option<&[u8]>, limit| reader.group(Table::Tokens, group, after, limit).unwrap();
    assert_eq!(keys(&group(b"p", None, 9)), [b"1", b"2", b"4"]);
    assert_eq!(keys(&group(b"p", Some(b"1"), 1)), [b"2"]);
    assert_eq!(keys(&group(b"q", None, 9)), [] as [&[u8]; 0]);
    assert_eq!(keys(&reader.due(Table::Tokens, 20, 9).unwrap()), [b"2", b"4", b"5"]);
    assert_eq!(keys(&reader.due(Table::Tokens, 100, 2).unwrap()), [b"2", b"4"]);
    assert_eq!(keys(&reader.due(Table::Tokens, -11, 2).unwrap()), [] as [&[u8]; 0]);
}
