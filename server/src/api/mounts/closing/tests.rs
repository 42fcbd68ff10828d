use std::rc::Rc;

use super::*;
use crate::api::kv1;
use crate::barrier::Columns;
use crate::jobs;
use crate::testing::{ask, on_a_node};

/// A KV v1 mount `m` with these entries.
async fn filled(worker: &Rc<Worker>, entries: &[(String, usize)]) {
    assert_eq!(ask(worker, "root", "POST", "sys/mounts/m", r#"{"type":"kv"}"#).await.0, 204);
    let tree = kv1::entries(mount(worker).id);
    for some in entries.chunks(64) {
        let put = |draft: &mut Draft<'_>| {
            for (path, bytes) in some {
                let body = format!(r#"{{"k":"{}"}}"#, "x".repeat(*bytes));
                tree.add_folders(draft, path)?;
                let key = tree.key(draft.keyring(), path);
                draft.put(Table::Entries, &key, Columns::default(), body.as_bytes())?;
            }
            Ok(())
        };
        worker.write(&RefCell::new(facts_of_server(worker)), put).await.unwrap();
    }
}

fn mount(worker: &Worker) -> Mount {
    Mount::clone(worker.tables().unwrap().mounts.get("m/").unwrap())
}

/// What the first command of a request does that then ends.
async fn close(worker: &Worker, closed: Closed) {
    let mut mount = mount(worker);
    mount.closed = Some(closed);
    let put = |draft: &mut Draft<'_>| put(draft, &mount);
    worker.write(&RefCell::new(facts_of_server(worker)), put).await.unwrap();
}

fn count(worker: &Worker) -> [u64; 4] {
    [Table::Entries, Table::Secrets, Table::SecretIds, Table::Folders]
        .map(|table| worker.reader().count(table).unwrap())
}

fn nested(count: usize) -> Vec<(String, usize)> {
    (0..count).map(|number| (format!("f{}/g{}/{number}", number % 7, number % 3), 10)).collect()
}

#[test]
fn a_raise_that_was_left_is_gone_on_with() {
    on_a_node(async |worker, _| {
        filled(worker, &nested(600)).await;
        close(worker, Closed::Raising).await;
        assert_eq!(ask(worker, "root", "GET", "m/f0/g0/0", "").await.0, 503);
        for (method, path, body) in [
            ("POST", "sys/remount", r#"{"from":"m","to":"n"}"#),
            ("POST", "sys/mounts/m/tune", r#"{"description":"x"}"#),
            ("PUT", "m/new", r#"{"k":"v"}"#),
        ] {
            assert_eq!(ask(worker, "root", method, path, body).await.0, 503, "{path}");
        }
        let facts = RefCell::new(facts_of_server(worker));
        assert_eq!(Closing::of(&mount(worker)).step(worker, &facts).await.unwrap(), Left::Some);
        assert_eq!(count(worker), [600 - LEAVES_PER_COMMAND as u64, 256, 256, 28]);
        // What a new process knows: nothing but the rows.
        jobs::closing::Progress::default().turn(worker).await.unwrap();
        assert_eq!(count(worker), [0, 600, 600, 28]);
        for number in [0, 1, 255, 256, 599] {
            let path = format!("m/data/f{}/g{}/{number}", number % 7, number % 3);
            let (status, body) = ask(worker, "root", "GET", &path, "").await;
            assert_eq!((status, body["data"]["data"]["k"].as_str()), (200, Some("xxxxxxxxxx")), "{path}");
        }
        assert_eq!(ask(worker, "root", "POST", "sys/remount", r#"{"from":"m","to":"n"}"#).await.0, 200);
    });
}

#[test]
fn a_raise_that_was_left_can_be_removed_whole() {
    on_a_node(async |worker, _| {
        filled(worker, &nested(300)).await;
        close(worker, Closed::Raising).await;
        let facts = RefCell::new(facts_of_server(worker));
        assert_eq!(Closing::of(&mount(worker)).step(worker, &facts).await.unwrap(), Left::Some);
        assert_eq!(ask(worker, "root", "DELETE", "sys/mounts/m", "").await.0, 204);
        assert_eq!(count(worker), [0; 4]);
        assert!(worker.tables().unwrap().mounts.get("m/").is_none());
    });
}

#[test]
fn a_command_holds_little_of_large_entries() {
    on_a_node(async |worker, _| {
        filled(worker, &[]).await;
        for number in 0..4 {
            let body = format!(r#"{{"k":"{}"}}"#, "x".repeat(600 << 10));
            assert_eq!(ask(worker, "root", "PUT", &format!("m/{number}"), &body).await.0, 204);
        }
        close(worker, Closed::Raising).await;
        let (mut closing, facts) = (Closing::of(&mount(worker)), RefCell::new(facts_of_server(worker)));
        for left in [3, 2, 1, 0] {
            assert_eq!(closing.step(worker, &facts).await.unwrap(), Left::Some);
            assert_eq!(count(worker)[0], left);
        }
        assert_eq!(closing.step(worker, &facts).await.unwrap(), Left::Nothing);
        assert_eq!(mount(worker).kind, Kind::Kv2);
    });
}
