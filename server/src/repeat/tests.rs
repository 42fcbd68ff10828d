use std::rc::Rc;

use keyward_model::Row;
use serde_json::{Value, json};

use super::*;
use crate::app::Worker;
use crate::jobs::repeats;
use crate::pep;
use crate::testing::{ask, on_a_node, request};

/// Status and body of a write with an id.
async fn send(worker: &Rc<Worker>, token: &str, id: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut asked = request(worker, token, method, path, body);
    asked.callers_id = Some(CallersId::read(id.as_bytes()).unwrap());
    let answer = pep::enforce(worker, &Rc::new(asked)).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body(Id::ZERO)).unwrap_or_default())
}

async fn newest(worker: &Rc<Worker>, path: &str) -> Value {
    ask(worker, "root", "GET", &format!("secret/metadata/{path}"), "").await.1["data"]["current_version"].clone()
}

fn error(answer: &Value) -> &str {
    answer["errors"][0].as_str().unwrap_or_default()
}

#[test]
fn what_takes_effect_once() {
    let value = r#"{"data":{"a":"1"}}"#;
    let cas = r#"{"data":{"a":"1"},"options":{"cas":0}}"#;
    // The write, and whether its answer comes again; else the caller is told that it was done.
    let cases: &[(&str, &str, &str, bool)] = &[
        ("PUT", "secret/data/plain", value, true),
        ("PUT", "secret/data/cas", cas, true),
        ("DELETE", "secret/data/there", "", true),
        ("PUT", "secret/undelete/there", r#"{"versions":[1]}"#, true),
        ("PUT", "secret/metadata/there", r#"{"max_versions":3}"#, true),
        ("PUT", "secret/destroy/there", r#"{"versions":[1]}"#, true),
        ("DELETE", "secret/metadata/there", "", true),
        ("PUT", "cubbyhole/mine", r#"{"a":"1"}"#, true),
        ("PUT", "sys/policies/acl/p", r#"{"policy":"path \"a\" {}"}"#, true),
        ("DELETE", "sys/policies/acl/p", "", true),
        ("PUT", "sys/mounts/more", r#"{"type":"kv"}"#, true),
        ("PUT", "sys/mounts/more/tune", r#"{"description":"d"}"#, true),
        ("PUT", "sys/mounts/more/tune", r#"{"options":{"version":"2"}}"#, true),
        ("PUT", "sys/remount", r#"{"from":"more","to":"less"}"#, true),
        ("DELETE", "sys/mounts/less", "", true),
        ("PUT", "sys/rotate", "", true),
        // Answers with a secret in them are not kept.
        ("PUT", "auth/token/create", "{}", false),
    ];
    on_a_node(async |worker, _| {
        assert_eq!(ask(worker, "root", "PUT", "secret/data/there", value).await.0, 200);
        for (number, (method, path, body, comes_again)) in cases.iter().enumerate() {
            let id = format!("id-{number}");
            let first = send(worker, "root", &id, method, path, body).await;
            assert!(first.0 < 300, "{method} {path}: {first:?}");
            let (sum, applied) = (worker.reader().meta().unwrap().sum, worker.app.barrier.generations().applied());
            let second = send(worker, "root", &id, method, path, body).await;
            let meta = worker.reader().meta().unwrap();
            assert_eq!((meta.sum, worker.app.barrier.generations().applied()), (sum, applied), "{method} {path}");
            if *comes_again {
                assert_eq!(second, first, "{method} {path}");
            } else {
                assert_eq!(second.0, 409, "{method} {path}: {second:?}");
                assert!(error(&second.1).contains("taken before"), "{second:?}");
            }
        }
        assert_eq!(newest(worker, "plain").await, 1);
    });
}

#[test]
fn an_id_is_one_callers_and_stands_for_one_request() {
    let (one, other) = (r#"{"data":{"a":"1"}}"#, r#"{"data":{"a":"2"}}"#);
    on_a_node(async |worker, clock| {
        let (_, made) = ask(worker, "root", "PUT", "auth/token/create", r#"{"policies":["root"]}"#).await;
        let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
        let first = send(worker, "root", "x", "PUT", "secret/data/s", one).await;
        assert_eq!(first.1["data"]["version"], 1);

        // Another request: nothing of it is done.
        for (method, path, body) in
            [("PUT", "secret/data/s", other), ("PUT", "secret/data/t", one), ("DELETE", "secret/data/s", "")]
        {
            let (status, answer) = send(worker, "root", "x", method, path, body).await;
            assert_eq!(status, 422, "{method} {path}: {answer}");
            assert!(error(&answer).contains("another request"), "{answer}");
        }
        assert_eq!(newest(worker, "s").await, 1);
        assert_eq!(newest(worker, "t").await, Value::Null);

        // Another caller, another id, no id.
        assert_eq!(send(worker, &token, "x", "PUT", "secret/data/s", one).await.1["data"]["version"], 2);
        assert_eq!(send(worker, "root", "y", "PUT", "secret/data/s", one).await.1["data"]["version"], 3);
        assert_eq!(ask(worker, "root", "PUT", "secret/data/s", one).await.1["data"]["version"], 4);
        assert_eq!(send(worker, "root", "x", "PUT", "secret/data/s", one).await, first);

        // What was refused was not done: it may come again.
        let cas = r#"{"data":{},"options":{"cas":4}}"#;
        assert_eq!(send(worker, "root", "z", "PUT", "secret/data/u", cas).await.0, 400);
        for _ in 0..4 {
            ask(worker, "root", "PUT", "secret/data/u", one).await;
        }
        assert_eq!(send(worker, "root", "z", "PUT", "secret/data/u", cas).await.1["data"]["version"], 5);
        assert_eq!(send(worker, "root", "z", "PUT", "secret/data/u", cas).await.1["data"]["version"], 5);

        // Two at once: one is done, both are told of it.
        let twice = tokio::join!(
            send(worker, "root", "w", "PUT", "secret/data/v", one),
            send(worker, "root", "w", "PUT", "secret/data/v", one)
        );
        assert_eq!(twice.0, twice.1);
        assert_eq!(newest(worker, "v").await, 1);

        // Its time is up.
        clock.advance(600);
        assert_eq!(send(worker, "root", "x", "PUT", "secret/data/s", other).await.1["data"]["version"], 5);
    });
}

#[test]
fn it_is_kept_within_bounds() {
    on_a_node(async |worker, clock| {
        let body = r#"{"data":{}}"#;
        let generations = worker.app.barrier.generations();
        let count = || worker.reader().count(Table::Repeats).unwrap();
        ask(worker, "root", "PUT", "secret/data/s", body).await;
        assert_eq!((count(), generations.repeats().all()), (0, 0), "a write without an id pays nothing");
        for number in 0..300 {
            send(worker, "root", &format!("{number}"), "PUT", "secret/data/s", body).await;
        }
        send(worker, "root", "0", "PUT", "secret/data/s", body).await;
        // A change that changes nothing, a refusal and a read leave no row.
        send(worker, "root", "none", "DELETE", "secret/data/absent", "").await;
        for id in ["read", "0"] {
            assert_eq!(send(worker, "root", id, "GET", "secret/data/s", "").await.0, 200);
        }
        assert_eq!((count(), generations.repeats().all()), (300, 300));

        assert_eq!(repeats::forget(worker).await, Ok(0));
        clock.advance(660);
        let mut removed = vec![];
        while removed.last() != Some(&0) {
            removed.push(repeats::forget(worker).await.unwrap());
        }
        assert_eq!(removed, [256, 44, 0]);
        assert_eq!((count(), generations.repeats().all()), (0, 0));
        assert!(generations.repeats().of.is_empty());
    });
}

/// As many more rows as `rows` of the caller `whose`.
fn fill(worker: &Worker, whose: &[u8], rows: u64) {
    let mut remembered = worker.app.barrier.generations().repeats();
    for _ in 0..rows {
        let row = Row { key: whose.to_vec(), rev: 1, group: vec![], due: None, head: None, body: vec![] };
        remembered.note(&Change::Put { table: Table::Repeats, row });
    }
}

#[test]
fn one_caller_does_not_take_the_place_of_others() {
    on_a_node(async |worker, _| {
        for id in ["a", "b", "c"] {
            let made = json!({ "id": id, "policies": ["root"] }).to_string();
            assert_eq!(ask(worker, "root", "POST", "auth/token/create", &made).await.0, 200);
        }
        let write =
            async |token: &str, id: &str| send(worker, token, id, "PUT", "secret/data/s", r#"{"data":{}}"#).await;
        let first = write("root", "1").await;
        assert_eq!(first.0, 200);
        let of_root = worker.reader().scan(Table::Repeats, None, 1).unwrap().remove(0).key;
        fill(worker, &of_root, KEPT_MAX_OF_ONE - 1);
        let (status, answer) = write("root", "2").await;
        assert_eq!(status, 503, "{answer}");
        assert!(error(&answer).starts_with("too many writes with an Idempotency-Key are remembered"), "{answer}");
        assert_eq!(newest(worker, "s").await, 1);
        assert_eq!(write("root", "1").await, first, "what is remembered stays so");
        assert_eq!(write("a", "1").await.0, 200);
        let revoke = async |token: &str| {
            let body = json!({ "token": token }).to_string();
            send(worker, "root", token, "PUT", "auth/token/revoke", &body).await.0
        };
        assert_eq!(revoke("b").await, 204, "a revocation is not put off");
        assert!(worker.session("b").unwrap().is_none());

        fill(worker, &[9; 32], KEPT_MAX);
        assert_eq!(write("a", "2").await.0, 503);
        assert_eq!(revoke("c").await, 204);

        *worker.app.barrier.generations().repeats() = Remembered::of_state(worker.reader()).unwrap();
        assert_eq!(worker.app.barrier.generations().repeats().all(), 2);
        assert_eq!(write("root", "2").await.0, 200);
    });
}

#[test]
fn what_is_due_by_the_clock_of_the_log_is_forgotten() {
    on_a_node(async |worker, clock| {
        send(worker, "root", "1", "PUT", "secret/data/s", r#"{"data":{}}"#).await;
        clock.advance(400);
        assert_eq!(repeats::forget(worker).await, Ok(0));
        // Another node led, whose clock goes before.
        let ahead = worker.app.barrier.now().plus_seconds(260);
        worker.app.barrier.generations().note_time(ahead);
        assert_eq!(repeats::forget(worker).await, Ok(1));
    });
}

#[test]
fn whoever_may_only_create_is_told_that_it_was_done() {
    on_a_node(async |worker, clock| {
        let policy = json!({ "policy": r#"path "secret/data/*" { capabilities = ["create"] }"# }).to_string();
        assert!(ask(worker, "root", "PUT", "sys/policies/acl/creates", &policy).await.0 < 300);
        let made = json!({ "id": "t", "policies": ["creates"] }).to_string();
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", &made).await.0, 200);
        let write = async |id: &str| send(worker, "t", id, "PUT", "secret/data/s", r#"{"data":{"a":"1"}}"#).await;
        let first = write("1").await;
        assert_eq!(first.0, 200, "{}", first.1);
        assert_eq!(write("1").await, first);
        assert_eq!(write("2").await.0, 403, "another write is an update");
        let other = send(worker, "t", "1", "PUT", "secret/data/s", r#"{"data":{"a":"2"}}"#).await;
        assert_eq!(other.0, 403, "{}", other.1);
        assert_eq!(newest(worker, "s").await, 1);
        clock.advance(KEPT_S);
        assert_eq!(write("1").await.0, 403, "its time is up");
    });
}

#[test]
fn only_some_answers_say_what_became_of_the_first() {
    on_a_node(async |worker, _| {
        let done = Done { digest: [0; 32], request: [0; 16], at: Timestamp(0), version: Some(2), answer: None };
        let repeated = Refusal::Repeated(Box::new(done));
        for face in [Face::Compatible, Face::Native] {
            let mut asked = request(worker, "root", "PUT", "secret/data/s", "{}");
            asked.face = face;
            let settles = |refusal: &Refusal| {
                let answer = crate::api::render_refusal(&asked, refusal);
                settles(answer.status, &answer.body(Id::ZERO))
            };
            assert!(settles(&repeated), "{face:?}");
            assert!(settles(&Refusal::Problem(Problem::ID_REUSED)), "{face:?}");
            for open in [
                Refusal::Unauthenticated,
                Refusal::Denied,
                Refusal::malformed("x"),
                Refusal::Absent,
                Refusal::NotLeader,
                Refusal::AuditUnavailable,
                Refusal::Problem(Problem::CAS_MISMATCH),
            ] {
                assert!(!settles(&open), "{face:?} {open:?}");
            }
        }
        assert!(settles(204, b"") && settles(200, b"{}"));
    });
}

#[test]
fn a_wrapped_answer_comes_wrapped_anew() {
    on_a_node(async |worker, _| {
        let mut tokens = vec![];
        for _ in 0..2 {
            let mut asked = request(worker, "root", "PUT", "secret/data/s", r#"{"data":{"a":"1"}}"#);
            asked.callers_id = Some(CallersId::read(b"x").unwrap());
            asked.wrap_ttl = Some(std::time::Duration::from_secs(60));
            let answer = pep::enforce(worker, &Rc::new(asked)).await.unwrap();
            let body: Value = serde_json::from_slice(&answer.body(Id::ZERO)).unwrap();
            tokens.push(body["wrap_info"]["token"].as_str().unwrap().to_owned());
        }
        assert_ne!(tokens[0], tokens[1]);
        for token in tokens {
            let (_, inside) = ask(worker, &token, "PUT", "sys/wrapping/unwrap", "").await;
            assert_eq!(inside["data"]["version"], json!(1));
        }
        assert_eq!(newest(worker, "s").await, 1);
    });
}

#[test]
fn ids_have_a_form() {
    for fine in ["1", "6f1d…".trim_end_matches('…'), &"x".repeat(128), "\"quoted\""] {
        assert!(CallersId::read(fine.as_bytes()).is_ok(), "{fine}");
    }
    for bad in ["", "a b", "a\tb", "ä", &"x".repeat(129)] {
        assert!(CallersId::read(bad.as_bytes()).is_err(), "{bad}");
    }
}
