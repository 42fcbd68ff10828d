//! From a configuration to a serving node, and back to a clean stop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_audit::{Journal, JournalError};
use keyward_crypto::KeyFileSeal;
use keyward_model::event::{EventKind, EventOutcome, LogPlace};
use keyward_model::{Clock, Command, Entropy, Id, Secret, SecretBytes, Table};
use keyward_raft::fs::OsFs;
use keyward_raft::{Candidacy, Node, REMOVED, StartError, Timing};
use keyward_storage::{Store, StoreError};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::app::{App, Applied, Failure, Worker};
use crate::authn::token::{self, Sessions, Token, TokenKind};
use crate::barrier::{Barrier, Columns, Draft, Generations};
use crate::clock::{OsEntropy, SystemClock};
use crate::cluster::Cluster;
use crate::cluster::dialer::Members;
use crate::cluster::heads;
use crate::cluster::node::{self, ClusterError};
use crate::cluster::rows;
use crate::config::{Config, ConfigError, Durability, SealKind};
use crate::files::{self, write_private};
use crate::http::serve::{self, Serving};
use crate::http::tls::{Acceptor, TlsError};
use crate::identity::{Identity, IdentityError};
use crate::keys::KeySlot;
use crate::mounts::{Kind, Mount};
use crate::policies;
use crate::record::{Facts, Outcomes};
use crate::refusal::Refusal;
use crate::repeat::Remembered;
use crate::seal::{self, NewSeal, OpenError, OpenedKeys};

/// Free space below which writes are refused: what the state database, its write-ahead log and a checkpoint may still
/// need for the writes that are under way. Should that not do, they wait for space.
const RESERVE_BYTES: u64 = 192 << 20;
/// The same for a development server, whose disk may be as small as 64 MiB of memory.
const DEV_RESERVE_BYTES: u64 = 8 << 20;
/// Size of the Raft log above which the state is made durable and the log before it let go.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// Segments of the log of a development server, whose disk is memory.
const DEV_SEGMENT_BYTES: u32 = 4 << 20;
/// Stack of a worker thread. Futures live on the heap; what is deep is bounded.
const WORKER_STACK_BYTES: usize = 1 << 20;

/// Why the server does not start. Every message says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The node's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The audit journal.
    #[error("the audit journal cannot be opened: {0}")]
    Audit(#[from] JournalError),
    /// The state database.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The audit stream is not what the cluster remembers of it.
    #[error("{0}")]
    AuditCut(String),
    /// The Raft log.
    #[error(transparent)]
    Raft(#[from] StartError),
    /// The seal.
    #[error("{0}")]
    Seal(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The listening address.
    #[error("cannot listen on {address}: {source}\nis another server running there? choose another listen.address")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The node among its peers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The address for other nodes.
    #[error("cannot listen for other nodes: {source}\nis another server running there? choose another cluster.listen")]
    NodePort {
        /// What the system says.
        source: io::Error,
    },
    /// A request to ourselves during start.
    #[error("start failed: {0:?}")]
    Start(Refusal),
}

/// A development server: initialised and unsealed, with a KV v2 mount at `secret/`.
#[derive(Debug, Clone, Default)]
pub struct Dev {
    /// The root token; drawn if `None`.
    pub root_token: Option<String>,
}

/// A serving node.
#[derive(Debug)]
pub struct Running {
    /// The shared parts.
    pub app: Arc<App>,
    /// The root token of a development server.
    pub root_token: Option<Secret<String>>,
    /// TLS, for reloading certificates.
    pub tls: Option<Acceptor>,
    stop: watch::Sender<bool>,
    failure: Arc<Failure>,
    workers: Vec<JoinHandle<()>>,
}

/// What init gives back, once.
#[derive(Debug)]
pub struct Initialised {
    /// Shares that unseal.
    pub keys: Vec<SecretBytes>,
    /// Shares that recover.
    pub recovery_keys: Vec<SecretBytes>,
    /// The root token.
    pub root_token: Secret<String>,
}

/// Starts a node and serves.
///
/// # Errors
/// [`BootError`].
pub fn start(mut config: Config, dev: Option<&Dev>) -> Result<Running, BootError> {
    config.check()?;
    if dev.is_some() {
        config.lifecycle.retention_min_s = 0;
    }
    drop(keyward_crypto::memory::harden_process().inspect_err(|error| {
        tracing::warn!(error = %error, "core dumps and tracing of this process could not be switched off");
    }));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    make_folder(&config.data)?;
    node::refuse_unfinished(&config.data)?;
    let identity = Identity::of_folder(&config.data, &*entropy)?;
    let cluster = Arc::new(Cluster::of_folder(&config, &identity, &*entropy)?);
    let journal = Arc::new(open_journal(&config, identity)?);
    let store_options = keyward_storage::Options::default();
    let store = Store::open(&config.data.join("state"), &store_options)?;
    let sessions = Arc::new(Sessions::default());
    let (generations, keys) = (Arc::new(Generations::default()), Arc::new(KeySlot::default()));
    *generations.repeats() = Remembered::of_state(&store.reader()?)?;
    generations.note_time(store.reader()?.newest()?);
    let failure = Arc::new(Failure::default());
    let outcomes = Arc::new(Outcomes::new(Arc::clone(&journal), Arc::clone(&failure)));
    let fail = Arc::clone(&failure);
    let observer = Applied::new(
        Arc::clone(&generations),
        Arc::clone(&keys),
        Arc::clone(&sessions),
        Arc::clone(&outcomes),
        Box::new(move |error| fail.stop(error)),
    );
    let node = Node::start(
        keyward_raft::Options {
            dir: config.data.join("log"),
            node_id: cluster.number(),
            fresh: cluster.fresh(),
            fs: Arc::new(OsFs),
            entropy: Arc::clone(&entropy),
            log: log_options(dev),
            log_bytes_max: LOG_BYTES_MAX,
            timing: Timing::default(),
            dialer: Arc::new(Members(Arc::clone(&cluster))),
            address: cluster.address().unwrap_or_default(),
        },
        store.clone(),
        Arc::new(observer),
    )?;
    if cluster.is_recovering() && node.status().voters != [cluster.number()] {
        return Err(ClusterError::Content(
            "the recovery of this node was cut off: run `keyward operator recover` again".into(),
        )
        .into());
    }
    let is_gone = rows::is_gone(&store.reader()?, cluster.number()).map_err(BootError::Start)?;
    // While a membership counts on its word, what takes it away cannot be committed without it.
    if is_gone && !node.members().iter().any(|member| member.node == cluster.number()) {
        return Err(ClusterError::Content(REMOVED.to_owned()).into());
    }
    // Before anything is added: the log would make good for some of what is missing.
    heads::check_own(&journal, &store.reader()?).map_err(BootError::AuditCut)?;
    replay_audit(&node, &store, &journal)?;
    outcomes.open();
    let barrier = Arc::new(Barrier::new(node, Arc::clone(&clock), Arc::clone(&entropy), generations, keys));
    unseal_by_key_file(&config, &store, &barrier, cluster.node())?;
    // What it is otherwise barred from: it could not write, or is about to be taken away.
    if barrier.node().is_alone() || !(barrier.is_sealed() || is_gone) {
        barrier.node().campaign(Candidacy::Willing);
    }
    let tls = Acceptor::from_config(&config.listen, &config.data.join("tls"), clock.now().seconds())?;
    let listeners = listen(&mut config)?;
    if cluster.trust().is_some() {
        cluster.open(&barrier, &store).map_err(|source| BootError::NodePort { source })?;
    }
    let app = App::new(barrier, cluster, sessions, config, store, outcomes, Arc::clone(&failure));
    let app = Arc::new(app.with_tls(tls.clone()));
    let root_token = on_this_thread(&app, async |worker| {
        note_start(&worker).await;
        match dev {
            Some(dev) => prepare_dev(&worker, dev).await.map(Some),
            None => Ok(None),
        }
    })?;
    let (stop, stopping) = watch::channel(false);
    let serving = Serving { app: Arc::clone(&app), tls: tls.clone(), runs_jobs: false, stop: stopping };
    let mut workers = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let serving = Serving { runs_jobs: number == 0, ..serving.clone() };
        let thread = std::thread::Builder::new()
            .name(format!("api-{number}"))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(move || {
                if let Err(error) = serve::run(&serving, listener) {
                    tracing::error!(error = %error, "a worker ended");
                }
            })
            .map_err(|source| BootError::File { path: "thread".into(), source })?;
        workers.push(thread);
    }
    Ok(Running { app, root_token, tls, stop, failure, workers })
}

impl Running {
    /// Renews a certificate of the local CA that is due, and reads certificate and key again; the old ones stay in use if
    /// that fails.
    pub fn reload(&self) {
        let now_s = self.app.barrier.now().seconds();
        match self.tls.as_ref().map(|tls| tls.renew_if_due(now_s).and_then(|_| tls.reload())) {
            Some(Ok(())) => tracing::info!("certificate and key were read again"),
            Some(Err(error)) => tracing::error!(error = %error, "the certificate could not be read again"),
            None => {}
        }
    }

    /// Becomes ready when the node must stop because of a failure.
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.failure.watch()
    }

    /// Lets requests under way finish, then stops node and journal. Returns whether all was well.
    pub fn stop(self) -> bool {
        // First of all: whoever leads next takes what comes while this node finishes what it has, and does not give it back.
        let node = self.app.barrier.node();
        node.retire();
        if node.leads() && !node.is_alone() {
            let handing_over = Builder::new_current_thread().enable_time().build();
            if let Ok(Err(error)) = handing_over.map(|runtime| runtime.block_on(node.hand_over(None))) {
                tracing::warn!(error = %error, "nobody took over before this node stops");
            }
        }
        self.stop.send_replace(true);
        for worker in self.workers {
            drop(worker.join());
        }
        self.app.catch_up_audit();
        let well = !self.failure.happened();
        if well {
            let given = on_this_thread(&self.app, async |worker| {
                heads::last(&worker).await;
                Ok(())
            });
            if let Err(error) = given {
                tracing::warn!(error = %error, "the last head of the audit stream was not given away");
            }
        }
        self.app.seal();
        let runtime = Builder::new_current_thread().build();
        let stopped = runtime.and_then(|runtime| runtime.block_on(self.app.barrier.node().shutdown()));
        if let Err(error) = stopped {
            tracing::error!(error = %error, "the node did not stop cleanly; it recovers at the next start");
        }
        if !self.app.catch_up_audit() {
            tracing::warn!("records of writes have no space in the audit file: the next start makes them of the log");
        }
        let journal = self.app.journal();
        if let Err(error) = journal.last_checkpoint(self.app.barrier.now()).and_then(|()| journal.sync()) {
            tracing::error!(error = %error, "the audit journal was not flushed");
        }
        well && !self.failure.happened()
    }
}

/// Makes the rows of a fresh installation: seals, keyring, mounts, policies, the root token. Leaves the barrier open.
///
/// # Errors
/// Already initialised, or nothing can be written.
pub async fn initialise(
    worker: &Worker,
    request: Id,
    new_seal: NewSeal,
    recovery: Option<(u8, u8)>,
    dev: Option<&Dev>,
) -> Result<Initialised, Refusal> {
    let app = &worker.app;
    let barrier = &app.barrier;
    let entropy = barrier.entropy();
    // Two at once would seal rows under the keys of one and keep those of the other.
    let _turn = app.rotating.lock().await;
    if seal::installation(worker.reader())?.is_some() {
        return Err(Refusal::malformed("Vault is already initialized"));
    }
    let prepared = seal::prepare(new_seal, recovery, barrier.now(), entropy)?;
    let root_token = match dev.and_then(|dev| dev.root_token.clone()) {
        Some(chosen) => Secret::new(chosen),
        None => token::fresh(entropy),
    };
    let seal::Initialised { keys, recovery_keys, opened, records } = prepared;
    barrier.unseal(opened, &app.store)?;
    let mut facts = Facts::new(request, barrier.now(), None, "system");
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("installation");
    let written = worker
        .write(&RefCell::new(facts), |draft| {
            records.write(draft)?;
            for mount in first_mounts(draft.entropy(), dev.is_some()) {
                draft.put(Table::Mounts, &mount.id.0, Columns::default(), &mount.encode()?)?;
            }
            let text = keyward_policy::DEFAULT_POLICY.to_owned();
            policies::put(draft, &policies::Stored::new("default", text, draft.now()))?;
            put_root_token(draft, &root_token, dev.is_some())
        })
        .await;
    if let Err(refusal) = written {
        app.seal();
        return Err(refusal);
    }
    Ok(Initialised { keys, recovery_keys, root_token })
}

fn put_root_token(draft: &mut Draft<'_>, text: &Secret<String>, has_lease: bool) -> Result<(), Refusal> {
    let now = draft.now();
    let (path, name) = if has_lease { ("auth/token/create", "token") } else { ("auth/token/root", "root") };
    let root = Token {
        display_name: name.into(),
        issued: has_lease.then_some(now),
        ..Token::new(TokenKind::Service, path, vec!["root".into()], now, draft.entropy())
    };
    let key = token::key_of(draft.keyring(), text.expose());
    token::put(draft, &key, &root, b"")
}

fn first_mounts(entropy: &dyn Entropy, dev: bool) -> Vec<Mount> {
    let mount =
        |path: &str, kind: Kind, description: &str, accessor: &str, options: Option<BTreeMap<String, String>>| Mount {
            id: Id::random(entropy),
            path: path.into(),
            kind,
            description: description.into(),
            accessor: accessor_of(accessor, entropy),
            options,
            default_lease_s: 0,
            max_lease_s: 0,
            force_no_cache: false,
            listing_visibility: String::new(),
            local: kind == Kind::Cubbyhole,
            seal_wrap: kind == Kind::System,
            external_entropy_access: false,
            lists: BTreeMap::new(),
            token_type: (kind == Kind::Token).then(|| "default-service".into()),
            kv: None,
            closed: None,
            moves: Vec::new(),
        };
    let mut out = vec![
        mount("sys/", Kind::System, "system endpoints used for control, policy and debugging", "system", None),
        mount("cubbyhole/", Kind::Cubbyhole, "per-token private secret storage", "cubbyhole", None),
        mount("auth/token/", Kind::Token, "token based credentials", "auth_token", None),
    ];
    if dev {
        let options = BTreeMap::from([("version".to_owned(), "2".to_owned())]);
        out.push(mount("secret/", Kind::Kv2, "key/value secret storage", "kv", Some(options)));
    }
    out
}

/// `kv_1a2b3c4d`.
pub fn accessor_of(prefix: &str, entropy: &dyn Entropy) -> String {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    format!("{prefix}_{}", hex::encode(random))
}

/// The key of the key-file seal: read, or drawn and written where there is none yet.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn key_file(config: &Config, entropy: &dyn Entropy) -> Result<Secret<[u8; 32]>, BootError> {
    let path = config.key_file();
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = Secret::new(text);
            let bytes = STANDARD.decode(text.expose().trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            bytes.map(Secret::new).ok_or_else(|| {
                BootError::Seal(format!(
                    "{}: not a key: one line of base64 that holds 32 bytes is expected\nput the right file back; without it the data cannot be opened",
                    path.display()
                ))
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            let mut key = Secret::new([0; 32]);
            entropy.fill(key.expose_mut());
            let text = Secret::new(STANDARD.encode(key.expose()) + "\n");
            write_private(&path, text.expose().as_bytes()).map_err(|source| BootError::File { path, source })?;
            Ok(key)
        }
        Err(source) => Err(BootError::File { path, source }),
    }
}

/// Opens the keyring with this node's key file, if the installation is sealed by it.
///
/// # Errors
/// The file is missing, or does not open what it should.
pub fn unseal_by_key_file(config: &Config, store: &Store, barrier: &Barrier, node: Id) -> Result<(), BootError> {
    let reader = store.reader()?;
    let records = seal::records(&reader).map_err(BootError::Start)?;
    if !records.iter().any(|record| record.opens_at_start(node)) {
        return Ok(());
    }
    let path = config.key_file();
    if !path.exists() && records.iter().any(|record| record.recovery) {
        tracing::error!(
            "{}: the key file is missing; the server starts sealed\n\
             put the file back (or set seal.key_file to where it is) and restart, or, if it is lost, give the recovery \
             shares: keyward operator unseal",
            path.display()
        );
        return Ok(());
    }
    if !path.exists() {
        return Err(BootError::Seal(format!(
            "{}: the key file is missing, and this installation is sealed by it\nput it back, or set seal.key_file to where it is",
            path.display()
        )));
    }
    let key = key_file(config, barrier.entropy())?;
    let opened: Result<OpenedKeys, OpenError> = seal::open(&reader, &KeyFileSeal::new(key), false, node);
    let opened = opened.map_err(|error| BootError::Seal(format!("{}: {error}", path.display())))?;
    barrier.unseal(opened, store).map_err(BootError::Start)
}

/// Sizes of the log.
pub(crate) fn log_options(dev: Option<&Dev>) -> keyward_raft::log::Options {
    match dev {
        Some(_) => keyward_raft::log::Options {
            segment_bytes: DEV_SEGMENT_BYTES,
            reserve_bytes: DEV_RESERVE_BYTES,
            ..Default::default()
        },
        None => keyward_raft::log::Options { reserve_bytes: RESERVE_BYTES, ..Default::default() },
    }
}

pub(crate) fn open_journal(config: &Config, identity: Identity) -> Result<Journal, BootError> {
    let options = keyward_audit::Options {
        segment_bytes: config.audit.segment_bytes,
        durability: match config.audit.durability {
            Durability::Fsync => keyward_audit::Durability::Fsync,
            Durability::Kernel => keyward_audit::Durability::Kernel,
        },
        key: identity.audit_key,
    };
    let journal = Journal::open(&config.data.join("audit"), identity.node, identity.incarnation, options)?;
    if let Some(cut) = journal.cut() {
        tracing::warn!(?cut, "the last audit record was not written to its end before the last stop, and was cut");
    }
    Ok(journal)
}

/// Records that were durable in the log but not yet in the audit file when the node died are written now.
fn replay_audit(node: &Node, store: &Store, journal: &Journal) -> Result<(), BootError> {
    let applied = store.reader()?.meta()?.applied.map_or(0, |at| at.index);
    // Of the last entry only a part may be in the file.
    let (last, there) = (journal.last_index(), journal.unfinished());
    let (from, to) = (if there.is_empty() { last + 1 } else { last }, applied);
    if from > to {
        return Ok(());
    }
    let mut batch = journal.batch();
    let entries = node.read_commands(from..=to).map_err(|source| BootError::File { path: "log".into(), source })?;
    for (position, commands) in entries {
        let place = LogPlace { term: position.term, index: position.index };
        let is_there = |command: &Command| {
            keyward_audit::id_of(&command.intent).is_some_and(|id| there.iter().any(|known| known == id))
        };
        let written = if position.index == last { commands.iter().rposition(is_there) } else { None };
        for command in commands.into_iter().skip(written.map_or(0, |at| at + 1)) {
            if !command.intent.is_empty() && batch.push_intent(&command.intent, place).is_err() {
                tracing::error!(index = position.index, "a command carries an audit record that cannot be read");
            }
        }
    }
    if !batch.is_empty() {
        journal.append(&mut batch)?;
    }
    Ok(())
}

fn listen(config: &mut Config) -> Result<Vec<std::net::TcpListener>, BootError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if config.listen.workers == 0 { cores } else { config.listen.workers };
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let address = config.listen.address;
        let listener = serve::bind(address).map_err(|source| BootError::Listen { address, source })?;
        if address.port() == 0
            && let Ok(bound) = listener.local_addr()
        {
            config.listen.address = bound; // the other workers share the port that was given
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Runs something that needs a worker before there are any.
pub(crate) fn on_this_thread<T>(
    app: &Arc<App>,
    work: impl AsyncFnOnce(Worker) -> Result<T, BootError>,
) -> Result<T, BootError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|source| BootError::File { path: "runtime".into(), source })?;
    let worker = Worker::new(Arc::clone(app))?;
    runtime.block_on(work(worker))
}

async fn note_start(worker: &Worker) {
    let barrier = &worker.app.barrier;
    let mut facts = Facts::of_server(barrier);
    facts.kind = EventKind::SysStart;
    let mut recorded = worker.record(&facts, EventOutcome::Success, None).await;
    if worker.app.config.seal.peer_unseal {
        // What a node was told in a file shows nowhere else.
        facts.set(EventKind::SysConfig, "administer", "system");
        facts.object = Some("peer unseal");
        recorded = worker.record(&facts, EventOutcome::Success, None).await;
    }
    if recorded.is_err() {
        tracing::error!("the audit journal cannot be written: requests are refused until it can");
    }
}

async fn prepare_dev(worker: &Worker, dev: &Dev) -> Result<Secret<String>, BootError> {
    let new_seal = match worker.app.config.seal.kind {
        SealKind::KeyFile => NewSeal::KeyFile(key_file(&worker.app.config, worker.app.barrier.entropy())?),
        SealKind::Shamir | SealKind::Passphrase => NewSeal::Shamir { shares: 1, threshold: 1 },
    };
    let id = Id::random(worker.app.barrier.entropy());
    initialise(worker, id, new_seal, None, Some(dev)).await.map(|done| done.root_token).map_err(BootError::Start)
}

fn make_folder(path: &Path) -> Result<(), BootError> {
    files::make_folder(path).map_err(|source| BootError::File { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod tests;
