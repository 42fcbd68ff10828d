use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;

use super::*;
use crate::app::Worker;
use crate::jobs::policies::remove_ended;
use crate::record::Facts;
use crate::testing::{ask, on_a_node, records};

const TEXT: &str = "path \"secret/data/a\" { capabilities = [\"read\"] }";

#[test]
fn names_come_before_the_folders_beside_them() {
    let mut names = vec!["b/z", "a", "b/a/x", "c", "b", "b/b/y", "c/x", "b/b/x", "-"];
    names.sort_unstable_by(|a, b| listed_before(a, b));
    assert_eq!(names, ["-", "a", "b", "c", "c/x", "b/z", "b/b/x", "b/b/y", "b/a/x"]);
}

#[test]
fn a_policy_of_before_reads_as_one_without_an_end() {
    let row = br#"{"name":"a","text":"path \"a\" {}","modified":5,"version":3}"#;
    let expected = Stored { version: 3, ..Stored::new("a", "path \"a\" {}".into(), Timestamp(5)) };
    assert_eq!(policies::decode(row).unwrap(), expected);
}

#[test]
fn a_policy_that_has_ended_grants_nothing_and_is_not_there() {
    on_a_node(async |worker, clock| {
        let path = "sys/policies/acl/p";
        let write = |more: Value| {
            let mut body = json!({ "policy": TEXT });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body.to_string()
        };
        let ends = write(json!({ "ttl": 10, "cas": -1, "cas_required": true }));
        assert_eq!(ask(worker, "root", "PUT", path, &ends).await.0, 204);
        assert_eq!(ask(worker, "root", "PUT", "secret/data/a", r#"{"data":{"k":"v"}}"#).await.0, 200);
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", r#"{"id":"t","policies":["p"]}"#).await.0, 200);

        clock.advance(10);
        assert_eq!(ask(worker, "t", "GET", "secret/data/a", "").await.0, 200);
        assert_eq!(remove_ended(worker).await.unwrap(), 0);
        clock.advance(1);
        assert_eq!(ask(worker, "t", "GET", "secret/data/a", "").await.0, 403);
        assert_eq!(ask(worker, "root", "GET", path, "").await.0, 404);
        let listed = ask(worker, "root", "LIST", "sys/policies/acl", "").await.1;
        assert_eq!(listed["data"]["keys"], json!(["default", "root"]));

        let rows = worker.reader().count(Table::Policies).unwrap();
        assert_eq!(remove_ended(worker).await.unwrap(), 1);
        assert_eq!(worker.reader().count(Table::Policies).unwrap(), rows - 1);
        assert_eq!(remove_ended(worker).await.unwrap(), 0);
    });
}

#[test]
fn a_policy_in_place_of_an_ended_one_begins_anew() {
    on_a_node(async |worker, clock| {
        let path = "sys/policies/acl/p";
        let ends = json!({ "policy": TEXT, "ttl": 10, "cas": -1, "cas_required": true }).to_string();
        assert_eq!(ask(worker, "root", "PUT", path, &ends).await.0, 204);
        clock.advance(11);
        let anew = json!({ "policy": TEXT, "cas": -1 }).to_string();
        assert_eq!(ask(worker, "root", "PUT", path, &anew).await.0, 204);
        assert_eq!(remove_ended(worker).await.unwrap(), 0);
        let read = ask(worker, "root", "GET", path, "").await.1;
        assert_eq!((&read["data"]["version"], &read["data"]["cas_required"]), (&json!(1), &json!(false)));
        assert_eq!(read["data"].get("expiration"), None);
    });
}

#[test]
fn a_name_with_blanks_needs_the_right_to_the_name_without() {
    on_a_node(async |worker, _| {
        let verbs = r#"capabilities = ["create", "read", "update", "patch", "delete"]"#;
        let rules = json!({ "policy": format!("path \"sys/policies/acl/p \" {{ {verbs} }}") }).to_string();
        assert_eq!(ask(worker, "root", "PUT", "sys/policies/acl/holder", &rules).await.0, 204);
        let token = r#"{"id":"t","policies":["holder"]}"#;
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", token).await.0, 200);
        let policy = json!({ "policy": TEXT }).to_string();
        let blank = "sys/policies/acl/p%20";
        assert_eq!(ask(worker, "root", "PUT", blank, &policy).await.0, 204);
        for method in ["PUT", "GET", "DELETE"] {
            assert_eq!(ask(worker, "t", method, blank, &policy).await.0, 403, "{method}");
        }
        assert_eq!(ask(worker, "root", "GET", "sys/policies/acl/p", "").await.0, 200);
    });
}

/// The texts of the audit records about objects of this kind.
fn records_of(worker: &Worker, object: &str) -> Vec<Value> {
    records(worker).into_iter().filter(|record| record["change"]["object"] == object).collect()
}

#[test]
fn the_record_of_an_end_names_the_policy_as_its_writing_did() {
    on_a_node(async |worker, clock| {
        for name in ["p", "q"] {
            let body = json!({ "policy": TEXT, "ttl": 10 }).to_string();
            assert_eq!(ask(worker, "root", "PUT", &format!("sys/policies/acl/{name}"), &body).await.0, 204);
        }
        clock.advance(11);
        assert_eq!(remove_ended(worker).await.unwrap(), 2);
        let named = |object: &str| {
            let mut names: Vec<_> =
                records_of(worker, object).iter().map(|record| record["resource_ref"].to_string()).collect();
            names.sort_unstable();
            names
        };
        let ended = named("expired policy");
        assert_eq!(ended, named("policy"));
        assert!(ended.len() == 2 && ended[0] != ended[1] && ended[0].starts_with("\"rr1."), "{ended:?}");
    });
}

#[test]
fn the_first_end_is_that_of_all_policies() {
    on_a_node(async |worker, _| {
        let first_end = || policies::first_end(&worker.tables().unwrap().policies);
        assert_eq!(first_end(), None);
        for (name, at) in [("p", 30), ("q", 20), ("r", 40)] {
            let body = json!({ "policy": TEXT, "ttl": at }).to_string();
            assert_eq!(ask(worker, "root", "PUT", &format!("sys/policies/acl/{name}"), &body).await.0, 204);
        }
        assert_eq!(first_end(), Some(worker.app.barrier.now().plus_seconds(20)));
    });
}

async fn store(worker: &Rc<Worker>, name: &str, text: &str) {
    let stored = Stored::new(name, text.to_owned(), worker.app.barrier.now());
    let facts = RefCell::new(Facts::of_server(&worker.app.barrier));
    worker.write(&facts, |draft| policies::put(draft, &stored)).await.unwrap();
}

#[test]
fn a_stored_policy_that_does_not_parse_takes_all_rights_of_who_holds_it() {
    on_a_node(async |worker, _| {
        store(worker, "p", TEXT).await;
        store(worker, "odd", "path \"secret/data/a\" { capabilities = [\"deny\"").await;
        let token = r#"{"id":"t","policies":["p","odd"],"no_default_policy":true}"#;
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", token).await.0, 200);
        assert_eq!(ask(worker, "root", "PUT", "secret/data/a", r#"{"data":{"k":"v"}}"#).await.0, 200);
        assert_eq!(ask(worker, "t", "GET", "secret/data/a", "").await.0, 403);

        let listed = ask(worker, "root", "LIST", "sys/policies/acl", "").await.1;
        assert_eq!(listed["data"]["keys"], json!(["default", "odd", "p", "root"]));
        assert_eq!(ask(worker, "root", "DELETE", "sys/policies/acl/odd", "").await.0, 204);
        assert_eq!(ask(worker, "t", "GET", "secret/data/a", "").await.0, 200);
    });
}

#[test]
fn null_in_a_list_denies_on_where_it_is_stored() {
    on_a_node(async |worker, _| {
        let text =
            r#"{"path":{"secret/*":{"capabilities":["create","update"],"denied_parameters":{"options":[null]}}}}"#;
        store(worker, "p", text).await;
        let token = r#"{"id":"t","policies":["p"],"no_default_policy":true}"#;
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", token).await.0, 200);
        let write = async |body: &str| ask(worker, "t", "PUT", "secret/data/a", body).await.0;
        assert_eq!(write(r#"{"data":{"k":"v"},"options":null}"#).await, 403);
        assert_eq!(write(r#"{"data":{"k":"v"}}"#).await, 200);
        let anew = json!({ "policy": text }).to_string();
        assert_eq!(ask(worker, "root", "PUT", "sys/policies/acl/q", &anew).await.0, 400);
    });
}

#[test]
fn the_default_policy_gets_no_end() {
    on_a_node(async |worker, _| {
        for (path, end) in [
            ("sys/policies/acl/default", json!({ "policy": TEXT, "ttl": 10 })),
            ("sys/policy/Default", json!({ "policy": TEXT, "expiration": "2100-01-01T00:00:00Z" })),
        ] {
            let (status, body) = ask(worker, "root", "PUT", path, &end.to_string()).await;
            assert_eq!((status, &body["errors"]), (400, &json!(["cannot set an end for default policy"])), "{path}");
        }
        assert_eq!(policies::first_end(&worker.tables().unwrap().policies), None);
    });
}
