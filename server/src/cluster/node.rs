//! This node among its peers: who it is, what it shows, and its port for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use keyward_model::{Entropy, Id, Secret};
use keyward_raft::Fresh;
use keyward_storage::Store;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::authority::Subject;
use super::certificate::{self, CertificateError, Facts, Held};
use super::document;
use super::join::pending;
use super::listener::{self, Knock, Seats};
use super::peer_unseal::giver::Turns;
use super::peer_unseal::hold::Hold;
use super::recovery::Recovery;
use super::tls::{self, Trust};
use super::wire::Place;
use crate::barrier::Barrier;
use crate::config::{self, Config};
use crate::files;
use crate::identity::{FIRST_INCARNATION, Identity};
use crate::refusal::Refusal;

/// Connections that may wait to be accepted on the node port.
const BACKLOG: i32 = 128;
/// Connections that may wait for one worker.
const KNOCKS_MAX: usize = 64;
/// Wrong join tokens from one address in one minute after which it has to wait for the next.
const WRONG_PER_MINUTE_MAX: u32 = 10;
/// Addresses whose wrong tries are remembered.
const SOURCES_MAX: usize = 1024;
/// Starts before this one that are remembered because they did not hear which incarnation they are. WHY: any of them may be
/// the one that its row names, and a node is started again and again while nobody leads. All of them fit into one request.
const STARTS_MAX: usize = 1024;
/// Nodes whose newest incarnation is remembered.
const SHOWN_MAX: usize = 1024;
/// How often it is said that a member is of another cluster now.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// This node among its peers.
pub struct Cluster {
    subject: Me,
    name: String,
    folder: PathBuf,
    wanted: SocketAddr,
    advertise: Option<String>,
    trust: ArcSwapOption<Trust>,
    bound: Mutex<Option<SocketAddr>>,
    workers: RwLock<Vec<mpsc::Sender<Knock>>>,
    turn: AtomicUsize,
    closed: AtomicU64,
    wrong: Mutex<BTreeMap<IpAddr, (i64, u32)>>,
    /// Members whose place was found taken by others, and when that was last said.
    estranged: Mutex<BTreeMap<u64, Instant>>,
    /// The newest incarnation that each node was seen to have a certificate of.
    shown: Mutex<BTreeMap<u64, u64>>,
    nudge: Notify,
    start: Mutex<Start>,
    /// Places of members that want a new certificate, or to be unsealed.
    pub(crate) renewing: Seats,
    /// How often members asked to be unsealed.
    pub(super) turns: Turns,
    /// Whether people sealed this node.
    pub(crate) hold: Hold,
    /// Whether this start of the node has done with asking others to unseal it: it does not begin again.
    pub(super) done_asking: AtomicBool,
    /// It was made the only one of a cluster whose majority is lost, and has not done all of that yet.
    recovery: ArcSwapOption<Recovery>,
    /// One at a time makes this node one of several, or exchanges its certificate.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// The node's identity, without what signs its audit trail.
#[derive(Debug, Clone, Copy)]
struct Me {
    node: Id,
    number: u64,
}

/// Which start of the node this is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    /// The incarnation that the folder knows.
    incarnation: u64,
    /// What this start drew to get the next one; `None` once it has it.
    wants: Option<String>,
    /// What starts before drew that did not hear whether they got theirs.
    before: Vec<String>,
}

/// What `cluster.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u32,
    cluster: String,
    /// How many times the node was started, as its cluster counts.
    #[serde(default = "first")]
    incarnation: u64,
    /// What starts drew to get the next incarnation, of which none heard that it has it. The newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    starts: Vec<String>,
    /// The token that let the node in: whoever comes with it again has what it wanted.
    joined_with: Option<String>,
    /// The port that was given when any would do: the others know it.
    port: Option<u16>,
}

/// Why a node does not know its place.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Certificate or key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file holds something else.
    #[error("{0}")]
    Content(String),
    /// The authority's certificate cannot be used.
    #[error("the certificates of the node cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Cluster {
    /// The node of this data folder. If it is one of several, it knows its certificate and the authority to trust.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn of_folder(config: &Config, identity: &Identity, entropy: &dyn Entropy) -> Result<Self, ClusterError> {
        let folder = config.data.join("cluster");
        let file = File::read(&folder)?;
        let recovery = Recovery::read(&folder)?;
        let trust = match file.as_ref().filter(|_| recovery.is_none()) {
            None => None,
            Some(file) => {
                let (held, trusted) = Held::read(&folder)?.ok_or_else(|| {
                    let path = folder.join("node.pem");
                    ClusterError::File { path, source: io::ErrorKind::NotFound.into() }
                })?;
                if held.facts.number != identity.raft_id() || held.facts.cluster.to_uuid() != file.cluster {
                    return Err(ClusterError::Content(format!(
                        "{}: its certificate is not of this node\nwas it copied from another one? a node that joins begins with an empty data folder",
                        folder.display()
                    )));
                }
                Some(Arc::new(Trust::new(held, &trusted)?))
            }
        };
        let mut drawn = [0; 16];
        entropy.fill(&mut drawn);
        let start = Start {
            incarnation: file.as_ref().map_or(FIRST_INCARNATION, |file| file.incarnation),
            wants: Some(hex::encode(drawn)),
            before: file.as_ref().map(|file| file.starts.clone()).unwrap_or_default(),
        };
        let mut wanted = wanted_address(config);
        if let (0, Some(port)) = (wanted.port(), file.and_then(|file| file.port)) {
            wanted.set_port(port);
        }
        let subject = Me { node: identity.node, number: identity.raft_id() };
        Ok(Self {
            subject,
            name: node_name(config),
            hold: Hold::of_folder(&folder),
            done_asking: AtomicBool::new(false),
            folder,
            wanted,
            advertise: config.cluster.advertise.clone(),
            trust: ArcSwapOption::new(trust),
            bound: Mutex::new(None),
            workers: RwLock::default(),
            turn: AtomicUsize::new(0),
            closed: AtomicU64::new(0),
            wrong: Mutex::default(),
            estranged: Mutex::default(),
            shown: Mutex::default(),
            nudge: Notify::new(),
            start: Mutex::new(start),
            renewing: Seats::default(),
            turns: Turns::default(),
            recovery: ArcSwapOption::from_pointee(recovery),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// The node's id.
    pub fn node(&self) -> Id {
        self.subject.node
    }

    /// The number that Raft knows it by.
    pub fn number(&self) -> u64 {
        self.subject.number
    }

    /// How many times it was started, as far as it knows.
    pub fn incarnation(&self) -> u64 {
        self.start().incarnation
    }

    /// Whether this start has an incarnation of its own.
    pub fn has_incarnation(&self) -> bool {
        self.start().wants.is_none()
    }

    /// What this start has and wants: its incarnation; until it has one of its own what it drew for the next; and what starts
    /// before drew. All that is in the folder before it is asked with, so that the answer can be lost.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn asks_with(&self) -> Result<(u64, Option<String>, Vec<String>), ClusterError> {
        let Start { incarnation, wants, before } = self.start();
        if let Some(wants) = &wants {
            File::change(&self.folder, |file| {
                file.starts = before.iter().rev().take(STARTS_MAX).rev().chain([wants]).cloned().collect();
            })?;
        }
        Ok((incarnation, wants, before))
    }

    /// This start has this incarnation.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn incarnate(&self, incarnation: u64) -> Result<(), ClusterError> {
        File::change(&self.folder, |file| (file.incarnation, file.starts) = (incarnation, Vec::new()))?;
        let start = Start { incarnation, wants: None, before: Vec::new() };
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
        Ok(())
    }

    fn start(&self) -> Start {
        self.start.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subject of its certificates in `cluster`.
    pub fn subject(&self, cluster: Id) -> Subject {
        let Me { node, number } = self.subject;
        Subject { cluster, node, number, incarnation: self.incarnation() }
    }

    /// What it shows and whom it believes; `None` as long as it is alone.
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.load_full()
    }

    /// What an empty log means: for a member, that its leader will call.
    pub fn fresh(&self) -> Fresh {
        if self.trust.load().is_some() { Fresh::Join } else { Fresh::Found }
    }

    /// The recovery from a lost majority that this node has to finish before it serves anything.
    pub fn recovery(&self) -> Option<Arc<Recovery>> {
        self.recovery.load_full()
    }

    /// Whether there is one. Asked for every request.
    pub fn is_recovering(&self) -> bool {
        self.recovery.load().is_some()
    }

    /// It is finished.
    ///
    /// # Errors
    /// The file that says otherwise cannot be removed.
    pub(super) fn recovered(&self) -> Result<(), ClusterError> {
        Recovery::forget(&self.folder)?;
        self.recovery.store(None);
        Ok(())
    }

    /// Connections to the node port that were closed because whoever came could not be let in.
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn note_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens the node port, if it is not open. Says where it listens.
    ///
    /// # Errors
    /// The address is in use or not this machine's.
    pub fn open(self: &Arc<Self>, barrier: &Arc<Barrier>, store: &Store) -> io::Result<SocketAddr> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = *bound {
            return Ok(address);
        }
        let listener = bind(self.wanted)?;
        let address = listener.local_addr()?;
        let (open, ends) = oneshot::channel();
        listener::start(Arc::clone(self), Arc::downgrade(barrier), store.clone(), listener, ends)?;
        // The port is open for as long as the node lives: what its runtime was given goes with it.
        barrier.node().spawn(async move {
            let _open: oneshot::Sender<()> = open;
            std::future::pending().await
        });
        tracing::info!(address = %address, "the node port is open");
        *bound = Some(address);
        Ok(address)
    }

    /// Where others reach this node: as configured, or where it listens.
    ///
    /// # Errors
    /// It listens on all addresses, and nobody said which of them others can use; or it does not listen.
    pub fn address(&self) -> Result<String, Refusal> {
        if let Some(address) = &self.advertise {
            return Ok(address.clone());
        }
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(self.wanted);
        if bound.ip().is_unspecified() {
            return Err(Refusal::malformed(
                "the node listens on every address for others: say under which one they reach it with \
                 cluster.advertise = \"host:port\"",
            ));
        }
        Ok(bound.to_string())
    }

    /// How the node is called and reached, with `api` the URL of its API.
    ///
    /// # Errors
    /// As [`Cluster::address`].
    pub fn place(&self, api: String) -> Result<Place, Refusal> {
        Ok(Place { name: self.name.clone(), node_address: self.address()?, api_address: api })
    }

    /// Keeps a certificate on the disk and shows it from now on. For a node that was alone this makes it one of several.
    ///
    /// # Errors
    /// It cannot be kept, or not be used.
    pub(super) fn establish(
        &self,
        held: Held,
        trusted: &[CertificateDer<'static>],
        file: &Secret<String>,
    ) -> Result<(), ClusterError> {
        if let Some(trust) = self.trust().filter(|trust| trust.trusted().contains(&held.issuer)) {
            certificate::keep(&self.folder, file)?;
            trust.show(held);
            return Ok(());
        }
        let trust = Trust::new(held, trusted)?;
        make_folder(&self.folder)?;
        certificate::exchange(&self.folder, self.trust().map(|trust| trust.issuer()), trusted, file)?;
        let port = self.bound.lock().unwrap_or_else(PoisonError::into_inner).map(|address| address.port());
        write_state(&self.folder, (trust.cluster(), self.incarnation()), port, None)?;
        self.trust.store(Some(Arc::new(trust)));
        Ok(())
    }

    /// Trusts these authorities from now on; the one that signed this node's certificate must be among them.
    ///
    /// # Errors
    /// That cannot be kept, or one is no authority.
    pub(super) fn trust_in(&self, trusted: &[CertificateDer<'static>]) -> Result<(), ClusterError> {
        let Some(trust) = self.trust() else { return Ok(()) };
        let changed = Trust::new((*trust.held()).clone(), trusted)?;
        certificate::keep_authorities(&self.folder, trusted)?;
        self.trust.store(Some(Arc::new(changed)));
        Ok(())
    }

    /// For a worker of the API: where those come in that are not for Raft.
    pub fn doorbell(&self) -> mpsc::Receiver<Knock> {
        let (sender, receiver) = mpsc::channel(KNOCKS_MAX);
        self.workers.write().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Hands somebody to the next worker.
    ///
    /// # Errors
    /// All workers have too much to do, or there is none (any more).
    pub(super) fn hand_on(&self, knock: Knock) -> io::Result<()> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let worker = turn.checked_rem(workers.len()).and_then(|turn| workers.get(turn));
        let busy = || io::Error::new(io::ErrorKind::WouldBlock, "no worker has time for a connection");
        worker.ok_or_else(busy)?.try_send(knock).map_err(|_| busy())
    }

    /// The members are to be looked at now.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Comes back when the members are to be looked at.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Says, if that is why the member `number` could not be reached, that it is of another cluster now.
    pub(super) fn note_unreached(&self, number: u64, address: &str, error: &io::Error) {
        if !tls::is_of_another_authority(error) {
            return;
        }
        let mut estranged = self.estranged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if estranged.get(&number).is_some_and(|said| now - *said < SAID_AGAIN_AFTER) {
            return;
        }
        estranged.insert(number, now);
        tracing::error!(
            node = format!("{number:016x}"),
            address,
            "the node at this address is not of this cluster any more: the cluster was recovered without this node, or \
             something else answers there, or the node authority was exchanged while this node was away; in the last case \
             unseal it, else stop this node, empty its data folder, and let it join anew"
        );
    }

    /// Makes sure that whoever shows this certificate for consensus is the newest start of its node that was seen.
    ///
    /// WHY: not held against the node's row. That has the next incarnation before the node hears of it, and one that did not
    /// hear, since the leader died, may be the only one that the others can elect.
    ///
    /// # Errors
    /// Another process of the node showed a later one: this is a copy of it.
    pub(super) fn refuse_older(&self, shown: Option<Facts>) -> io::Result<()> {
        let Facts { number, incarnation, .. } = shown.ok_or(io::ErrorKind::PermissionDenied)?;
        let mut newest = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = newest.get(&number).copied();
        if before.is_some_and(|before| incarnation < before) {
            let text = format!("node {number:016x} shows the certificate of an earlier start: a copy of it runs");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if before.is_some() || newest.len() < SHOWN_MAX {
            newest.insert(number, incarnation);
        }
        Ok(())
    }

    /// Whether `source` may try a join token now.
    pub(super) fn may_try(&self, source: IpAddr, now_s: i64) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(&source).is_none_or(|(minute, count)| *minute != now_s / 60 || *count < WRONG_PER_MINUTE_MAX)
    }

    /// Notes that `source` came with a token that is none.
    pub(super) fn note_wrong(&self, source: IpAddr, now_s: i64) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now_s / 60;
        wrong.retain(|_, (then, _)| *then == minute);
        if wrong.len() < SOURCES_MAX || wrong.contains_key(&source) {
            wrong.entry(source).or_insert((minute, 0)).1 += 1;
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl File {
    /// Writes the file with a change; does nothing where there is none.
    fn change(folder: &Path, change: impl FnOnce(&mut Self)) -> Result<(), ClusterError> {
        let Some(mut file) = Self::read(folder)? else { return Ok(()) };
        change(&mut file);
        file.write(folder)
    }

    fn write(&self, folder: &Path) -> Result<(), ClusterError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let path = folder.join(FILE);
        files::write_private(&path, &text).map_err(|source| ClusterError::File { path, source })
    }

    fn read(folder: &Path) -> Result<Option<Self>, ClusterError> {
        document::read(&folder.join(FILE))
    }
}

/// The cluster that a data folder belongs to, and the id in hex of the token that let it in, if one did; `None` if it is of
/// a node alone.
///
/// # Errors
/// The file cannot be read.
pub fn cluster_of(data: &Path) -> Result<Option<(String, Option<String>)>, ClusterError> {
    Ok(File::read(&data.join("cluster"))?.map(|file| (file.cluster, file.joined_with)))
}

/// Makes sure that a node which asked to be let in has got everything.
///
/// # Errors
/// It has not.
pub fn refuse_unfinished(data: &Path) -> Result<(), ClusterError> {
    if !pending::is_kept(data) {
        return Ok(());
    }
    if cluster_of(data)?.is_some() {
        let path = data.join("cluster");
        return pending::forget(data).map_err(|source| ClusterError::File { path, source });
    }
    Err(ClusterError::Content(format!(
        "{}: this node asked to be let into a cluster and stopped before it had everything\n\
         start it with --join once more: with the same token, or, if that one ended, with a new one",
        data.display()
    )))
}

/// Notes in the folder that the node is one of a cluster, as which incarnation, and which token let it in. What starts drew
/// that did not hear which incarnation they are stays: the next one has to say it.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write_state(
    folder: &Path,
    (cluster, incarnation): (Id, u64),
    port: Option<u16>,
    token: Option<Id>,
) -> Result<(), ClusterError> {
    let joined_with = token.map(|token| hex::encode(token.0));
    let starts = File::read(folder)?.map(|before| before.starts).unwrap_or_default();
    let file = File { format: document::FORMAT, cluster: cluster.to_uuid(), incarnation, starts, joined_with, port };
    file.write(folder)
}

const fn first() -> u64 {
    FIRST_INCARNATION
}

/// Makes a folder of the node.
///
/// # Errors
/// It cannot be made.
pub(super) fn make_folder(path: &Path) -> Result<(), ClusterError> {
    files::make_folder(path).map_err(|source| ClusterError::File { path: path.to_owned(), source })
}

/// Where the node listens for others: as configured, or beside the API. Where the API takes any port, so does it.
pub(super) fn wanted_address(config: &Config) -> SocketAddr {
    config.cluster.listen.unwrap_or_else(|| {
        let mut address = config.listen.address;
        if address.port() != 0 {
            address.set_port(address.port().wrapping_add(1).max(1));
        }
        address
    })
}

/// What the node is called: as configured, or as the host is.
pub(super) fn node_name(config: &Config) -> String {
    config.cluster.node_name.clone().unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if config::is_node_name(&host) { host } else { "node".to_owned() }
    })
}

pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Which cluster the node belongs to, and how far it is.
const FILE: &str = "cluster.json";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::cluster::authority::Authority;
    use crate::cluster::certificate::Applicant;
    use crate::cluster::rows::NodeRow;
    use crate::cluster::wire::{self, Renew};

    #[test]
    fn an_earlier_start_than_one_that_was_seen_is_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let entropy = keyward_model::SeededEntropy::new(1);
        let identity = Identity::of_folder(folder.path(), &entropy).unwrap();
        let cluster = Cluster::of_folder(&config, &identity, &entropy).unwrap();
        let shows = |number, incarnation| {
            let facts = Facts { cluster: Id([7; 16]), number, incarnation, from_s: 0, until_s: 1 };
            cluster.refuse_older(Some(facts)).is_ok()
        };
        assert!(shows(2, 4) && shows(2, 4) && shows(2, 6) && shows(3, 1));
        assert!(!shows(2, 5) && !shows(2, 4));
        assert!(shows(2, 6) && shows(2, 7));
        assert!(cluster.refuse_older(None).is_err());
    }

    #[test]
    fn a_start_whose_answer_was_lost_is_known_after_many_more() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let entropy = keyward_model::SeededEntropy::new(1);
        let identity = Identity::of_folder(folder.path(), &entropy).unwrap();
        let start = || Cluster::of_folder(&config, &identity, &entropy).unwrap();
        let first = start();
        let (authority, applicant) = (Authority::generate(Id([7; 16]), 0).unwrap(), Applicant::new().unwrap());
        let leaf = authority.issue(applicant.csr(), first.subject(Id([7; 16])), 0).unwrap();
        let (file, trusted) = (applicant.file(&leaf), [authority.certificate().clone()]);
        let csr = STANDARD.encode(applicant.csr());
        first.establish(applicant.receive(leaf, trusted[0].clone()).unwrap(), &trusted, &file).unwrap();

        // The leader gave it the next incarnation, and died with the answer.
        let (incarnation, start_of_first, _) = first.asks_with().unwrap();
        let row = NodeRow { incarnation: incarnation + 1, start: start_of_first, ..NodeRow::sample(1, "h:1") };
        for starts in 1..=20 {
            let (incarnation, start, before) = start().asks_with().unwrap();
            let next = row.incarnation_for(incarnation, start.as_deref(), &before);
            assert_eq!(next, Some(row.incarnation + 1), "{starts}");
        }
        // A copy from before all of them says none of what they drew.
        assert_eq!(row.incarnation_for(incarnation, Some("other"), &[]), None);
        // All that can be remembered fits into one request.
        File::change(&first.folder, |file| file.starts = vec!["d".repeat(32); STARTS_MAX + 1]).unwrap();
        let (incarnation, start, before) = start().asks_with().unwrap();
        let place = Place { name: "n".repeat(64), node_address: "h".repeat(256), api_address: "h".repeat(512) };
        let trusts = vec!["t".repeat(64); 4];
        wire::Request::renew(&Renew { csr, trusts, incarnation, start, before, place }).unwrap();
    }

    #[test]
    fn what_a_start_drew_stays_until_it_has_its_incarnation() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Id([7; 16]);
        write_state(folder.path(), (cluster, 4), None, None).unwrap();
        File::change(folder.path(), |file| file.starts = vec!["drawn".into()]).unwrap();
        // Another authority's certificate comes; a stop comes before the incarnation is kept.
        write_state(folder.path(), (cluster, 4), Some(8201), None).unwrap();
        let file = File::read(folder.path()).unwrap().unwrap();
        assert_eq!((file.incarnation, file.port, file.starts), (4, Some(8201), vec!["drawn".to_owned()]));
    }
}
