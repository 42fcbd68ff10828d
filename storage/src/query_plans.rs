//! How SQLite runs the hot statements: golden, so that a look-up never turns into a scan unseen.

use keyward_model::Table;

use crate::connect::{self, Role};
use crate::{Options, Store, plan, reader, writer};

#[test]
fn hot_statements_use_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &Options::default()).unwrap();
    let connection = connect::open(store.place().file(), Role::Writer, &Options::default()).unwrap();
    let statements = [
        reader::ROW.of(Table::Tokens),
        reader::ROW_WITH_HEAD.of(Table::Secrets),
        reader::FROM.of(Table::Folders),
        reader::FIRST_KEY.of(Table::Secrets),
        reader::GROUP.of(Table::Tokens),
        reader::DUE.of(Table::Tokens),
        reader::DUE.of(Table::Wrapped),
        reader::DUE.of(Table::Repeats),
        reader::VERSION,
        reader::VERSIONS_AFTER,
        reader::META,
        plan::STANDING.of(Table::Secrets),
        writer::UPDATE.of(Table::Secrets),
        writer::REMOVE.of(Table::Tokens),
        writer::REWRAP,
        writer::ERASE,
        writer::PUT_META,
    ];
    let mut found = String::new();
    for text in statements {
        found.push_str(text);
        found.push('\n');
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        // SQLite binds NULL to what is not bound.
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            found.push_str("    ");
            found.push_str(&row.get::<_, String>("detail").unwrap());
            found.push('\n');
        }
        found.push('\n');
    }
    assert!(found == include_str!("../tests/plans/hot.txt"), "the plans are now:\n{found}");
    assert!(!found.contains("SCAN ") && !found.contains("TEMP B-TREE"));
}

#[test]
fn a_statement_is_planned_once_whatever_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &Options::default()).unwrap();
    let connection = connect::open(store.place().file(), Role::Reader, &Options::default()).unwrap();
    for table in Table::ALL {
        for text in [reader::ROW.of(table), reader::ROW_WITH_HEAD.of(table), plan::STANDING.of(table)] {
            for value in 0..5u8 {
                let mut statement = connection.prepare_cached(text).unwrap();
                assert!(!statement.exists([[value; 4]]).unwrap());
                assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0, "{text}");
            }
        }
    }
}
