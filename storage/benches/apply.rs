//! What a put and a point read cost, by the number of rows that are there already.
//!
//! A put is what a KV write is: one secret row (16 + 32 bytes of key, 200 of body) and one version blob (60 + 300).
//! `apply/64` divided by 64 is the cost of one put when many clients write; `apply/1` when one does.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the benchmark")]

use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keyward_model::{Change, Command, Entropy, Id, Outcome, Row, SeededEntropy, Table, Timestamp, VersionBlob};
use keyward_storage::{Content, Entry, Kind, Options, Position, Store, Writer, row_digest};

const ROWS: [u64; 3] = [1_000, 100_000, 1_000_000];

struct Load {
    writer: Writer,
    /// The revision of each secret.
    revs: Vec<u64>,
    /// The row digests, as the leader's barrier would know them.
    digests: Vec<[u8; 32]>,
    next_version: u64,
    entropy: SeededEntropy,
}

impl Load {
    fn new(store: &Store, rows: u64) -> Self {
        let writer = store.writer().unwrap();
        let entropy = SeededEntropy::new(7);
        let mut load = Self { writer, revs: Vec::new(), digests: Vec::new(), next_version: 1, entropy };
        while (load.revs.len() as u64) < rows {
            let first = load.revs.len() as u64;
            let which: Vec<u64> = (first..rows.min(first + 5_000)).collect();
            load.revs.resize(first as usize + which.len(), 0);
            load.digests.resize(load.revs.len(), [0; 32]);
            let batch = load.puts(&which);
            load.apply(&batch);
        }
        load.writer.checkpoint(Kind::Truncate).unwrap();
        load
    }

    /// One command each that puts a new version of the secrets `which`.
    fn puts(&mut self, which: &[u64]) -> Vec<Command> {
        let mut sum = self.writer.sum();
        let mut commands = Vec::with_capacity(which.len());
        for &number in which {
            let id = self.next_version;
            self.next_version += 1;
            let place = number as usize;
            self.revs[place] += 1;
            let mut body = vec![0; 200];
            self.entropy.fill(&mut body);
            let row =
                Row { key: key(number), rev: self.revs[place], group: Vec::new(), due: None, head: Some(id), body };
            let before = sum;
            let digest = row_digest(Table::Secrets, &row);
            if row.rev > 1 {
                sum = sum.minus(self.digests[place]);
            }
            sum = sum.plus(digest);
            self.digests[place] = digest;
            let mut payload = vec![0; 300];
            self.entropy.fill(&mut payload);
            let blob = VersionBlob { wrapped: vec![1; 60], payload };
            commands.push(Command {
                request: Id::ZERO,
                at: Timestamp(0),
                before,
                signature: [0; 32],
                changes: vec![Change::AddVersion { id, blob }, Change::Put { table: Table::Secrets, row }],
                intent: Vec::new(),
            });
        }
        commands
    }

    fn random(&self, count: usize) -> Vec<u64> {
        let mut bytes = vec![0; 8 * count];
        self.entropy.fill(&mut bytes);
        let mut which: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()) % self.revs.len() as u64)
            .collect();
        which.sort_unstable();
        which.dedup();
        // Not in key order.
        which.sort_unstable_by_key(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        which
    }

    fn apply(&mut self, commands: &[Command]) {
        let index = self.writer.applied().map_or(0, |at| at.index + 1);
        let position = Position { term: 1, leader: 1, index };
        let outcomes = self.writer.apply(&[Entry { position, content: Content::Commands(commands) }]).unwrap();
        assert!(outcomes[0].iter().all(|outcome| *outcome == Outcome::Done));
    }
}

/// A folder of a few, and a sealed name without order.
fn key(number: u64) -> Vec<u8> {
    let mut key = vec![0; 48];
    key[0] = (number % 100) as u8;
    SeededEntropy::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d)).fill(&mut key[16..]);
    key
}

fn apply(c: &mut Criterion, folder: &Path, rows: u64) {
    let store = Store::open(folder, &Options::default()).unwrap();
    let mut load = Load::new(&store, rows);
    let mut checkpointer = store.checkpointer().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let background = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
            checkpointer.run(Kind::Passive).unwrap();
        }
    });
    for batch in [1, 64] {
        let mut group = c.benchmark_group(format!("apply/{batch}"));
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let which = load.random(batch);
                    let commands = load.puts(&which);
                    let start = Instant::now();
                    load.apply(&commands);
                    spent += start.elapsed();
                }
                spent
            });
        });
        group.finish();
    }
    drop(stop);
    background.join().unwrap();
    load.writer.checkpoint(Kind::Truncate).unwrap();
}

fn read(c: &mut Criterion, folder: &Path, rows: u64, mapped_mib: u64) {
    let options = Options { reader_mmap_bytes: mapped_mib << 20, ..Options::default() };
    let store = Store::open(folder, &options).unwrap();
    let reader = store.reader().unwrap();
    let entropy = SeededEntropy::new(9);
    let keys: Vec<Vec<u8>> = (0..100_000)
        .map(|_| {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes);
            key(u64::from_le_bytes(bytes) % rows)
        })
        .collect();
    let mut next = keys.iter().cycle();
    let mut group = c.benchmark_group(format!("read/mapped {mapped_mib} MiB"));
    group.bench_function(BenchmarkId::from_parameter(rows), |b| {
        b.iter(|| reader.row_with_head(Table::Secrets, black_box(next.next().unwrap())).unwrap().unwrap());
    });
    group.finish();
}

fn verify(c: &mut Criterion, folder: &Path, rows: u64) {
    let store = Store::open(folder, &Options::default()).unwrap();
    let reader = store.reader().unwrap();
    let mut group = c.benchmark_group("verify");
    group.sample_size(10).throughput(Throughput::Elements(rows));
    group.bench_function(BenchmarkId::from_parameter(rows), |b| b.iter(|| reader.verify().unwrap()));
    group.finish();
}

fn all(c: &mut Criterion) {
    for rows in ROWS {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        apply(c, folder.path(), rows);
        for mapped_mib in [0, 64, 4096] {
            read(c, folder.path(), rows, mapped_mib);
        }
        verify(c, folder.path(), rows);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
