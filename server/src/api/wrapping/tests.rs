use std::rc::Rc;

use serde_json::Value;

use super::*;
use crate::pep;
use crate::testing::{ask, on_a_node, records, request};

/// A wrapping token whose content is `{"about": about}`.
async fn wrapped(worker: &Rc<Worker>, about: &str) -> String {
    let body = json!({ "about": about }).to_string();
    let mut asked = request(worker, "root", "POST", "sys/wrapping/wrap", &body);
    asked.wrap_ttl = Some(Duration::from_secs(60));
    let answer = pep::enforce(worker, &Rc::new(asked)).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.body(keyward_model::Id::ZERO)).unwrap();
    answer["wrap_info"]["token"].as_str().unwrap().to_owned()
}

async fn unwrap(worker: &Rc<Worker>, caller: &str, token: &str) -> (u16, Value) {
    ask(worker, caller, "POST", "sys/wrapping/unwrap", &json!({ "token": token }).to_string()).await
}

#[test]
fn a_wrapping_token_that_takes_out_another_spends_its_own_use() {
    on_a_node(async |worker, _| {
        let (own, other, third) =
            (wrapped(worker, "own").await, wrapped(worker, "other").await, wrapped(worker, "third").await);
        let (status, content) = unwrap(worker, &own, &other).await;
        assert_eq!((status, &content["data"]["about"]), (200, &json!("other")));
        assert_eq!(unwrap(worker, &own, &third).await.0, 403);
        assert_eq!(unwrap(worker, "root", &own).await.0, 400);
        assert_eq!(unwrap(worker, "root", &third).await.1["data"]["about"], json!("third"));
        // As header and body it is one token, and gives what it has.
        let both = wrapped(worker, "both").await;
        assert_eq!(unwrap(worker, &both, &both).await.1["data"]["about"], json!("both"));
    });
}

#[test]
fn a_wrong_token_in_the_body_costs_a_wrapping_token_nothing() {
    on_a_node(async |worker, _| {
        let own = wrapped(worker, "own").await;
        assert_eq!(unwrap(worker, &own, "typo").await.0, 400);
        let body = json!({ "token": "typo" }).to_string();
        let mut asked = request(worker, &own, "POST", "sys/wrapping/unwrap", &body);
        asked.callers_id = Some(crate::repeat::CallersId::read(b"0123456789abcdef").unwrap());
        assert_eq!(pep::enforce(worker, &Rc::new(asked)).await.unwrap().status, 400);
        assert_eq!(ask(worker, &own, "POST", "sys/wrapping/unwrap", "").await.1["data"]["about"], json!("own"));
    });
}

#[test]
fn a_refused_unwrap_is_recorded_with_its_caller() {
    on_a_node(async |worker, _| {
        let weak = json!({ "id": "weak", "policies": ["none"], "no_default_policy": true }).to_string();
        assert_eq!(ask(worker, "root", "POST", "auth/token/create", &weak).await.0, 200);
        let good = wrapped(worker, "good").await;
        assert_eq!(unwrap(worker, "weak", "guessed").await.0, 400);
        assert_eq!(unwrap(worker, "weak", &good).await.0, 403);
        assert_eq!(unwrap(worker, "nobody", &good).await.0, 403);
        assert_eq!(ask(worker, "weak", "GET", "sys/wrapping/unwrap", "").await.0, 400);
        let told: Vec<_> = records(worker)
            .into_iter()
            .rev()
            .take(4)
            .map(|record| (record["event"].clone(), record["subject"]["id"].is_string()))
            .collect();
        let consumed = json!("WRAP_CONSUMED");
        assert_eq!(told[3], (consumed.clone(), true), "{told:?}");
        assert_eq!(told[2], (consumed, true), "{told:?}");
        assert_eq!(told[1], (json!("AUTH_FAILURE"), false), "{told:?}");
        assert!(told[0].0 != json!("WRAP_CONSUMED") && told[0].1, "{told:?}");
        assert_eq!(unwrap(worker, "root", &good).await.0, 200);
    });
}
