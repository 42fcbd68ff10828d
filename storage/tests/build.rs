//! How SQLite was compiled: the flags in `.cargo/config.toml` took effect.

use rusqlite::Connection;

#[test]
fn sqlite_is_built_as_we_want_it() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare("SELECT compile_options FROM pragma_compile_options").unwrap();
    let options: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for wanted in [
        "DEFAULT_MEMSTATUS=0",
        "DEFAULT_FILE_PERMISSIONS=0600",
        "DEFAULT_WAL_SYNCHRONOUS=1",
        "DQS=0",
        "OMIT_DEPRECATED",
        "OMIT_LOAD_EXTENSION",
        "OMIT_SHARED_CACHE",
        "SECURE_DELETE",
    ] {
        assert!(options.iter().any(|option| option == wanted), "`{wanted}` is not in {options:#?}");
    }
    for unwanted in ["ENABLE_MEMORY_MANAGEMENT", "ENABLE_LOAD_EXTENSION", "ENABLE_FTS", "ENABLE_RTREE", "SOUNDEX"] {
        assert!(!options.iter().any(|option| option.starts_with(unwanted)), "`{unwanted}` is in {options:#?}");
    }
    let trusted: i64 = connection.pragma_query_value(None, "trusted_schema", |row| row.get(0)).unwrap();
    assert_eq!(trusted, 0);
}
