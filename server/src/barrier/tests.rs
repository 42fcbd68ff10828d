//! Times in rows, against clocks that do not agree; and commands that nobody waits for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use keyward_model::{Table, Timestamp};
use serde_json::json;
use tokio::runtime::{Builder, LocalOptions};

use super::{Barrier, Columns};
use crate::app::Worker;
use crate::jobs::reaper;
use crate::record::Facts;
use crate::testing::{ask, on_a_node};

const DAY_S: i64 = 86_400;

/// A new version of `secret/data/<name>`; the moment that it is stamped with.
async fn write(worker: &std::rc::Rc<Worker>, name: &str) -> Timestamp {
    let (status, told) = ask(worker, "root", "PUT", &format!("secret/data/{name}"), r#"{"data":{"k":"v"}}"#).await;
    assert_eq!(status, 200, "{told}");
    Timestamp::parse_rfc3339(told["data"]["created_time"].as_str().unwrap()).unwrap()
}

#[test]
fn what_was_deleted_is_gone_by_every_clock() {
    on_a_node(async |worker, clock| {
        // The clock of whoever led went before: by less than stamps are followed, and by more.
        for (ahead_s, name) in [(240, "a"), (20 * DAY_S, "b")] {
            let (data, below) = (format!("secret/data/{name}"), format!("secret/delete/{name}"));
            write(worker, name).await;
            write(worker, name).await;
            clock.advance(ahead_s);
            let by = worker.app.barrier.now();
            assert_eq!(ask(worker, "root", "DELETE", &data, "").await.0, 204);
            assert_eq!(ask(worker, "root", "POST", &below, r#"{"versions":[1]}"#).await.0, 204);
            clock.advance(-ahead_s);
            for version in ["", "?version=1"] {
                let (status, told) = ask(worker, "root", "GET", &format!("{data}{version}"), "").await;
                assert_eq!(status, 404, "{told}");
                assert_eq!(told["data"]["metadata"]["deletion_time"], json!(by.rfc3339()), "{told}");
            }
        }
    });
}

#[test]
fn a_deletion_that_was_due_by_another_clock_is_done_by_a_delete() {
    on_a_node(async |worker, clock| {
        let settings = r#"{"delete_version_after":"100s"}"#;
        assert_eq!(ask(worker, "root", "POST", "secret/metadata/s", settings).await.0, 204);
        let due = write(worker, "s").await.plus_seconds(100);
        clock.advance(20 * DAY_S);
        assert_eq!(ask(worker, "root", "DELETE", "secret/data/s", "").await.0, 204);
        clock.advance(-20 * DAY_S);
        let (status, told) = ask(worker, "root", "GET", "secret/data/s", "").await;
        assert_eq!((status, &told["data"]["metadata"]["deletion_time"]), (404, &json!(due.rfc3339())), "{told}");
    });
}

#[test]
fn what_has_ended_by_the_time_of_the_log_has_ended() {
    on_a_node(async |worker, _| {
        let settings = r#"{"delete_version_after":"100s"}"#;
        assert_eq!(ask(worker, "root", "POST", "secret/metadata/s", settings).await.0, 204);
        write(worker, "s").await;
        let made = r#"{"id":"t","policies":["default"],"ttl":"100s"}"#;
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", made).await.0, 200);
        let own = async || ask(worker, "t", "GET", "auth/token/lookup-self", "").await.0;
        let read = async || ask(worker, "root", "GET", "secret/data/s", "").await.0;
        assert_eq!((own().await, read().await), (200, 200));
        // Another node leads, whose clock goes before.
        let barrier = &worker.app.barrier;
        barrier.generations().note_time(barrier.now().plus_seconds(240));
        assert_eq!((own().await, read().await), (403, 404));
        assert_eq!(reaper::reap(worker, 10).await, Ok(1));
    });
}

#[test]
fn a_clock_that_jumped_is_followed_for_five_minutes_at_most() {
    on_a_node(async |worker, clock| {
        let first = write(worker, "s").await;
        clock.advance(-100);
        assert!(write(worker, "s").await >= first, "back by less than that: time stands");
        clock.advance(100 + 366 * DAY_S);
        let mad = write(worker, "s").await;
        clock.advance(-366 * DAY_S);
        let (now, stamp) = (worker.app.barrier.now(), write(worker, "s").await);
        assert!(mad > now.plus_seconds(365 * DAY_S));
        assert!(stamp >= now && stamp <= now.plus_seconds(300), "{now} {stamp}");
        // What is made now does not live for a year more.
        let made = r#"{"id":"t","policies":["default"],"ttl":"60s"}"#;
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", made).await.0, 200);
        assert_eq!(ask(worker, "t", "GET", "auth/token/lookup-self", "").await.0, 200);
        clock.advance(60);
        assert_eq!(ask(worker, "t", "GET", "auth/token/lookup-self", "").await.0, 403);
    });
}

/// Commands under way, and rows of [`Table::Entries`] that they touch.
fn under_way(barrier: &Barrier) -> (usize, usize) {
    let pipeline = barrier.lock();
    (pipeline.in_flight, pipeline.overlay.count(Table::Entries))
}

#[test]
fn a_command_is_lost_with_its_thread_and_holds_up_nobody() {
    on_a_node(async |worker, _| {
        let barrier = &worker.app.barrier;
        // Again and again: what comes next may be decided before the lost one lands, or after.
        for rev in 1..=20 {
            let app = Arc::clone(&worker.app);
            let thread = std::thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
                let worker = Worker::new(app).unwrap();
                let facts = RefCell::new(Facts::of_server(&worker.app.barrier));
                runtime.block_on(async {
                    let mut write =
                        pin!(worker.write(&facts, |draft| draft.put(Table::Entries, &[1], Columns::default(), &[1])));
                    poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending())).await
                })
            });
            assert!(thread.join().unwrap(), "it was under way");
            assert_eq!(under_way(barrier), (0, 0));
            let facts = RefCell::new(Facts::of_server(barrier));
            worker.write(&facts, |draft| draft.put(Table::Entries, &[2], Columns::default(), &[2])).await.unwrap();
            for key in [[1], [2]] {
                assert_eq!(worker.reader().row(Table::Entries, &key).unwrap().map(|row| row.rev), Some(rev));
            }
        }
    });
}

#[test]
fn what_nobody_waits_for_lands() {
    on_a_node(async |worker, _| {
        let barrier = &worker.app.barrier;
        for key in [[1], [2], [1]] {
            let facts = RefCell::new(Facts::of_server(barrier));
            let mut write =
                pin!(worker.write(&facts, |draft| draft.put(Table::Entries, &key, Columns::default(), &key)));
            let begun = poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending())).await;
            assert!(begun, "it waits for the log");
        }
        assert_eq!(under_way(barrier), (3, 2));
        let landed = async {
            while under_way(barrier).0 > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), landed).await.expect("they land by themselves");
        assert_eq!(under_way(barrier), (0, 0), "nothing lies over the state any more");
        for (key, rev) in [([1], 2), ([2], 1)] {
            assert_eq!(worker.reader().row(Table::Entries, &key).unwrap().map(|row| row.rev), Some(rev));
        }
    });
}
