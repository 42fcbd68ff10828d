//! The sealed side: from the start of its process on, a node that people unseal asks the other members, where it was told to,
//! until it is unsealed.
//!
//! Whoever was sealed by hand does not ask ([`super::hold`]). What another member gives is treated like what people give: it
//! has to open the keyring, and the rows have to add up to what was signed.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_crypto::RootKey;
use keyward_model::Id;
use keyward_model::event::{EventKind, EventOutcome};
use keyward_raft::Member;
use tokio::sync::watch;

use super::envelope::{Bond, EXPORTER, Party, Recipient};
use super::message::{Answer, Question};
use crate::app::Worker;
use crate::cluster::authority::fingerprint;
use crate::cluster::dialer::{DIAL_TIMEOUT, dial};
use crate::cluster::tls::{Lane, Trust};
use crate::cluster::{rows, wire};
use crate::record::Facts;
use crate::seal::{self, Generation, OpenError};

/// Pause before the members are asked for the first time, and as long as there is nobody to ask.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after nobody gave anything; each is twice the one before. Each no is a record of somebody's.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why the node is still sealed.
enum NotYet {
    /// It has not come so far that it could ask.
    Early,
    /// Nobody gave it anything, or what was given did not help.
    Refused(String),
}

/// Asks until the node is unsealed, by whomever, or the server stops.
pub async fn run(worker: Rc<Worker>, stop: watch::Receiver<bool>) {
    ask_on(&worker, stop).await;
    worker.app.cluster.done_asking.store(true, Ordering::Release);
}

async fn ask_on(worker: &Worker, mut stop: watch::Receiver<bool>) {
    let (mut pause, mut last) = (PAUSE, String::new());
    while may_ask(worker) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        match Box::pin(ask_all(worker)).await {
            Ok(()) => return,
            Err(NotYet::Early) => pause = PAUSE,
            Err(NotYet::Refused(why)) => {
                if why != last {
                    tracing::warn!(reason = %why, "no member unsealed this node yet; it asks again");
                }
                (pause, last) = ((pause * 2).min(PAUSE_MAX), why);
            }
        }
    }
}

/// Whether this node asks others to unseal it, or is about to.
pub fn asks(worker: &Worker) -> bool {
    !worker.app.cluster.done_asking.load(Ordering::Acquire) && may_ask(worker)
}

/// Whether this node is sealed, was told to ask, and has whom to ask: if not now, then after its next start.
pub fn may_ask(worker: &Worker) -> bool {
    let app = &worker.app;
    app.config.seal.peer_unseal
        && app.cluster.trust().is_some()
        && app.barrier.is_sealed()
        && !app.cluster.hold.is_set()
        && !seal::opens_itself(worker.reader(), app.cluster.node()).unwrap_or(false)
}

/// Asks the members in turn, the leader first: it is not sealed.
async fn ask_all(worker: &Worker) -> Result<(), NotYet> {
    let app = &worker.app;
    let node = app.barrier.node();
    let leader = node.leadership().borrow().leader;
    // Its certificate has to be that of this start, and its state the one that the others have.
    if leader.is_none() || !app.cluster.has_incarnation() || node.read_point().await.is_err() {
        return Err(NotYet::Early);
    }
    let read = |error| NotYet::Refused(format!("the state cannot be read: {error:?}"));
    let installation = seal::installation(worker.reader()).map_err(read)?.ok_or(NotYet::Early)?;
    let generation = seal::generation(worker.reader()).map_err(read)?.ok_or(NotYet::Early)?;
    let trust = app.cluster.trust().ok_or(NotYet::Early)?;
    let mut members = node.members();
    members.retain(|member| member.node != app.cluster.number());
    members.sort_by_key(|member| Some(member.node) != leader);
    let mut said = Vec::new();
    for member in members {
        match ask(&trust, &member, installation.domain, generation).await {
            Ok(root) => return unseal(worker, member.node, root).await.map_err(NotYet::Refused),
            Err(error) => said.push(format!("{}: {error}", member.address)),
        }
    }
    Err(NotYet::Refused(said.join("; ")))
}

/// Asks one member, on behalf of the one that `trust` is of.
///
/// # Errors
/// It cannot be reached, says no, or what it gives is not for this node and this state.
pub(super) async fn ask(trust: &Trust, member: &Member, domain: Id, generation: Generation) -> io::Result<RootKey> {
    let recipient = Recipient::draw().map_err(io::Error::other)?;
    let held = trust.held();
    let mut stream = dial(trust, Lane::Unseal, member.node, &member.address).await?;
    let tls = stream.get_ref().1;
    let session = tls.export_keying_material([0; 32], EXPORTER, None).map_err(io::Error::other)?;
    let shown = tls.peer_certificates().and_then(<[_]>::first).zip(held.certified.cert.first());
    let (theirs, own) = shown.ok_or_else(|| io::Error::other("no certificate was shown"))?;
    let bond = Bond {
        cluster: trust.cluster(),
        domain,
        giver: Party { number: member.node, certificate: fingerprint(theirs) },
        asker: Party { number: held.facts.number, certificate: fingerprint(own) },
        generation,
        session,
    };
    let exchange = async {
        let question = Question { key: STANDARD.encode(recipient.public()), generation };
        wire::send(&mut stream, &wire::encode(&question)?).await?;
        wire::decode::<Answer>(&wire::receive(&mut stream).await?)?.envelope()
    };
    let envelope = tokio::time::timeout(DIAL_TIMEOUT, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    recipient.open(&envelope, &bond).map_err(io::Error::other)
}

/// Unseals with the root key that the member `giver` gave. Unless people were faster.
async fn unseal(worker: &Worker, giver: u64, root: RootKey) -> Result<(), String> {
    let app = &worker.app;
    // As when people unseal: one at a time, and keys in place are never overwritten.
    let _turn = app.rotating.lock().await;
    if !app.barrier.is_sealed() || app.cluster.hold.is_set() {
        return Ok(());
    }
    let store = app.store.clone();
    // Reads every row once, hence not on this thread.
    let opening = tokio::task::spawn_blocking(move || {
        let reader = store.reader().map_err(|_| OpenError::Unreadable)?;
        seal::open_with(&reader, root)
    });
    let opened = opening.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let mut facts = Facts::of_server(&app.barrier);
    facts.set(EventKind::SysUnseal, "administer", "system");
    facts.member = rows::node(worker.reader(), giver).ok().flatten().map(|row| row.node);
    let recorded = worker.record(&facts, EventOutcome::Success, None).await;
    recorded.map_err(|_| "that this node is unsealed cannot be recorded".to_owned())?;
    app.barrier.unseal(opened, &app.store).map_err(|refusal| format!("{refusal:?}"))?;
    app.unsealing.reset();
    app.cluster.nudge();
    tracing::info!(node = format!("{giver:016x}"), "this node was unsealed by another member");
    Ok(())
}
