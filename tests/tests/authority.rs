//! The authority that signs the nodes' certificates is exchanged, and nobody notices.

use keyward_tests::cluster::Cluster;
use keyward_tests::load::{self, Load, Targets};
use keyward_tests::suite::{self, Chance};
use serde_json::json;

const ALL: [usize; 3] = [0, 1, 2];

/// Where the exchange stands, by the leader's word.
fn phase(cluster: &Cluster) -> Option<String> {
    let leader = cluster.leader_among(&cluster.awake())?;
    let answer = cluster.ask(leader, "sys/cluster/members")?;
    answer["data"]["authority_rotation"].as_str().map(str::to_owned)
}

/// The authorities that a node trusts, as its folder says.
fn trusted(cluster: &Cluster, node: usize) -> String {
    suite::read(cluster.nodes[node].data.join("cluster").join("ca.pem"))
}

fn settled(cluster: &Cluster) {
    cluster.wait("the exchange is over", || (phase(cluster)? == "settled").then_some(()));
    cluster.wait("all trust one authority, the same", || {
        let first = trusted(cluster, 0);
        let one = first.matches("BEGIN CERTIFICATE").count() == 1;
        (one && ALL.iter().all(|node| trusted(cluster, *node) == first)).then_some(())
    });
}

#[test]
fn an_authority_follows_another_and_no_request_fails() {
    let mut cluster = Cluster::start(3);
    let before = trusted(&cluster, 0);
    let mut chance = Chance::announced("authority");
    let load = Load::new("authority", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(50);
        cluster.client(0).post("sys/cluster/rotate-ca", &json!({})).expect(204);
        settled(&cluster);
        watch.progress(50);
    });
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    run.look(&cluster, &ALL);
    run.judge("authority", 100);
    let after = trusted(&cluster, 0);
    assert_ne!(after, before);

    // It waits for one that is down, over a change of the leader, and a second one is not begun meanwhile.
    let down = cluster.others(&[cluster.await_leader(&ALL).0])[0];
    cluster.kill(down);
    let up = cluster.others(&[down]);
    cluster.client(up[0]).post("sys/cluster/rotate-ca", &json!({})).expect(204);
    let again = cluster.client(up[1]).post("sys/cluster/rotate-ca", &json!({}));
    assert_eq!(again.status, 400, "{}", again.text());
    cluster.wait("those that are up trust both", || {
        up.iter().all(|node| trusted(&cluster, *node).matches("BEGIN CERTIFICATE").count() == 2).then_some(())
    });
    let leader = cluster.await_leader(&up).0;
    cluster.client(leader).call("PUT", "sys/step-down", None).expect(204);
    cluster.await_leader(&up);
    assert_eq!(phase(&cluster).as_deref(), Some("announced"));
    cluster.restart(down);
    settled(&cluster);
    assert_ne!(trusted(&cluster, 0), after);

    // All of them start with it, and a new one joins.
    ALL.into_iter().for_each(|node| cluster.kill(node));
    ALL.into_iter().for_each(|node| cluster.restart(node));
    cluster.settle();
    let token = cluster.join_token(1, &json!({}));
    let joiner = cluster.add();
    cluster.join(joiner, &token).unwrap();
    cluster.settle();
}
