//! A cluster in one process: nodes on a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use keyward_model::{Command, Outcome, SeededEntropy};
use keyward_raft::link::Dialing;
use keyward_raft::{
    Candidacy, Connection, Dialer, Fresh, Leadership, Node, Observer, Options, Role, SubmitError, Timing, log,
};
use keyward_storage::{Position, Store};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::disk::Disk;
use super::{Leader, rows};

/// Bytes that may still go, and whether it is refused to go on after that.
struct Fuse {
    left: u64,
    refuses: bool,
}

/// The network between nodes.
#[derive(Default)]
pub struct Net {
    nodes: Mutex<BTreeMap<u64, Weak<Node>>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// Between whom connections are reset, and refused.
    refused: Mutex<BTreeSet<(u64, u64)>>,
    /// Raised with every cut: a cable of before is dead for good.
    cuts: Mutex<BTreeMap<(u64, u64), u64>>,
    /// Bytes that may still go from one node to another before that way is cut by itself.
    fuse: Mutex<BTreeMap<(u64, u64), Fuse>>,
    /// How much may go at once from one node to another; more than that stays where it is.
    narrow: Mutex<BTreeMap<(u64, u64), usize>>,
    /// Addresses of nodes that moved.
    moved: Mutex<BTreeMap<u64, String>>,
    pub bytes: AtomicU64,
    pub dials: AtomicUsize,
}

impl Net {
    fn is_cut(&self, a: u64, b: u64) -> bool {
        self.cut.lock().unwrap().contains(&(a.min(b), a.max(b)))
    }

    fn cuts(&self, a: u64, b: u64) -> u64 {
        self.cuts.lock().unwrap().get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }

    /// Nothing goes through between `a` and `b` any more, and neither is told.
    pub fn cut(&self, a: u64, b: u64) {
        self.cut.lock().unwrap().insert((a.min(b), a.max(b)));
        *self.cuts.lock().unwrap().entry((a.min(b), a.max(b))).or_default() += 1;
    }

    /// New connections between `a` and `b` work again.
    pub fn heal(&self, a: u64, b: u64) {
        self.cut.lock().unwrap().remove(&(a.min(b), a.max(b)));
        self.refused.lock().unwrap().remove(&(a.min(b), a.max(b)));
    }

    /// Connections between `a` and `b` break, and new ones are refused, as if the other one were gone.
    pub fn refuse(&self, a: u64, b: u64) {
        self.refused.lock().unwrap().insert((a.min(b), a.max(b)));
    }

    pub fn refuses(&self, a: u64, b: u64) -> bool {
        self.refused.lock().unwrap().contains(&(a.min(b), a.max(b)))
    }

    /// Where `node` is.
    fn address(&self, node: u64) -> String {
        self.moved.lock().unwrap().get(&node).cloned().unwrap_or_else(|| format!("node-{node}"))
    }

    /// From now on `node` is at `address`.
    pub fn rename(&self, node: u64, address: &str) {
        self.moved.lock().unwrap().insert(node, address.to_owned());
    }

    /// Breaks what there is between `from` and `to` after so many more bytes; it can be made again.
    pub fn fuse(&self, from: u64, to: u64, bytes: u64) {
        self.fuse.lock().unwrap().insert((from, to), Fuse { left: bytes, refuses: false });
    }

    /// As [`Net::refuse`], after so many more bytes from `from` to `to`.
    pub fn refuse_after(&self, from: u64, to: u64, bytes: u64) {
        self.fuse.lock().unwrap().insert((from, to), Fuse { left: bytes, refuses: true });
    }

    /// From now on nothing goes from `from` to `to` that has more than `bytes` at once: heartbeats, and not what a log lacks.
    pub fn narrow(&self, from: u64, to: u64, bytes: usize) {
        self.narrow.lock().unwrap().insert((from, to), bytes);
    }

    /// Everything goes from `from` to `to` again, on new connections.
    pub fn widen(&self, from: u64, to: u64) {
        self.narrow.lock().unwrap().remove(&(from, to));
    }

    fn holds(&self, from: u64, to: u64, bytes: usize) -> bool {
        self.narrow.lock().unwrap().get(&(from, to)).is_some_and(|most| bytes > *most)
    }

    fn burns(&self, from: u64, to: u64, bytes: usize) -> bool {
        let mut fuse = self.fuse.lock().unwrap();
        let Some(Fuse { left, refuses }) = fuse.get_mut(&(from, to)) else { return false };
        *left = left.saturating_sub(bytes as u64);
        if *left > 0 {
            return false;
        }
        if *refuses {
            self.refuse(from, to);
        }
        fuse.remove(&(from, to));
        true
    }
}

/// Dials from one node.
struct From(u64, Arc<Net>);

impl Dialer for From {
    fn dial<'a>(&'a self, node: u64, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let net = &self.1;
            net.dials.fetch_add(1, Ordering::Relaxed);
            if net.is_cut(self.0, node) {
                std::future::pending::<()>().await;
            }
            if address != net.address(node) || net.refuses(self.0, node) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let there = net.nodes.lock().unwrap().get(&node).and_then(Weak::upgrade);
            let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (near, far) = duplex(64 << 10);
            there.accept(self.0, Box::new(Cable::new(far, node, self.0, net)));
            let near: Box<dyn Connection> = Box::new(Cable::new(near, self.0, node, net));
            Ok(near)
        })
    }
}

/// One end of a connection.
struct Cable {
    stream: DuplexStream,
    from: u64,
    to: u64,
    cuts: u64,
    net: Arc<Net>,
}

impl Cable {
    fn new(stream: DuplexStream, from: u64, to: u64, net: &Arc<Net>) -> Self {
        Self { stream, from, to, cuts: net.cuts(from, to), net: Arc::clone(net) }
    }

    fn is_dead(&self) -> bool {
        self.cuts != self.net.cuts(self.from, self.to)
    }
}

impl AsyncRead for Cable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Pending } else { Pin::new(&mut self.stream).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Cable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_dead() || self.net.holds(self.from, self.to, bytes.len()) {
            return Poll::Pending;
        }
        if self.net.refuses(self.from, self.to) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.net.bytes.fetch_add(written as u64, Ordering::Relaxed);
        if self.net.burns(self.from, self.to, written) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Pending } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Counts what it is told.
#[derive(Default)]
pub struct Told {
    pub replaced: AtomicUsize,
    /// The last entry that it was told of.
    pub applied: AtomicU64,
    /// How many milliseconds it takes to hear of an entry.
    pub slow_ms: AtomicU64,
    /// It lets nothing be purged.
    pub keeps: AtomicBool,
    pub failures: Mutex<Vec<String>>,
}

impl Observer for Told {
    #[allow(clippy::disallowed_methods, reason = "stands for an observer that has much to do")]
    fn applied(&self, position: Position, _commands: &[(Command, Outcome)]) {
        std::thread::sleep(Duration::from_millis(self.slow_ms.load(Ordering::SeqCst)));
        self.applied.store(position.index, Ordering::SeqCst);
    }

    fn before_purge(&self) -> io::Result<()> {
        if self.keeps.load(Ordering::SeqCst) { Err(io::Error::other("not yet")) } else { Ok(()) }
    }

    fn replaced(&self, _store: &Store) {
        self.replaced.fetch_add(1, Ordering::SeqCst);
    }

    fn failed(&self, error: &str) {
        self.failures.lock().unwrap().push(error.to_owned());
    }
}

/// A node that runs.
pub struct Running {
    pub node: Arc<Node>,
    pub store: Store,
    /// What its log is on.
    pub disk: Disk,
    pub told: Arc<Told>,
}

/// Nodes and their folders.
pub struct Cluster {
    pub net: Arc<Net>,
    pub running: BTreeMap<u64, Running>,
    folders: BTreeMap<u64, TempDir>,
    pub log_bytes_max: u64,
    founder: u64,
}

pub const TIMING: Timing = Timing { heartbeat_ms: 50, election_min_ms: 300, election_max_ms: 600 };

impl Cluster {
    /// A cluster of one.
    pub fn alone(log_bytes_max: u64) -> Self {
        let mut cluster =
            Self { net: Arc::default(), running: BTreeMap::new(), folders: BTreeMap::new(), log_bytes_max, founder: 1 };
        cluster.start(1);
        cluster
    }

    /// A cluster of voters `1..=count`.
    pub async fn of(count: u64) -> Self {
        let mut cluster = Self::alone(u64::MAX);
        for id in 2..=count {
            cluster.join(id).await;
            cluster.node(1).promote(id).await.unwrap();
        }
        cluster
    }

    /// Starts `id` and makes it a learner.
    pub async fn join(&mut self, id: u64) {
        self.start(id);
        let leader = self.leader().await;
        self.node(leader).add_learner(id, &format!("node-{id}")).await.unwrap();
    }

    pub fn folder(&mut self, id: u64) -> PathBuf {
        self.folders.entry(id).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned()
    }

    pub fn start(&mut self, id: u64) {
        self.start_told(id, Told::default());
    }

    /// Starts `id` with an observer of the caller's own.
    pub fn start_told(&mut self, id: u64, told: Told) {
        self.begin(id, told);
        self.node(id).campaign(Candidacy::Willing);
    }

    /// Starts `id`, and does not say that it may lead.
    pub fn begin(&mut self, id: u64, told: Told) {
        let (folder, disk) = (self.folder(id), Disk::default());
        let options = Options {
            dir: folder.join("log"),
            node_id: id,
            fresh: if id == self.founder { Fresh::Found } else { Fresh::Join },
            fs: Arc::new(disk.clone()),
            entropy: Arc::new(SeededEntropy::new(id)),
            log: log::Options {
                segment_bytes: 128 << 10,
                reserve_bytes: 0,
                unapplied_bytes: 64 << 10,
                ..log::Options::default()
            },
            log_bytes_max: self.log_bytes_max,
            timing: TIMING,
            dialer: Arc::new(From(id, Arc::clone(&self.net))),
            address: self.net.address(id),
        };
        let store = Store::open(&folder.join("state"), &keyward_storage::Options::default()).unwrap();
        let told = Arc::new(told);
        let node = Node::start(options, store.clone(), Arc::clone(&told) as Arc<dyn Observer>).unwrap();
        let node = Arc::new(node);
        self.net.nodes.lock().unwrap().insert(id, Arc::downgrade(&node));
        self.running.insert(id, Running { node, store, disk, told });
    }

    /// Stops `id` as if its process had been killed.
    pub fn kill(&mut self, id: u64) {
        self.net.nodes.lock().unwrap().remove(&id);
        drop(self.running.remove(&id));
    }

    pub fn node(&self, id: u64) -> Arc<Node> {
        Arc::clone(&self.running[&id].node)
    }

    pub fn store(&self, id: u64) -> Store {
        self.running[&id].store.clone()
    }

    /// Cuts `id` off from all others.
    pub fn isolate(&self, id: u64) {
        self.running.keys().filter(|other| **other != id).for_each(|other| self.net.cut(id, *other));
    }

    /// Connects `id` with all others again.
    pub fn rejoin(&self, id: u64) {
        self.running.keys().filter(|other| **other != id).for_each(|other| self.net.heal(id, *other));
    }

    /// The one that leads most of the nodes that run.
    pub fn leads(&self) -> Option<u64> {
        let views: Vec<Leadership> = self.running.values().map(|running| *running.node.leadership().borrow()).collect();
        let leaders = self.running.iter().filter(|(_, running)| running.node.leads());
        let followed =
            |id: u64, term: u64| views.iter().filter(|view| view.leader == Some(id) && view.term == term).count();
        let (id, _) = leaders
            .map(|(id, running)| (*id, followed(*id, running.node.leadership().borrow().term)))
            .max_by_key(|(_, count)| *count)?;
        let voters = self.running[&id].node.members().iter().filter(|member| member.role == Role::Voter).count();
        (followed(id, self.running[&id].node.leadership().borrow().term) > voters / 2).then_some(id)
    }

    pub async fn leader(&self) -> u64 {
        eventually("a leader", || self.leads()).await
    }

    /// Writes one row through whoever leads, and gives its number once it is acknowledged.
    pub async fn write(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "nothing could be written: {}", self.show());
            let leader = self.leader().await;
            let node = self.node(leader);
            if node.read_point().await.is_err() {
                continue;
            }
            let reader = self.store(leader).reader().unwrap();
            let (made, meta) = (reader.count(keyward_model::Table::Secrets).unwrap(), reader.meta().unwrap());
            let mut decider = Leader::default();
            decider.resume(made, meta.sum);
            let outcome = tokio::time::timeout(Duration::from_secs(2), node.submit(decider.add())).await;
            match outcome {
                Ok(Ok(Outcome::Done)) => return made,
                Ok(Ok(Outcome::Stale)) | Err(_) => {}
                Ok(Err(SubmitError::NotLeader { .. } | SubmitError::Unknown)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(Err(error)) => panic!("{error}"),
            }
        }
    }

    /// Writes `count` rows as fast as a leader that stays can.
    pub async fn fill(&self, count: usize) {
        let leader = self.leader().await;
        let reader = self.store(leader).reader().unwrap();
        let mut decider = Leader::default();
        decider.resume(rows(&reader), reader.meta().unwrap().sum);
        let node = self.node(leader);
        let waiting: Vec<_> = (0..count).map(|_| node.enqueue(decider.add()).unwrap()).collect();
        for submission in waiting {
            assert_eq!(submission.await, Ok(Outcome::Done));
        }
    }

    /// Every node that runs has all rows up to number `last`, and nothing else than the others.
    pub async fn agree(&self, last: u64) {
        for (id, running) in &self.running {
            let reader = running.store.reader().unwrap();
            eventually(&format!("node {id} has row {last}: {}", self.show()), || {
                (reader.count(keyward_model::Table::Secrets).unwrap() > last).then_some(())
            })
            .await;
            assert!(rows(&reader) > last);
            assert_eq!(*running.told.failures.lock().unwrap(), Vec::<String>::new());
        }
    }

    /// Greets `node` on a connection of `peer`, and gives the first byte of the answer.
    pub async fn greet(&self, node: u64, peer: u64, (from, to, since): (u64, u64, u64)) -> Option<u8> {
        let (mut near, far) = duplex(4096);
        self.node(node).accept(peer, Box::new(far));
        let mut body = b"keyward\0".to_vec();
        body.extend([1, 0, 1, 0, 0]); // versions 1 to 1, the lane of the log
        [from, to, since].iter().for_each(|number| body.extend(number.to_le_bytes()));
        near.write_all(&u32::try_from(9 + body.len()).unwrap().to_le_bytes()).await.unwrap();
        near.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        near.write_all(&body).await.unwrap();
        let mut answer = [0; 16];
        near.read_exact(&mut answer).await.ok()?;
        assert_eq!(answer[4], 0x81, "an answer to the greeting");
        Some(answer[13])
    }

    pub fn show(&self) -> String {
        self.running.values().map(|running| format!("\n{:?}", running.node.status())).collect()
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until there is something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it did not come to that: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
