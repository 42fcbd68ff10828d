use keyward_model::{Change, Command, Id, Timestamp, VersionBlob};

use super::*;
use crate::{Options, Store};

fn command(writer: &Writer, id: u64) -> Command {
    let blob = VersionBlob { wrapped: vec![1], payload: vec![2; 50 << 10] };
    Command {
        request: Id([0; 16]),
        at: Timestamp(0),
        before: writer.sum(),
        signature: [0; 32],
        changes: vec![Change::AddVersion { id, blob }],
        intent: Vec::new(),
    }
}

/// Writes version `id` as log entry `id`.
fn add(writer: &mut Writer, id: u64) -> Result<Vec<Vec<Outcome>>, StoreError> {
    let command = command(writer, id);
    let position = Position { term: 1, leader: 1, index: id };
    writer.apply(&[Entry { position, content: Content::Commands(&[command]) }])
}

fn versions(writer: &Writer) -> Vec<u64> {
    let mut statement = writer.connection.prepare("SELECT id FROM versions ORDER BY id").unwrap();
    let ids = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    ids.map(|id| id.unwrap().cast_unsigned()).collect()
}

#[test]
fn a_full_disk_leaves_everything_as_it_was_and_the_same_entry_can_be_applied_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writer = store.writer().unwrap();
    let pages: i64 = writer.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |writer: &Writer, pages: i64| {
        writer.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&writer, pages + 40);
    let mut last = 0;
    let full = loop {
        match add(&mut writer, last + 1) {
            Ok(outcomes) => assert_eq!(outcomes, [[Outcome::Done]]),
            Err(error) => break error,
        }
        last += 1;
        assert!(last < 40, "the limit was never noticed");
    };
    assert!(matches!(full, StoreError::DiskFull), "{full}");
    assert!(last > 0, "nothing fitted");
    for _ in 0..3 {
        assert!(matches!(add(&mut writer, last + 1), Err(StoreError::DiskFull)));
        assert_eq!(writer.applied().map(|at| at.index), Some(last));
        assert_eq!(versions(&writer), (1..=last).collect::<Vec<_>>());
    }
    // What needs no space goes on meanwhile.
    assert!(writer.checkpoint(Kind::Passive).unwrap().complete);
    assert_eq!(writer.make_durable().unwrap().map(|at| at.index), Some(last));

    limit(&writer, i64::from(i32::MAX));
    assert_eq!(add(&mut writer, last + 1).unwrap(), [[Outcome::Done]]);
    assert!(matches!(add(&mut writer, last + 1), Err(StoreError::OutOfOrder { .. })), "once, not twice");
    assert_eq!(versions(&writer), (1..=last + 1).collect::<Vec<_>>());
    let verified = store.reader().unwrap().verify().unwrap();
    assert_eq!(verified.found, writer.sum());
}
