//! Whichever node is asked, the answer is the right one.

use keyward_tests::cluster::Cluster;
use serde_json::json;

/// A node that does not lead, of a cluster of two.
fn two_nodes() -> (Cluster, usize, usize) {
    let cluster = Cluster::start(2);
    let leader = cluster.await_leader(&[0, 1]).0;
    let follower = cluster.others(&[leader])[0];
    (cluster, leader, follower)
}

#[test]
fn what_one_node_acknowledged_the_other_reads() {
    let (cluster, leader, follower) = two_nodes();
    let (mut here, mut there) = (cluster.client(follower), cluster.client(leader));
    for number in 1..=50 {
        let (write, read) = if number % 2 == 0 { (&mut here, &mut there) } else { (&mut there, &mut here) };
        let written = write.post("secret/data/app", &json!({"data": {"n": number}})).expect(200);
        assert_eq!(written.json()["data"]["version"], number);
        assert_eq!(read.get("secret/data/app").expect(200).json()["data"]["data"]["n"], number);
    }
    // What is refused is refused by the newest state, too.
    let stale = json!({"options": {"cas": 49}, "data": {"n": 0}});
    here.post("secret/data/app", &stale).expect(400);
    here.delete("secret/data/app").expect(204);
    there.get("secret/data/app").expect(404);
    here.list("secret/metadata/").expect(200);
}

#[test]
fn tokens_with_few_uses_and_wrapped_answers_are_spent_once_whichever_node_is_asked() {
    let (cluster, leader, follower) = two_nodes();
    let (mut here, mut there) = (cluster.client(follower), cluster.client(leader));
    let twice = json!({"num_uses": 2, "policies": ["default"]});
    let made = here.post("auth/token/create", &twice).expect(200).json();
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    here.with_token(&token).get("auth/token/lookup-self").expect(200);
    there.with_token(&token).get("auth/token/lookup-self").expect(200);
    here.with_token(&token).get("auth/token/lookup-self").expect(403);

    here.post("secret/data/app", &json!({"data": {"k": "v"}})).expect(200);
    let wrapped = here.call_with("GET", "secret/data/app", &[("X-Vault-Wrap-TTL", "60s")], None).expect(200).json();
    let token = wrapped["wrap_info"]["token"].as_str().unwrap().to_owned();
    let opened = there.with_token(&token).post("sys/wrapping/unwrap", &json!({})).expect(200).json();
    assert_eq!(opened["data"]["data"]["k"], "v");
    here.with_token(&token).post("sys/wrapping/unwrap", &json!({})).expect(400);
    // A revocation holds everywhere at once.
    let made = there.post("auth/token/create", &json!({"policies": ["default"]})).expect(200).json();
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    here.with_token(&token).get("auth/token/lookup-self").expect(200);
    there.post("auth/token/revoke", &json!({"token": token})).expect(204);
    here.with_token(&token).get("auth/token/lookup-self").expect(403);
}

#[test]
fn a_keyring_rotated_on_one_node_is_used_by_all() {
    let (cluster, leader, follower) = two_nodes();
    let (mut here, mut there) = (cluster.client(follower), cluster.client(leader));
    for round in 2..5 {
        here.put("sys/rotate", &json!({})).expect(204);
        there.put("sys/rotate/config", &json!({"interval": 86400 * round})).expect(204);
        let interval = format!("{}h0m0s", 24 * round);
        assert_eq!(here.get("sys/rotate/config").expect(200).json()["data"]["interval"], interval);
        assert_eq!(here.get("sys/key-status").expect(200).json()["data"]["term"], round);
        assert_eq!(there.get("sys/key-status").expect(200).json()["data"]["term"], round);
        there.post("secret/data/app", &json!({"data": {"n": round}})).expect(200);
        assert_eq!(here.get("secret/data/app").expect(200).json()["data"]["data"]["n"], round);
    }
    // Whoever leads next has the newest keyring, and everything opens with it.
    here.put("sys/step-down", &json!({})).expect(204);
    cluster.wait("the other leads", || (cluster.leader_among(&[leader, follower]) == Some(follower)).then_some(()));
    here.post("secret/data/app", &json!({"data": {"n": 9}})).expect(200);
    assert_eq!(there.get("secret/data/app").expect(200).json()["data"]["data"]["n"], 9);
}

#[test]
fn a_policy_ends_on_every_node_also_where_nobody_removes_it() {
    let (mut cluster, leader, follower) = two_nodes();
    let mut here = cluster.client(follower);
    here.post("secret/data/app", &json!({"data": {"k": "v"}})).expect(200);
    let policy = json!({"policy": "path \"secret/data/app\" { capabilities = [\"read\"] }", "ttl": "4s"});
    here.post("sys/policies/acl/brief", &policy).expect(204);
    let made = here.post("auth/token/create", &json!({"policies": ["brief"]})).expect(200).json();
    let mut brief = cluster.client(follower).with_token(made["auth"]["client_token"].as_str().unwrap());
    brief.get("secret/data/app").expect(200);
    cluster.kill(leader);
    let stale = ("X-Keyward-Consistency", "stale");
    let (_, after) = cluster.wait("the policy to end", || {
        let status = brief.call_with("GET", "secret/data/app", &[stale], None).status;
        assert!(matches!(status, 200 | 403), "{status}");
        (status == 403).then_some(())
    });
    assert!(after.as_secs() < 10, "it ended {after:?} after it was written");
    let gone = cluster.client(follower).call_with("GET", "sys/policies/acl/brief", &[stale], None);
    assert_eq!(gone.status, 404);
}

#[test]
fn a_move_of_a_mount_is_known_on_every_node() {
    let (cluster, leader, follower) = two_nodes();
    let (mut here, mut there) = (cluster.client(follower), cluster.client(leader));
    let moved = here.post("sys/remount", &json!({"from": "secret", "to": "kept"})).expect(200).json();
    let status = format!("sys/remount/status/{}", moved["data"]["migration_id"].as_str().unwrap());
    let expected = json!({"source_mount": "secret/", "target_mount": "kept/", "status": "success"});
    for client in [&mut here, &mut there] {
        assert_eq!(client.get(&status).expect(200).json()["data"]["migration_info"], expected);
    }
    // Also when another node leads, and the mount moved on.
    there.put("sys/step-down", &json!({})).expect(204);
    cluster.wait("the other leads", || (cluster.leader_among(&[leader, follower]) == Some(follower)).then_some(()));
    there.post("sys/remount", &json!({"from": "kept", "to": "secret"})).expect(200);
    for client in [&mut here, &mut there] {
        assert_eq!(client.get(&status).expect(200).json()["data"]["migration_info"], expected);
        client.get("sys/remount/status/00000000-0000-4000-8000-000000000000").expect(404);
    }
}

#[test]
fn a_stale_read_is_told_its_age_and_bounded_by_it() {
    let (mut cluster, leader, follower) = two_nodes();
    let mut here = cluster.client(follower);
    here.post("secret/data/app", &json!({"data": {"k": "v"}})).expect(200);
    let stale = ("X-Keyward-Consistency", "stale");
    assert!(here.get("secret/data/app").expect(200).header("X-Keyward-Age-Ms").is_none(), "current has no age");
    let answer = here.call_with("GET", "secret/data/app", &[stale], None).expect(200);
    assert!(answer.header("X-Keyward-Age-Ms").unwrap().parse::<u64>().unwrap() >= 1);
    // Without its leader the node has what it has: for a while, to whoever takes that, and to nobody else.
    cluster.kill(leader);
    cluster.wait("the age to grow", || {
        let answer = here.call_with("GET", "secret/data/app", &[stale], None);
        let age = answer.header("X-Keyward-Age-Ms")?.parse::<u64>().ok()?;
        (answer.status == 200 && age > 300).then_some(())
    });
    let narrow = [stale, ("X-Keyward-Max-Age-Ms", "100")];
    let refused = here.call_with("GET", "secret/data/app", &narrow, None).expect(503);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    here.get("secret/data/app").expect(503);
    let refused = here.post("secret/data/app", &json!({"data": {"k": "w"}})).expect(503);
    assert!(refused.text().contains("no node leads"), "{}", refused.text());
    cluster.restart(leader);
    cluster.settle();
    assert_eq!(here.get("secret/data/app").expect(200).json()["data"]["metadata"]["version"], 1, "nothing was written");
}

#[test]
fn what_a_client_says_about_itself_does_not_count() {
    let (cluster, leader, follower) = two_nodes();
    let forged = [("X-Keyward-Client", "203.0.113.9"), ("X-Keyward-Request", "00000000-0000-0000-0000-000000000000")];
    for node in [leader, follower] {
        let answer = cluster.client(node).call_with("POST", "secret/data/app", &forged, Some(&json!({"data": {}})));
        let answer = answer.expect(200).json();
        assert_ne!(answer["request_id"], "00000000-0000-0000-0000-000000000000");
    }
    let mut said = Vec::new();
    for node in [leader, follower] {
        for file in std::fs::read_dir(cluster.nodes[node].data.join("audit")).unwrap() {
            said.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("127."), "the caller's own address stands there");
    assert!(!said.contains("203.0.113.9"), "an address was believed");
}

#[test]
fn each_node_tells_what_it_is() {
    let (cluster, leader, follower) = two_nodes();
    cluster.client(leader).get("sys/health").expect(200);
    let standby = cluster.client(follower).get("sys/health").expect(429).json();
    assert_eq!((&standby["standby"], &standby["sealed"]), (&json!(true), &json!(false)));
    cluster.client(follower).call("GET", "sys/health?standbyok=true", None).expect(200);
    cluster.client(follower).call("GET", "sys/health?standbycode=299", None).expect(299);
    for (node, is_self) in [(leader, true), (follower, false)] {
        let told = cluster.client(node).get("sys/leader").expect(200).json();
        assert_eq!(told["is_self"], json!(is_self));
        assert_eq!(told["leader_address"], cluster.nodes[leader].address);
        assert_eq!(told["leader_cluster_address"], cluster.nodes[leader].node_address);
        let all = cluster.client(node).get("sys/ha-status").expect(200).json();
        let nodes = all["data"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 2);
        let active = nodes.iter().find(|node| node["active_node"] == true).unwrap();
        assert_eq!(active["api_address"], cluster.nodes[leader].address);
    }
}
