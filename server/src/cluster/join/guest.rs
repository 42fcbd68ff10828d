//! The node that joins: an empty folder and a token become a member's folder.
//!
//! First of all the node writes down who it is and what it asks with: should it stop, or the answer get lost, it asks again
//! as the same node. Who is refused leaves nothing behind.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::{Clock, Entropy, Secret, SecretBytes};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pending::{self, Pending, SealKey};
use crate::cluster::certificate::{self, CertificateError};
use crate::cluster::dialer::DIAL_TIMEOUT;
use crate::cluster::node::{self, ClusterError};
use crate::cluster::token::{EXPORTER, JoinToken, TokenError};
use crate::cluster::wire::{self, Answer, Join, Place, Request, Welcome, Why};
use crate::cluster::{authority, tls};
use crate::config::{Config, Tls};
use crate::files::{self, write_private};
use crate::identity::{self, IdentityError};

/// Time for one node to answer: it writes to the log before it does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a node that leads no more sends on to the next.
const HOPS_MAX: usize = 4;
/// Pause before a cluster without a leader is asked again, and how often.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const ROUNDS_MAX: usize = 20;

/// Why a node does not join. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token's time is up.
    #[error(
        "the join token ended at {0}: make a new one with `keyward operator join-token`\n(if that is not so long ago, compare the clocks of the machines)"
    )]
    Expired(String),
    /// The folder is not empty.
    #[error("{folder}: {why}")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What is in it, and what to do.
        why: String,
    },
    /// How this node is called or reached.
    #[error("{0}")]
    Place(String),
    /// No node of the token could be asked.
    #[error("no node of the cluster could be asked:\n{0}")]
    Unreachable(String),
    /// The cluster said no.
    #[error("the cluster refuses this node: {text}")]
    Refused {
        /// What kind of no.
        why: Why,
        /// What it said.
        text: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Certificate or key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The node's folder.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What one node said, if anything.
enum Said {
    Welcome(Box<Welcome>),
    Elsewhere(String),
    /// For now it cannot be asked.
    Later(String),
}

/// Joins the cluster of `token` with the data folder of `config`, which must be empty, or hold what an earlier try left, and
/// leaves it ready for a start. Blocks.
///
/// # Errors
/// [`JoinError`]. If this node was refused, or nobody was reached, the folder is as it was; otherwise it holds what is needed
/// to ask again.
pub fn join(config: &Config, token: &str, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<(), JoinError> {
    let token = JoinToken::parse(token)?;
    let kept = Pending::read(&config.data)?;
    if kept.is_none() {
        pending::sweep(&config.data);
    }
    if kept.is_none() && !check_folder(config, &token)? {
        return Ok(()); // it has everything already
    }
    if let Some(other) = kept.as_ref().filter(|kept| kept.cluster != token.cluster) {
        let why = format!(
            "it began to join another cluster ({})\nempty it, if nobody needs that any more",
            other.cluster.to_uuid()
        );
        return Err(JoinError::Folder { folder: config.data.clone(), why });
    }
    if clock.now() >= token.expires {
        return Err(JoinError::Expired(token.expires.rfc3339()));
    }
    let place = place(config)?;
    if let Some(name) = token.name.as_ref().filter(|name| **name != place.name) {
        return Err(JoinError::Refused { why: Why::Name, text: wrong_name(name, &place.name) });
    }
    let mut pending = match kept {
        Some(kept) => kept,
        None => Pending::draw(token.cluster, SealKey::wanted(config), entropy)?,
    };
    let seal_key = prepare(config, &mut pending, entropy).inspect_err(|_| {
        if !pending.is_resumed {
            pending::undo(config, pending.seal_key);
        }
    })?;
    let request = Join {
        csr: STANDARD.encode(pending.applicant.csr()),
        node: pending.identity.node().to_uuid(),
        incarnation: identity::FIRST_INCARNATION,
        seal_key: seal_key.map(|key| Secret::new(STANDARD.encode(key.expose()))),
        now: clock.now().0,
        place,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| JoinError::File { path: "runtime".into(), source })?;
    let mut unanswered = false;
    let welcome = runtime.block_on(ask(&token, &request, &mut unanswered)).inspect_err(|_| {
        // Whoever was refused, or reached nobody, is no member; but what was asked before may have been heard.
        if !pending.is_resumed && !unanswered {
            pending::undo(config, pending.seal_key);
        }
    })?;
    keep(config, &token, pending, &request.place, &welcome)
}

/// Puts everything that came of the request in its place.
fn keep(
    config: &Config,
    token: &JoinToken,
    pending: Pending,
    place: &Place,
    welcome: &Welcome,
) -> Result<(), JoinError> {
    let Pending { identity, applicant, seal_key, .. } = pending;
    let (leaf, trusted) = certificates(token, welcome)?;
    let ca =
        trusted.first().cloned().ok_or_else(|| CertificateError::Content("the answer holds no authority".into()))?;
    let file = applicant.file(&leaf);
    let held = applicant.receive(leaf, ca)?;
    if held.facts.cluster != token.cluster || held.facts.number != identity.number() {
        return Err(CertificateError::Content("the cluster gave a certificate of another node".into()).into());
    }

    let folder = config.data.join("cluster");
    identity.keep(&config.data)?;
    if let (Some(api), Tls::LocalCa) = (&welcome.api_authority, config.listen.tls) {
        let folder = config.data.join("tls");
        files::make_folder(&folder).map_err(at(&folder))?;
        for (name, text) in [("ca.key", api.key.expose()), ("ca.pem", &api.certificate)] {
            let path = folder.join(name);
            write_private(&path, text.as_bytes()).map_err(at(&path))?;
        }
    }
    certificate::keep_authorities(&folder, &trusted)?;
    certificate::keep(&folder, &file)?;
    let port = place.node_address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.filter(|_| config.cluster.advertise.is_none());
    node::write_state(&folder, (token.cluster, identity::FIRST_INCARNATION), port, Some(token.id))?;
    pending::forget(&config.data).map_err(at(&folder))?;
    if let (Some(seal_key), false) = (seal_key, welcome.unseals) {
        seal_key.discard(config);
    }
    Ok(())
}

fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> JoinError + use<> {
    let path = path.to_owned();
    move |source| JoinError::File { path, source }
}

/// Why a token for a node of one name does not do for another.
pub fn wrong_name(expected: &str, name: &str) -> String {
    format!(
        "the join token is for a node called `{expected}`, and this one is `{name}`\n\
         set cluster.node_name = \"{expected}\", or make a token for any name"
    )
}

/// Old data is never overwritten, and never taken along. `false`: it is a member's that this token let in.
fn check_folder(config: &Config, token: &JoinToken) -> Result<bool, JoinError> {
    let folder = &config.data;
    let refuse = |why: String| Err(JoinError::Folder { folder: folder.clone(), why });
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(source) => return Err(JoinError::File { path: folder.clone(), source }),
    };
    if entries.next().is_none() {
        return Ok(true);
    }
    match node::cluster_of(folder)? {
        Some((cluster, Some(with))) if cluster == token.cluster.to_uuid() && with == hex::encode(token.id.0) => Ok(false),
        Some((cluster, _)) if cluster == token.cluster.to_uuid() => refuse(
            "it already holds a node of this cluster\n\
             if it is this machine's, start it without --join; if it was copied from another node, empty it first: two nodes \
             of one identity would break the cluster"
                .into(),
        ),
        Some((cluster, _)) => refuse(format!(
            "it holds a node of another cluster ({cluster})\nchoose another folder with --data, or empty this one if nobody needs it"
        )),
        None if folder.join("identity.json").exists() => refuse(
            "it holds an installation of its own, whose secrets the cluster would not take over\n\
             choose another folder with --data, or empty this one if nobody needs it"
                .into(),
        ),
        None => refuse("it is not empty: a node that joins begins with an empty data folder".into()),
    }
}

/// How this node will be called and reached. A port that was left open is settled now, since the others are told.
fn place(config: &Config) -> Result<Place, JoinError> {
    let wrong = |text: &str| JoinError::Place(text.to_owned());
    let node_address = match &config.cluster.advertise {
        Some(address) => address.clone(),
        None => {
            let mut address = node::wanted_address(config);
            if address.ip().is_unspecified() {
                return Err(wrong(
                    "the node listens on every address for others: say under which one they reach it with \
                     cluster.advertise = \"host:port\"",
                ));
            }
            // In use, too, is better known before the token is spent.
            let listener = node::bind(address).map_err(|source| {
                JoinError::Place(format!(
                    "cannot listen on {address} for other nodes: {source}\nchoose another cluster.listen"
                ))
            })?;
            address = listener.local_addr().unwrap_or(address);
            address.to_string()
        }
    };
    let scheme = if matches!(config.listen.tls, Tls::Plain | Tls::PlainAnywhere) { "http" } else { "https" };
    let api_address =
        config.cluster.api_address.clone().unwrap_or_else(|| format!("{scheme}://{}", config.listen.address));
    Ok(Place { name: node::node_name(config), node_address, api_address })
}

/// Keeps what the node asks with, and gives the key of its own seal, which is where it belongs before anything is asked: that
/// may be another device than the data's. First it is kept that there will be a key, then it is drawn: whatever a stop leaves
/// is known for what it is.
fn prepare(
    config: &Config,
    pending: &mut Pending,
    entropy: &dyn Entropy,
) -> Result<Option<Secret<[u8; 32]>>, JoinError> {
    if !pending.is_resumed {
        pending.keep(&config.data)?;
    }
    let Some(from) = pending.seal_key else { return Ok(None) };
    let key = seal_key(config, from, entropy)?;
    if from == SealKey::Wanted {
        pending.seal_key = Some(SealKey::Drawn);
        pending.keep(&config.data)?;
    }
    Ok(Some(key))
}

/// The key of this node's own seal: the one in its file, where a fresh one is put if it is wanted. Who asked before has one: the
/// cluster may know it.
fn seal_key(config: &Config, from: SealKey, entropy: &dyn Entropy) -> Result<Secret<[u8; 32]>, JoinError> {
    let path = config.key_file();
    if from != SealKey::Wanted && !path.exists() {
        return Err(JoinError::Place(format!(
            "{}: the key file of this node, which asked with it before, is missing\n\
             put it back, or empty the data folder, and join anew",
            path.display()
        )));
    }
    crate::boot::key_file(config, entropy).map_err(|error| JoinError::Place(error.to_string()))
}

/// Leaf of the answer, and the authorities to trust; the first, which signed the leaf, is the one that the token names.
fn certificates(
    token: &JoinToken,
    welcome: &Welcome,
) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), JoinError> {
    let der = |text: &str| {
        let bytes = STANDARD.decode(text);
        bytes.map(CertificateDer::from).map_err(|_| CertificateError::Content("the answer holds no certificate".into()))
    };
    let (leaf, ca) = (der(&welcome.certificate)?, der(&welcome.authority)?);
    if authority::fingerprint(&ca) != token.authority {
        return Err(CertificateError::Content("the answer names another authority than the token".into()).into());
    }
    let mut trusted = vec![ca];
    for text in &welcome.trusted {
        let other = der(text)?;
        if !trusted.contains(&other) {
            trusted.push(other);
        }
    }
    Ok((leaf, trusted))
}

/// Asks the nodes of the token in turn, and whom they send to, until one of them leads. `unanswered` turns true when one of
/// them may have let this node in and did not say so.
async fn ask(token: &JoinToken, request: &Join, unanswered: &mut bool) -> Result<Box<Welcome>, JoinError> {
    let mut said = String::new();
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        said.clear();
        let mut later = false;
        for address in &token.addresses {
            let mut address = address.clone();
            for _ in 0..HOPS_MAX {
                match ask_one(token, request, &address, unanswered).await {
                    Ok(Said::Welcome(welcome)) => return Ok(welcome),
                    Ok(Said::Elsewhere(leader)) => address = leader,
                    Ok(Said::Later(text)) => {
                        later = true;
                        said.push_str(&format!("  {address}: {text}\n"));
                        break;
                    }
                    Err(Failed::Refused(error)) => return Err(error),
                    Err(Failed::Unreachable(text)) => {
                        said.push_str(&format!("  {address}: {text}\n"));
                        break;
                    }
                }
            }
        }
        if !later {
            break;
        }
    }
    Err(JoinError::Unreachable(said.trim_end().to_owned()))
}

enum Failed {
    Unreachable(String),
    Refused(JoinError),
}

async fn ask_one(token: &JoinToken, request: &Join, address: &str, unanswered: &mut bool) -> Result<Said, Failed> {
    let was_unanswered = *unanswered;
    let (config, name) = tls::pinned(token.cluster, token.authority).map_err(|error| Failed::Refused(error.into()))?;
    let exchange = async {
        let mut stream = connect(config, name, address).await?;
        let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None);
        let exporter = exporter.map_err(io::Error::other)?;
        let message = Request::join(token.id, request, |body| token.proof(&exporter, body))?;
        *unanswered = true;
        wire::send(&mut stream, &message).await?;
        let answer: SecretBytes = wire::receive(&mut stream).await?;
        Answer::decode(&answer)
    };
    let answer = match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Failed::Unreachable(explain(&error))),
        Err(_) => return Err(Failed::Unreachable("no answer in time".into())),
    };
    // One that is busy may find time later for what it took.
    let is_no = !matches!(answer, Answer::Welcome(_) | Answer::Refused { why: Why::Busy, .. });
    *unanswered = was_unanswered || !is_no;
    match answer {
        Answer::Welcome(welcome) => Ok(Said::Welcome(welcome)),
        Answer::Elsewhere { node_address } => Ok(Said::Elsewhere(node_address)),
        Answer::Refused { why: Why::Busy, text } => Ok(Said::Later(text)),
        Answer::Refused { why, text } => Err(Failed::Refused(JoinError::Refused { why, text })),
    }
}

async fn connect(
    config: std::sync::Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
    address: &str,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let dialling = async { TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await };
    tokio::time::timeout(DIAL_TIMEOUT, dialling).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What a failed connection means for whoever holds a token.
fn explain(error: &io::Error) -> String {
    use rustls::CertificateError as Bad;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        _ if tls::is_of_another(error) => "whoever answers there is not of the cluster that made the join token".into(),
        Some(rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        )) => "its certificate is not good by this machine's clock: compare the clocks of the machines".into(),
        Some(rustls::Error::InvalidMessage(_)) => "no node port answers there (is it the port of the API?)".into(),
        _ => error.to_string(),
    }
}
