//! What the tests and the bench of this crate share: a leader that decides commands, and an observer that remembers.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

pub mod disk;

pub mod net;

use std::path::Path;
use std::sync::{Arc, Mutex};

use keyward_model::{Change, Command, Id, Outcome, Row, SeededEntropy, StateSum, Table, Timestamp};
use keyward_raft::{Fresh, Observer, Options, Timing, fs::OsFs, log};
use keyward_storage::{Position, Reader, Store, row_digest};

/// Small segments, so that they roll.
pub fn options(dir: &Path) -> Options {
    Options {
        dir: dir.join("log"),
        node_id: 7,
        fresh: Fresh::Found,
        fs: Arc::new(OsFs),
        entropy: Arc::new(SeededEntropy::new(3)),
        log: log::Options { segment_bytes: 128 << 10, ..log::Options::default() },
        log_bytes_max: 256 << 10,
        timing: Timing::default(),
        dialer: Arc::new(keyward_raft::link::Nobody),
        address: String::new(),
    }
}

/// Decides commands as the server does: each names the state before it. Row number `n` is made by command `n`.
#[derive(Default)]
pub struct Leader {
    made: u64,
    sum: StateSum,
}

impl Leader {
    /// Commands decided and not taken back.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Goes on from a state with `made` rows.
    pub fn resume(&mut self, made: u64, sum: StateSum) {
        (self.made, self.sum) = (made, sum);
    }

    /// The next command, not counted.
    pub fn peek(&self) -> Command {
        Command {
            request: Id([1; 16]),
            at: Timestamp(1),
            before: self.sum,
            signature: [2; 32],
            changes: vec![Change::Put { table: Table::Secrets, row: row(self.made) }],
            intent: vec![3; 64],
        }
    }

    /// The next command.
    pub fn add(&mut self) -> Command {
        let command = self.peek();
        self.sum = self.sum.plus(row_digest(Table::Secrets, &row(self.made)));
        self.made += 1;
        command
    }
}

fn row(number: u64) -> Row {
    // Scattered keys, as sealed names are.
    let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(4);
    Row { key, rev: 1, group: Vec::new(), due: None, head: None, body: vec![5; 300] }
}

/// How many rows there are; they must be the first ones.
pub fn rows(reader: &Reader) -> u64 {
    let count = reader.count(Table::Secrets).unwrap();
    for number in 0..count {
        assert!(reader.row(Table::Secrets, &row(number).key).unwrap().is_some(), "row {number} of {count}");
    }
    assert!(reader.verify().is_ok());
    count
}

/// Changes a state behind everyone's back, such that it is whole in itself.
pub fn forge(folder: &Path) {
    let store = Store::open(folder, &keyward_storage::Options::default()).unwrap();
    let sum = store.reader().unwrap().meta().unwrap().sum;
    drop(store);
    let row = Row { key: b"forged".to_vec(), rev: 1, group: Vec::new(), due: None, head: None, body: vec![6] };
    let sum = sum.plus(row_digest(Table::Policies, &row));
    let connection = rusqlite::Connection::open(folder.join(Store::FILE)).unwrap();
    let insert = "INSERT INTO policies(key, rev, grp, due, head, body) VALUES (?1, 1, ?2, NULL, NULL, ?3)";
    connection.execute(insert, (row.key, row.group, row.body)).unwrap();
    connection.execute("UPDATE applied SET sum = ?1", [sum.to_bytes()]).unwrap();
}

/// Remembers what it was told.
#[derive(Default)]
pub struct Seen(Mutex<Vec<(Position, Vec<Outcome>)>>);

impl Seen {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Positions came in order, each once; gives the number of commands.
    pub fn check(&self) -> usize {
        let seen = self.0.lock().unwrap();
        assert!(seen.is_sorted_by(|(a, _), (b, _)| a.index < b.index));
        seen.iter().map(|(_, outcomes)| outcomes.len()).sum()
    }
}

impl Observer for Seen {
    fn applied(&self, position: Position, commands: &[(Command, Outcome)]) {
        self.0.lock().unwrap().push((position, commands.iter().map(|(_, outcome)| *outcome).collect()));
    }

    fn replaced(&self, _store: &Store) {}

    fn failed(&self, error: &str) {
        panic!("the node failed: {error}");
    }
}
