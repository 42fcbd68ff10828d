//! The members of the cluster: `sys/cluster/…`, and `sys/step-down`.

use keyward_model::Id;
use keyward_model::event::EventKind;
use keyward_policy::Operation;
use keyward_raft::{ChangeError, Member, Role};
use serde_json::{Value, json};

use super::{Context, init};
use crate::app::Worker;
use crate::barrier::Draft;
use crate::cluster::authority::{Authority, fingerprint};
use crate::cluster::renewal;
use crate::cluster::rotation::{self, Phase};
use crate::cluster::rows::{self, NodeRow, TOKENS_MAX, TokenRow};
use crate::cluster::token::{JoinToken, TTL_S_MAX};
use crate::config::is_node_name;
use crate::http::answer::Answer;
use crate::identity::raft_id;
use crate::jobs::members::keeps_up;
use crate::refusal::Refusal;
use crate::seal;

/// Whoever was not heard for so long does not count for a majority.
const SILENT_MS: u64 = 2000;

/// Answers the family.
///
/// # Errors
/// What the endpoint refuses; no such path or verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.object = Some("cluster member"));
    let rest = context.rest().strip_prefix("cluster/").unwrap_or_default();
    let operation = context.request.operation;
    let changes = matches!(operation, Operation::Create | Operation::Update);
    match rest.split('/').collect::<Vec<_>>()[..] {
        ["join-token"] if changes => join_token(context).await,
        ["rotate-ca"] if changes => rotate_authority(context).await,
        ["members"] if operation == Operation::Read => members(context),
        ["members", node] if operation == Operation::Delete => remove(context, number(context, node)?).await,
        ["members", node, "promote"] if changes => promote(context, number(context, node)?).await,
        ["join-token"] | ["rotate-ca"] | ["members"] | ["members", _] | ["members", _, "promote"] => {
            Err(Refusal::UnsupportedOperation)
        }
        _ => Err(Refusal::UnsupportedPath),
    }
}

/// A member by its id, by the number that Raft knows it by, or by its name if no other one has it.
fn number(context: &Context<'_>, text: &str) -> Result<u64, Refusal> {
    if let Some(number) = id_or_number(text) {
        return Ok(number);
    }
    let rows = rows::nodes(context.reader())?;
    let mut named = rows.iter().filter(|(_, row)| row.name == text).map(|(number, _)| *number);
    match (named.next(), named.next()) {
        (Some(number), None) => Ok(number),
        (Some(_), Some(_)) => Err(Refusal::malformed(
            "several members have this name: say the id, as `keyward operator members` shows it",
        )),
        (None, _) => {
            Err(Refusal::malformed("a member is named by its id or its name, as `keyward operator members` shows them"))
        }
    }
}

fn id_or_number(text: &str) -> Option<u64> {
    let short = || u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
    Id::from_uuid(text).map(raft_id).or_else(short)
}

async fn join_token(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.object = Some("join token"));
    let ttl_s = context.params.duration("ttl")?.filter(|ttl_s| *ttl_s != 0).unwrap_or(TTL_S_MAX);
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return Err(Refusal::malformed(format!("`ttl` must be from 1 s to {TTL_S_MAX} s")));
    }
    let name = context.params.string("name")?.filter(|name| !name.is_empty()).map(|name| name.into_owned());
    if name.as_deref().is_some_and(|name| !is_node_name(name)) {
        return Err(Refusal::malformed("`name` must be 1 to 64 of letters, digits, `.`, `-` and `_`"));
    }
    let worker = context.worker;
    let app = &worker.app;
    // A node that was alone has a row from here on, and may be the one that is to be replaced.
    renewal::found(worker).await?;
    let replaces = match context.params.string("replace")?.filter(|node| !node.is_empty()) {
        None => None,
        Some(node) => Some(to_replace(context, &node)?),
    };
    let keys = context.keys()?;
    let installation = seal::installation(context.reader())?.ok_or(Refusal::Sealed)?;
    let trust = app.cluster.trust().ok_or_else(|| Refusal::internal("a cluster without a certificate"))?;
    let mut addresses = vec![app.cluster.address()?];
    addresses.extend(rows::nodes(context.reader())?.into_iter().map(|(_, row)| row.node_address));
    addresses = unique(addresses);
    let (entropy, expires) = (app.barrier.entropy(), app.barrier.judged_at().plus_seconds(ttl_s));
    let token =
        JoinToken::draw(installation.cluster, fingerprint(&trust.issuer()), addresses.clone(), expires, name, entropy);
    let row = TokenRow { replaces, ..token.to_row(keys.domain(), &keys.root, entropy) };
    context
        .write(|draft| {
            if rows::draft_tokens(draft)? >= TOKENS_MAX {
                return Err(Refusal::malformed(format!(
                    "{TOKENS_MAX} join tokens wait already; they end by themselves"
                )));
            }
            rows::put_token(draft, token.id, &row)
        })
        .await?;
    let text = token.text().map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(Answer::data(&json!({
        "join_token": text.expose(),
        "expires": expires.rfc3339(),
        "ttl": ttl_s,
        "addresses": addresses,
        "name": token.name,
        "replaces": replaces.map(hex_number),
    })))
}

/// The member whose place a new node shall take.
fn to_replace(context: &Context<'_>, node: &str) -> Result<u64, Refusal> {
    let old = number(context, node)?;
    let rows = rows::nodes(context.reader())?;
    let Some((_, row)) = rows.iter().find(|(number, _)| *number == old) else {
        return Err(Refusal::malformed("there is no such member to replace: make a token without `replace`"));
    };
    if row.replaces.is_some() {
        return Err(Refusal::malformed(format!(
            "`{}` takes the place of another member and does not have it yet: wait until it does, or remove it and make a \
             token that replaces that other one",
            row.name
        )));
    }
    if let Some((_, successor)) = rows.iter().find(|(_, row)| row.replaces == Some(old)) {
        return Err(Refusal::malformed(format!("`{}` takes the place of this member already", successor.name)));
    }
    Ok(old)
}

/// Begins to exchange the node authority; a job on the leader does the rest.
async fn rotate_authority(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.object = Some("node authority"));
    let (keys, barrier) = (context.keys()?, &context.worker.app.barrier);
    let installation = seal::installation(context.reader())?.ok_or(Refusal::Sealed)?;
    let next = Authority::generate(installation.cluster, barrier.now().seconds())
        .map_err(|error| Refusal::internal(error.to_string()))?;
    let next = next.to_row(keys.domain(), &keys.root, barrier.entropy());
    context.write(|draft| rotation::announce(draft, next.clone())).await?;
    context.worker.app.cluster.nudge();
    Ok(Answer::no_content())
}

fn unique(addresses: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !out.contains(&address) {
            out.push(address);
        }
    }
    out
}

fn members(context: &Context<'_>) -> Result<Answer, Refusal> {
    let members = list(context.worker)?;
    let leadership = *context.worker.app.barrier.node().leadership().borrow();
    Ok(Answer::data(&json!({
        "members": members,
        "leader": leadership.leader.map(hex_number),
        "term": leadership.term,
        "authority_rotation": rows::authority(context.reader())?.map(|row| Phase::of(&row).name()),
    })))
}

fn hex_number(number: u64) -> String {
    format!("{number:016x}")
}

/// All members: those that Raft has, and those that it is about to get.
///
/// # Errors
/// The rows cannot be read.
pub fn list(worker: &Worker) -> Result<Vec<Value>, Refusal> {
    let app = &worker.app;
    let node = app.barrier.node();
    let (rows, members) = (rows::nodes(worker.reader())?, node.members());
    let (status, leader) = (node.status(), node.leadership().borrow().leader);
    let mut numbers: Vec<u64> = rows.iter().map(|(number, _)| *number).collect();
    numbers.extend(members.iter().map(|member| member.node));
    numbers.sort_unstable();
    numbers.dedup();
    let describe = |number: u64| {
        let row = rows.iter().find(|(known, _)| *known == number).map(|(_, row)| row);
        let member = members.iter().find(|member| member.node == number);
        describe(worker, number, row, member, (leader, status.committed))
    };
    Ok(numbers.into_iter().map(describe).collect())
}

fn describe(
    worker: &Worker,
    number: u64,
    row: Option<&NodeRow>,
    member: Option<&Member>,
    (leader, committed): (Option<u64>, Option<u64>),
) -> Value {
    let cluster = &worker.app.cluster;
    let is_self = number == cluster.number();
    let role = match (row, member) {
        (Some(_), None) => "joining",
        (None, Some(_)) if !is_self => "leaving",
        (_, Some(Member { role: Role::Voter, .. })) => "voter",
        (_, Some(Member { role: Role::Learner, .. })) => "learner",
        (None, None) => "gone",
    };
    let matched = member.and_then(|member| member.matched);
    json!({
        "id": row.map(|row| row.node.to_uuid()).or_else(|| is_self.then(|| cluster.node().to_uuid())),
        "raft_id": hex_number(number),
        "awaited_until": row
            .and_then(|row| row.awaited_until(worker.app.config.cluster.arrive_s))
            .map(|until| until.rfc3339()),
        "replaces": row.and_then(|row| row.replaces).map(hex_number),
        "name": row.map(|row| row.name.as_str()).or(is_self.then_some(cluster.name())),
        "role": role,
        "leader": leader == Some(number),
        "node_address": row.map(|row| row.node_address.as_str()).or(member.map(|member| member.address.as_str())),
        "api_address": row.map(|row| row.api_address.clone()).or_else(|| is_self.then(|| worker.app.address())),
        // Only the leader knows how far the others are.
        "lag": committed.zip(matched).map(|(committed, matched)| committed.saturating_sub(matched)),
        "last_heard_ms": member.and_then(|member| member.heard_ms),
        "joined": row.map(|row| row.joined.rfc3339()),
        "certificate_until": row.map(|row| row.certificate_until.rfc3339()),
    })
}

async fn remove(context: &Context<'_>, number: u64) -> Result<Answer, Refusal> {
    let app = &context.worker.app;
    if number == app.cluster.number() {
        return Err(Refusal::malformed(
            "this node leads: let another one lead first (`keyward operator step-down`), then remove it",
        ));
    }
    let force = context.params.bool("force")?.unwrap_or(false);
    let remove = |draft: &mut Draft<'_>| {
        let Some(row) = rows::draft_node(draft, number)? else { return Ok(false) };
        // Judged here, where removals have an order: Raft still counts whoever was removed a moment ago.
        let rows: Vec<u64> = rows::draft_nodes(draft)?.into_iter().map(|(number, _)| number).collect();
        if !force && breaks_majority(number, app.cluster.number(), &rows, &app.barrier.node().members()) {
            return Err(Refusal::malformed(
                "too few of the voters that would be left were heard of lately: the cluster would stop\n\
                 bring another one back first, or remove this one with `force` if you know better",
            ));
        }
        seal::remove_node(draft, row.node)?;
        rows::remove_node(draft, number)
    };
    let render = |removed| match removed {
        true => Ok(Answer::no_content()),
        false => Err(Refusal::AbsentBecause("there is no such member".into())),
    };
    let answer = context.write_answer(remove, render).await?;
    app.cluster.nudge();
    Ok(answer)
}

/// Whether, of the voters that are left without `gone`, too few answer to be a majority. Whoever has no row of `rows` was
/// removed before, and is not left either.
fn breaks_majority(gone: u64, me: u64, rows: &[u64], members: &[Member]) -> bool {
    let voters: Vec<&Member> = members.iter().filter(|member| member.role == Role::Voter).collect();
    if !voters.iter().any(|member| member.node == gone) {
        return false;
    }
    let left: Vec<_> = voters.iter().filter(|member| member.node != gone && rows.contains(&member.node)).collect();
    let answers = |member: &&&&Member| member.node == me || member.heard_ms.is_some_and(|heard| heard <= SILENT_MS);
    left.iter().filter(answers).count() <= left.len() / 2
}

async fn promote(context: &Context<'_>, number: u64) -> Result<Answer, Refusal> {
    let node = context.worker.app.barrier.node();
    let (members, committed) = (node.members(), node.status().committed.unwrap_or(0));
    let Some(member) = members.iter().find(|member| member.node == number) else {
        return Err(change(ChangeError::NotMember { node: number }));
    };
    let force = context.params.bool("force")?.unwrap_or(false);
    if member.role == Role::Learner && !force && !keeps_up(member, committed) {
        return Err(Refusal::malformed(
            "this node does not answer, or lacks much of the log: a vote of it would only be missing; wait until it has \
             caught up (`keyward operator members`), or give force=true",
        ));
    }
    let row = rows::node(context.reader(), number)?;
    context.record_first().await?;
    match row.and_then(|row| row.replaces) {
        Some(old) => node.replace(old, number).await.map_err(change)?,
        None => node.promote(number).await.map_err(change)?,
    }
    Ok(Answer::no_content())
}

/// Lets another node lead. Alone there is nobody to step down for. Only an operator may ask; sealed, nothing is left to
/// protect.
///
/// # Errors
/// Not an operator, or nobody can take over.
pub async fn step_down(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::SysConfig, "administer", "system"));
    let barrier = &context.worker.app.barrier;
    if !barrier.is_sealed() {
        init::demand_operator(context)?;
    }
    if !barrier.node().is_alone() {
        context.record_first().await?;
        barrier.node().hand_over(None).await.map_err(change)?;
    }
    Ok(Answer::no_content())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn change(error: ChangeError) -> Refusal {
    match error {
        ChangeError::NotMember { .. } => Refusal::AbsentBecause("there is no such member".into()),
        ChangeError::NotLeader { .. } => Refusal::Unavailable("this node does not lead (any more); try again".into()),
        ChangeError::Timeout | ChangeError::Stopped => Refusal::Unavailable(error.to_string().into()),
        ChangeError::LastVoter { .. } | ChangeError::Refused(_) => Refusal::malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::testing::{ask, on_a_node};

    #[test]
    fn nobody_gets_a_vote_that_cannot_be_recorded_before() {
        on_a_node(async |worker, _| {
            let node = worker.app.barrier.node();
            node.add_learner(9, "127.0.0.1:1").await.unwrap();
            let audit = worker.app.config.data.join("audit");
            std::fs::rename(&audit, worker.app.config.data.join("away")).unwrap();
            // One that has not written to this file yet, and cannot open it any more.
            let other = Rc::new(Worker::new(std::sync::Arc::clone(&worker.app)).unwrap());
            let path = "sys/cluster/members/0000000000000009/promote";
            assert_eq!(ask(&other, "root", "POST", path, r#"{"force":true}"#).await.0, 503);
            let members = node.members();
            let learner = members.iter().find(|member| member.node == 9).unwrap();
            assert_eq!(learner.role, Role::Learner, "nothing took effect");
        });
    }

    fn voter(node: u64, heard_ms: Option<u64>) -> Member {
        Member { node, address: String::new(), role: Role::Voter, matched: None, heard_ms }
    }

    #[test]
    fn a_removal_that_would_stop_the_cluster_is_seen() {
        let (up, down) = (Some(10), Some(60_000));
        let three = [voter(1, None), voter(2, up), voter(3, down)];
        let rows = [1, 2, 3];
        assert!(!breaks_majority(3, 1, &rows, &three), "the one that is gone may go");
        assert!(breaks_majority(2, 1, &rows, &three), "one of two that are left answers");
        assert!(!breaks_majority(9, 1, &rows, &three), "who does not vote is not missed");
        assert!(!breaks_majority(2, 1, &rows, &[voter(1, None), voter(2, down)]));
    }

    #[test]
    fn whoever_was_removed_a_moment_ago_is_not_left() {
        let (up, down) = (Some(10), Some(60_000));
        let four = [voter(1, None), voter(2, up), voter(3, up), voter(4, down)];
        assert!(!breaks_majority(2, 1, &[1, 2, 3, 4], &four), "two of three that are left answer");
        assert!(breaks_majority(3, 1, &[1, 3, 4], &four), "2 was removed, though Raft still has it");
        assert!(!breaks_majority(4, 1, &[1, 3, 4], &four), "with the lost one gone, two of two answer");
    }

    #[test]
    fn members_are_named_by_id_or_number() {
        let id = Id([0xab; 16]);
        assert_eq!(id_or_number(&id.to_uuid()), Some(raft_id(id)));
        assert_eq!(id_or_number("abababababababab"), Some(raft_id(id)));
        for wrong in ["", "two", "ab", "../x"] {
            assert!(id_or_number(wrong).is_none(), "{wrong}");
        }
    }
}
