//! The unsealed side: gives the root key to a member that people would have to unseal, where this node was told that it may.
//!
//! In this order: how often this member asked; with the newest state there is, whether it still is a member; whether this
//! node may; whether it is the member's last start, and has the same seals. Then the record, durable, and only then the
//! envelope.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::event::{EventKind, EventOutcome};
use rustls_pki_types::CertificateDer;

use super::envelope::{self, Bond, EXPORTER, Envelope, Party};
use super::message::{Answer, Question};
use crate::app::Worker;
use crate::cluster::authority::fingerprint;
use crate::cluster::certificate;
use crate::cluster::listener::MemberConnection;
use crate::cluster::{rows, wire};
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::seal;

/// Time for the question to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions of one member in one minute: one that gets nothing asks less and less often.
const PER_MINUTE_MAX: u32 = 12;

/// How often members asked in the minute that is.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<u64, (i64, u32)>>);

impl Turns {
    /// Takes a turn; `false` if the member had too many.
    fn take(&self, member: u64, now_s: i64) -> bool {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now_s / 60;
        turns.retain(|_, (then, _)| *then == minute);
        let (_, count) = turns.entry(member).or_insert((minute, 0));
        *count += 1;
        *count <= PER_MINUTE_MAX
    }

    /// As in the next minute.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// Who asks, in which session.
struct Asker {
    number: u64,
    incarnation: u64,
    party: Party,
    session: [u8; 32],
}

/// Why it gets nothing.
enum No {
    /// It may never, or not as it is: recorded.
    Denied(&'static str),
    /// Not now.
    Later(&'static str),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Internal(detail) = refusal {
            tracing::error!(detail = %detail, "the root key could not be given to a member");
        }
        Self::Later("this node cannot tell at the moment; its log says why")
    }
}

/// Answers one question, and closes.
pub async fn serve(worker: &Worker, connection: MemberConnection) {
    let MemberConnection { peer, source, mut stream, seats } = connection;
    let asked = tokio::time::timeout(QUESTION_TIMEOUT, wire::receive(&mut stream)).await;
    let asked = asked.map_err(io::Error::from).flatten().and_then(|message| wire::decode::<Question>(&message));
    let tls = stream.get_ref().1;
    let session = tls.export_keying_material([0; 32], EXPORTER, None);
    let asker = Asker::of(peer, tls.peer_certificates(), session.ok());
    let Some((question, asker)) = asked.ok().zip(asker) else {
        worker.app.cluster.note_closed();
        return tracing::debug!(source = %source, "a member asked to be unsealed, and not as members do it");
    };
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.source = Some(source);
    facts.set(EventKind::SysConfig, "unseal_member", "system");
    facts.object = Some("root key");
    let answer = match give(worker, &asker, &question, &mut facts).await {
        Ok(envelope) => Answer::given(&envelope),
        Err(No::Later(text)) => Answer::refused(text),
        Err(No::Denied(text)) => {
            tracing::warn!(source = %source, node = format!("{peer:016x}"), reason = text, "a member was not unsealed");
            drop(worker.record(&facts, EventOutcome::Deny, Some("ACCESS_DENIED")).await);
            Answer::refused(text)
        }
    };
    let is_given = matches!(answer, Answer::Given { .. });
    match wire::encode(&answer) {
        Ok(message) => match wire::send(&mut stream, &message).await {
            Ok(()) if is_given => tracing::info!(node = format!("{peer:016x}"), "a member was given the root key"),
            Ok(()) => {}
            Err(error) => tracing::warn!(source = %source, error = %error, "a member did not take the answer"),
        },
        Err(error) => tracing::error!(error = %error, "the answer to a member is too long"),
    }
    drop(tokio::io::AsyncWriteExt::shutdown(&mut stream).await);
    drop(seats);
}

impl Asker {
    fn of(number: u64, chain: Option<&[CertificateDer<'_>]>, session: Option<[u8; 32]>) -> Option<Self> {
        let leaf = chain?.first()?;
        let facts = certificate::Facts::of(leaf).filter(|facts| facts.number == number)?;
        let party = Party { number, certificate: fingerprint(leaf) };
        Some(Self { number, incarnation: facts.incarnation, party, session: session? })
    }
}

/// The envelope for whoever asks, once it is recorded that it gets it.
async fn give(worker: &Worker, asker: &Asker, question: &Question, facts: &mut Facts) -> Result<Envelope, No> {
    let app = &worker.app;
    if !app.cluster.turns.take(asker.number, app.barrier.now().seconds()) {
        return Err(No::Later("this member asked too often; wait a minute"));
    }
    // Whoever was removed a moment ago is gone for this node, too.
    app.barrier.node().read_point().await.map_err(|_| No::Later("this node does not know the newest state"))?;
    let reader = worker.reader();
    let Some(row) = rows::node(reader, asker.number)? else {
        return Err(No::Denied("this node is not a member (any more)"));
    };
    facts.member = Some(row.node);
    if !app.config.seal.peer_unseal {
        return Err(No::Denied("seal.peer_unseal is not switched on here"));
    }
    if row.incarnation != asker.incarnation {
        return Err(No::Denied("a later start of this node is known"));
    }
    if seal::opens_itself(reader, row.node)? {
        return Err(No::Denied("this node has a key file of its own"));
    }
    let keys = app.barrier.keyring().map_err(|_| No::Later("this node is sealed itself"))?;
    let installation = seal::installation(reader)?.ok_or(No::Later("there is no installation yet"))?;
    let generation = seal::generation(reader)?.filter(|generation| *generation == question.generation);
    let generation = generation.ok_or(No::Later("the seals or the keyring were changed meanwhile"))?;
    let key = STANDARD.decode(&question.key).map_err(|_| No::Denied("the question is not well formed"))?;
    let trust = app.cluster.trust().ok_or(No::Later("this node is alone"))?;
    let held = trust.held();
    let own = held.certified.cert.first().ok_or(No::Later("this node has no certificate"))?;
    let bond = Bond {
        cluster: installation.cluster,
        domain: installation.domain,
        giver: Party { number: app.cluster.number(), certificate: fingerprint(own) },
        asker: asker.party,
        generation,
        session: asker.session,
    };
    let envelope =
        envelope::seal(&keys.root, &key, &bond).map_err(|_| No::Denied("the question is not well formed"))?;
    let recorded = worker.record(facts, EventOutcome::Success, None).await;
    recorded.map_err(|_| No::Later("what this node gives cannot be recorded"))?;
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_so_many_turns_in_a_minute_and_the_others_theirs() {
        let turns = Turns::default();
        assert!((0..PER_MINUTE_MAX).all(|_| turns.take(1, 60)));
        assert!(!turns.take(1, 119) && turns.take(2, 119));
        assert!(turns.take(1, 120));
    }
}
