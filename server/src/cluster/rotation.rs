//! A new node authority in the place of the old one, without a moment in which members do not know each other.
//!
//! Three steps, each when all members have done the one before: the next authority is announced, and everybody trusts
//! both; it signs from now on, and everybody gets a certificate of it; the old one is trusted no more. What members have
//! done stands in their rows, so any leader goes on where another one stopped.

use keyward_model::event::EventKind;
use rustls_pki_types::CertificateDer;

use super::authority::{self, fingerprint, names_of};
use super::rows::{self, AuthorityRow, NodeRow};
use crate::app::Worker;
use crate::barrier::Draft;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// None is under way.
    Settled,
    /// Members begin to trust the next authority.
    Announced,
    /// Members get certificates of the new authority.
    Switched,
}

impl Phase {
    /// Where it stands by the authority's row.
    pub fn of(row: &AuthorityRow) -> Self {
        match (&row.next, &row.before) {
            (Some(_), _) => Self::Announced,
            (None, Some(_)) => Self::Switched,
            (None, None) => Self::Settled,
        }
    }

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Announced => "announced",
            Self::Switched => "switched",
        }
    }
}

/// Announces an authority that takes the place of the one there is.
///
/// # Errors
/// A rotation is under way, or there is no authority yet.
pub fn announce(draft: &mut Draft<'_>, next: AuthorityRow) -> Result<(), Refusal> {
    let row = rows::draft_authority(draft)?
        .ok_or_else(|| Refusal::malformed("this node is alone: it gets an authority with the first join token"))?;
    if Phase::of(&row) != Phase::Settled {
        return Err(Refusal::malformed("the node authority is being exchanged already"));
    }
    rows::put_authority(draft, &AuthorityRow { next: Some(Box::new(next)), ..row })
}

/// Takes the next step, if all members have done the one before. On the leader.
///
/// # Errors
/// A row cannot be read, or nothing can be written.
pub async fn advance(worker: &Worker) -> Result<(), Refusal> {
    let barrier = &worker.app.barrier;
    if barrier.is_sealed() {
        return Ok(());
    }
    let Some(row) = rows::authority(worker.reader())? else { return Ok(()) };
    if step(row, &rows::nodes(worker.reader())?)?.is_none() {
        return Ok(());
    }
    let mut facts = Facts::of_server(barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("node authority");
    let intent = facts.intent(barrier.entropy(), barrier.now());
    let done = |draft: &mut Draft<'_>| {
        let Some(row) = rows::draft_authority(draft)? else { return Ok(None) };
        let Some(next) = step(row, &rows::draft_nodes(draft)?)? else { return Ok(None) };
        rows::put_authority(draft, &next)?;
        Ok(Some(Phase::of(&next)))
    };
    let (phase, _) = barrier.write(&worker.desk, facts.request, &|| intent.clone(), done).await?;
    if let Some(phase) = phase {
        tracing::info!(phase = phase.name(), "the rotation of the node authority goes on");
    }
    Ok(())
}

/// The row after the next step, if it is time for one.
fn step(row: AuthorityRow, members: &[(u64, NodeRow)]) -> Result<Option<AuthorityRow>, Refusal> {
    if let Some(next) = &row.next {
        let name = hex::encode(fingerprint(&certificate(next)?));
        let all_trust = members.iter().all(|(_, member)| member.trusts.contains(&name));
        return Ok(all_trust.then(|| AuthorityRow { before: Some(row.certificate), ..(**next).clone() }));
    }
    if row.before.is_some() {
        let name = hex::encode(fingerprint(&certificate(&row)?));
        let all_have = members.iter().all(|(_, member)| member.trusts.first() == Some(&name));
        return Ok(all_have.then_some(AuthorityRow { before: None, ..row }));
    }
    Ok(None)
}

fn certificate(row: &AuthorityRow) -> Result<CertificateDer<'static>, Refusal> {
    authority::certificate_of(row).map_err(|error| Refusal::internal(error.to_string()))
}

/// The authorities to trust by the rows, the one that signs first; `None` before there is one.
///
/// # Errors
/// The row cannot be read.
pub fn trusted(worker: &Worker) -> Result<Option<Vec<CertificateDer<'static>>>, Refusal> {
    let row = rows::authority(worker.reader())?;
    row.map(|row| authority::trusted(&row)).transpose().map_err(|error| Refusal::internal(error.to_string()))
}

/// Has this node trust whom the rows name. On every node; nothing happens if it does.
///
/// # Errors
/// A row cannot be read, or the files cannot be written.
pub fn follow(worker: &Worker) -> Result<(), Refusal> {
    let cluster = &worker.app.cluster;
    let (Some(trust), Some(trusted)) = (cluster.trust(), trusted(worker)?) else { return Ok(()) };
    let is_same = trusted.len() == trust.trusted().len() && trusted.iter().all(|ca| trust.trusted().contains(ca));
    // As long as its own certificate is of another one, it first needs a new one.
    if is_same || !trusted.contains(&trust.issuer()) {
        return Ok(());
    }
    cluster.trust_in(&trusted).map_err(|error| Refusal::Unavailable(error.to_string().into()))
}

/// Whether the leader's rows do not say yet what this node trusts, or its certificate is not of the authority that signs.
pub fn is_behind(worker: &Worker) -> bool {
    let cluster = &worker.app.cluster;
    let Some(trust) = cluster.trust() else { return false };
    let row = rows::node(worker.reader(), cluster.number()).ok().flatten();
    let Some((row, trusted)) = row.zip(trusted(worker).ok().flatten()) else { return false };
    !is_told(&row.trusts, &names_of(&trust.issuer(), trust.trusted())) || trusted.first() != Some(&trust.issuer())
}

/// Whether the row's `known` says what a node has: whose certificate first, and whom else it trusts, in whatever order.
fn is_told(known: &[String], own: &[String]) -> bool {
    known.first() == own.first() && known.len() == own.len() && own.iter().all(|name| known.contains(name))
}

/// Whether this node's certificate is of an authority that is trusted no more: nobody will talk to it.
pub fn is_left_behind(worker: &Worker) -> bool {
    let trust = worker.app.cluster.trust();
    let trusted = trusted(worker).ok().flatten();
    trust.zip(trusted).is_some_and(|(trust, trusted)| !trusted.contains(&trust.issuer()))
}

#[cfg(test)]
mod tests {
    use keyward_crypto::RootKey;
    use keyward_model::{Id, SeededEntropy};

    use super::*;
    use crate::cluster::authority::Authority;

    fn member(trusts: &[&str]) -> (u64, NodeRow) {
        let trusts = trusts.iter().map(|name| (*name).to_owned()).collect();
        (1, NodeRow { trusts, ..NodeRow::sample(1, "h:1") })
    }

    #[test]
    fn a_new_certificate_counts_when_the_node_that_has_it_says_so() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let has = names(&["new", "old"]);
        assert!(!is_told(&names(&["old", "new"]), &has), "it was given, and may not have arrived");
        assert!(is_told(&names(&["new", "old"]), &has));
        assert!(!is_told(&names(&["new"]), &has) && !is_told(&names(&["new", "old", "older"]), &has));
        assert!(is_told(&names(&["new", "b", "a"]), &names(&["new", "a", "b"])));
    }

    #[test]
    fn no_step_is_taken_before_all_have_done_the_one_before() {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        let made = || Authority::generate(Id([1; 16]), 1_800_000_000).unwrap();
        let row = |authority: &Authority| authority.to_row(Id([2; 16]), &root, &entropy);
        let (old, new) = (made(), made());
        let name = |authority: &Authority| hex::encode(fingerprint(authority.certificate()));
        let (o, n) = (name(&old), name(&new));
        assert!(step(row(&old), &[member(&[&o])]).unwrap().is_none(), "nothing was asked for");
        let announced = AuthorityRow { next: Some(Box::new(row(&new))), ..row(&old) };
        let (knows, not_yet, has) = (member(&[&o, &n]), member(&[&o]), member(&[&n, &o]));
        assert_eq!(Phase::of(&announced), Phase::Announced);
        assert!(step(announced.clone(), &[knows.clone(), not_yet]).unwrap().is_none());
        let switched = step(announced, &[knows.clone(), knows.clone()]).unwrap().unwrap();
        assert_eq!(Phase::of(&switched), Phase::Switched);
        assert_eq!(authority::trusted(&switched).unwrap(), [new.certificate().clone(), old.certificate().clone()]);
        assert!(step(switched.clone(), &[has.clone(), knows]).unwrap().is_none());
        let settled = step(switched, &[has.clone(), has]).unwrap().unwrap();
        assert_eq!(Phase::of(&settled), Phase::Settled);
        assert_eq!(authority::trusted(&settled).unwrap(), [new.certificate().clone()]);
    }
}
