//! Clusters that people unseal, by shares and by a passphrase: each node by its own, and what a sealed one does meanwhile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use keyward_tests::cluster::Cluster;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];
const PASSPHRASE: &str = "correct horse battery staple";

/// Three nodes under this seal, the first unsealed, and what opens the others.
fn founded(kind: &str, init: &Value) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::unfounded();
    let founder = add(&mut cluster, kind);
    cluster.restart(founder);
    let answer = cluster.client(founder).without_token().put("sys/init", init).expect(200).json();
    cluster.root = answer["root_token"].as_str().unwrap().to_owned();
    let shares = answer["keys_base64"].as_array().cloned().unwrap_or_default();
    let mut keys: Vec<String> = shares.iter().map(|share| share.as_str().unwrap().to_owned()).collect();
    if keys.is_empty() {
        keys.push(PASSPHRASE.to_owned());
    }
    unseal(&cluster, founder, &keys);
    cluster.wait("the founder leads", || cluster.leader_among(&[founder]));
    cluster.client(founder).put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    for _ in 1..ALL.len() {
        let token = cluster.join_token(founder, &json!({}));
        let joiner = add(&mut cluster, kind);
        cluster.join(joiner, &token).unwrap();
    }
    (cluster, keys)
}

fn add(cluster: &mut Cluster, kind: &str) -> usize {
    let node = cluster.add();
    cluster.nodes[node].configure(|table| drop(table.insert("seal".to_owned(), toml::toml! { kind = kind }.into())));
    node
}

/// Gives a node as many keys as it needs.
fn unseal(cluster: &Cluster, node: usize, keys: &[String]) {
    if cluster.client(node).get("sys/seal-status").json()["sealed"] == json!(false) {
        return; // init leaves it so
    }
    for key in keys.iter().take(2) {
        let answer = cluster.client(node).without_token().put("sys/unseal", &json!({ "key": key })).expect(200).json();
        if answer["sealed"] == json!(false) {
            return;
        }
    }
    panic!("node {node} stays sealed");
}

fn write(cluster: &Cluster, node: usize, number: u64) {
    cluster.client(node).put(&format!("secret/data/n{number}"), &json!({"data": {"n": number}})).expect(200);
}

#[track_caller]
fn assert_read(cluster: &Cluster, node: usize, number: u64) {
    let answer = cluster.client(node).get(&format!("secret/data/n{number}")).expect(200).json();
    assert_eq!(answer["data"]["data"]["n"], json!(number), "node {node}");
}

/// It tells its health and nothing else.
#[track_caller]
fn assert_silent(cluster: &Cluster, node: usize) {
    let health = cluster.client(node).get("sys/health");
    assert_eq!(health.status, 503, "{}", health.text());
    assert!(health.json()["sealed"] == json!(true) && health.json()["initialized"] == json!(true), "{}", health.text());
    for path in ["secret/data/n1", "sys/mounts", "sys/cluster/members", "auth/token/lookup-self"] {
        let answer = cluster.client(node).get(path);
        assert!(
            answer.status == 503 && answer.text().contains("sealed"),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let answer = cluster.client(node).put("secret/data/n1", &json!({"data": {}}));
    assert_eq!(answer.status, 503, "{}", answer.text());
}

fn live_through(kind: &str, init: &Value) {
    let (mut cluster, keys) = founded(kind, init);
    // Sealed ones get everything and vote.
    cluster.settle();
    write(&cluster, 0, 1);
    cluster.agree(&ALL);
    assert_silent(&cluster, 1);
    assert_silent(&cluster, 2);
    cluster.kill(2);
    write(&cluster, 0, 2); // with the vote of a sealed one
    cluster.restart(2);
    // Nobody but the unsealed one may lead.
    cluster.client(0).call("PUT", "sys/step-down", None);
    assert_eq!(cluster.await_leader(&ALL).0, 0);

    // Each is unsealed by itself; the next one is not by that.
    unseal(&cluster, 1, &keys);
    assert_read(&cluster, 1, 2);
    assert_silent(&cluster, 2);
    unseal(&cluster, 2, &keys);
    assert_read(&cluster, 2, 2);
    cluster.kill(0);
    let leader = cluster.await_leader(&[1, 2]).0;
    write(&cluster, leader, 3);

    // A power cut: all are sealed, nobody leads; the one that is unsealed first does.
    cluster.restart(0);
    cluster.settle();
    ALL.into_iter().for_each(|node| cluster.kill(node));
    ALL.into_iter().for_each(|node| cluster.restart(node));
    ALL.into_iter().for_each(|node| assert_silent(&cluster, node));
    assert_eq!(cluster.leader_among(&ALL), None);
    unseal(&cluster, 1, &keys);
    assert_eq!(cluster.await_leader(&ALL).0, 1);
    assert_read(&cluster, 1, 3);
    write(&cluster, 1, 4);
    cluster.agree(&ALL);
    unseal(&cluster, 0, &keys);
    assert_read(&cluster, 0, 4);
}

#[test]
fn a_cluster_is_unsealed_by_shares_node_by_node() {
    live_through("shamir", &json!({"secret_shares": 3, "secret_threshold": 2}));
}

#[test]
fn a_cluster_is_unsealed_by_a_passphrase_node_by_node() {
    live_through("passphrase", &json!({ "passphrase": PASSPHRASE }));
}

#[test]
fn whoever_has_a_token_may_come_to_any_node() {
    let mut cluster = Cluster::start(2);
    let follower = cluster.others(&[cluster.await_leader(&[0, 1]).0])[0];
    // The leader makes it, whoever is asked; what it names first is itself. Then the other one leads.
    let token = cluster.join_token(follower, &json!({}));
    let leader = cluster.await_leader(&[0, 1]).0;
    cluster.client(leader).call("PUT", "sys/step-down", None).expect(204);
    cluster.wait("the other one leads", || cluster.leader_among(&[follower]));
    let joiner = cluster.add();
    cluster.join(joiner, &token).unwrap();
    cluster.settle();
}
