//! What an append with its flush costs, and what a command costs from enqueue to outcome.
//!
//! `cargo bench -p keyward-raft [-- FOLDER [CLIENTS…]]`: the folder decides which disk is measured; the default is the
//! system's folder for temporary files. With numbers of clients, only commands are measured. A command is what a KV
//! write is: a new version, and the next revision of one of 1000 rows. Each figure is of one run; the machine should be
//! quiet.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may stop")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward_model::{Change, Command, Id, Outcome, Row, SeededEntropy, StateSum, Table, Timestamp, VersionBlob};
use keyward_raft::fs::OsFs;
use keyward_raft::log::{Ground, Log, Options};
use keyward_raft::types::{Batch, Entry, log_id};
use keyward_raft::{Node, Observer};
use keyward_storage::{Position, Store, row_digest};
use openraft::EntryPayload;

struct Silent;

impl Observer for Silent {
    fn applied(&self, _position: Position, _commands: &[(Command, Outcome)]) {}
    fn replaced(&self, _store: &keyward_storage::Store) {}
    fn failed(&self, error: &str) {
        println!("failed: {error}");
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mut clients: Vec<usize> = args.map(|arg| arg.parse().unwrap()).collect();
    if clients.is_empty() {
        for (batch, size) in [(1, 600), (16, 600), (64, 600), (1, 64 << 10)] {
            append(&base, batch, size);
        }
        clients = vec![1, 16, 64, 256];
    }
    for clients in clients {
        commands(&base, clients);
    }
}

/// Decides commands as the server does for KV writes: ten versions of each row are kept.
struct Leader {
    sum: StateSum,
    rows: Vec<(Row, [u8; 32], VecDeque<u64>)>,
    next_version: u64,
}

impl Leader {
    fn new(rows: u64) -> Self {
        let row = |number: u64| {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(6);
            let row = Row { key, rev: 0, group: Vec::new(), due: None, head: None, body: vec![5; 200] };
            (row, [0; 32], VecDeque::new())
        };
        Self { sum: StateSum::default(), rows: (0..rows).map(row).collect(), next_version: 1 }
    }

    fn next(&mut self) -> Command {
        let (id, before) = (self.next_version, self.sum);
        self.next_version += 1;
        let place = usize::try_from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap() % self.rows.len();
        let (row, digest, versions) = &mut self.rows[place];
        row.rev += 1;
        row.head = Some(id);
        if row.rev > 1 {
            self.sum = self.sum.minus(*digest);
        }
        *digest = row_digest(Table::Secrets, row);
        self.sum = self.sum.plus(*digest);
        let blob = VersionBlob { wrapped: vec![1; 60], payload: vec![2; 300] };
        let mut changes =
            vec![Change::AddVersion { id, blob }, Change::Put { table: Table::Secrets, row: row.clone() }];
        versions.push_back(id);
        if versions.len() > 10 {
            changes.extend(versions.pop_front().map(|id| Change::EraseVersion { id }));
        }
        Command { request: Id([1; 16]), at: Timestamp(1), before, signature: [2; 32], changes, intent: vec![3; 64] }
    }
}

/// Appends batches one after the other, each awaited.
fn append(base: &std::path::Path, batch: u64, size: usize) {
    let dir = tempfile::tempdir_in(base).unwrap();
    let ground = Ground {
        fs: Arc::new(OsFs),
        dir: dir.path().to_path_buf(),
        chance: Arc::new(SeededEntropy::new(1)),
        failed: Box::new(|error| println!("failed: {error}")),
        inline: false,
    };
    let log = Log::open(ground, Options::default()).unwrap();
    let payload = Bytes::from(vec![7; size]);
    let (sender, receiver) = mpsc::channel();
    let mut index = 0;
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let entry =
            |index| Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(Batch::new(payload.clone())) };
        let entries: Vec<Entry> = (index..index + batch).map(entry).collect();
        index += batch;
        let sender = sender.clone();
        let start = Instant::now();
        log.append(entries, Box::new(move |result| drop(sender.send(result)))).unwrap();
        receiver.recv().unwrap().unwrap();
        times.push(start.elapsed());
        log.release(index);
    }
    report(&format!("append {batch:>3} x {size} B"), began.elapsed(), index, &mut times);
    log.close().unwrap();
}

/// Clients that each submit one command after the other; one lock keeps deciding and enqueueing in one order.
fn commands(base: &std::path::Path, clients: usize) {
    let dir = tempfile::tempdir_in(base).unwrap();
    let store = Store::open(&dir.path().join("state"), &keyward_storage::Options::default()).unwrap();
    let options =
        keyward_raft::Options { log: Options::default(), log_bytes_max: 256 << 20, ..common::options(dir.path()) };
    let node = Arc::new(Node::start(options, store, Arc::new(Silent)).unwrap());
    let leader = Arc::new(Mutex::new(Leader::new(1000)));
    let cpu = cpu();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let began = Instant::now();
    let mut times = runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let (node, leader) = (Arc::clone(&node), Arc::clone(&leader));
            tasks.push(tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < Duration::from_secs(4) {
                    let start = Instant::now();
                    let submission = {
                        let mut leader = leader.lock().unwrap();
                        node.enqueue(leader.next()).unwrap()
                    };
                    assert_eq!(submission.await, Ok(Outcome::Done));
                    times.push(start.elapsed());
                }
                times
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        times
    });
    let (elapsed, count) = (began.elapsed(), times.len() as u64);
    report(&format!("command, {clients:>3} clients"), elapsed, count, &mut times);
    let status = node.status();
    let entries = status.last_log_index.unwrap_or(0);
    let cpu = (self::cpu() - cpu).as_secs_f64() * 1e6 / count as f64;
    println!("    {entries} entries, {} MiB of log, {cpu:.1} µs of processor time each", status.log_bytes >> 20);
    runtime.block_on(node.shutdown()).unwrap();
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn report(what: &str, elapsed: Duration, count: u64, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
    let rate = count as f64 / elapsed.as_secs_f64();
    println!("{what:<24} {rate:>9.0}/s  p50 {:?}  p99 {:?}  p99.9 {:?}", at(500), at(990), at(999));
}
