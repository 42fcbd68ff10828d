//! Several nodes in one process: lost nodes, cut networks, changes of members, reads that are never of the past.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::net::{Cluster, TIMING, Told, eventually};
use common::{Leader, rows};
use keyward_model::{Outcome, Table};
use keyward_raft::{ChangeError, ReadError, Role, SubmitError};
use keyward_storage::Store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_read_everywhere() {
    let cluster = Cluster::of(3).await;
    for _ in 0..30 {
        let written = cluster.write().await;
        for (id, running) in &cluster.running {
            running.node.read_point().await.unwrap();
            assert!(running.store.reader().unwrap().count(Table::Secrets).unwrap() > written, "node {id}");
        }
    }
    let leader = cluster.leader().await;
    assert!(!cluster.node(leader).is_alone());
    let members = cluster.node(leader).members();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.role == Role::Voter));
    eventually("the leader knows how far the others are", || {
        let members = cluster.node(leader).members();
        let known =
            |member: &keyward_raft::Member| member.matched.is_some() && member.heard_ms.is_some_and(|ms| ms < 500);
        members.iter().filter(|member| member.node != leader).all(known).then_some(())
    })
    .await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused = cluster.node(follower).enqueue(Leader::default().peek()).err();
    assert_eq!(refused, Some(SubmitError::NotLeader { leader: Some(leader) }));
    cluster.agree(29).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_comes_back_as_a_follower() {
    let mut cluster = Cluster::of(3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.write().await;
        cluster.kill(leader);
        cluster.write().await;
        assert_ne!(cluster.leader().await, leader);
        cluster.start(leader);
        let last = cluster.write().await;
        cluster.agree(last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_is_gone_is_replaced_before_its_silence_shows() {
    for nodes in [3, 5] {
        let mut cluster = Cluster::of(nodes).await;
        // Without the sign of its closed links its last heartbeat would have to be as old as this.
        let silence = Duration::from_millis(TIMING.election_max_ms + TIMING.election_min_ms - TIMING.heartbeat_ms);
        let mut gaps = Vec::new();
        // On a busy machine one gap says little; one that is short shows that nobody waited for a silence.
        while gaps.len() < 10 && gaps.iter().all(|gap| *gap > silence / 3) {
            cluster.write().await;
            let leader = cluster.leader().await;
            let began = Instant::now();
            cluster.kill(leader);
            cluster.leader().await;
            gaps.push(began.elapsed());
            cluster.start(leader);
            let last = cluster.write().await;
            cluster.agree(last).await;
        }
        assert!(gaps.len() < 10, "{nodes} nodes: {gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_wrong_about_its_leader_changes_nothing() {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    let wrong = (1..=3).find(|id| *id != leader).unwrap();
    let other = (1..=3).find(|id| *id != leader && *id != wrong).unwrap();
    for _ in 0..5 {
        cluster.net.refuse(leader, wrong);
        eventually("it misses its leader", || cluster.node(wrong).leadership().borrow().leader.is_none().then_some(()))
            .await;
        cluster.write().await;
        cluster.net.heal(leader, wrong);
        let last = cluster.write().await;
        cluster.agree(last).await;
        assert_eq!(cluster.leader().await, leader);
        assert_eq!(cluster.node(leader).leadership().borrow().term, term, "nobody was elected");
    }
    // If all are wrong about it, it leads nobody any more.
    cluster.net.refuse(leader, wrong);
    cluster.net.refuse(leader, other);
    eventually("another leads", || cluster.leads().filter(|id| *id != leader)).await;
    cluster.write().await;
    cluster.rejoin(leader);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_does_not_disturb_when_it_comes_back() {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.isolate(follower);
    // Long enough to have stood for election several times.
    eventually("the follower misses its leader", || {
        cluster.node(follower).leadership().borrow().leader.is_none().then_some(())
    })
    .await;
    assert_eq!(cluster.node(follower).read_point().await, Err(ReadError::NoLeader));
    for _ in 0..5 {
        cluster.write().await;
    }
    cluster.rejoin(follower);
    let last = cluster.write().await;
    cluster.agree(last).await;
    cluster.node(follower).read_point().await.unwrap();
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.node(leader).leadership().borrow().term, term, "nobody was elected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_loses_nothing() {
    let cluster = Cluster::of(3).await;
    let written = cluster.write().await;
    let old = cluster.leader().await;
    cluster.isolate(old);
    let reader = cluster.store(old).reader().unwrap();
    let mut decider = Leader::default();
    decider.resume(rows(&reader), reader.meta().unwrap().sum);
    let lonely = cluster.node(old).enqueue(decider.add());
    let read = cluster.node(old).read_point();
    // Long before it hears of another leader it knows that it has no majority.
    let told = tokio::time::timeout(Duration::from_secs(10), lonely.unwrap()).await;
    assert!(matches!(told, Ok(Err(SubmitError::Unknown | SubmitError::NotLeader { .. }))), "{told:?}");
    assert!(!cluster.node(old).leads());
    eventually("the others have a leader", || cluster.leads().filter(|id| *id != old)).await;
    let last = cluster.write().await;
    assert_eq!(last, written + 1, "the lonely write took no effect");
    assert!(read.await.is_err());
    cluster.rejoin(old);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_does_not_answer_from_the_past() {
    let cluster = Cluster::of(3).await;
    cluster.write().await;
    let old = cluster.leader().await;
    // The raft thread stands still, as it does in a process that is stopped.
    let (resume, resumed) = mpsc::channel::<()>();
    cluster.node(old).spawn(async move { assert!(resumed.recv().is_err()) });
    eventually("the others have a leader", || {
        let others = cluster.running.iter().filter(|(id, _)| **id != old);
        others.map(|(_, running)| &running.node).any(|node| node.leads()).then_some(())
    })
    .await;
    let new = *cluster.running.iter().find(|(id, running)| **id != old && running.node.leads()).unwrap().0;
    let reader = cluster.store(new).reader().unwrap();
    cluster.node(new).read_point().await.unwrap();
    let mut decider = Leader::default();
    decider.resume(rows(&reader), reader.meta().unwrap().sum);
    let written = decider.made();
    assert_eq!(cluster.node(new).submit(decider.add()).await, Ok(Outcome::Done));
    assert!(cluster.node(old).leads(), "it does not know yet");
    // Asked before it goes on, and again after: never without what was acknowledged meanwhile.
    let before = cluster.node(old).read_point();
    drop(resume);
    let after = cluster.node(old).read_point();
    for point in [before, after] {
        if point.await.is_ok() {
            assert!(cluster.store(old).reader().unwrap().count(Table::Secrets).unwrap() > written);
        }
    }
    cluster.agree(written).await;
    cluster.node(old).read_point().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_waits_for_a_leader_that_leads_no_more() {
    let cluster = Cluster::of(3).await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (1..=3)
        .flat_map(|id| [cluster.node(id), cluster.node(id)])
        .map(|node| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    node.read_point().await?;
                }
                Ok::<_, ReadError>(())
            })
        })
        .collect();
    for _ in 0..40 {
        cluster.write().await;
        let leader = cluster.leader().await;
        // Another may lead by now.
        drop(cluster.node(leader).hand_over(None).await);
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_never_ahead_of_its_own_log() {
    let cluster = Cluster::of(3).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    let reader = cluster.store(slow).reader().unwrap();
    let before = reader.meta().unwrap().applied;
    cluster.running[&slow].disk.hold();
    let last = cluster.write().await;
    let committed = cluster.node(leader).status().applied;
    eventually("it knows what the others committed", || {
        (cluster.node(slow).status().committed >= committed).then_some(())
    })
    .await;
    // Long enough to have applied it many times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(reader.meta().unwrap().applied, before);
    cluster.running[&slow].disk.release();
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_point_comes_after_the_observer() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let told = &cluster.running[&follower].told;
    told.slow_ms.store(50, Ordering::SeqCst);
    for _ in 0..3 {
        cluster.write().await;
        let written = cluster.store(leader).reader().unwrap().meta().unwrap().applied.unwrap().index;
        cluster.node(follower).read_point().await.unwrap();
        assert!(told.applied.load(Ordering::SeqCst) >= written, "caches are of the past");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_behind_a_purged_log_gets_a_snapshot_under_its_readers() {
    let mut cluster = Cluster::alone(64 << 10);
    while cluster.node(1).status().purged.is_none() {
        cluster.fill(100).await;
    }
    cluster.start(2);
    let reader = cluster.store(2).reader().unwrap();
    assert_eq!(rows(&reader), 0);
    reader.pin().unwrap();
    assert_eq!(reader.count(Table::Secrets).unwrap(), 0);
    cluster.node(1).add_learner(2, "node-2").await.unwrap();
    let replaced = || (cluster.running[&2].told.replaced.load(Ordering::SeqCst) > 0).then_some(());
    eventually("the snapshot is installed", replaced).await;
    assert_eq!(reader.count(Table::Secrets).unwrap(), 0, "a pinned reader stays in its state");
    reader.unpin().unwrap();
    assert!(rows(&reader) > 0, "and then sees the new one");
    let last = cluster.write().await;
    cluster.agree(last).await;
    cluster.node(2).read_point().await.unwrap();
    cluster.node(1).promote(2).await.unwrap();
    drop(reader);
    // After a kill it finds what was installed, and goes on.
    cluster.kill(2);
    cluster.start(2);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_half_way_arrives_nevertheless() {
    let mut cluster = Cluster::alone(64 << 10);
    cluster.fill(6000).await;
    eventually("the log lets entries go", || cluster.node(1).status().purged).await;
    cluster.start(2);
    cluster.net.fuse(1, 2, 1_500_000);
    cluster.node(1).add_learner(2, "node-2").await.unwrap();
    let last = cluster.write().await;
    cluster.agree(last).await;
    assert!(cluster.running[&2].told.replaced.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_for_whoever_gets_a_snapshot() {
    let log_bytes_max = 256 << 10;
    let mut cluster = Cluster::alone(log_bytes_max);
    cluster.fill(6000).await;
    eventually("the log lets entries go", || cluster.node(1).status().purged).await;
    cluster.start(2);
    cluster.net.refuse_after(1, 2, 1_500_000);
    cluster.node(1).add_learner(2, "node-2").await.unwrap();
    eventually("the transfer is cut", || cluster.net.refuses(1, 2).then_some(())).await;
    let snapshot = cluster.node(1).status().applied;
    while cluster.node(1).status().log_bytes < 2 * log_bytes_max {
        cluster.fill(100).await;
    }
    let status = cluster.node(1).status();
    assert!(status.purged <= snapshot && status.applied > snapshot, "it needs what comes after: {status:?}");
    cluster.net.heal(1, 2);
    let last = cluster.write().await;
    cluster.agree(last).await;
    assert_eq!(cluster.running[&2].told.replaced.load(Ordering::SeqCst), 1);
    let files = |cluster: &mut Cluster, id| {
        let files = std::fs::read_dir(cluster.folder(id).join("state")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(!files(&mut cluster, 1).contains(&"outgoing-1.snapshot".to_owned()), "it was made once");
    let left = files(&mut cluster, 2);
    assert!(!left.iter().any(|name| name.starts_with("arrived-") || name.starts_with("incoming")), "{left:?}");
    // Once it has it, the log is let go as before; and a member that is lost does not keep it for ever.
    let purges = |cluster: &Cluster| cluster.node(1).status().purged > snapshot;
    while !purges(&cluster) {
        cluster.fill(100).await;
    }
    cluster.kill(2);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_without_a_new_snapshot_has_one_for_whoever_comes() {
    let mut cluster = Cluster::alone(256 << 10);
    cluster.leader().await;
    while cluster.node(1).status().purged.is_none() {
        cluster.fill(200).await;
    }
    cluster.kill(1);
    // As the audit does at a start, until it has caught up.
    cluster.start_told(1, Told { keeps: true.into(), ..Told::default() });
    cluster.running[&1].told.keeps.store(false, Ordering::SeqCst);
    cluster.join(2).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_is_replaced_by_one_that_votes_beside_it_first() {
    let mut cluster = Cluster::alone(256 << 10);
    cluster.start(2);
    cluster.node(1).add_learner(2, "node-2").await.unwrap();
    let last = cluster.write().await;
    cluster.agree(last).await;
    cluster.node(1).replace(1, 2).await.unwrap();
    assert!(cluster.node(1).members().iter().all(|member| member.role == Role::Voter));
    let mut leadership = cluster.node(2).leadership();
    while !leadership.borrow_and_update().leads {
        let again = cluster.node(1).replace(1, 2).await;
        assert!(matches!(again, Err(ChangeError::NotLeader { .. } | ChangeError::Timeout)), "{again:?}");
    }
    let began = Instant::now();
    while let Err(error) = cluster.node(2).replace(1, 2).await {
        assert!(began.elapsed() < Duration::from_secs(10), "it has just begun to lead: {error}");
    }
    assert_eq!(cluster.node(2).members().iter().map(|member| member.node).collect::<Vec<_>>(), [2]);
    cluster.kill(1);
    cluster.write().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_while_leaders_are_lost() {
    let mut cluster = Cluster::of(3).await;
    cluster.join(4).await;
    for (round, gone) in (0..2).zip([4, 4]) {
        let leader = cluster.leader().await;
        let node = cluster.node(leader);
        let change =
            tokio::spawn(async move { if round == 0 { node.promote(gone).await } else { node.remove(gone).await } });
        tokio::task::yield_now().await;
        if round == 0 || leader != gone {
            change.abort();
            cluster.kill(leader);
            cluster.write().await;
            cluster.start(leader);
        }
        // Whoever leads now brings it to its end.
        let want = if round == 0 { 4 } else { 3 };
        let done = async {
            loop {
                let node = cluster.node(cluster.leader().await);
                let done = if round == 0 { node.promote(gone).await } else { node.remove(gone).await };
                let voters = node.status().voters.len();
                if done.is_ok() && voters == want {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done).await.unwrap_or_else(|_| panic!("{}", cluster.show()));
    }
    let removed = cluster.node(4);
    let last = cluster.write().await;
    let term = cluster.node(cluster.leader().await).leadership().borrow().term;
    assert!(removed.read_point().await.is_err(), "nobody answers a node that was removed");
    let failures = || cluster.running[&4].told.failures.lock().unwrap().first().cloned();
    let said = eventually("it notices", failures).await;
    assert!(said.contains("was removed from the cluster"), "{said}");
    drop(removed);
    cluster.kill(4);
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.node(leader).leadership().borrow().term, term);
    let voters: Vec<u64> = cluster.node(leader).status().voters;
    assert_eq!(voters, [1, 2, 3]);
    assert_eq!(cluster.node(leader).promote(9).await, Err(ChangeError::NotMember { node: 9 }));
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    assert_eq!(cluster.node(follower).remove(leader).await, Err(ChangeError::NotLeader { leader: Some(leader) }));
    let handed = cluster.node(leader).remove(leader).await;
    assert!(matches!(handed, Err(ChangeError::NotLeader { leader: Some(_) })), "{handed:?}");
    let next = cluster.leader().await;
    cluster.node(next).remove(leader).await.unwrap();
    cluster.kill(leader);
    let other = (1..=3).find(|id| *id != leader && *id != next).unwrap();
    cluster.node(next).remove(other).await.unwrap();
    eventually("it is alone", || cluster.node(next).is_alone().then_some(())).await;
    assert_eq!(cluster.node(next).remove(next).await, Err(ChangeError::LastVoter { node: next }));
    cluster.kill(other);
    let last = cluster.write().await;
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_costs_next_to_nothing() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let dead = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(dead);
    cluster.write().await;
    let dials = cluster.net.dials.load(Ordering::Relaxed);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        cluster.write().await;
    }
    let dialled = cluster.net.dials.load(Ordering::Relaxed) - dials;
    assert!(dialled < 40, "{dialled} attempts in a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_state_differs_stops_and_says_so() {
    let mut cluster = Cluster::of(3).await;
    cluster.fill(10).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    let leader = cluster.leader().await;
    let bad = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(bad);
    // Somebody changes a row and what the rows add up to; no check of the file alone can see it.
    let folder = cluster.folder(bad).join("state");
    common::forge(&folder);
    cluster.start(bad);
    cluster.write().await;
    let failures = || cluster.running[&bad].told.failures.lock().unwrap().first().cloned();
    let said = eventually("it says so", failures).await;
    assert!(said.contains("differs from that of the leader"), "{said}");
    for (id, running) in cluster.running.iter().filter(|(id, _)| **id != bad) {
        assert_eq!(*running.told.failures.lock().unwrap(), Vec::<String>::new(), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_moves_to_another_address() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let moved = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(moved);
    cluster.net.rename(moved, "elsewhere");
    cluster.start(moved);
    let last = cluster.write().await;
    cluster.node(leader).readdress(moved, "elsewhere").await.unwrap();
    cluster.agree(last).await;
    let members = cluster.node(moved).members();
    assert_eq!(members.iter().find(|member| member.node == moved).unwrap().address, "elsewhere");
    assert_eq!(cluster.node(leader).readdress(9, "x").await, Err(ChangeError::NotMember { node: 9 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_nodes_under_a_wrong_name_are_turned_away() {
    let cluster = Cluster::of(2).await;
    cluster.write().await;
    for (peer, from, to, since, welcome) in [(2, 2, 1, 0, 0), (9, 9, 1, 0, 3), (9, 2, 1, 0, 2), (2, 2, 7, 0, 2)] {
        let answer = cluster.greet(1, peer, (from, to, since)).await;
        assert_eq!(answer, Some(welcome), "{peer} as {from}");
    }
    // Who knows of a newer membership is let in: this node may have been away when it was added.
    assert_eq!(cluster.greet(1, 9, (9, 1, u64::MAX)).await, Some(0));
}

/// Faults from a seed, one after the other, while one client writes and reads: nothing acknowledged is lost, no read is of
/// the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens() {
    for seed in [1, 2] {
        let mut chance = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        let mut draw = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % below
        };
        let mut cluster = Cluster::of(3).await;
        let mut last = cluster.write().await;
        for step in 0..12 {
            let victim = 1 + draw(3);
            let fault = draw(4);
            match fault {
                0 => cluster.isolate(victim),
                1 => cluster.kill(victim),
                2 => drop(cluster.node(victim).hand_over(None).await),
                _ => cluster.net.cut(victim, 1 + victim % 3),
            }
            for _ in 0..draw(4) {
                let written = cluster.write().await;
                assert!(written > last, "seed {seed}, step {step}: row {written} after {last}");
                last = written;
            }
            if fault == 1 {
                cluster.start(victim);
            }
            cluster.rejoin(victim);
            for (id, running) in &cluster.running {
                if running.node.read_point().await.is_ok() {
                    let count = running.store.reader().unwrap().count(Table::Secrets).unwrap();
                    assert!(count > last, "seed {seed}, step {step}: node {id} has {count} rows after row {last}");
                }
            }
        }
        let last = cluster.write().await;
        cluster.agree(last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_applies_slowly_reads_again_what_it_could_not_keep() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    cluster.running[&slow].told.slow_ms.store(100, Ordering::SeqCst);
    for _ in 0..10 {
        cluster.fill(200).await;
    }
    let last = cluster.write().await;
    let (has, applied) = (cluster.node(slow).status().last_log_index, cluster.node(slow).status().applied);
    assert!(has > applied, "it is behind: {has:?}, {applied:?}");
    cluster.running[&slow].told.slow_ms.store(0, Ordering::SeqCst);
    cluster.agree(last).await;
}

/// In a cluster that lives, followers get what they need from the log although it is purged all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_keeps_up_needs_no_snapshot() {
    let mut cluster = Cluster::alone(64 << 10);
    for id in [2, 3] {
        cluster.join(id).await;
        cluster.node(1).promote(id).await.unwrap();
    }
    for _ in 0..20 {
        cluster.fill(100).await;
    }
    let last = cluster.write().await;
    cluster.agree(last).await;
    for (id, running) in &cluster.running {
        eventually(&format!("node {id} purges"), || running.node.status().purged).await;
        assert_eq!(running.told.replaced.load(Ordering::SeqCst), 0, "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_does_not_hold_the_log_and_comes_back_by_snapshot() {
    let mut cluster = Cluster::alone(64 << 10);
    for id in [2, 3] {
        cluster.join(id).await;
        cluster.node(1).promote(id).await.unwrap();
    }
    let leader = cluster.leader().await;
    let dead = if leader == 3 { 2 } else { 3 };
    let before = cluster.node(dead).status().last_log_index;
    cluster.kill(dead);
    eventually("the rest agrees on a leader", || cluster.leads()).await;
    while cluster.node(cluster.leader().await).status().purged <= before {
        cluster.fill(100).await;
    }
    cluster.start(dead);
    let last = cluster.write().await;
    cluster.agree(last).await;
    assert!(cluster.running[&dead].told.replaced.load(Ordering::SeqCst) > 0);
}

/// The power fails when a snapshot is in place and the log does not know of it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_installed_may_be_ahead_of_the_log() {
    let mut cluster = Cluster::alone(u64::MAX);
    cluster.join(2).await;
    let last = cluster.write().await;
    cluster.agree(last).await;
    cluster.kill(2);
    cluster.fill(50).await;
    let folder = cluster.folder(2).join("state");
    cluster.store(1).snapshot_into(&folder.join("arrived")).unwrap();
    let store = Store::open(&folder, &keyward_storage::Options::default()).unwrap();
    store.install(&folder.join("arrived")).unwrap();
    drop(store);
    cluster.start(2);
    let last = cluster.write().await;
    cluster.agree(last).await;
}
