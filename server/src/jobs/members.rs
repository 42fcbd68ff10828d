//! Membership: what the rows of the cluster say becomes what Raft does, one change at a time.
//!
//! The rows say who should be a member; the leader makes it so: it adds who is missing as one that only listens, lets it
//! vote once it has kept up for a while, follows a node that moved, and takes away whoever has no row any more. All of it
//! can stop anywhere and is taken up by the next leader. Every node also renews its certificate here, and one that has just
//! joined unseals itself when the state with its seal has arrived.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use keyward_model::Id;
use keyward_model::Table;
use keyward_model::event::EventKind;
use keyward_raft::{Candidacy, ChangeError, Member, Role};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::{App, Worker};
use crate::barrier::Draft;
use crate::boot;
use crate::cluster::recovery::Recovery;
use crate::cluster::recovery::finish::finish;
use crate::cluster::rows::{self, NodeRow};
use crate::cluster::{renewal, rotation};
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::seal;

/// How often the members are looked at; sooner when something happened.
const EVERY: Duration = Duration::from_millis(250);
/// Pause before something that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Pause where there was no leader to ask, and after a new certificate.
const LEADER_AFTER: Duration = Duration::from_secs(1);
/// Entries that a node may be behind and still counts as keeping up.
const LAG_MAX: u64 = 1024;
/// Silence after which it does not.
const SILENT_MS: u64 = 1000;
/// How long nobody must have led before a node stands that could not write: the others had their time.
const LEADERLESS: Duration = Duration::from_secs(3);
/// How long a node must have led before it says of another one that it never came up: whoever led before may have heard it.
const LED_MIN: Duration = Duration::from_secs(10);

/// What is to be changed next.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Add(u64, &'a str),
    Readdress(u64, &'a str),
    Promote(u64),
    /// The first one's vote goes to the second.
    Replace(u64, u64),
    /// It was let in a moment ago, and is there.
    Heard(u64),
    /// It was let in, and never came up.
    Forget(u64),
    /// It has the place that it was to take: whoever had it is no member any more.
    Arrived(u64),
    Remove(u64),
}

/// What this node remembers from turn to turn. None of it has to outlive it.
#[derive(Default)]
struct Memory {
    /// Since when a node that only listens has kept up.
    keeping_up: HashMap<u64, Instant>,
    /// The term that this node leads in, and since when it knows all that was committed before.
    leads_since: Option<(u64, Instant)>,
    /// Not before then: the last try failed.
    renew_after: Option<Instant>,
    change_after: Option<Instant>,
    unseal_after: Option<Instant>,
    greet_after: Option<Instant>,
    recover_after: Option<Instant>,
    /// When a leader was last known.
    led: Option<Instant>,
    /// Whether this node came without a seal and waits for the state that holds it.
    waits_for_seal: bool,
    /// What Raft was told about standing for election.
    candidacy: Option<Candidacy>,
}

/// Looks after the members until the server stops.
pub async fn run(worker: Rc<Worker>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut memory =
        Memory { waits_for_seal: worker.app.barrier.is_sealed() && !has_seal(&worker), ..Memory::default() };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = worker.app.cluster.nudged() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Some(recovery) = worker.app.cluster.recovery() {
            recover(&worker, &recovery, &mut memory).await;
        } else if worker.app.cluster.trust().is_some() {
            turn(&worker, &mut memory).await;
        }
    }
}

/// Finishes the recovery of a node that was made the only one.
async fn recover(worker: &Worker, recovery: &Recovery, memory: &mut Memory) {
    let now = Instant::now();
    if memory.recover_after.is_some_and(|after| now < after) {
        return;
    }
    if let Err(refusal) = finish(worker, recovery).await {
        tracing::error!(?refusal, "this node cannot go on alone yet; it tries again");
        memory.recover_after = Some(now + AGAIN_AFTER);
    }
}

async fn turn(worker: &Worker, memory: &mut Memory) {
    let now = Instant::now();
    let passed = |after: Option<Instant>| after.is_none_or(|after| now >= after);
    if memory.waits_for_seal && passed(memory.unseal_after) && has_seal(worker) {
        match unseal(worker).await {
            Ok(()) => memory.waits_for_seal = false,
            Err(error) => {
                tracing::error!(error = %error, "this node could not unseal itself with its own seal; it tries again");
                memory.unseal_after = Some(now + AGAIN_AFTER);
            }
        }
    }
    campaign(worker, memory, now).await;
    renewal::give_way(worker);
    if let Err(refusal) = rotation::follow(worker) {
        tracing::warn!(?refusal, "the node authorities to trust are looked at again in a moment");
    }
    if passed(memory.renew_after) && renewal::is_due(worker) {
        memory.renew_after = Some(now + AGAIN_AFTER);
        match renewal::renew(worker).await {
            // What it got may be what it has to tell next.
            Ok(()) => memory.renew_after = Some(now + LEADER_AFTER),
            Err(_) if worker.app.barrier.node().leadership().borrow().leader.is_none() => {
                memory.renew_after = Some(now + LEADER_AFTER);
            }
            Err(refusal) => tracing::warn!(?refusal, "the certificate of this node is renewed later"),
        }
    }
    if !worker.app.barrier.node().leadership().borrow().leads {
        memory.keeping_up.clear();
    } else if passed(memory.change_after) {
        if let Err(why) = reconcile(worker, memory).await {
            tracing::warn!(reason = %why, "the members are looked at again in a moment");
            memory.change_after = Some(now + AGAIN_AFTER);
        }
        if let Err(refusal) = rotation::advance(worker).await {
            tracing::warn!(?refusal, "the rotation of the node authority goes on later");
        }
        if let Err(refusal) = forget_expired(worker).await {
            tracing::warn!(?refusal, "join tokens whose time is up are removed later");
        }
    }
}

/// A node that is sealed does not lead. Nor does one that was removed and is still a member for Raft: only another leader can
/// end that; if it hears of none it asks the others whether it is done. One whose disk is full, or whose audit is late, could
/// not write, and leaves the lead to others. One that leads lets another.
///
/// WHY: where all disks are full somebody has to lead nevertheless, or nobody could read.
async fn campaign(worker: &Worker, memory: &mut Memory, now: Instant) {
    let node = worker.app.barrier.node();
    let leader = node.leadership().borrow().leader;
    if leader.is_some() || memory.led.is_none() {
        memory.led = Some(now);
    }
    let is_led = memory.led.is_some_and(|led| now - led < LEADERLESS);
    let is_gone = rows::is_gone(worker.reader(), worker.app.cluster.number()).unwrap_or(false);
    let is_sealed = worker.app.barrier.is_sealed();
    let candidacy = if node.is_alone() {
        Candidacy::Willing
    } else if is_sealed || is_gone {
        Candidacy::Barred
    } else if has_no_space(&worker.app) && is_led {
        Candidacy::Reluctant
    } else {
        Candidacy::Willing
    };
    if memory.candidacy != Some(candidacy) {
        node.campaign(candidacy);
        memory.candidacy = Some(candidacy);
    }
    if is_gone && leader.is_none() && memory.greet_after.is_none_or(|after| now >= after) {
        memory.greet_after = Some(now + LEADER_AFTER);
        node.greet();
    }
}

/// Whether this node would refuse writes for want of space, for its state or its audit.
fn has_no_space(app: &App) -> bool {
    app.audit_is_late() || app.barrier.node().status().disk_full
}

/// Takes the next step towards what the rows say, if there is one.
async fn reconcile(worker: &Worker, memory: &mut Memory) -> Result<(), String> {
    let app = &worker.app;
    let node = app.barrier.node();
    let term = node.leadership().borrow().term;
    let leads_since = match memory.leads_since {
        Some((of, since)) if of == term => since,
        _ => {
            // Raft knows of members as soon as they are in its log. The rows must say all that was committed before, or a new
            // leader would take away whom it has no row of yet.
            node.read_point().await.map_err(|error| format!("it is not known yet who the members are: {error}"))?;
            let now = Instant::now();
            memory.leads_since = Some((term, now));
            now
        }
    };
    let rows = rows::nodes(worker.reader()).map_err(|_| "the rows of the members cannot be read".to_owned())?;
    let members = node.members();
    let committed = node.status().committed.unwrap_or(0);
    note_keeping_up(&members, committed, &mut memory.keeping_up);
    let settle = Duration::from_secs(app.config.cluster.settle_s);
    let settled = |number| memory.keeping_up.get(&number).is_some_and(|since| since.elapsed() >= settle);
    let (now, arrive_s) = (app.barrier.judged_at(), app.config.cluster.arrive_s);
    let overdue = |row: &NodeRow| leads_since.elapsed() >= LED_MIN && row.is_overdue(now, arrive_s);
    let Some(step) = next(app.cluster.number(), &rows, &members, &settled, &overdue) else { return Ok(()) };
    let changed = match step {
        Step::Add(number, address) => node.add_learner(number, address).await,
        Step::Readdress(number, address) => node.readdress(number, address).await,
        Step::Promote(number) => node.promote(number).await,
        Step::Remove(number) => node.remove(number).await,
        Step::Replace(old, new) => node.replace(old, new).await,
        Step::Arrived(number) | Step::Heard(number) | Step::Forget(number) => {
            return note(worker, number, &step).await.map_err(|refusal| format!("{step:?}: {refusal:?}"));
        }
    };
    match changed {
        Ok(()) => tracing::info!(change = ?step, "the members changed"),
        Err(ChangeError::NotLeader { .. }) => {} // the next one takes it up
        Err(error) => return Err(format!("{step:?}: {error}")),
    }
    Ok(())
}

/// Whether a member answers and has nearly all of the log.
pub fn keeps_up(member: &Member, committed: u64) -> bool {
    member.heard_ms.is_some_and(|heard| heard <= SILENT_MS)
        && member.matched.is_some_and(|matched| matched.saturating_add(LAG_MAX) >= committed)
}

fn note_keeping_up(members: &[Member], committed: u64, since: &mut HashMap<u64, Instant>) {
    let keeping_up = members.iter().filter(|member| member.role == Role::Learner && keeps_up(member, committed));
    let now: Vec<u64> = keeping_up.map(|member| member.node).collect();
    since.retain(|number, _| now.contains(number));
    for number in now {
        since.entry(number).or_insert_with(Instant::now);
    }
}

/// The next step from `members` to `rows`. Nothing is done before this node, which leads, has a row itself: an
/// installation from before there were any is not taken apart.
fn next<'a>(
    me: u64,
    rows: &'a [(u64, NodeRow)],
    members: &[Member],
    settled: &dyn Fn(u64) -> bool,
    overdue: &dyn Fn(&NodeRow) -> bool,
) -> Option<Step<'a>> {
    let row_of = |number: u64| rows.iter().find(|(known, _)| *known == number).map(|(_, row)| row);
    let member_of = |number: u64| members.iter().find(|member| member.node == number);
    row_of(me)?;
    let gone = members.iter().filter(|member| member.node != me && row_of(member.node).is_none());
    // The one that was silent for longest first: whoever answers may be needed until the others are gone.
    if let Some(gone) = gone.max_by_key(|member| member.heard_ms.unwrap_or(u64::MAX)) {
        return Some(Step::Remove(gone.node));
    }
    let is_voter = |number: u64| member_of(number).is_some_and(|member| member.role == Role::Voter);
    let is_there = |number: u64| member_of(number).is_some_and(|member| member.heard_ms.is_some());
    for (number, row) in rows.iter().filter(|(_, row)| row.request.is_some()) {
        if is_there(*number) {
            return Some(Step::Heard(*number));
        }
        if overdue(row) && !is_voter(*number) {
            return Some(Step::Forget(*number));
        }
    }
    if let Some((new, row)) = rows.iter().find(|(number, row)| row.replaces.is_some() && is_voter(*number)) {
        // Both vote where the old one was the only one, and had nobody else to hand over to.
        return Some(
            row.replaces.filter(|old| is_voter(*old)).map_or(Step::Arrived(*new), |old| Step::Replace(old, *new)),
        );
    }
    let is_replaced = |number: u64| rows.iter().any(|(_, row)| row.replaces == Some(number));
    for (number, row) in rows {
        match member_of(*number) {
            None if is_replaced(*number) => {}
            None => return Some(Step::Add(*number, &row.node_address)),
            Some(member) if member.address != row.node_address => {
                return Some(Step::Readdress(*number, &row.node_address));
            }
            Some(_) => {}
        }
    }
    members.iter().find(|member| member.role == Role::Learner && !is_replaced(member.node) && settled(member.node)).map(
        |member| match row_of(member.node).and_then(|row| row.replaces).filter(|old| is_voter(*old)) {
            Some(old) => Step::Replace(old, member.node),
            None => Step::Promote(member.node),
        },
    )
}

/// Writes into the rows what a step that is none of Raft's says.
async fn note(worker: &Worker, number: u64, step: &Step<'_>) -> Result<(), Refusal> {
    let (request, intent) = renewal::intent(worker);
    let barrier = &worker.app.barrier;
    let take_away = |draft: &mut Draft<'_>, number: u64| {
        if let Some(gone) = rows::draft_node(draft, number)? {
            seal::remove_node(draft, gone.node)?;
        }
        rows::remove_node(draft, number)
    };
    barrier
        .write(&worker.desk, request, &|| intent.clone(), |draft| {
            let Some(row) = rows::draft_node(draft, number)? else { return Ok(()) };
            match step {
                Step::Forget(_) => take_away(draft, number).map(drop),
                Step::Heard(_) => rows::put_node(draft, number, &NodeRow { request: None, ..row }),
                _ => {
                    if let Some(old) = row.replaces {
                        take_away(draft, old)?;
                    }
                    rows::put_node(draft, number, &NodeRow { replaces: None, ..row })
                }
            }
        })
        .await?;
    if matches!(step, Step::Forget(_)) {
        tracing::warn!(
            node = format!("{number:016x}"),
            "a node that was let in never came up: it is no member any more"
        );
    }
    Ok(())
}

/// Whether the state holds a seal that only this node's key file opens.
fn has_seal(worker: &Worker) -> bool {
    seal::opens_itself(worker.reader(), worker.app.cluster.node()).unwrap_or(false)
}

/// Unseals with the key file. Reads every row once, hence not on this thread.
async fn unseal(worker: &Worker) -> Result<(), String> {
    let app = std::sync::Arc::clone(&worker.app);
    let opening = tokio::task::spawn_blocking(move || {
        let me = app.cluster.node();
        boot::unseal_by_key_file(&app.config, &app.store, &app.barrier, me).map_err(|error| error.to_string())
    });
    opening.await.map_err(|error| error.to_string())??;
    tracing::info!("this node unsealed itself with its own seal");
    Ok(())
}

/// Removes the rows of join tokens whose time is up.
async fn forget_expired(worker: &Worker) -> Result<(), Refusal> {
    let barrier = &worker.app.barrier;
    if barrier.is_sealed() {
        return Ok(());
    }
    let expired = rows::expired_tokens(worker.reader(), barrier.judged_at())?;
    if expired.is_empty() {
        return Ok(());
    }
    let request = Id::random(barrier.entropy());
    let mut facts = Facts::new(request, barrier.now(), None, "system");
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("join token");
    let intent = facts.intent(barrier.entropy(), barrier.now());
    barrier
        .write(&worker.desk, request, &|| intent.clone(), |draft| {
            expired.iter().try_for_each(|key| draft.remove(Table::Config, key))
        })
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {

    use super::*;

    fn row(number: u64, address: &str) -> (u64, NodeRow) {
        (number, NodeRow::sample(u8::try_from(number).unwrap(), address))
    }

    fn member(node: u64, address: &str, role: Role) -> Member {
        Member { node, address: address.into(), role, matched: Some(10), heard_ms: Some(10) }
    }

    #[test]
    fn members_follow_the_rows_one_step_at_a_time() {
        let voter = |node| member(node, "a", Role::Voter);
        let listens = |node| member(node, "a", Role::Learner);
        let rows = [row(1, "a"), row(2, "a")];
        let none = |_| false;
        assert_eq!(next(1, &rows, &[voter(1), voter(2)], &none, &|_| false), None);
        assert_eq!(next(1, &rows, &[voter(1)], &none, &|_| false), Some(Step::Add(2, "a")));
        assert_eq!(next(1, &rows, &[voter(1), listens(2)], &none, &|_| false), None, "not before it has kept up");
        assert_eq!(next(1, &rows, &[voter(1), listens(2)], &|_| true, &|_| false), Some(Step::Promote(2)));
        assert_eq!(next(1, &rows, &[voter(1), voter(2), voter(3)], &none, &|_| false), Some(Step::Remove(3)));
        let moved = [row(1, "a"), row(2, "b")];
        assert_eq!(next(1, &moved, &[voter(1), voter(2)], &none, &|_| false), Some(Step::Readdress(2, "b")));
        assert_eq!(
            next(1, &[], &[voter(1), voter(2)], &none, &|_| false),
            None,
            "an installation without rows is left alone"
        );
        assert_eq!(
            next(1, &[row(2, "a")], &[voter(1), voter(2)], &none, &|_| false),
            None,
            "as is one that lacks the leader's"
        );
    }

    #[test]
    fn of_several_that_were_removed_the_lost_ones_go_first() {
        let voter = |node, heard_ms| Member { heard_ms, ..member(node, "a", Role::Voter) };
        let rows = [row(1, "a"), row(3, "a"), row(5, "a")];
        let lost = voter(5, Some(60_000));
        for silence in [None, Some(60_000)] {
            let five = [voter(1, None), voter(2, Some(10)), voter(3, Some(10)), voter(4, silence), lost.clone()];
            assert_eq!(
                next(1, &rows, &five, &|_| false, &|_| false),
                Some(Step::Remove(4)),
                "without 2 first, 1 and 3 would be two of four"
            );
        }
    }

    #[test]
    fn a_member_is_replaced_in_one_step_and_does_not_come_back() {
        let voter = |node| member(node, "a", Role::Voter);
        let new = |node, old| (node, NodeRow { replaces: Some(old), ..row(node, "a").1 });
        let rows = [row(1, "a"), row(2, "a"), row(3, "a"), new(4, 3)];
        let (settled, none) = (|_| true, |_| false);
        let three = [voter(1), voter(2), voter(3)];
        assert_eq!(next(1, &rows, &three, &none, &|_| false), Some(Step::Add(4, "a")));
        let mut with_new = three.to_vec();
        with_new.push(member(4, "a", Role::Learner));
        assert_eq!(
            next(1, &rows, &with_new, &none, &|_| false),
            None,
            "the lost one stays until the new one has everything"
        );
        assert_eq!(next(1, &rows, &with_new, &settled, &|_| false), Some(Step::Replace(3, 4)));
        let done = [voter(1), voter(2), voter(4)];
        assert_eq!(
            next(1, &rows, &done, &settled, &|_| false),
            Some(Step::Arrived(4)),
            "a leader that takes over goes on here"
        );
        let half = [voter(1), voter(2), member(4, "a", Role::Learner)];
        assert_eq!(next(1, &rows, &half, &none, &|_| false), None, "whoever was replaced is not added again");
        assert_eq!(next(1, &rows, &half, &settled, &|_| false), Some(Step::Promote(4)), "it lost its vote otherwise");
    }

    #[test]
    fn the_only_voter_stays_a_member_until_its_successor_has_taken_over() {
        let voter = |node| member(node, "a", Role::Voter);
        let rows = [row(1, "a"), (2, NodeRow { replaces: Some(1), ..row(2, "a").1 })];
        let settled = |_| true;
        let never = |_: &NodeRow| false;
        let listens = [voter(1), member(2, "a", Role::Learner)];
        assert_eq!(next(1, &rows, &listens, &settled, &never), Some(Step::Replace(1, 2)));
        let both = [voter(1), voter(2)];
        assert_eq!(next(1, &rows, &both, &settled, &never), Some(Step::Replace(1, 2)), "it hands over");
        assert_eq!(next(2, &rows, &both, &settled, &never), Some(Step::Replace(1, 2)), "and is taken away");
        assert_eq!(next(2, &rows, &[voter(2)], &settled, &never), Some(Step::Arrived(2)));
    }

    #[test]
    fn whoever_was_let_in_and_never_came_up_goes() {
        let awaited = |number| (number, NodeRow { request: Some("h".into()), ..row(number, "a").1 });
        let rows = [row(1, "a"), awaited(2)];
        let silent = Member { heard_ms: None, matched: None, ..member(2, "a", Role::Learner) };
        let (none, late, early) = (|_| false, |_: &NodeRow| true, |_: &NodeRow| false);
        let leader = member(1, "a", Role::Voter);
        assert_eq!(next(1, &rows, &[leader.clone(), silent.clone()], &none, &early), None);
        assert_eq!(next(1, &rows, &[leader.clone(), silent], &none, &late), Some(Step::Forget(2)));
        let there = member(2, "a", Role::Learner);
        assert_eq!(next(1, &rows, &[leader.clone(), there], &none, &late), Some(Step::Heard(2)));
        let voter = Member { heard_ms: None, ..member(2, "a", Role::Voter) };
        assert_eq!(next(1, &rows, &[leader, voter], &none, &late), None, "whoever votes stays, whatever a row says");
    }

    #[test]
    fn whoever_falls_silent_or_behind_begins_anew() {
        let mut since = HashMap::new();
        let at = |heard_ms, matched| Member { heard_ms, matched, ..member(2, "a", Role::Learner) };
        note_keeping_up(&[at(Some(10), Some(5000))], 5000, &mut since);
        assert!(since.contains_key(&2));
        for fallen in [at(Some(SILENT_MS + 1), Some(5000)), at(Some(10), Some(10)), at(None, Some(5000))] {
            let mut since = since.clone();
            note_keeping_up(&[fallen], 5000, &mut since);
            assert!(since.is_empty());
        }
        note_keeping_up(&[Member { role: Role::Voter, ..at(Some(10), Some(5000)) }], 5000, &mut since);
        assert!(since.is_empty());
    }
}
