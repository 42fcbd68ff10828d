//! Who leads when a leader is told to stop, lacks something, or loses its majority for a moment.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::time::{Duration, Instant};

use common::Leader;
use common::net::{Cluster, Told, eventually};
use keyward_model::{Outcome, Table};
use keyward_raft::{Candidacy, ChangeError, SubmitError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_in_no_time() {
    let cluster = Cluster::of(3).await;
    let mut gaps = Vec::new();
    // On a busy machine one gap says little; one that is short shows that nobody waited for a silence.
    while gaps.len() < 30 && gaps.iter().all(|gap| *gap > Duration::from_millis(100)) {
        cluster.write().await;
        let leader = cluster.leader().await;
        let began = Instant::now();
        cluster.node(leader).hand_over(None).await.unwrap();
        let last = cluster.write().await;
        gaps.push(began.elapsed());
        assert_ne!(cluster.leader().await, leader);
        cluster.agree(last).await;
        let settled: Vec<_> = (1..=3).filter_map(|id| cluster.node(id).settled_term()).collect();
        assert_eq!(settled, [cluster.node(leader).leadership().borrow().term], "one leads, with all there is");
    }
    assert!(gaps.len() < 30, "{gaps:?}");
    let leader = cluster.leader().await;
    let chosen = (1..=3).find(|id| *id != leader).unwrap();
    cluster.node(leader).hand_over(Some(chosen)).await.unwrap();
    assert_eq!(cluster.leader().await, chosen);
    assert_eq!(cluster.node(chosen).hand_over(Some(77)).await, Err(ChangeError::NotMember { node: 77 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_lead_hands_over_and_is_not_asked() {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    let sealed = (1..=3).find(|id| *id != leader).unwrap();
    let third = (1..=3).find(|id| *id != leader && *id != sealed).unwrap();
    cluster.node(sealed).campaign(Candidacy::Barred);
    cluster.node(leader).campaign(Candidacy::Barred);
    eventually("the third leads", || (cluster.leads() == Some(third)).then_some(())).await;
    cluster.node(leader).campaign(Candidacy::Willing);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_lands_before_a_leader_steps_aside() {
    let cluster = Cluster::of(3).await;
    let made = cluster.write().await;
    cluster.agree(made).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let reader = cluster.store(leader).reader().unwrap();
    let mut decider = Leader::default();
    decider.resume(reader.count(Table::Secrets).unwrap(), reader.meta().unwrap().sum);
    // Others commit it, and this node cannot apply it yet.
    let disk = &cluster.running[&leader].disk;
    disk.hold();
    let writes: Vec<_> = (0..20).map(|_| tokio::spawn(node.submit(decider.add()))).collect();
    eventually("a flush waits", || disk.is_waited_for().then_some(())).await;
    node.campaign(Candidacy::Reluctant);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let leads_on = (1..=3).all(|id| cluster.node(id).leads() == (id == leader));
    disk.release();
    assert!(leads_on, "what is on its way lands first");
    eventually("another leads", || cluster.leads().filter(|id| *id != leader)).await;
    for (number, write) in writes.into_iter().enumerate() {
        let outcome = write.await.unwrap();
        let known = matches!(outcome, Ok(Outcome::Done) | Err(SubmitError::NotLeader { .. }));
        assert!(known && (number > 0 || outcome.is_ok()), "write {number}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leads_before_it_is_said_that_it_may() {
    let mut cluster = Cluster::of(3).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.begin(id, Told::default()));
    // Several times as long as it takes to miss a leader.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.leads(), None);
    cluster.node(2).campaign(Candidacy::Willing);
    eventually("the one that may leads", || (cluster.leads() == Some(2)).then_some(())).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
}

/// Three nodes, the one that leads, and its term; the others must not lead.
async fn without_heirs() -> (Cluster, u64, u64) {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.node(id).campaign(Candidacy::Barred));
    let term = cluster.node(leader).leadership().borrow().term;
    (cluster, leader, term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_relieves_goes_on() {
    // Nobody stands, and so nobody is asked.
    let (cluster, leader, term) = without_heirs().await;
    assert_eq!(cluster.node(leader).hand_over(None).await, Err(ChangeError::Timeout));
    let began = Instant::now();
    cluster.write().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(cluster.node(leader).leadership().borrow().term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_wants_to_lead_another_does_when_told() {
    let mut cluster = Cluster::of(3).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    // The leader last: as long as another is willing, it hands over.
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.node(id).campaign(Candidacy::Reluctant));
    cluster.node(leader).campaign(Candidacy::Reluctant);
    // It looks for somebody four times a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let led = *cluster.node(leader).leadership().borrow();
    assert!(led.leads && led.term == term, "nobody is readier: {led:?}");
    cluster.node(leader).hand_over(None).await.unwrap();
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let last = cluster.write().await;
    cluster.agree(last).await;
    assert_eq!(cluster.leader().await, next, "it stays with whoever was told");
    // A clean stop.
    cluster.node(next).shutdown().await.unwrap();
    let heir = cluster.node(next).leadership().borrow().leader;
    assert!(heir.is_some_and(|heir| heir != next), "another leads before it ends: {heir:?}");
    cluster.kill(next);
    // A process that ends. No election timer helps: none of them stands by itself.
    cluster.start(next);
    cluster.node(next).campaign(Candidacy::Reluctant);
    let last = cluster.write().await;
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    assert_ne!(cluster.leader().await, leader);
    // One that must not lead finds one that would rather not, and that one finds one that is willing.
    cluster.start(leader);
    cluster.node(leader).campaign(Candidacy::Reluctant);
    let last = cluster.write().await;
    cluster.agree(last).await;
    let barred = cluster.leader().await;
    cluster.node(barred).campaign(Candidacy::Barred);
    eventually("another leads", || cluster.leads().filter(|id| *id != barred)).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    cluster.node(barred).campaign(Candidacy::Willing);
    eventually("whoever wants to leads", || (cluster.leads() == Some(barred)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_does_not_come_back() {
    let cluster = Cluster::of(3).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.node(*id).campaign(Candidacy::Reluctant));
    let term = node.leadership().borrow().term;
    assert_eq!(node.hand_over(None).await, Err(ChangeError::Timeout), "nobody would keep it");
    let led = *node.leadership().borrow();
    assert!(led.leads && led.term == term, "{led:?}");
    // About to end, and not ended: nobody gives it back, whatever else is said of it.
    node.retire();
    node.campaign(Candidacy::Willing);
    node.hand_over(None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heir = cluster.leader().await;
    assert_ne!(heir, leader);
    assert_eq!(cluster.node(heir).leadership().borrow().term, term + 1, "{}", cluster.show());
    let last = cluster.write().await;
    cluster.agree(last).await;
    // A clean stop is one that is about to end, without being told.
    let third = others.into_iter().find(|id| *id != heir).unwrap();
    cluster.node(heir).campaign(Candidacy::Willing);
    cluster.node(heir).shutdown().await.unwrap();
    assert_eq!(cluster.node(heir).leadership().borrow().leader, Some(third));
}

/// Three nodes, one of which leads, one lacks much and does not get it, though it is heard, and one must not lead.
async fn one_far_behind() -> (Cluster, u64, u64) {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    let (behind, third) = ((1..=3).find(|id| *id != leader).unwrap(), (1..=3).rfind(|id| *id != leader).unwrap());
    let node = cluster.node(leader);
    cluster.node(third).campaign(Candidacy::Barred);
    cluster.isolate(behind);
    for _ in 0..100 {
        cluster.write().await;
    }
    // It is heard, and what it lacks is too much for its links.
    cluster.net.narrow(leader, behind, 2048);
    cluster.rejoin(behind);
    let of_it = || node.members().into_iter().find(|member| member.node == behind).unwrap();
    // For longer than a connection may take that was begun while it was cut off.
    let mut since = Instant::now();
    eventually("it is heard all the time", || {
        if of_it().heard_ms.is_none_or(|ms| ms > 150) {
            since = Instant::now();
        }
        (since.elapsed() > Duration::from_millis(1100)).then_some(())
    })
    .await;
    eventually("it hears", || (cluster.node(behind).leadership().borrow().leader == Some(leader)).then_some(())).await;
    (cluster, leader, behind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_far_behind_is_not_asked_to_lead() {
    let (cluster, leader, behind) = one_far_behind().await;
    let node = cluster.node(leader);
    let of_it = || node.members().into_iter().find(|member| member.node == behind).unwrap();
    let term = node.leadership().borrow().term;
    node.campaign(Candidacy::Barred);
    for _ in 0..2 {
        assert_eq!(node.hand_over(None).await, Err(ChangeError::Timeout));
        assert_eq!(node.read_point().await, Ok(()));
        assert!(of_it().matched < node.status().last_log_index.map(|last| last - 64), "{}", cluster.show());
    }
    let led = *node.leadership().borrow();
    assert!(led.leads && led.term == term, "nobody else was asked: {led:?}");
    cluster.net.widen(leader, behind);
    eventually("whoever was behind leads", || (cluster.leads() == Some(behind)).then_some(())).await;
    assert_eq!(cluster.node(behind).leadership().borrow().term, term + 1);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_behind_for_a_moment_is_waited_for() {
    let (cluster, leader, behind) = one_far_behind().await;
    let node = cluster.node(leader);
    let term = node.leadership().borrow().term;
    let handing_over = tokio::spawn(async move { node.hand_over(None).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!handing_over.is_finished());
    cluster.net.widen(leader, behind);
    assert_eq!(handing_over.await.unwrap(), Ok(()), "{}", cluster.show());
    assert_eq!(cluster.leader().await, behind);
    assert_eq!(cluster.node(behind).leadership().borrow().term, term + 1);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_majority_for_a_moment_leads_on() {
    // Nobody else takes over meanwhile, and nothing but the majority changes.
    let (cluster, leader, term) = without_heirs().await;
    cluster.isolate(leader);
    eventually("it notices", || (!cluster.node(leader).leads()).then_some(())).await;
    cluster.rejoin(leader);
    eventually("it leads on", || cluster.node(leader).leads().then_some(())).await;
    assert_eq!(cluster.node(leader).leadership().borrow().term, term);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_heir_agrees_and_does_nothing_goes_on() {
    let mut cluster = Cluster::of(3).await;
    for vanishes in [false, true] {
        let last = cluster.write().await;
        cluster.agree(last).await;
        let leader = cluster.leader().await;
        let (heir, third) = ((1..=3).find(|id| *id != leader).unwrap(), (1..=3).rfind(|id| *id != leader).unwrap());
        cluster.node(third).campaign(Candidacy::Barred);
        // It stands, and cannot: its disk does not take its vote.
        cluster.running[&heir].disk.hold();
        let node = cluster.node(leader);
        let handing_over = tokio::spawn(async move { node.hand_over(Some(heir)).await });
        if vanishes {
            eventually("it stands", || cluster.running[&heir].disk.is_waited_for().then_some(())).await;
            cluster.isolate(heir);
            cluster.running[&heir].disk.release();
            cluster.kill(heir);
            cluster.rejoin(heir);
        }
        assert_eq!(handing_over.await.unwrap(), Err(ChangeError::Timeout));
        let began = Instant::now();
        cluster.write().await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(cluster.leader().await, leader);
        cluster.node(third).campaign(Candidacy::Willing);
        if vanishes {
            cluster.start(heir);
        } else {
            cluster.running[&heir].disk.release();
        }
        let last = cluster.write().await;
        cluster.agree(last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_of_the_leader_leaves_hardly_a_gap() {
    let mut cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    let other = cluster.node((1..=3).find(|id| *id != leader).unwrap());
    cluster.node(leader).shutdown().await.unwrap();
    // It stops only when another has taken over: nobody had to miss it first.
    assert!(!cluster.node(leader).leads());
    let leads = other.leadership().borrow().leader;
    assert!(leads.is_none_or(|leads| leads != leader), "{leads:?}");
    cluster.kill(leader);
    cluster.write().await;
    cluster.start(leader);
    let last = cluster.write().await;
    cluster.agree(last).await;
}
