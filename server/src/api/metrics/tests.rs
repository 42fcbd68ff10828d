use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::json;

use super::*;
use crate::pep;
use crate::testing::{ask, on_a_node, request};

/// Status and text of what a token is told.
async fn scrape(worker: &Rc<Worker>, token: &str) -> (u16, String) {
    let asked = Rc::new(request(worker, token, "GET", "sys/metrics?format=prometheus", ""));
    let answer = pep::enforce(worker, &asked).await.unwrap();
    (answer.status, String::from_utf8(answer.body(asked.id)).unwrap())
}

/// Samples by name and labels, of a text that is as OpenMetrics has it.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("keyward_"), "{line}");
        assert!(found.insert(name, value.parse().unwrap()).is_none(), "twice: {line}");
    }
    found
}

#[test]
fn numbers_move() {
    on_a_node(async |worker, _| {
        let (status, before) = scrape(worker, "root").await;
        assert_eq!(status, 200, "{before}");
        assert_eq!(ask(worker, "root", "PUT", "sys/policies/acl/a", r#"{"policy":"path \"a\" {}"}"#).await.0, 204);
        let app = &worker.app;
        let _seat = app.gate.seat();
        app.gate.refused.connections.note();
        app.traffic.passed_on.note();
        app.traffic.link_failures.note();
        let before = samples(&before);
        // Raft tells how far it is a moment after it answered: looked at until it has.
        let mut text = String::new();
        for _ in 0..1000 {
            text = scrape(worker, "root").await.1;
            if samples(&text)["keyward_applied_index"] > before["keyward_applied_index"] {
                break;
            }
        }
        let after = samples(&text);
        let moved = |name: &str| after[name] - before[name];
        for name in ["keyward_committed_index", "keyward_applied_index", "keyward_log_bytes"] {
            assert!(moved(name) > 0.0, "{name}");
        }
        for name in [
            "keyward_connections",
            "keyward_connections_refused_total",
            "keyward_requests_passed_on_total",
            "keyward_link_failures_total",
        ] {
            assert_eq!(moved(name), 1.0, "{name}");
        }
        for (name, value) in [
            ("keyward_leads", 1.0),
            ("keyward_leader_known", 1.0),
            ("keyward_voters", 1.0),
            ("keyward_sealed", 0.0),
            ("keyward_disk_full", 0.0),
            ("keyward_audit_late", 0.0),
        ] {
            assert_eq!(after[name], value, "{name}");
        }
        let build =
            format!("keyward_build_info{{version=\"{}\",api_version=\"{}\"}}", build::VERSION, build::API_VERSION);
        assert_eq!(after[build.as_str()], 1.0);
    });
}

#[test]
fn whoever_may_read_them_is_told() {
    on_a_node(async |worker, _| {
        let policy = json!({ "policy": "path \"sys/metrics\" { capabilities = [\"read\"] }" }).to_string();
        assert_eq!(ask(worker, "root", "PUT", "sys/policies/acl/watch", &policy).await.0, 204);
        for (id, policy) in [("watcher", "watch"), ("stranger", "default")] {
            let token = json!({ "id": id, "policies": [policy] }).to_string();
            assert_eq!(ask(worker, "root", "POST", "auth/token/create", &token).await.0, 200);
        }
        for (token, expected) in [("", 403), ("nobody", 403), ("stranger", 403), ("watcher", 200), ("root", 200)] {
            let (status, text) = scrape(worker, token).await;
            assert_eq!(status, expected, "{token}: {text}");
            assert_eq!(text.contains("keyward_"), expected == 200, "{token}: {text}");
        }
        for (method, path, expected) in [
            ("GET", "sys/metrics", 200),
            ("GET", "sys/metrics?format=json", 400),
            ("GET", "sys/metrics/more?format=prometheus", 404),
            ("DELETE", "sys/metrics", 405),
        ] {
            let (status, body) = ask(worker, "root", method, path, "").await;
            assert_eq!(status, expected, "{method} {path}: {body}");
        }
        worker.app.seal();
        assert_eq!(scrape(worker, "watcher").await.0, 503);
    });
}

#[test]
fn without_a_format_they_are_json_as_vault_has_it() {
    on_a_node(async |worker, _| {
        worker.app.traffic.passed_on.note();
        let (status, told) = ask(worker, "root", "GET", "sys/metrics", "").await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["Timestamp"], "2023-11-14 22:13:20 +0000 UTC");
        let named = |list: &str, name: &str| {
            let found = told[list].as_array().unwrap().iter().find(|sample| sample["Name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {told}")).clone()
        };
        assert_eq!(named("Gauges", "keyward_sealed")["Value"], 0.0);
        assert_eq!(named("Gauges", "keyward_build_info")["Labels"]["version"], build::VERSION);
        assert_eq!(named("Counters", "keyward_requests_passed_on")["Count"], 1.0);
        let (_, text) = scrape(worker, "root").await;
        let lists = ["Gauges", "Counters"].map(|list| told[list].as_array().unwrap().len());
        assert_eq!(lists.iter().sum::<usize>(), samples(&text).len(), "each number stands there once");
    });
}
