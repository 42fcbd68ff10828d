//! Who may not join a cluster, and what comes of trying: the one who tries is told why, and the cluster is none the worse.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_tests::cluster::Cluster;
use keyward_tests::load::{self, Load, Targets};
use keyward_tests::server::Server;
use keyward_tests::suite::{self, Chance};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The members, and that a write and a read work: whatever was tried did no harm.
#[track_caller]
fn assert_whole(cluster: &Cluster, members: usize) {
    cluster.settle();
    let listed = cluster.members(cluster.await_leader(&cluster.awake()).0).unwrap();
    assert_eq!(listed.len(), members, "{listed:?}");
    for node in cluster.awake() {
        cluster.client(node).put("secret/data/whole", &json!({"data": {"by": node}})).expect(200);
        let read = cluster.client(node).get("secret/data/whole").expect(200).json();
        assert_eq!(read["data"]["data"]["by"], json!(node));
    }
}

#[test]
fn bad_tokens_let_nobody_in() {
    let mut cluster = Cluster::start(1);
    let good = cluster.join_token(0, &json!({}));
    let short = cluster.join_token(0, &json!({"ttl": "1s"}));
    let named = cluster.join_token(0, &json!({"name": "somebody-else"}));
    suite::rest(Duration::from_millis(1500));
    let forged = |part| Text::of(&good).with(part);
    for (name, token) in [
        ("no token at all", "root".to_owned()),
        ("an empty one", String::new()),
        ("one that lost its end", good[..good.len() - 3].to_owned()),
        (
            "one with a letter changed",
            good[..20].to_owned() + if &good[20..21] == "A" { "B" } else { "A" } + &good[21..],
        ),
        ("another secret", forged(Part::Secret)),
        ("another id", forged(Part::Id)),
        ("another authority, as a stranger in between would need", forged(Part::Authority)),
        ("another cluster", forged(Part::Cluster)),
        ("one that has ended", short),
        ("one for a node of another name", named),
    ] {
        let node = cluster.add();
        let said = cluster.join(node, &token).expect_err(name);
        eprintln!("join: {name}: {}", last_line(&said));
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert!(token.len() < 20 || !said.contains(&token), "{name}: the token is in what the node said: {said}");
        assert_eq!(cluster.members(0).unwrap().len(), 1, "{name}");
        cluster.nodes.pop();
        std::fs::remove_dir_all(cluster.folder().join(format!("node{node}"))).unwrap();
    }
    // None of them used up the good one, which is good for one node.
    let second = cluster.add();
    cluster.join(second, &good).unwrap();
    cluster.settle();
    let third = cluster.add();
    let said = cluster.join(third, &good).expect_err("a token that was used");
    eprintln!("join: a token that was used: {}", last_line(&said));
    cluster.nodes.pop();
    assert_whole(&cluster, 2);
}

#[test]
fn a_folder_that_belongs_elsewhere_does_not_join() {
    let mut cluster = Cluster::start(1);
    let token = cluster.join_token(0, &json!({}));
    let node = cluster.add();
    // A server of its own was there before.
    {
        let mut server = Server::durable(&cluster.nodes[node].data);
        server.initialise();
        assert!(server.stop().success());
    }
    let said = cluster.join(node, &token).expect_err("a folder with a state of its own");
    eprintln!("join: a folder with a state of its own: {}", last_line(&said));
    // It is still what it was.
    let mut server = Server::durable(&cluster.nodes[node].data);
    assert_eq!(server.seal_status()["sealed"], json!(false));
    assert!(server.stop().success());
    cluster.nodes.pop();
    assert_whole(&cluster, 1);
}

#[test]
fn a_member_that_was_removed_does_not_come_back_by_itself() {
    let mut cluster = Cluster::start(3);
    let gone = cluster.others(&[cluster.await_leader(&[0, 1, 2]).0])[0];
    let listed = cluster.members(gone).unwrap();
    let is_gone = |member: &&Value| member["api_address"] == cluster.nodes[gone].address;
    let id = listed.iter().find(is_gone).unwrap()["id"].as_str().unwrap().to_owned();
    let rest = cluster.others(&[gone]);
    cluster.client(rest[0]).delete(&format!("sys/cluster/members/{id}")).expect(204);
    cluster.wait("two members", || (cluster.members(rest[0])?.len() == 2).then_some(()));
    // Its own answers are worth nothing from now on: it does not know what the others write.
    cluster.client(rest[0]).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
    let said = cluster.await_end(gone);
    assert!(said.contains("was removed from the cluster"), "{said}");
    let said = match cluster.try_restart(gone) {
        Err(said) => said,
        Ok(()) => cluster.await_end(gone),
    };
    assert!(said.contains("was removed from the cluster"), "{said}");
    assert_whole(&cluster, 2);
}

#[test]
fn of_two_removals_at_once_that_would_stop_the_cluster_one_is_refused() {
    let mut cluster = Cluster::start(4);
    let leader = cluster.await_leader(&[0, 1, 2, 3]).0;
    let others = cluster.others(&[leader]);
    let (lost, second, third) = (others[0], others[1], others[2]);
    cluster.kill(lost);
    let of = |node: usize| {
        let listed = cluster.members(leader)?;
        listed.into_iter().find(|member| member["api_address"] == cluster.nodes[node].address)
    };
    cluster.wait("the lost one is silent", || (of(lost)?["last_heard_ms"].as_u64()? > 2000).then_some(()));
    // Either may go, and then 2 of 3 are there. Without both, the leader would be 1 of 2.
    let remove = |node: usize| {
        let path = format!("sys/cluster/members/{}", of(node).unwrap()["id"].as_str().unwrap());
        let mut client = cluster.client(leader);
        move || client.delete(&path)
    };
    let (remove_second, remove_third) = (remove(second), remove(third));
    let answers = std::thread::scope(|scope| {
        [scope.spawn(remove_second), scope.spawn(remove_third)].map(|removal| removal.join().unwrap())
    });
    let mut statuses = answers.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400], "{:?}", answers.map(|answer| answer.text()));
    cluster.wait("three members", || (cluster.members(leader)?.len() == 3).then_some(()));
    cluster.client(leader).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
}

#[test]
fn a_copy_of_a_member_is_not_one_more_vote() {
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("join, copy");
    let leader = cluster.await_leader(&[0, 1, 2]).0;
    let original = cluster.others(&[leader])[0];
    cluster.stop(original);
    let copy = cluster.add();
    copy_folder(&cluster.nodes[original].data, &cluster.nodes[copy].data);
    cluster.restart(original);
    cluster.settle();
    // It finds that the node was started since it was copied, whoever leads.
    let refused = |cluster: &Cluster, copy: usize| {
        cluster.wait("the copy says why it ends", || {
            let said = cluster.server(copy).stderr();
            said.contains("only the last one that was started is the node").then_some(())
        });
    };
    let load = Load::new("copy", &mut chance);
    let targets = Targets::new(&cluster, &[0, 1, 2]);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(100);
        cluster.restart(copy);
        refused(&cluster, copy);
        drop(cluster.await_end(copy));
        watch.progress(100);
        cluster.kill(leader);
        let left = cluster.others(&[leader, copy]);
        // Also where it is the original itself that leads.
        for wanted in left.iter().copied().filter(|node| *node != original).chain([original]) {
            let leads = cluster.await_leader(&left).0;
            if leads != wanted {
                cluster.client(leads).call("PUT", "sys/step-down", None).expect(204);
                cluster.await_leader(&[wanted]);
            }
            cluster.restart(copy);
            refused(&cluster, copy);
            drop(cluster.await_end(copy));
        }
        cluster.restart(leader);
    });
    cluster.settle();
    run.look(&cluster, &[0, 1, 2]);
    run.judge("copy", 200);

    assert_whole(&cluster, 3);

    // One that was copied from a node as it runs takes its place: then the first one ends. The others go on.
    let number = cluster.add();
    cluster.pause(original);
    copy_folder(&cluster.nodes[original].data, &cluster.nodes[number].data);
    cluster.resume(original);
    cluster.restart(number);
    refused(&cluster, original);
    drop(cluster.await_end(original));
    cluster.kill(number);
    let leader = cluster.await_leader(&cluster.others(&[original, number])).0;
    cluster.client(leader).put("secret/data/after", &json!({"data": {"x": 1}})).expect(200);
}

#[test]
fn rubbish_on_the_node_port_harms_nobody() {
    let cluster = Cluster::start(2);
    let mut chance = Chance::announced("join, rubbish");
    let mut rubbish = |length: usize| -> Vec<u8> { (0..length).map(|_| chance.word() as u8).collect() };
    // A TLS record that promises more than comes, HTTP, nothing, and bytes of chance.
    let mut inputs = vec![
        Vec::new(),
        b"\x16\x03\x01\x40\x00\x01".to_vec(),
        b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 1 << 20],
    ];
    inputs.extend([1, 5, 100, 10_000, 100_000].map(&mut rubbish));
    let mut silent = Vec::new();
    for node in [0, 1] {
        for input in &inputs {
            let mut stream = TcpStream::connect(&cluster.nodes[node].node_address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // It may hang up before all is written; that is an answer.
            stream.write_all(input).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
            assert!(answer.len() < 4096, "{} bytes of answer to rubbish", answer.len());
        }
        // Others connect and say nothing.
        for _ in 0..200 {
            silent.push(TcpStream::connect(&cluster.nodes[node].node_address).unwrap());
        }
    }
    assert_whole(&cluster, 2);
    drop(silent);
    for node in [0, 1] {
        let log = cluster.server(node).stderr();
        assert!(!log.contains("panicked"), "node {node}: {log}");
    }
}

/// A part of a token.
#[derive(Clone, Copy)]
enum Part {
    Cluster,
    Authority,
    Id,
    Secret,
}

/// A token taken apart: a stranger can do that, too.
struct Text {
    prefix: String,
    content: Vec<u8>,
}

impl Text {
    fn of(token: &str) -> Self {
        let (prefix, body) = token.split_once('.').unwrap();
        let mut content = URL_SAFE_NO_PAD.decode(body).unwrap();
        content.truncate(content.len() - 4);
        Self { prefix: prefix.to_owned(), content }
    }

    /// The token with one bit of a part changed, and a sum that is right again.
    fn with(mut self, part: Part) -> String {
        // Cluster and authority, a count of addresses, each with its length, the id, the secret.
        let mut after_addresses = 49;
        for _ in 0..self.content[48] {
            after_addresses += 1 + usize::from(self.content[after_addresses]);
        }
        let at = match part {
            Part::Cluster => 0,
            Part::Authority => 16,
            Part::Id => after_addresses,
            Part::Secret => after_addresses + 16,
        };
        self.content[at + 5] ^= 1;
        let sum = Sha256::digest(&self.content);
        self.content.extend_from_slice(&sum[..4]);
        format!("{}.{}", self.prefix, URL_SAFE_NO_PAD.encode(&self.content))
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "cp of {}", from.display());
}

fn last_line(said: &str) -> &str {
    said.trim_end().lines().last().unwrap_or_default()
}
