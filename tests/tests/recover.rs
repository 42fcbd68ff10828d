//! A majority is lost for good: the node that is left goes on alone, with all that it had, and nobody else's word counts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

use keyward_tests::cluster::Cluster;
use keyward_tests::server::{Server, binary};
use keyward_tests::suite;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];
/// Writes that are acknowledged before the loss.
const WRITES: usize = 60;

/// `keyward operator recover` on a data folder.
fn recover(data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["operator", "recover", "--data"]).arg(data).args(more);
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

/// That it is refused, and why.
#[track_caller]
fn assert_refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{}\n{said}", output.status);
}

fn cluster_id(cluster: &Cluster, node: usize) -> String {
    cluster.client(node).get("sys/seal-status").json()["cluster_id"].as_str().unwrap().to_owned()
}

#[test]
fn the_last_node_goes_on_with_all_it_had_and_lets_no_old_one_in() {
    let mut cluster = Cluster::start(3);
    for number in 0..WRITES {
        let path = format!("secret/data/kept{number}");
        cluster.client(number % 3).put(&path, &json!({"data": {"number": number}})).expect(200);
    }
    cluster.agree(&ALL);
    let leader = cluster.await_leader(&ALL).0;
    let [survivor, lost] = cluster.others(&[leader])[..] else { panic!("two followers") };
    let before = cluster_id(&cluster, survivor);
    let data = cluster.nodes[survivor].data.clone();
    assert_refused(&recover(&data, &["--yes"]), "in use");

    cluster.stop(survivor);
    assert_refused(&recover(&data, &["--yes"]), "the cluster goes on");
    cluster.kill(leader);
    let (output, _) = cluster.wait("the rest has no leader", || {
        let output = recover(&data, &["--yes"]);
        (!String::from_utf8_lossy(&output.stderr).contains("has a leader: ")).then_some(output)
    });
    assert_refused(&output, "2 of 3 voters are a majority");
    cluster.kill(lost);
    std::fs::remove_dir_all(&cluster.nodes[lost].data).unwrap();

    let looked = recover(&data, &["--check", "-format=json"]);
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    let known: Value = serde_json::from_slice(&looked.stdout).unwrap();
    let last = known["last_index"].as_u64().unwrap();
    assert!(last >= WRITES as u64 && known["left_out"].as_array().unwrap().len() == 2, "{known}");
    assert!(known["left_out"][0]["now"] == "does not answer", "{known}");
    assert_refused(&recover(&data, &[]), "nobody agreed");
    let done = recover(&data, &["--yes"]);
    eprintln!("{}{}", String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
    assert!(done.status.success(), "{}", done.status);

    cluster.restart(survivor);
    let (id, _) = cluster.wait("the node goes on", || {
        let answer = cluster.client(survivor).get("secret/data/kept0");
        (answer.status == 200).then(|| cluster_id(&cluster, survivor))
    });
    assert_ne!(id, before, "another cluster");
    for number in 0..WRITES {
        let read = cluster.client(survivor).get(&format!("secret/data/kept{number}")).expect(200).json();
        assert_eq!(read["data"]["data"]["number"], json!(number));
    }
    let found = audited(&data);
    assert!(found.iter().any(|object| object.contains(&format!("alone from entry {last} "))), "{found:?}");

    // One that was lost comes back with all its data: it is told, and nobody takes its word.
    cluster.restart(leader);
    cluster.wait("the old node says why", || {
        cluster.server(leader).stderr().contains("not of this cluster any more").then_some(())
    });
    assert_eq!(cluster.client(leader).get("secret/data/kept0").status, 503);
    let members = cluster.members(survivor).unwrap();
    assert!(members.len() == 1 && members[0]["role"] == "voter", "{members:?}");
    cluster.client(survivor).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
    cluster.kill(leader);

    // New ones join, and the node that went on may be restarted like any other.
    for _ in 0..2 {
        let token = cluster.join_token(survivor, &json!({}));
        let joiner = cluster.add();
        cluster.join(joiner, &token).unwrap();
    }
    cluster.settle();
    cluster.kill(survivor);
    cluster.restart(survivor);
    cluster.settle();
    for node in cluster.awake() {
        let read = cluster.client(node).get("secret/data/after").expect(200).json();
        assert_eq!(read["data"]["data"]["x"], json!(1), "node {node}");
        assert_eq!(cluster_id(&cluster, node), id);
    }
}

#[test]
fn a_node_without_a_cluster_has_nothing_to_recover() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert_refused(&recover(&data, &["--yes"]), "there is no node here");
    assert!(!data.exists());
    let mut server = Server::durable(&data);
    assert!(server.stop().success());
    assert_refused(&recover(&data, &["--yes"]), "never initialised");
    let mut server = Server::durable(&data);
    server.initialise();
    assert!(server.stop().success());
    assert_refused(&recover(&data, &["--yes"]), "alone");
    let server = Server::durable(&data);
    assert_eq!(server.seal_status()["sealed"], json!(false));
}

/// What the audit trail says was changed, after a check that it is whole.
fn audited(data: &Path) -> Vec<String> {
    let folder = data.join("audit");
    let verified = Command::new(binary()).args(["audit", "verify"]).arg(&folder).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    let records = files.flat_map(|path| {
        let lines = suite::read(&path);
        lines.lines().map(|line| line.trim_end_matches('\0').to_owned()).collect::<Vec<_>>()
    });
    records
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter_map(|record| Some(record["change"]["object"].as_str()?.to_owned()))
        .collect()
}
