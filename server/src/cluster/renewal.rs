//! Certificates after the first: for this node when it becomes one of several, and for every member before its old one
//! ends.
//!
//! The leader signs, for members only, and notes it in the member's row. A node whose certificate ended while it was
//! down, or that finds no leader, and that is unsealed, signs for itself: it holds the root key anyway, and without that a
//! cluster that was switched off for a day could not come back.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::event::EventKind;
use keyward_model::{Id, SecretBytes};
use keyward_raft::Member;
use rustls_pki_types::CertificateDer;

use super::authority::{self, Authority, AuthorityError, Subject, names_of};
use super::certificate::Applicant;
use super::dialer::{DIAL_TIMEOUT, dial};
use super::join::host::authority as signing;
use super::node::ClusterError;
use super::rotation;
use super::rows::{self, NodeRow};
use super::tls::{Lane, Trust};
use super::wire::{self, Answer, Place, Renew, Request, Why};
use crate::app::Worker;
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::seal;

/// Authorities that a member can say it trusts.
const TRUSTED_MAX: usize = 4;
/// How often a member sends on to another one that leads.
const HOPS_MAX: usize = 2;

/// A certificate, that of the authority which signed it, and the incarnation that it is for.
pub type Issued = (CertificateDer<'static>, CertificateDer<'static>, u64);

/// What becomes of a member's wish for a certificate.
#[derive(Debug)]
pub enum Issuing {
    /// It has one.
    Issued(Issued),
    /// It is no member.
    Stranger,
    /// Another process is this member by now.
    Copied,
}

/// What a process says whose place was taken.
const COPIED: &str = "another process was started with a copy of this node's data folder, or this one was put back to an older \
                      state: only the last one that was started is the node; empty this folder if it is the copy";

/// Makes this node one of several, if it is alone: opens its port, and writes what the others need to know of it. Done on
/// the leader, before the first join token.
///
/// # Errors
/// Not the leader, sealed, the port cannot be opened, or nothing can be written.
pub async fn found(worker: &Worker) -> Result<(), Refusal> {
    let app = &worker.app;
    let cluster = &app.cluster;
    let _turn = cluster.changing.lock().await;
    let keys = app.barrier.keyring()?;
    cluster.open(&app.barrier, &app.store).map_err(|error| {
        Refusal::Unavailable(format!("the node port cannot be opened: {error}\nchoose another cluster.listen").into())
    })?;
    let place = cluster.place(app.address())?;
    let number = cluster.number();
    if cluster.trust().is_some() && rows::node(worker.reader(), number)?.is_some() {
        return Ok(());
    }
    let installation = seal::installation(worker.reader())?.ok_or(Refusal::Sealed)?;
    let now = app.barrier.now();
    let internal = |error: AuthorityError| Refusal::internal(error.to_string());
    let row = rows::authority(worker.reader())?;
    let trusted = row.as_ref().map(authority::trusted).transpose().map_err(internal)?;
    let (authority, is_new) = match row {
        Some(row) => (Authority::from_row(&row, keys.domain(), &keys.root).map_err(internal)?, false),
        None => (Authority::generate(installation.cluster, now.seconds()).map_err(internal)?, true),
    };
    let authority = authority.lasting(app.config.cluster.certificate_s);
    let trusted = trusted.unwrap_or_else(|| vec![authority.certificate().clone()]);
    let applicant = Applicant::new().map_err(|error| Refusal::internal(error.to_string()))?;
    let subject = cluster.subject(installation.cluster);
    let leaf = authority.issue(applicant.csr(), subject, now.seconds()).map_err(internal)?;
    let (request, intent) = intent(worker);
    app.barrier
        .write(&worker.desk, request, &|| intent.clone(), |draft| {
            if is_new && rows::draft_authority(draft)?.is_none() {
                rows::put_authority(draft, &authority.to_row(keys.domain(), &keys.root, draft.entropy()))?;
            }
            seal::bind_key_file(draft, cluster.node())?;
            let Place { name, node_address, api_address } = place.clone();
            let before = rows::draft_node(draft, number)?;
            let (joined, replaces) = before.as_ref().map_or((draft.now(), None), |row| (row.joined, row.replaces));
            let row = NodeRow {
                node: cluster.node(),
                name,
                incarnation: before.as_ref().map_or_else(|| cluster.incarnation(), |row| row.incarnation),
                start: before.and_then(|row| row.start),
                node_address,
                api_address,
                joined,
                certificate_until: draft.now().plus_seconds(app.config.cluster.certificate_s),
                replaces,
                request: None,
                trusts: names_of(authority.certificate(), &trusted),
            };
            rows::put_node(draft, number, &row)
        })
        .await?;
    establish(worker, applicant, (leaf, authority.certificate().clone()), &trusted)
}

/// What the leader gives the member `number` that says `said`: a certificate over the key in `csr`.
///
/// # Errors
/// A request that is none, sealed, the newest state is not known here, or nothing can be written.
pub async fn issue(worker: &Worker, number: u64, csr: &[u8], said: &Renew) -> Result<Issuing, Refusal> {
    let app = &worker.app;
    // A leader that was just elected may lack what was committed before: it would call a member a copy, which then ends.
    app.barrier.node().read_point().await.map_err(|_| Refusal::NotLeader)?;
    let Some(row) = rows::node(worker.reader(), number)? else { return Ok(Issuing::Stranger) };
    let Some(incarnation) = row.incarnation_for(said.incarnation, said.start.as_deref(), &said.before) else {
        return Ok(Issuing::Copied);
    };
    let installation = seal::installation(worker.reader())?.ok_or(Refusal::Sealed)?;
    let authority = signing(worker)?;
    // What it says that it has, not what it gets now: that may not arrive. It comes again and says so.
    let trusts: Vec<String> = said.trusts.iter().take(TRUSTED_MAX).cloned().collect();
    let subject = Subject { cluster: installation.cluster, node: row.node, number, incarnation };
    let leaf = authority.issue(csr, subject, app.barrier.now().seconds()).map_err(|error| match error {
        AuthorityError::Request(_) => Refusal::malformed(error.to_string()),
        other => Refusal::internal(other.to_string()),
    })?;
    let (request, intent) = intent(worker);
    let (is_written, _) = app
        .barrier
        .write(&worker.desk, request, &|| intent.clone(), |draft| {
            // Two may ask as one member: the second one finds that the first was here.
            let row = rows::draft_node(draft, number)?;
            let next = |row: &NodeRow| row.incarnation_for(said.incarnation, said.start.as_deref(), &said.before);
            let Some(row) = row.filter(|row| next(row) == Some(incarnation)) else { return Ok(false) };
            let stays = |other: &u64| *other != number && row.replaces != Some(*other);
            if rows::draft_at(draft, &said.place.node_address)?.iter().any(|(other, _)| stays(other)) {
                return Err(Refusal::malformed("another member is reached at this address"));
            }
            let Place { name, node_address, api_address } = said.place.clone();
            let certificate_until = draft.now().plus_seconds(app.config.cluster.certificate_s);
            let (start, trusts) = (said.start.clone().or(row.start), trusts.clone());
            let row = NodeRow { name, node_address, api_address, certificate_until, incarnation, start, trusts, ..row };
            rows::put_node(draft, number, &row)?;
            Ok(true)
        })
        .await?;
    let issued = Issuing::Issued((leaf, authority.certificate().clone(), incarnation));
    Ok(if is_written { issued } else { Issuing::Copied })
}

/// Whether this node needs a new certificate, or has to tell the others that it moved.
pub fn is_due(worker: &Worker) -> bool {
    let app = &worker.app;
    let Some(trust) = app.cluster.trust() else { return false };
    let moved = || {
        let row = rows::node(worker.reader(), app.cluster.number()).ok().flatten();
        let place = app.cluster.place(app.address()).ok();
        row.zip(place).is_some_and(|(row, place)| {
            let NodeRow { name, node_address, api_address, .. } = row;
            Place { name, node_address, api_address } != place
        })
    };
    trust.held().is_due(app.barrier.now().seconds())
        || moved()
        || rotation::is_behind(worker)
        || !app.cluster.has_incarnation()
}

/// Gets a new certificate for this node: from the leader, or, where that cannot be and time presses, from itself.
///
/// # Errors
/// There is no leader that gives one, and time does not press or this node is sealed.
pub async fn renew(worker: &Worker) -> Result<(), Refusal> {
    let app = &worker.app;
    let _turn = app.cluster.changing.lock().await;
    let Some(trust) = app.cluster.trust() else { return Ok(()) };
    let applicant = Applicant::new().map_err(|error| Refusal::internal(error.to_string()))?;
    let place = app.cluster.place(app.address())?;
    let keep = |error: ClusterError| Refusal::Unavailable(error.to_string().into());
    let (incarnation, start, before) = app.cluster.asks_with().map_err(keep)?;
    let trusts = names_of(&trust.issuer(), trust.trusted());
    let said = Renew { csr: STANDARD.encode(applicant.csr()), trusts, incarnation, start, before, place };
    let leadership = *app.barrier.node().leadership().borrow();
    let issuing = if leadership.leads {
        issue(worker, app.cluster.number(), applicant.csr(), &said).await?
    } else {
        match ask_leader(worker, leadership.leader, &said).await {
            Ok(issuing) => issuing,
            Err(error) if presses(worker, &trust) && !app.barrier.is_sealed() => {
                tracing::info!(error = %error, "no leader gives a certificate in time: this node signs for itself");
                alone(worker, &applicant)?
            }
            Err(error) => {
                return Err(Refusal::Unavailable(format!("the certificate could not be renewed: {error}").into()));
            }
        }
    };
    let (leaf, ca, given) = match issuing {
        Issuing::Issued(issued) => issued,
        Issuing::Stranger => return Err(Refusal::Unavailable("this node is not a member (any more)".into())),
        Issuing::Copied => {
            app.fail(COPIED);
            return Ok(());
        }
    };
    let trusted = rotation::trusted(worker)?.unwrap_or_else(|| trust.trusted().to_vec());
    establish(worker, applicant, (leaf, ca), &trusted)?;
    // Signed for itself, it has asked nobody which incarnation it is.
    if given > incarnation || said.start.is_none() {
        app.cluster.incarnate(given).map_err(keep)?;
    }
    if given > incarnation {
        show(worker);
    }
    Ok(())
}

/// Shows the other members the certificate of this start: from then on they take nothing from a copy that has an earlier one.
fn show(worker: &Worker) {
    let (node, own) = (worker.app.barrier.node(), worker.app.cluster.number());
    let Some(trust) = worker.app.cluster.trust() else { return };
    for member in node.members().into_iter().filter(|member| member.node != own) {
        let trust = Arc::clone(&trust);
        node.spawn(async move {
            // The handshake is all that it is about. Who cannot be reached now sees it with the next link.
            drop(dial(&trust, Lane::Raft, member.node, &member.address).await);
        });
    }
}

/// Stops this node if another process is it by now. Its row says so as soon as that one has its incarnation.
pub fn give_way(worker: &Worker) {
    let cluster = &worker.app.cluster;
    let row = rows::node(worker.reader(), cluster.number()).ok().flatten();
    if cluster.has_incarnation() && row.is_some_and(|row| row.incarnation > cluster.incarnation()) {
        worker.app.fail(COPIED);
    }
}

/// Whether this node cannot wait for somebody else to sign: its certificate ends, or nobody takes it any more.
fn presses(worker: &Worker, trust: &Trust) -> bool {
    trust.held().is_pressing(worker.app.barrier.now().seconds()) || rotation::is_left_behind(worker)
}

/// A certificate that this node gives itself, if it is a member as far as it knows.
fn alone(worker: &Worker, applicant: &Applicant) -> Result<Issuing, Refusal> {
    let app = &worker.app;
    let Some(row) = rows::node(worker.reader(), app.cluster.number())? else { return Ok(Issuing::Stranger) };
    let installation = seal::installation(worker.reader())?.ok_or(Refusal::Sealed)?;
    // The state may lag behind what this node had shown before.
    let shown = app.cluster.trust().map_or(0, |trust| trust.held().facts.incarnation);
    let incarnation = row.incarnation.max(shown);
    let subject = Subject { incarnation, ..app.cluster.subject(installation.cluster) };
    let authority = signing(worker)?;
    let leaf = authority.issue(applicant.csr(), subject, app.barrier.now().seconds());
    let leaf = leaf.map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(Issuing::Issued((leaf, authority.certificate().clone(), app.cluster.incarnation())))
}

/// Asks the leader, or, where none is known, whoever answers: a copy of a node that runs elsewhere hears of no leader.
/// That one may lead: the others then name this node, at the address where it is not.
async fn ask_leader(worker: &Worker, leader: Option<u64>, said: &Renew) -> io::Result<Issuing> {
    let app = &worker.app;
    let members = app.barrier.node().members();
    let mut others = members.clone();
    others.retain(|member| member.node != app.cluster.number() || member.address != said.place.node_address);
    let mut last = io::Error::new(io::ErrorKind::NotConnected, "no other member answers");
    let is_first =
        |member: &&Member| leader.map_or(member.node != app.cluster.number(), |leader| leader == member.node);
    for first in others.iter().filter(is_first) {
        let mut asked = first;
        for _ in 0..HOPS_MAX {
            match ask(worker, asked, said).await {
                Ok(Reply::Issuing(issuing)) => return Ok(issuing),
                // At the address of this node, too: where that leads to another process, this one is the copy.
                Ok(Reply::Elsewhere(address)) => match members.iter().find(|member| member.address == address) {
                    Some(leads) => asked = leads,
                    None => break,
                },
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(last)
}

/// What one member says.
enum Reply {
    Issuing(Issuing),
    Elsewhere(String),
}

async fn ask(worker: &Worker, member: &Member, said: &Renew) -> io::Result<Reply> {
    let trust = worker.app.cluster.trust().ok_or_else(|| io::Error::other("this node is alone"))?;
    let mut stream = dial(&trust, Lane::Renew, member.node, &member.address).await?;
    let exchange = async {
        let message = Request::renew(said)?;
        wire::send(&mut stream, &message).await?;
        let answer: SecretBytes = wire::receive(&mut stream).await?;
        Answer::decode(&answer)
    };
    match tokio::time::timeout(DIAL_TIMEOUT, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?? {
        Answer::Welcome(welcome) => {
            let der = |text: &str| STANDARD.decode(text).map(CertificateDer::from).map_err(io::Error::other);
            let issued = (der(&welcome.certificate)?, der(&welcome.authority)?, welcome.incarnation);
            if trust.trusted().contains(&issued.1) {
                Ok(Reply::Issuing(Issuing::Issued(issued)))
            } else {
                Err(io::Error::other("an authority signed that this node does not trust"))
            }
        }
        Answer::Elsewhere { node_address } => Ok(Reply::Elsewhere(node_address)),
        Answer::Refused { why: Why::Stranger, .. } => Ok(Reply::Issuing(Issuing::Stranger)),
        Answer::Refused { why: Why::Copied, .. } => Ok(Reply::Issuing(Issuing::Copied)),
        Answer::Refused { text, .. } => Err(io::Error::other(text)),
    }
}

fn establish(
    worker: &Worker,
    applicant: Applicant,
    (leaf, ca): (CertificateDer<'static>, CertificateDer<'static>),
    trusted: &[CertificateDer<'static>],
) -> Result<(), Refusal> {
    let file = applicant.file(&leaf);
    let held = applicant.receive(leaf, ca).map_err(|error| Refusal::internal(error.to_string()))?;
    worker.app.cluster.establish(held, trusted, &file).map_err(|error| {
        Refusal::Unavailable(format!("the certificate of this node cannot be kept: {error}").into())
    })?;
    tracing::info!("this node has a new certificate");
    Ok(())
}

/// The record of a change of the members that the server makes by itself.
pub fn intent(worker: &Worker) -> (Id, Vec<u8>) {
    let barrier = &worker.app.barrier;
    let request = Id::random(barrier.entropy());
    let mut facts = Facts::new(request, barrier.now(), None, "system");
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("cluster member");
    (request, facts.intent(barrier.entropy(), barrier.now()))
}
