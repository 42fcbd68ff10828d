//! The cluster's side: lets a node in for a token on the join lane, and gives members new certificates on theirs.
//!
//! In this order: who leads, how often this address was wrong lately, whether this state is the newest, the token's proof;
//! only then is anything parsed, signed or written. What makes the node a member is one command: it finds the token's row and
//! notes in it whom it let in, so that of two nodes with one token one comes in. That one may come again until it was heard of,
//! since answers get lost.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::event::{EventKind, EventOutcome};
use keyward_model::{Id, Secret, SecretBytes, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::app::Worker;
use crate::cluster::authority::{Authority, AuthorityError, Subject, names_of};
use crate::cluster::join::guest::wrong_name;
use crate::cluster::listener::JoiningConnection;
use crate::cluster::renewal::{self, Issuing};
use crate::cluster::rotation;
use crate::cluster::rows::{self, MEMBERS_MAX, NodeRow, TokenRow};
use crate::cluster::token::{EXPORTER, ProofKey};
use crate::cluster::wire::{self, Answer, ApiAuthority, Join, Place, Renew, Request, Welcome, Why};
use crate::config::{Tls, is_host_and_port, is_node_name};
use crate::identity::{FIRST_INCARNATION, raft_id};
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::seal;

/// Time for the request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How far clocks may differ.
const SKEW_MAX_S: i64 = 300;
/// The longest URL of an API.
const URL_BYTES_MAX: usize = 512;

/// Answers one request, and closes.
pub async fn serve(worker: &Worker, connection: JoiningConnection) {
    let JoiningConnection { peer, source, mut stream, seats } = connection;
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None);
    let request = tokio::time::timeout(REQUEST_TIMEOUT, wire::receive(&mut stream)).await;
    let request = match (&request, exporter) {
        (Ok(Ok(message)), Ok(exporter)) => Request::parse(message).map(|request| (request, exporter)),
        _ => None,
    };
    let Some((request, exporter)) = request else {
        worker.app.cluster.note_closed();
        return tracing::debug!(source = %source, "a connection to join was closed: it said nothing that makes sense");
    };
    let answer = match (request, peer) {
        (Request::Join { token, proof, body }, None) => {
            Box::pin(join(worker, source, &Presented { exporter, token, proof, body })).await
        }
        (Request::Renew(body), Some(peer)) => Box::pin(renew(worker, peer, &body)).await,
        _ => Answer::refused(Why::Request, "a node joins on one lane and renews on another"),
    };
    if let Ok(message) = answer.encode()
        && let Err(error) = wire::send(&mut stream, &message).await
    {
        tracing::warn!(source = %source, error = %error, "a node did not take the answer to its request to join");
    }
    drop(tokio::io::AsyncWriteExt::shutdown(&mut stream).await);
    drop(seats);
}

/// A token as it was presented: in this TLS session, for this request.
struct Presented {
    exporter: [u8; 32],
    token: Id,
    proof: [u8; 32],
    body: SecretBytes,
}

async fn join(worker: &Worker, source: IpAddr, presented: &Presented) -> Answer {
    if let Some(answer) = not_here(worker) {
        return answer;
    }
    let app = &worker.app;
    let now = app.barrier.now();
    if !app.cluster.may_try(source, now.seconds()) {
        return Answer::refused(Why::Busy, "too many wrong join tokens from this address; wait a minute");
    }
    let request = Id::random(app.barrier.entropy());
    let mut facts = Facts::new(request, now, Some(source), "system");
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("cluster member");
    let answer = match admit(worker, source, presented, &facts).await {
        Ok(answer) => answer,
        Err(refusal) => busy(&refusal),
    };
    if let Answer::Refused { why, text } = &answer {
        if *why == Why::Token {
            app.cluster.note_wrong(source, now.seconds());
        }
        tracing::warn!(source = %source, ?why, reason = %text, "a node was not let in");
        drop(worker.record(&facts, EventOutcome::Deny, Some("ACCESS_DENIED")).await);
    }
    answer
}

/// Whom to ask instead, or why nobody can be asked now.
fn not_here(worker: &Worker) -> Option<Answer> {
    let barrier = &worker.app.barrier;
    let leadership = *barrier.node().leadership().borrow();
    if leadership.leads {
        let sealed = barrier.is_sealed();
        return sealed.then(|| Answer::refused(Why::Busy, "the node that leads is sealed: unseal it first"));
    }
    let members = barrier.node().members();
    let leader = leadership.leader.and_then(|leader| members.into_iter().find(|member| member.node == leader));
    Some(match leader {
        Some(leader) => Answer::Elsewhere { node_address: leader.address },
        None => Answer::refused(Why::Busy, "no node leads at the moment"),
    })
}

fn busy(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Malformed(text) => Answer::refused(Why::Request, text.clone()),
        Refusal::Internal(detail) => {
            tracing::error!(detail = %detail, "a node could not be let in");
            Answer::refused(Why::Busy, "an error of the server; its log says which")
        }
        Refusal::Unavailable(text) => Answer::refused(Why::Busy, text.clone()),
        Refusal::NotLeader => Answer::refused(Why::Busy, "no node leads that has the newest state; try again"),
        _ => Answer::refused(Why::Busy, "the node that leads cannot write now; try again"),
    }
}

async fn admit(worker: &Worker, source: IpAddr, presented: &Presented, facts: &Facts) -> Result<Answer, Refusal> {
    let app = &worker.app;
    let keys = app.barrier.keyring()?;
    // Whoever is refused may take it as final, and a leader that was just elected may lack what was committed before.
    app.barrier.node().read_point().await.map_err(|_| Refusal::NotLeader)?;
    let (token, now) = (presented.token, app.barrier.now());
    let Some(row) = rows::token(worker.reader(), token)? else { return Ok(unknown_token()) };
    let key = ProofKey::of_row(&row, token, keys.domain(), &keys.root)
        .ok_or_else(|| Refusal::internal("the row of a join token does not open"))?;
    if !key.accepts(&presented.exporter, presented.body.expose(), &presented.proof) {
        return Ok(unknown_token());
    }
    // From here on it is somebody whom an operator trusts.
    if row.expires <= app.barrier.judged_at() {
        let text =
            format!("the join token ended at {}: make a new one with `keyward operator join-token`", row.expires);
        return Ok(Answer::refused(Why::Expired, text));
    }
    let Ok(said) = serde_json::from_slice::<Join>(presented.body.expose()) else {
        return Ok(Answer::refused(Why::Request, "the request is not one that this version understands"));
    };
    if let Some(answer) = unfit(&said, row.name.as_deref(), now, source) {
        return Ok(answer);
    }
    let installation = seal::installation(worker.reader())?
        .ok_or_else(|| Refusal::internal("a join token without an installation"))?;
    let (Some(node), Ok(csr)) = (Id::from_uuid(&said.node), STANDARD.decode(&said.csr)) else {
        return Ok(Answer::refused(Why::Request, "the request is not well formed"));
    };
    let number = raft_id(node);
    let subject = Subject { cluster: installation.cluster, node, number, incarnation: said.incarnation };
    let authority = authority(worker)?;
    let trusted = rotation::trusted(worker)?.unwrap_or_default();
    let leaf = match authority.issue(&csr, subject, now.seconds()) {
        Ok(leaf) => leaf,
        Err(error @ AuthorityError::Request(_)) => return Ok(Answer::refused(Why::Request, error.to_string())),
        Err(error) => return Err(Refusal::internal(error.to_string())),
    };
    let seal_key = said.seal_key.as_ref().map(seal_key).transpose()?;
    // Whoever comes with this again is the same node: only it has the key.
    let asked_with = hex::encode(Sha256::digest(&csr));
    app.audit_ready()?;
    let intent = facts.intent(app.barrier.entropy(), now);
    let (outcome, _) = app
        .barrier
        .write(&worker.desk, facts.request, &|| intent.clone(), |draft| {
            // Of two nodes with the same token only the first finds its row.
            let Some(ticket) = rows::draft_token(draft, token)?.filter(|row| row.expires > draft.now()) else {
                return Ok(Err(unknown_token()));
            };
            let members = rows::draft_nodes(draft)?;
            let known = members.iter().find(|(known, _)| *known == number).map(|(_, row)| row);
            let again = known.is_some_and(|row| row.request.as_ref() == Some(&asked_with));
            if ticket.used.is_some_and(|used| used != number || !again) {
                return Ok(Err(unknown_token()));
            }
            // One that was removed since the token was made needs no successor.
            let replaces = ticket.replaces.or_else(|| known.filter(|_| again)?.replaces).filter(|old| members.iter().any(|(number, _)| number == old));
            let is_other = |other: &u64| *other != number;
            if replaces.is_some() && members.iter().any(|(other, row)| is_other(other) && row.replaces == replaces) {
                return Ok(Err(Answer::refused(Why::Request, "another node takes the place of this member already")));
            }
            if replaces.is_none() && !again && members.len() >= MEMBERS_MAX {
                return Ok(Err(Answer::refused(Why::Full, format!("the cluster has {MEMBERS_MAX} members already"))));
            }
            if !again && (known.is_some() || rows::draft_is_gone(draft, number)?) {
                return Ok(Err(Answer::refused(
                    Why::Request,
                    "the cluster has, or had, a member of this identity: was the data folder copied? begin with an empty one",
                )));
            }
            let at = rows::draft_at(draft, &said.place.node_address)?;
            if let Some((_, other)) = at.iter().find(|(other, _)| is_other(other) && Some(*other) != replaces) {
                let text = format!(
                    "the cluster has a member at {} already: `{}`; remove it first if it is gone",
                    said.place.node_address, other.name
                );
                return Ok(Err(Answer::refused(Why::Request, text)));
            }
            let unseals = seal::add_key_file(draft, (&keys.root, keys.domain()), node, seal_key.as_ref())?;
            rows::put_token(draft, token, &TokenRow { used: Some(number), ..ticket })?;
            let Place { name, node_address, api_address } = said.place.clone();
            let row = NodeRow {
                node,
                name,
                incarnation: said.incarnation,
                start: None,
                node_address,
                api_address,
                joined: draft.now(),
                certificate_until: draft.now().plus_seconds(app.config.cluster.certificate_s),
                replaces,
                request: Some(asked_with.clone()),
                trusts: names_of(authority.certificate(), &trusted),
            };
            rows::put_node(draft, number, &row)?;
            Ok(Ok(unseals))
        })
        .await?;
    let unseals = match outcome {
        Ok(unseals) => unseals,
        Err(answer) => return Ok(answer),
    };
    app.cluster.nudge();
    tracing::info!(node = %node, name = %said.place.name, address = %said.place.node_address, "a node was let in");
    Ok(Answer::Welcome(Box::new(Welcome {
        certificate: STANDARD.encode(&leaf),
        authority: STANDARD.encode(authority.certificate()),
        trusted: trusted.iter().map(|ca| STANDARD.encode(ca)).collect(),
        incarnation: said.incarnation,
        unseals,
        api_authority: api_authority(worker),
    })))
}

/// One answer for a token that is not known, not known any more, or not proven: nothing is to be learned from it.
fn unknown_token() -> Answer {
    Answer::refused(
        Why::Token,
        "the join token is not known here: it lets one node in, and was used, withdrawn, or is not from this cluster\n\
         make a new one with `keyward operator join-token`",
    )
}

fn unfit(said: &Join, expected: Option<&str>, now: Timestamp, source: IpAddr) -> Option<Answer> {
    let Place { name, node_address, .. } = &said.place;
    if let Some(expected) = expected.filter(|expected| expected != name) {
        return Some(Answer::refused(Why::Name, wrong_name(expected, name)));
    }
    let skew_s = Timestamp(said.now).seconds().saturating_sub(now.seconds());
    if skew_s.abs() > SKEW_MAX_S {
        let text = format!(
            "the clock of the node is {} s {} that of the cluster: set the clocks, then try again",
            skew_s.abs(),
            if skew_s > 0 { "ahead of" } else { "behind" }
        );
        return Some(Answer::refused(Why::Clock, text));
    }
    let is_loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let host = node_address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    if is_loopback(host) && !source.is_loopback() {
        let text = format!(
            "the node says that it is reached at {node_address}, which is every machine's own, and comes from {source}\n\
             set cluster.listen or cluster.advertise to an address that the others can reach"
        );
        return Some(Answer::refused(Why::Request, text));
    }
    let fits = fits(&said.place) && said.incarnation >= FIRST_INCARNATION;
    (!fits).then(|| Answer::refused(Why::Request, "name or address of the node are not well formed"))
}

/// Whether name and addresses are what they should be, and nothing that a terminal would take for a command.
fn fits(place: &Place) -> bool {
    let Place { name, node_address, api_address } = place;
    is_node_name(name)
        && is_host_and_port(node_address)
        && api_address.len() <= URL_BYTES_MAX
        && api_address.bytes().all(|byte| byte.is_ascii_graphic())
}

fn seal_key(text: &Secret<String>) -> Result<Secret<[u8; 32]>, Refusal> {
    let bytes = STANDARD.decode(text.expose()).ok().map(SecretBytes::new);
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.expose().as_slice()).ok());
    key.map(Secret::new).ok_or_else(|| Refusal::malformed("the key of the node's seal is not one"))
}

/// The local CA of the API, where this node has one. Without it the new node makes its own.
fn api_authority(worker: &Worker) -> Option<ApiAuthority> {
    let config = &worker.app.config;
    if config.listen.tls != Tls::LocalCa {
        return None;
    }
    let read = |name: &str| std::fs::read_to_string(config.data.join("tls").join(name)).ok();
    Some(ApiAuthority { certificate: read("ca.pem")?, key: Secret::new(read("ca.key")?) })
}

/// The node authority, for as long as it is used.
///
/// # Errors
/// Sealed, or there is none yet.
pub fn authority(worker: &Worker) -> Result<Authority, Refusal> {
    let keys = worker.app.barrier.keyring()?;
    let row = rows::authority(worker.reader())?
        .ok_or_else(|| Refusal::Unavailable("the cluster has no node authority yet; try again".into()))?;
    let authority = Authority::from_row(&row, keys.domain(), &keys.root);
    let authority = authority.map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(authority.lasting(worker.app.config.cluster.certificate_s))
}

async fn renew(worker: &Worker, peer: u64, body: &SecretBytes) -> Answer {
    if let Some(answer) = not_here(worker) {
        return answer;
    }
    let Ok(said) = serde_json::from_slice::<Renew>(body.expose()) else {
        return Answer::refused(Why::Request, "the request is not one that this version understands");
    };
    let Ok(csr) = STANDARD.decode(&said.csr) else {
        return Answer::refused(Why::Request, "the request is not well formed");
    };
    if !fits(&said.place) {
        return Answer::refused(Why::Request, "name or address of the node are not well formed");
    }
    match renewal::issue(worker, peer, &csr, &said).await {
        Ok(Issuing::Issued((leaf, authority, incarnation))) => Answer::Welcome(Box::new(Welcome {
            certificate: STANDARD.encode(&leaf),
            authority: STANDARD.encode(&authority),
            trusted: Vec::new(),
            incarnation,
            unseals: false,
            api_authority: None,
        })),
        Ok(Issuing::Stranger) => Answer::refused(Why::Stranger, "this node is not a member (any more)"),
        Ok(Issuing::Copied) => {
            tracing::error!(
                node = format!("{peer:016x}"),
                "a copy of a member's data folder was started, or one that was put back to an older state: it is refused"
            );
            Answer::refused(Why::Copied, "a later start of this node is known")
        }
        Err(refusal) => busy(&refusal),
    }
}
