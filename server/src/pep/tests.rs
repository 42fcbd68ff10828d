use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use keyward_model::Table;
use serde_json::json;

use super::*;
use crate::testing::{ask, on_a_node, request};

/// Lets a future begin, and says whether it is done.
async fn begin(life: &mut Pin<Box<impl Future>>) -> bool {
    poll_fn(|context| Poll::Ready(life.as_mut().poll(context).is_ready())).await
}

#[test]
fn what_a_request_began_is_done_though_nobody_waits() {
    on_a_node(async |worker, _| {
        assert_eq!(ask(worker, "root", "POST", "sys/mounts/m", r#"{"type":"kv"}"#).await.0, 204);
        for number in 0..300 {
            assert_eq!(ask(worker, "root", "PUT", &format!("m/f/{number}"), r#"{"k":"v"}"#).await.0, 204);
        }
        let before = worker.app.barrier.generations().applied();
        let mut life =
            Box::pin(async { enforce(worker, &Rc::new(request(worker, "root", "DELETE", "sys/mounts/m", ""))).await });
        assert!(!begin(&mut life).await);
        drop(life);
        worker.begun.all_ended().await;
        assert!(worker.app.barrier.generations().applied() > before + 2, "in several commands");
        assert_eq!(worker.reader().count(Table::Entries).unwrap(), 0);
        assert!(worker.tables().unwrap().mounts.get("m/").is_none());
    });
}

#[test]
fn a_read_that_takes_a_use_is_done_though_nobody_waits() {
    on_a_node(async |worker, _| {
        let once = json!({ "id": "once", "num_uses": 1, "policies": ["default"] }).to_string();
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", &once).await.0, 200);
        let mut life = Box::pin(async {
            enforce(worker, &Rc::new(request(worker, "once", "GET", "auth/token/lookup-self", ""))).await
        });
        assert!(!begin(&mut life).await);
        drop(life);
        worker.begun.all_ended().await;
        assert_eq!(worker.reader().count(Table::Tokens).unwrap(), 1, "only the root token is left");
    });
}

#[test]
fn a_seal_is_recorded_before_it_takes_effect() {
    on_a_node(async |worker, _| {
        let request = request(worker, "root", "PUT", "sys/seal", "");
        let mut life = Box::pin(live(worker, &request, Footing::Task));
        assert!(!begin(&mut life).await);
        assert!(!worker.app.barrier.is_sealed(), "its record is not durable yet");
        assert!(matches!(life.await, Ending::Answered(answer) if answer.status == 204));
        assert!(worker.app.barrier.is_sealed());
    });
}

#[test]
fn a_cubbyhole_write_that_races_with_the_revocation_leaves_nothing() {
    on_a_node(async |worker, _| {
        let made =
            ask(worker, "root", "POST", "auth/token/create-orphan", r#"{"id":"t","policies":["default"]}"#).await;
        assert_eq!(made.0, 200, "{}", made.1);
        assert_eq!(ask(worker, "t", "PUT", "cubbyhole/a", r#"{"k":"v"}"#).await.0, 204);
        let stale = worker.session("t").unwrap().unwrap();
        assert_eq!(ask(worker, "t", "PUT", "auth/token/revoke-self", "{}").await.0, 204);
        assert_eq!(worker.reader().count(Table::Entries).unwrap(), 0);
        // As another thread has it that found the token a moment before.
        let (_, generation) = worker.app.sessions.get(&stale.key);
        worker.app.sessions.put(stale, generation);
        assert_eq!(ask(worker, "t", "PUT", "cubbyhole/b", r#"{"k":"v"}"#).await.0, 403);
        for table in [Table::Entries, Table::Folders] {
            assert_eq!(worker.reader().count(table).unwrap(), 0);
        }
    });
}

#[test]
fn a_policy_name_in_capitals_needs_the_right_to_its_lower_case() {
    on_a_node(async |worker, _| {
        let verbs = r#"capabilities = ["create", "read", "update", "delete"]"#;
        for (holder, paths) in [("capitals", &["Foo"][..]), ("both", &["Foo", "foo"])] {
            let rules = paths.iter().flat_map(|name| {
                ["sys/policy", "sys/policies/acl"].map(|face| format!("path \"{face}/{name}\" {{ {verbs} }}"))
            });
            let policy = json!({ "policy": rules.collect::<Vec<_>>().join("\n") }).to_string();
            assert_eq!(ask(worker, "root", "PUT", &format!("sys/policy/{holder}"), &policy).await.0, 204);
            let token = json!({ "id": holder, "policies": [holder] }).to_string();
            assert_eq!(ask(worker, "root", "POST", "auth/token/create", &token).await.0, 200);
        }
        let policy = json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" }).to_string();
        for face in ["sys/policy/Foo", "sys/policies/acl/Foo"] {
            for (holder, status) in [("capitals", 403), ("both", 200)] {
                assert_eq!(ask(worker, holder, "PUT", face, &policy).await.0, status, "{holder} {face}");
                assert_eq!(ask(worker, holder, "GET", face, "").await.0, status, "{holder} {face}");
            }
            assert_eq!(ask(worker, "capitals", "DELETE", face, "").await.0, 403, "{face}");
            assert_eq!(ask(worker, "both", "DELETE", face, "").await.0, 204, "{face}");
        }
    });
}

#[test]
fn what_took_a_use_or_has_no_token_is_not_begun_anew() {
    on_a_node(async |worker, _| {
        let mut asked = request(worker, "root", "PUT", "secret/data/s", "{}");
        let facts = RefCell::new(Facts::new(asked.id, asked.received, None, "vault"));
        assert!(untouched(&facts) && !may_begin_again(&asked, &facts));
        asked.callers_id = Some(crate::repeat::CallersId::read(b"x").unwrap());
        assert!(!may_begin_again(&asked, &facts), "without a token nothing is kept under the id");
        facts.borrow_mut().token = Some(Arc::clone(&worker.session("root").unwrap().unwrap().name));
        assert!(may_begin_again(&asked, &facts));
        facts.borrow_mut().use_taken = true;
        assert!(!untouched(&facts) && !may_begin_again(&asked, &facts));
    });
}
