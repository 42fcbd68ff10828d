//! A node takes the place of another one in one command, and the cluster can do no less meanwhile than before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use keyward_tests::cluster::Cluster;
use keyward_tests::load::{self, Load, Targets};
use keyward_tests::suite::Chance;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];

/// The id of a node, as the members show it.
fn id_of(cluster: &Cluster, at: usize, node: usize) -> String {
    let members = cluster.members(at).unwrap();
    let is_it = |member: &&Value| member["api_address"] == cluster.nodes[node].address;
    members.iter().find(is_it).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_new_disk_takes_the_place_of_a_lost_one_at_the_same_address() {
    let mut cluster = Cluster::start(3);
    let lost = cluster.others(&[cluster.await_leader(&ALL).0])[0];
    let rest = cluster.others(&[lost]);
    let old = id_of(&cluster, rest[0], lost);
    cluster.kill(lost);
    std::fs::remove_dir_all(&cluster.nodes[lost].data).unwrap();
    let refused = cluster.client(rest[0]).post("sys/cluster/join-token", &json!({"replace": "nobody"}));
    assert_eq!(refused.status, 400, "{}", refused.text());
    // By its name, as an operator would.
    let token = cluster.join_token(rest[0], &json!({"replace": format!("node{lost}")}));
    let mut chance = Chance::announced("replace, lost");
    let load = Load::new("replace", &mut chance);
    let targets = Targets::new(&cluster, &rest);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(50);
        cluster.join(lost, &token).unwrap();
        cluster.wait("the new one has the place", || {
            let members = cluster.members(cluster.leader_among(&rest)?)?;
            let voters: Vec<_> = members.iter().filter(|member| member["role"] == "voter").collect();
            (members.len() == 3 && voters.iter().all(|voter| voter["id"] != old.as_str())).then_some(())
        });
        cluster.settle();
        watch.progress(50);
    });
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    run.look(&cluster, &ALL);
    run.judge("replace", 100);
    // One more may be lost now.
    let leader = cluster.await_leader(&ALL).0;
    let other = cluster.others(&[leader, lost])[0];
    cluster.kill(other);
    cluster.client(lost).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
}

#[test]
fn a_node_that_still_runs_is_replaced_and_the_leader_dies_meanwhile() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader(&ALL).0;
    let old = cluster.others(&[leader])[0];
    let id = id_of(&cluster, leader, old);
    let token = cluster.join_token(leader, &json!({"replace": id}));
    let second = cluster.client(leader).post("sys/cluster/join-token", &json!({"replace": id})).expect(200).json();
    let new = cluster.add();
    cluster.join(new, &token).unwrap();
    let again = cluster.add();
    let said = cluster.join(again, second["data"]["join_token"].as_str().unwrap()).expect_err("a second successor");
    assert!(said.contains("takes the place of this member already"), "{said}");
    cluster.nodes.pop();
    cluster.kill(leader);
    let (_, election) = cluster.await_leader(&cluster.others(&[leader]));
    eprintln!("replace: another leads {election:?} after the leader died");
    cluster.wait("the next leader goes on", || {
        let members = cluster.members(cluster.leader_among(&cluster.awake())?)?;
        let known = |id: &str| members.iter().any(|member| member["id"] == id);
        (members.len() == 3 && !known(&id)).then_some(())
    });
    let said = cluster.await_end(old);
    assert!(said.contains("removed"), "{said}");
    cluster.restart(leader);
    cluster.settle();
    cluster.client(new).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
    let read = cluster.client(new).get("secret/data/after").expect(200).json();
    assert_eq!(read["data"]["data"]["x"], json!(1));
}
