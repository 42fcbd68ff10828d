//! A snapshot on its way: made by the leader from its running state, sent in parts, checked and installed by the follower.
//!
//! The file is made by SQLite from a moment of the running state, beside all reads and writes. A transfer that was cut off
//! goes on where it stopped, as long as the leader still has the file and its log goes on from there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use keyward_storage::Store;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, Snapshot};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::applier::{read_membership, to_log_id};
use crate::link::Board;
use crate::link::call::connect;
use crate::link::frame::{CHUNK_BYTES, Frame, Kind, Wire};
use crate::link::message::{Bid, Installed, Lane, Offer, decode_chunk, encode_chunk};
use crate::log::Log;
use crate::machine::Machine;
use crate::snapshot::SnapshotData;
use crate::types::{SnapshotMeta, StoredMembership, Types, Vote};

/// Parts that may be on their way.
const PARTS_MAX: u64 = 8;
/// Bytes that arrive between two flushes. WHY: flushes of the node's log would stand behind more, and a sender that is faster
/// than this disk has to wait in any case.
const FLUSH_BYTES: u64 = 8 << 20;
/// How long either side may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a follower that checks and installs says that it is still there.
const SIGN: Duration = Duration::from_secs(1);
/// How long a leader keeps a file that nobody is being sent: the next one may need it, or the same again.
const UNUSED_MAX: Duration = Duration::from_secs(30);
/// How a leader's file begins and ends.
const OUTGOING: (&str, &str) = ("outgoing-", ".snapshot");
/// The follower's file while it arrives.
const INCOMING: &str = "incoming.snapshot";
/// How a follower's file begins and ends when it is whole.
const ARRIVED: (&str, &str) = ("arrived-", ".snapshot");

/// Takes away what an earlier run left in the folder of the state.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub(crate) fn clean(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_of = |(start, end): (&str, &str)| name.starts_with(start) && name.ends_with(end);
        if name == INCOMING || is_of(OUTGOING) || is_of(ARRIVED) {
            std::fs::remove_file(directory.join(name))?;
        }
    }
    Ok(())
}

/// A snapshot to be sent. The file goes with it.
pub(crate) struct SnapshotFile {
    path: PathBuf,
    bytes: u64,
    hash: [u8; 32],
    /// The last entry in it.
    index: u64,
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // What stays is taken away at the next start. A large file takes its time to go.
        let remove = move || drop(std::fs::remove_file(path));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Makes sure that `node` would take a snapshot now: for one that is away none is made, and no log kept.
///
/// # Errors
/// It cannot be reached, or does not want this one.
pub(crate) async fn reach(board: &Board, node: u64, address: &str) -> io::Result<()> {
    connect(board.dialer(), address, board.hello(node, Lane::Snapshot)).await.map(drop)
}

/// Makes snapshots to be sent; one at a time, and one for all who need one now.
pub(crate) struct Outgoing {
    log: Log,
    number: AtomicU64,
    last: Arc<Mutex<Weak<SnapshotFile>>>,
}

impl Outgoing {
    /// None made yet.
    pub(crate) fn new(log: Log) -> Self {
        Self { log, number: AtomicU64::new(0), last: Arc::default() }
    }

    /// A snapshot of `store` up to `index` or further: the last one, if somebody still has it and the log goes on from there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) async fn file(&self, store: &Store, index: u64) -> io::Result<Arc<SnapshotFile>> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let is_enough =
            |file: &Arc<SnapshotFile>| file.index >= index && self.log.purged().is_none_or(|at| at.index <= file.index);
        if let Some(file) = last.upgrade().filter(is_enough) {
            return Ok(file);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = store.directory().join(format!("{}{number}{}", OUTGOING.0, OUTGOING.1));
        let store = store.clone();
        // A task of its own, which has the turn: whoever asked may give up meanwhile, and asks again.
        let making = tokio::spawn(async move {
            let made = spawn_blocking(move || make(&store, path)).await.map_err(io::Error::other)?;
            let file = Arc::new(made?);
            *last = Arc::downgrade(&file);
            let kept = Arc::clone(&file);
            drop(tokio::spawn(async move {
                sleep(UNUSED_MAX).await;
                drop(kept);
            }));
            Ok(file)
        });
        making.await.map_err(io::Error::other)?
    }
}

fn make(store: &Store, path: PathBuf) -> io::Result<SnapshotFile> {
    let meta = store.snapshot_into(&path).map_err(io::Error::other)?;
    let mut file = SnapshotFile { path, bytes: 0, hash: [0; 32], index: meta.applied.map_or(0, |at| at.index) };
    (file.bytes, file.hash) = hash(&file.path)?;
    Ok(file)
}

fn hash(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let (mut file, mut hash, mut size) = (File::open(path)?, Sha256::new(), 0);
    let mut part = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut part)?;
        let Some(part) = part.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        size += read as u64;
    }
    Ok((size, hash.finalize().into()))
}

impl SnapshotFile {
    /// Sends it to `node`. Returns the node's vote once it is installed there, or was not needed.
    ///
    /// # Errors
    /// The node cannot be reached, the link broke, or what arrived is not what was sent.
    pub(crate) async fn send(&self, board: &Board, node: u64, address: &str, vote: Vote) -> io::Result<Vote> {
        let mut wire = connect(board.dialer(), address, board.hello(node, Lane::Snapshot)).await?;
        board.transit().keep(node, self.index);
        let offer = Offer { vote, bytes: self.bytes, hash: self.hash };
        wire.ask(Kind::Offer, 0, &offer.encode());
        let mut offset = match Bid::decode(&answer(&mut wire, Kind::Offer).await?).ok_or_else(broken)? {
            Bid::HigherVote(vote) => return Ok(vote),
            Bid::From(offset) if offset <= self.bytes => offset,
            Bid::From(_) => return Err(broken()),
        };
        let mut file = tokio::fs::File::open(&self.path).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        let mut under_way = 0;
        while offset < self.bytes || under_way > 0 {
            if offset < self.bytes && under_way < PARTS_MAX {
                let size = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let mut part = vec![0; size];
                file.read_exact(&mut part).await?;
                wire.ask(Kind::Chunk, offset, &encode_chunk(offset, &part));
                offset += size as u64;
                under_way += 1;
            } else {
                answer(&mut wire, Kind::Chunk).await?;
                board.transit().keep(node, self.index);
                under_way -= 1;
            }
        }
        wire.ask(Kind::Finish, 0, &[]);
        match Installed::decode(&answer(&mut wire, Kind::Finish).await?).ok_or_else(broken)? {
            Installed::Yes(vote) => Ok(vote),
            Installed::Broken => Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot did not arrive whole")),
        }
    }
}

/// The body of the next answer, which must be to a question of `kind`. Signs of life count as such.
async fn answer(wire: &mut Wire, kind: Kind) -> io::Result<Bytes> {
    loop {
        match next(wire).await? {
            Frame { kind: Kind::Ping, is_answer: false, .. } => {}
            Frame { kind: found, is_answer: true, body, .. } if found == kind => return Ok(body),
            _ => return Err(broken()),
        }
    }
}

async fn next(wire: &mut Wire) -> io::Result<Frame> {
    timeout(SILENCE_MAX, wire.next()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Takes snapshots in, one at a time.
pub(crate) struct Receiver {
    directory: PathBuf,
    options: keyward_storage::Options,
    number: AtomicU64,
    /// What has arrived of which one.
    arrived: Arc<Mutex<Option<(Offer, u64)>>>,
}

impl Receiver {
    /// Nothing arrived. Files go to `directory`, which is the state's.
    pub(crate) fn new(directory: &Path) -> Self {
        let (number, arrived) = (AtomicU64::new(0), Arc::default());
        Self { directory: directory.to_owned(), options: keyward_storage::Options::default(), number, arrived }
    }

    /// Takes one snapshot from `wire`, and installs it.
    ///
    /// # Errors
    /// The link broke, or the disk failed. What arrived is kept for the next attempt.
    pub(crate) async fn receive(&self, raft: &Raft<Types, Machine>, mut wire: Wire) -> io::Result<()> {
        let frame = next(&mut wire).await?;
        let offer = (frame.kind == Kind::Offer && !frame.is_answer).then(|| Offer::decode(&frame.body)).flatten();
        let offer = offer.ok_or_else(broken)?;
        let vote = raft.server_metrics().borrow_watched().vote;
        if vote > offer.vote {
            wire.answer(Kind::Offer, frame.id, &Bid::HigherVote(vote).encode());
            return wire.flush().await;
        }
        let mut arrived = Arc::clone(&self.arrived).lock_owned().await;
        let have =
            arrived.filter(|(of, _)| of.hash == offer.hash && of.bytes == offer.bytes).map_or(0, |(_, have)| have);
        wire.answer(Kind::Offer, frame.id, &Bid::From(have).encode());
        let finish = self.take_parts(&mut wire, &mut arrived, offer, have).await?;
        *arrived = None;
        // A name of its own: the next transfer must not write into a file that is being installed.
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let incoming = self.directory.join(INCOMING);
        let path = self.directory.join(format!("{}{number}{}", ARRIVED.0, ARRIVED.1));
        // A task of its own: a link that ends must not leave a file behind, nor take it from who is installing it.
        let installing = tokio::spawn(install(raft.clone(), (incoming, path), offer, self.options, arrived));
        let installed = async { installing.await.map_err(io::Error::other)? };
        let installed = with_signs(&mut wire, installed).await?;
        wire.answer(Kind::Finish, finish, &installed.encode());
        wire.flush().await
    }

    /// Writes parts to the file until the sender says that there are no more.
    async fn take_parts(
        &self,
        wire: &mut Wire,
        arrived: &mut Option<(Offer, u64)>,
        offer: Offer,
        mut have: u64,
    ) -> io::Result<u64> {
        let mut options = tokio::fs::OpenOptions::new();
        let mut file =
            options.create(true).truncate(false).write(true).mode(0o600).open(self.directory.join(INCOMING)).await?;
        file.set_len(have).await?;
        file.seek(io::SeekFrom::Start(have)).await?;
        loop {
            *arrived = Some((offer, have));
            let frame = next(wire).await?;
            match (frame.kind, frame.is_answer) {
                (Kind::Chunk, false) => {
                    let (offset, part) = decode_chunk(&frame.body).ok_or_else(broken)?;
                    let end = have + part.len() as u64;
                    if offset != have || end > offer.bytes {
                        return Err(broken());
                    }
                    file.write_all(&part).await?;
                    file.flush().await?;
                    if end / FLUSH_BYTES > have / FLUSH_BYTES {
                        file.sync_data().await?;
                    }
                    have = end;
                    wire.answer(Kind::Chunk, frame.id, &[]);
                }
                (Kind::Finish, false) => {
                    file.sync_all().await?;
                    return Ok(frame.id);
                }
                _ => return Err(broken()),
            }
        }
    }
}

/// Checks what arrived at `incoming`, and hands it to the library under the name `path`. It has the turn to receive.
async fn install(
    raft: Raft<Types, Machine>,
    (incoming, path): (PathBuf, PathBuf),
    offer: Offer,
    options: keyward_storage::Options,
    turn: OwnedMutexGuard<Option<(Offer, u64)>>,
) -> io::Result<Installed> {
    tokio::fs::rename(incoming, &path).await?;
    let installed = examine_and_install(&raft, &path, offer, options).await;
    // It is still there if it was not sound, or not needed.
    drop(tokio::fs::remove_file(&path).await);
    drop(turn);
    installed
}

async fn examine_and_install(
    raft: &Raft<Types, Machine>,
    path: &Path,
    offer: Offer,
    options: keyward_storage::Options,
) -> io::Result<Installed> {
    let file = path.to_owned();
    let examined = spawn_blocking(move || examine(&file, offer, &options)).await.map_err(io::Error::other)?;
    let Ok(meta) = examined else { return Ok(Installed::Broken) };
    let snapshot = Snapshot { meta, snapshot: SnapshotData::File(path.to_owned()) };
    let response = raft.install_full_snapshot(offer.vote, snapshot).await.map_err(io::Error::other)?;
    Ok(Installed::Yes(response.vote))
}

fn examine(path: &Path, offer: Offer, options: &keyward_storage::Options) -> io::Result<SnapshotMeta> {
    if hash(path)? != (offer.bytes, offer.hash) {
        return Err(broken());
    }
    let held = keyward_storage::examine(path, options).map_err(io::Error::other)?;
    let last_membership = match held.membership {
        Some((at, bytes)) => read_membership(at, &bytes).map_err(io::Error::other)?,
        None => StoredMembership::default(),
    };
    Ok(SnapshotMeta { last_log_id: held.meta.applied.map(to_log_id), last_membership })
}

/// Waits for `work` and shows the other side meanwhile that somebody is there.
async fn with_signs<T>(wire: &mut Wire, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(SIGN);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = tick.tick() => wire.ask(Kind::Ping, 0, &[]),
            frame = wire.next() => drop(frame?),
        }
    }
}
