//! `schema.sql` is the sum of all migrations.

mod common;

use std::fmt::Write as _;

use common::Database;
use rusqlite::Connection;

#[test]
fn migrations_add_up_to_the_schema() {
    let Database { folder, store, writer } = Database::new();
    drop((store, writer));
    let connection = Connection::open(folder.path().join("state.db")).unwrap();
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name").unwrap();
    let mut found = "-- The sum of all migrations, as SQLite keeps it.\n".to_owned();
    for text in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        write!(found, "\n{};\n", text.unwrap()).unwrap();
    }
    assert!(found == include_str!("../schema.sql"), "the schema is now:\n{found}");
}

#[test]
fn the_file_is_as_it_should_be() {
    let Database { folder, store, writer } = Database::new();
    drop((store, writer));
    let connection = Connection::open(folder.path().join("state.db")).unwrap();
    for (pragma, expected) in [
        ("page_size", "4096"),
        ("journal_mode", "wal"),
        ("auto_vacuum", "0"),
        ("application_id", "1264014164"),
        ("user_version", "3"),
        ("encoding", "UTF-8"),
    ] {
        let found: rusqlite::types::Value = connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        let found = match found {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{pragma}");
    }
}
