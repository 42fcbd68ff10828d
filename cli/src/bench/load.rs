//! The load itself: connections that ask, wait, check and ask again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::runtime;

use super::endpoint::{Endpoint, Stream};
use super::histogram::Histogram;
use super::request::{Operation, Requests};
use super::response::{Answer, Reader};
use crate::error::CliError;

/// A connection that fails so often in a row gives up.
const FAILURES_MAX: u32 = 20;

/// A server under load, and the requests as it wants them.
pub(crate) struct Node {
    /// Where it is.
    pub(crate) endpoint: Endpoint,
    /// What is sent to it.
    pub(crate) requests: Requests,
}

/// What to send, where, and for how long.
pub(crate) struct Load<'a> {
    /// Where to: connections are dealt out to these in turn, and go to the next where one does not take them.
    pub(crate) nodes: &'a [Node],
    /// How many connections.
    pub(crate) connections: usize,
    /// On how many threads, at most one for each connection.
    pub(crate) threads: usize,
    /// Which keys.
    pub(crate) order: Order,
    /// Time before it counts.
    pub(crate) warm_up: Duration,
    /// Time that counts; [`Duration::MAX`] until all keys were used.
    pub(crate) window: Duration,
}

/// Which key comes next.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// Any, and a write instead so many times in a hundred.
    Random {
        /// Keys are below this.
        keys: u64,
        /// What is done as a rule.
        usual: Operation,
        /// 0 to 100.
        write_percent: u64,
    },
    /// Each once, whichever connection is free.
    Once {
        /// Keys are below this.
        keys: u64,
        /// What is done to each.
        operation: Operation,
    },
}

/// What came of it.
pub(crate) struct Tally {
    /// Latencies of good answers within the window, in nanoseconds.
    pub(crate) latencies: Histogram,
    /// All good answers, the warm-up's, too.
    pub(crate) answers: u64,
    /// What went wrong, and how often: `status 503`, `connection reset`, …
    pub(crate) errors: BTreeMap<String, u64>,
    /// The length of the window.
    pub(crate) elapsed: Duration,
    /// The longest time within the window in which no connection had a good answer.
    pub(crate) silence: Duration,
}

impl Load<'_> {
    /// Opens all connections, then sends until the time is over or the keys are used up.
    ///
    /// # Errors
    /// No runtime can be made, or not a single connection opens.
    pub(crate) fn run(&self) -> Result<Tally, CliError> {
        let threads = self.threads.clamp(1, self.connections);
        let (used, silence) = (AtomicU64::new(0), Silence::new());
        let barrier = Barrier::new(threads);
        let parts: Vec<_> = thread::scope(|scope| {
            let (barrier, used, silence) = (&barrier, &used, &silence);
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let numbers = (thread..self.connections).step_by(threads);
                    scope.spawn(move || self.run_thread(numbers, barrier, used, silence))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().ok()).collect()
        });
        let mut sum: Option<Tally> = None;
        for part in parts {
            let part = part.unwrap_or_else(|| Err(io::Error::other("a thread of the load ended early")));
            let part = part.map_err(|error| CliError::Local(format!("cannot make the load: {error}")))?;
            match &mut sum {
                None => sum = Some(part),
                Some(sum) => sum.add(part),
            }
        }
        let mut sum = sum.ok_or_else(|| CliError::Local("cannot make the load: no threads".into()))?;
        sum.silence = silence.longest();
        Ok(sum)
    }

    fn run_thread(
        &self,
        numbers: impl Iterator<Item = usize>,
        barrier: &Barrier,
        used: &AtomicU64,
        silence: &Silence,
    ) -> io::Result<Tally> {
        let prepared = runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            let connected: io::Result<Vec<_>> = runtime.block_on(async {
                let mut streams = Vec::new();
                for number in numbers {
                    let mut line = Line { nodes: self.nodes, at: number % self.nodes.len() };
                    streams.push((number, line.open().await?, line));
                }
                Ok(streams)
            });
            connected.map(|streams| (runtime, streams))
        });
        // Also after a failure, or the other threads would wait for ever.
        barrier.wait();
        let (runtime, streams) = prepared?;
        let start = Instant::now();
        let count_from = start + self.warm_up;
        // Far beyond any run when the keys decide.
        let stop = count_from.checked_add(self.window);
        let connections = streams.into_iter().map(|(number, stream, line)| {
            let requests = self.nodes.iter().map(|node| node.requests.clone()).collect();
            let keys = Keys { order: self.order, used, seed: seed(number) };
            Connection { line, requests, keys, count_from, stop, silence }.run(stream)
        });
        let parts = runtime.block_on(futures_util::future::join_all(connections));
        let mut sum = Tally::new();
        parts.into_iter().for_each(|part| sum.add(part));
        sum.elapsed = if self.window == Duration::MAX { start.elapsed() } else { self.window };
        Ok(sum)
    }
}

/// Bytes of the answer to each operation that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// To a read.
    pub(crate) read: usize,
    /// To a write.
    pub(crate) write: usize,
    /// To a list of a folder.
    pub(crate) list: usize,
}

/// Sends one request of each kind, and says how long the answers are.
///
/// # Errors
/// A connection that fails, or a status that is not 200.
pub(crate) fn sample(node: &Node) -> Result<Sizes, CliError> {
    let failed = |error: io::Error| CliError::Unexpected(format!("a first request failed: {error}"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut requests = node.requests.clone();
    runtime.block_on(async {
        let mut stream = node.endpoint.connect().await.map_err(failed)?;
        let mut reader = Reader::new();
        let mut sizes = Sizes { read: 0, write: 0, list: 0 };
        for (operation, size) in [
            (Operation::Write, &mut sizes.write),
            (Operation::Read, &mut sizes.read),
            (Operation::List, &mut sizes.list),
        ] {
            let answer = exchange(&mut stream, &mut reader, requests.bytes(operation, 0)).await.map_err(failed)?;
            if answer.status != 200 {
                return Err(CliError::Unexpected(format!("a first {operation:?} was answered with {}", answer.status)));
            }
            *size = answer.body_bytes;
        }
        Ok(sizes)
    })
}

async fn exchange(stream: &mut Stream, reader: &mut Reader, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    stream.flush().await?;
    reader.next(stream).await
}

/// Which of the nodes a connection goes to.
struct Line<'a> {
    nodes: &'a [Node],
    at: usize,
}

impl Line<'_> {
    /// Opens it, to the next node where this one does not take it.
    async fn open(&mut self) -> io::Result<Stream> {
        let mut opened = self.nodes[self.at].endpoint.connect().await;
        for _ in 1..self.nodes.len() {
            if opened.is_err() {
                self.at = (self.at + 1) % self.nodes.len();
                opened = self.nodes[self.at].endpoint.connect().await;
            }
        }
        opened
    }
}

struct Connection<'a> {
    line: Line<'a>,
    /// For each node.
    requests: Vec<Requests>,
    keys: Keys<'a>,
    count_from: Instant,
    stop: Option<Instant>,
    silence: &'a Silence,
}

impl Connection<'_> {
    async fn run(mut self, stream: Stream) -> Tally {
        let mut tally = Tally::new();
        let mut reader = Reader::new();
        let mut stream = Some(stream);
        let mut failures = 0;
        let mut before = Instant::now();
        while self.stop.is_none_or(|stop| before < stop) && failures < FAILURES_MAX {
            let Some((operation, key)) = self.keys.next() else { break };
            let answer = match &mut stream {
                Some(stream) => {
                    let request = self.requests[self.line.at].bytes(operation, key);
                    exchange(stream, &mut reader, request).await
                }
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let after = Instant::now();
            match answer {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    failures = 0;
                    tally.answers += 1;
                    if before >= self.count_from && self.stop.is_none_or(|stop| after <= stop) {
                        tally.latencies.record(u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX));
                        self.silence.end(self.count_from, after);
                    }
                    if answer.last {
                        stream = self.line.open().await.ok();
                    }
                }
                Ok(answer) => {
                    failures += 1;
                    tally.fail(format!("status {}", answer.status));
                }
                Err(error) => {
                    failures += 1;
                    tally.fail(error.to_string());
                    stream = self.line.open().await.ok();
                }
            }
            before = after;
        }
        tally
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            latencies: Histogram::new(),
            answers: 0,
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
            silence: Duration::ZERO,
        }
    }

    fn fail(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    /// Adds what another thread or connection did in the same window.
    fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.answers += other.answers;
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.elapsed = self.elapsed.max(other.elapsed);
        self.silence = self.silence.max(other.silence);
    }
}

/// The time since any connection last had a good answer, and the longest that it was; in nanoseconds of the window.
struct Silence {
    since: AtomicU64,
    longest: AtomicU64,
}

impl Silence {
    const fn new() -> Self {
        Self { since: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    /// There was a good answer.
    fn end(&self, window: Instant, now: Instant) {
        let now = u64::try_from((now - window).as_nanos()).unwrap_or(u64::MAX);
        let since = self.since.fetch_max(now, Ordering::Relaxed);
        self.longest.fetch_max(now.saturating_sub(since), Ordering::Relaxed);
    }

    fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

struct Keys<'a> {
    order: Order,
    used: &'a AtomicU64,
    seed: u64,
}

impl Keys<'_> {
    fn next(&mut self) -> Option<(Operation, u64)> {
        match self.order {
            Order::Random { keys, usual, write_percent } => {
                let operation = if self.random() % 100 < write_percent { Operation::Write } else { usual };
                Some((operation, self.random() % keys))
            }
            Order::Once { keys, operation } => {
                let key = self.used.fetch_add(1, Ordering::Relaxed);
                (key < keys).then_some((operation, key))
            }
        }
    }

    /// SplitMix64: even, fast, and the same in every run.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const fn seed(connection: usize) -> u64 {
    (connection as u64).wrapping_mul(0xd134_2543_de82_ef95)
}
