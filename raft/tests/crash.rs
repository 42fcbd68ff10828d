//! A node is dropped in the middle of its work again and again; what was acknowledged is there, once and in order.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use common::{Leader, Seen, options};
use keyward_model::Outcome;
use keyward_raft::{Fresh, Node, StartError, SubmitError};
use keyward_storage::Store;

fn store(dir: &std::path::Path) -> Store {
    Store::open(&dir.join("state"), &keyward_storage::Options::default()).unwrap()
}

#[tokio::test]
async fn acknowledged_commands_survive_every_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = Leader::default();
    let mut acknowledged = 0_u64;
    for round in 0..25 {
        let store = store(dir.path());
        let seen = Seen::new();
        let node = Node::start(options(dir.path()), store.clone(), seen.clone()).unwrap();
        // The state is as it was, to the last acknowledged command; what was enqueued and not awaited may be there too.
        let reader = store.reader().unwrap();
        let found = common::rows(&reader);
        assert!(
            found >= acknowledged && found <= leader.made(),
            "round {round}: {acknowledged} <= {found} <= {}",
            leader.made()
        );
        leader.resume(found, reader.meta().unwrap().sum);
        acknowledged = found;

        let waiting: Vec<_> = (0..60).map(|_| node.enqueue(leader.add()).unwrap()).collect();
        let keep = usize::try_from(round % 5 * 15).unwrap();
        for submission in waiting.into_iter().take(keep) {
            assert_eq!(submission.await, Ok(Outcome::Done), "round {round}");
            acknowledged += 1;
        }
        if round % 7 == 6 {
            node.shutdown().await.unwrap();
            acknowledged = leader.made();
            assert_eq!(node.enqueue(leader.peek()).err(), Some(SubmitError::Stopped));
        }
        seen.check();
        drop(node);
    }
}

#[tokio::test]
async fn outcomes_come_back_to_their_commands_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Seen::new();
    let unpurged = keyward_raft::Options { log_bytes_max: u64::MAX, ..options(dir.path()) };
    let node = Node::start(unpurged, store(dir.path()), seen.clone()).unwrap();
    let mut leader = Leader::default();
    let mut waiting = Vec::new();
    for number in 0..700 {
        if number % 10 == 3 {
            // Decided on another state: nothing changes, and those after it are not disturbed.
            let mut stale = leader.peek();
            stale.before = keyward_model::StateSum([7; 4]);
            waiting.push((Outcome::Stale, node.enqueue(stale).unwrap()));
        } else {
            waiting.push((Outcome::Done, node.enqueue(leader.add()).unwrap()));
        }
    }
    for (expected, submission) in waiting {
        assert_eq!(submission.await, Ok(expected));
    }
    assert_eq!(node.submit(leader.add()).await, Ok(Outcome::Done));
    assert_eq!(seen.check(), 701);
    let status = node.status();
    assert_eq!((status.leader, &status.voters[..]), (Some(7), &[7][..]));
    assert_eq!((status.incarnation, status.waiting, status.disk_full), (1, 0, false));
    let last = status.last_log_index.unwrap();
    let read = node.read_commands(0..=last).unwrap();
    assert_eq!(read.iter().map(|(_, commands)| commands.len()).sum::<usize>(), 701);
    assert!(read.len() < 300, "{} entries for 701 commands", read.len());
    node.shutdown().await.unwrap();
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_log_stays_small_and_a_node_starts_from_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = Leader::default();
    for _ in 0..3 {
        let node = Node::start(options(dir.path()), store(dir.path()), Seen::new()).unwrap();
        for _ in 0..40 {
            let waiting: Vec<_> = (0..40).map(|_| node.enqueue(leader.add()).unwrap()).collect();
            for submission in waiting {
                assert_eq!(submission.await, Ok(Outcome::Done));
            }
        }
        let status = node.status();
        assert!(status.log_bytes < 600 << 10, "{status:?}");
        assert!(status.purged.is_some() && status.purged <= status.durable, "{status:?}");
    }
    let store = store(dir.path());
    drop(Node::start(options(dir.path()), store.clone(), Seen::new()).unwrap());
    assert_eq!(common::rows(&store.reader().unwrap()), leader.made());
}

#[tokio::test]
async fn what_does_not_belong_together_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = keyward_raft::Options { fresh: Fresh::Refuse, ..options(dir.path()) };
    assert!(matches!(Node::start(refuse, store(dir.path()), Seen::new()), Err(StartError::Empty)));

    let mut leader = Leader::default();
    let node = Node::start(options(dir.path()), store(dir.path()), Seen::new()).unwrap();
    assert_eq!(node.submit(leader.add()).await, Ok(Outcome::Done));
    node.shutdown().await.unwrap();
    drop(node);
    let other = keyward_raft::Options { node_id: 8, ..options(dir.path()) };
    let message = Node::start(other, store(dir.path()), Seen::new()).err().unwrap().to_string();
    assert!(message.contains("this node is 8"), "{message}");

    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let message = Node::start(options(dir.path()), store(dir.path()), Seen::new()).err().unwrap().to_string();
    assert!(message.contains("the log ends with nothing"), "{message}");
}
