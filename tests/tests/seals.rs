//! Clusters that people unseal, by shares and by a passphrase: each node by its own, and what a sealed one does meanwhile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use keyward_tests::cluster::Cluster;
use keyward_tests::suite;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];
const PASSPHRASE: &str = "correct horse battery staple";

/// Three nodes under this seal, the first unsealed, and what opens the others. They help each other or not.
fn founded(kind: &str, init: &Value, help: bool) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::unfounded();
    let founder = add(&mut cluster, kind, help);
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
        let joiner = add(&mut cluster, kind, help);
        cluster.join(joiner, &token).unwrap();
    }
    (cluster, keys)
}

fn add(cluster: &mut Cluster, kind: &str, help: bool) -> usize {
    let node = cluster.add();
    cluster.nodes[node].configure(|table| drop(table.insert("seal".to_owned(), toml::toml! { kind = kind }.into())));
    set_help(cluster, node, help);
    node
}

/// Whether a node helps others, and asks them for help, from its next start on.
fn set_help(cluster: &Cluster, node: usize, help: bool) {
    cluster.nodes[node].configure(|table| {
        let seal = table["seal"].as_table_mut().unwrap();
        seal.insert("peer_unseal".to_owned(), help.into());
    });
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
    let (mut cluster, keys) = founded(kind, init, false);
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

const SHARES: &str = r#"{"secret_shares": 3, "secret_threshold": 2}"#;

/// Three nodes that people unseal, and that help each other, all unsealed.
fn helpful() -> (Cluster, Vec<String>) {
    let (cluster, keys) = founded("shamir", &serde_json::from_str(SHARES).unwrap(), true);
    cluster.settle();
    ALL.into_iter().for_each(|node| await_unsealed(&cluster, node));
    (cluster, keys)
}

fn seal_status(cluster: &Cluster, node: usize) -> Value {
    cluster.client(node).get("sys/seal-status").json()
}

fn await_unsealed(cluster: &Cluster, node: usize) {
    cluster.wait(&format!("node {node} is unsealed"), || {
        (seal_status(cluster, node)["sealed"] == json!(false)).then_some(())
    });
}

/// Its turns to ask come at 0.25, 0.75, 1.75 s; nobody gave it anything until then.
fn assert_stays_sealed(cluster: &Cluster, node: usize) {
    cluster.settle();
    suite::rest(Duration::from_secs(3));
    assert_silent(cluster, node);
}

/// The records of a node's audit trail so far.
fn records(cluster: &Cluster, node: usize) -> Vec<Value> {
    let mut files: Vec<_> =
        std::fs::read_dir(cluster.nodes[node].data.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    let lines = files.into_iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.trim_end_matches('\0').lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    });
    lines.collect()
}

/// Who was given the root key, or not, by the records of all nodes: the giver, the asker's id, how it ended.
fn givings(cluster: &Cluster) -> Vec<(usize, Value, Value)> {
    let of = |node: usize| {
        let given = records(cluster, node).into_iter().filter(|record| record["action"] == json!("unseal_member"));
        given.map(move |record| (node, record["subject"]["id"].clone(), record["outcome"].clone())).collect::<Vec<_>>()
    };
    (0..cluster.nodes.len()).flat_map(of).collect()
}

/// The id of a member.
fn id(cluster: &Cluster, at: usize, node: usize) -> Value {
    let members = cluster.members(at).unwrap();
    members.into_iter().find(|member| member["name"] == json!(format!("node{node}"))).unwrap()["id"].clone()
}

#[test]
fn members_unseal_each_other_where_they_were_told_to() {
    let (mut cluster, keys) = helpful();
    assert_eq!(seal_status(&cluster, 0)["keyward_peer_unseal"], json!("on"));
    write(&cluster, 0, 1);
    // Nobody had shares for the other two: each was given the key once, which is on record on both sides.
    let ids = ALL.map(|node| id(&cluster, 0, node));
    for node in [1, 2] {
        let given: Vec<_> = givings(&cluster).into_iter().filter(|(_, asker, _)| *asker == ids[node]).collect();
        assert!(
            matches!(&given[..], [(giver, _, outcome)] if *giver != node && *outcome == json!("success")),
            "{given:?}"
        );
        let opened = records(&cluster, node).into_iter().filter(|record| record["event"] == json!("SYS_UNSEAL"));
        let opened: Vec<_> = opened.collect();
        assert_eq!(opened.len(), 1, "{opened:?}");
        assert_eq!(opened[0]["subject"], json!({"id": ids[given[0].0], "type": "node"}), "{opened:?}");
        let told =
            records(&cluster, node).into_iter().filter(|record| record["change"]["object"] == json!("peer unseal"));
        assert_eq!(told.count(), 1, "that it was told to is on record, for its one start");
    }
    // After a restart the same, whoever it is.
    for node in [2, cluster.await_leader(&ALL).0] {
        cluster.kill(node);
        cluster.restart(node);
        await_unsealed(&cluster, node);
        cluster.settle();
        assert_read(&cluster, node, 1);
    }
    // All at once: people are needed, for one.
    ALL.into_iter().for_each(|node| cluster.kill(node));
    ALL.into_iter().for_each(|node| cluster.restart(node));
    suite::rest(Duration::from_secs(2));
    ALL.into_iter().for_each(|node| assert_silent(&cluster, node));
    assert_eq!(seal_status(&cluster, 1)["keyward_peer_unseal"], json!("asking"));
    unseal(&cluster, 1, &keys);
    ALL.into_iter().for_each(|node| await_unsealed(&cluster, node));
    cluster.settle();
    ALL.into_iter().for_each(|node| assert_read(&cluster, node, 1));
}

#[test]
fn a_passphrase_is_asked_for_once() {
    let (mut cluster, _) = founded("passphrase", &json!({ "passphrase": PASSPHRASE }), true);
    cluster.settle();
    ALL.into_iter().for_each(|node| await_unsealed(&cluster, node));
    write(&cluster, 0, 1);
    cluster.kill(0);
    cluster.restart(0);
    await_unsealed(&cluster, 0);
    cluster.settle();
    assert_read(&cluster, 0, 1);
}

#[test]
fn nobody_is_unsealed_where_one_side_was_not_told_to() {
    let (mut cluster, keys) = helpful();
    // It may ask, and the others may not give.
    for node in [0, 1] {
        set_help(&cluster, node, false);
        cluster.stop(node);
        cluster.restart(node);
        unseal(&cluster, node, &keys);
        cluster.settle();
    }
    let id = id(&cluster, 0, 2);
    let denied = |cluster: &Cluster| {
        let refused =
            |(giver, asker, outcome): &(usize, Value, Value)| *giver != 2 && *asker == id && *outcome == json!("deny");
        givings(cluster).iter().filter(|giving| refused(giving)).count()
    };
    cluster.kill(2);
    cluster.restart(2);
    cluster.wait("it asked the others", || (denied(&cluster) >= 2).then_some(()));
    let (said, _) = cluster.wait("it says why", || {
        let said = cluster.server(2).stderr();
        said.contains("not switched on here").then_some(said)
    });
    assert!(!said.contains("panicked"), "{said}");
    assert_silent(&cluster, 2);
    assert!(seal_status(&cluster, 0).get("keyward_peer_unseal").is_none());

    // They may give, and it may not ask.
    set_help(&cluster, 2, false);
    cluster.stop(2);
    for node in [0, 1] {
        set_help(&cluster, node, true);
        cluster.stop(node);
        cluster.restart(node);
        unseal(&cluster, node, &keys);
    }
    // The others may give the keys to each other.
    let asked = |cluster: &Cluster| givings(cluster).iter().filter(|(_, asker, _)| *asker == id).count();
    let before = asked(&cluster);
    cluster.restart(2);
    assert_stays_sealed(&cluster, 2);
    assert_eq!(asked(&cluster), before);
    unseal(&cluster, 2, &keys);
    cluster.settle();
}

#[test]
fn what_people_sealed_stays_sealed_until_people_unseal_it() {
    let (mut cluster, keys) = helpful();
    write(&cluster, 0, 1);
    let follower = cluster.others(&[cluster.await_leader(&ALL).0])[0];
    cluster.client(follower).call("PUT", "sys/seal", None).expect(204);
    assert_stays_sealed(&cluster, follower);
    assert_eq!(seal_status(&cluster, follower)["keyward_peer_unseal"], json!("held"));
    // Not by a restart either, of it or of the others.
    cluster.kill(follower);
    cluster.restart(follower);
    assert_stays_sealed(&cluster, follower);
    assert_eq!(seal_status(&cluster, follower)["keyward_peer_unseal"], json!("held"));
    // Once people unsealed it, it is like the others again.
    unseal(&cluster, follower, &keys);
    assert_read(&cluster, follower, 1);
    cluster.kill(follower);
    cluster.restart(follower);
    await_unsealed(&cluster, follower);
}

#[test]
fn a_member_that_was_removed_is_not_unsealed() {
    let (mut cluster, _) = helpful();
    let leader = cluster.await_leader(&ALL).0;
    let gone = cluster.others(&[leader])[0];
    let id = id(&cluster, leader, gone);
    cluster.kill(gone);
    cluster.client(leader).delete(&format!("sys/cluster/members/{}", id.as_str().unwrap())).expect(204);
    let before = givings(&cluster).len();
    let said = match cluster.try_restart(gone) {
        Err(said) => said,
        Ok(()) => cluster.await_end(gone),
    };
    assert!(said.contains("was removed from the cluster"), "{said}");
    let given = givings(&cluster).split_off(before);
    assert!(given.iter().all(|(.., outcome)| *outcome != json!("success")), "{given:?}");
}
