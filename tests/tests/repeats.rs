//! A write that comes again with its caller's id takes effect once, whichever node leads by then.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyward_tests::client::Client;
use keyward_tests::cluster::Cluster;
use keyward_tests::suite;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];
/// Callers at once, two thirds of them on nodes that do not lead.
const WRITERS: usize = 9;
/// Leaders that are killed.
const KILLS: usize = 3;

fn write(client: &mut Client, path: &str, id: &str, body: &Value) -> std::io::Result<(u16, Value)> {
    let answer = client.try_call("POST", path, &[("Idempotency-Key", id)], Some(body))?;
    Ok((answer.status, answer.json()))
}

#[test]
fn the_leader_dies_after_it_did_the_write_and_before_it_said_so() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader(&ALL).0;
    let other = cluster.others(&[leader])[0];
    let body = json!({"data": {"k": "v"}});
    // A caller that never hears the answer.
    let host = cluster.nodes[leader].address.trim_start_matches("http://").to_owned();
    let text = body.to_string();
    let (root, length) = (&cluster.root, text.len());
    let request = format!(
        "POST /v1/secret/data/app HTTP/1.1\r\nHost: {host}\r\nX-Vault-Token: {root}\r\nIdempotency-Key: once\r\nContent-Length: {length}\r\n\r\n{text}"
    );
    let mut deaf = TcpStream::connect(&host).unwrap();
    deaf.write_all(request.as_bytes()).unwrap();
    let mut there = cluster.client(other);
    cluster.wait("the write to be done", || (there.get("secret/data/app").status == 200).then_some(()));
    cluster.kill(leader);
    drop(deaf);

    for _ in 0..2 {
        let (status, answer) = write(&mut there, "secret/data/app", "once", &body).unwrap();
        assert_eq!((status, &answer["data"]["version"]), (200, &json!(1)), "{answer}");
    }
    let (status, answer) = write(&mut there, "secret/data/app", "once", &json!({"data": {"k": "w"}})).unwrap();
    assert_eq!(status, 422, "{answer}");
    let (_, answer) = write(&mut there, "secret/data/app", "twice", &body).unwrap();
    assert_eq!(answer["data"]["version"], 2, "another id is another write");
    cluster.restart(leader);
    cluster.settle();
}

#[test]
fn no_version_is_missing_and_none_is_twice_there_when_leaders_die() {
    let mut cluster = Cluster::start(3);
    let (stop, again, unknown, written) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address.clone()).collect();
    let root = cluster.root.clone();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (addresses, root) = (&addresses, &root);
            let (stop, again, unknown, written) = (&stop, &again, &unknown, &written);
            scope.spawn(move || {
                let mut at = writer;
                for number in 1u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (id, body) = (format!("{writer}-{number}"), json!({"data": {"n": number}}));
                    let version = loop {
                        let mut client = Client::new(&addresses[at % 3], root);
                        match write(&mut client, &format!("secret/data/w{writer}"), &id, &body) {
                            Ok((200, answer)) => break answer["data"]["version"].clone(),
                            Ok((503, answer)) => {
                                unknown
                                    .fetch_add(u64::from(answer.to_string().contains("not known")), Ordering::Relaxed);
                            }
                            Ok(other) => panic!("{other:?}"),
                            // Its node was killed, maybe with the write in its hands.
                            Err(_) => at += 1,
                        }
                        again.fetch_add(1, Ordering::Relaxed);
                    };
                    assert_eq!(version, number, "writer {writer}: a version is missing or doubled");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let progress = |cluster: &Cluster| {
            let enough = written.load(Ordering::Relaxed) + 150;
            cluster.wait("writes", || (written.load(Ordering::Relaxed) >= enough).then_some(()));
        };
        for _ in 0..KILLS {
            progress(&cluster);
            let leader = cluster.await_leader(&ALL).0;
            cluster.kill(leader);
            progress(&cluster);
            cluster.restart(leader);
            cluster.settle();
        }
        progress(&cluster);
        stop.store(true, Ordering::Relaxed);
    });
    let (again, unknown) = (again.into_inner(), unknown.into_inner());
    let repeated = repeated(&cluster);
    eprintln!(
        "repeats: {} writes, {again} sent again, {repeated} of them were done already, {unknown} told as not known",
        written.into_inner()
    );
    assert!(again > 0, "no write was sent again: the kills did not hit any");
}

/// How many writes were answered from what was remembered of them, by the records of all nodes.
fn repeated(cluster: &Cluster) -> usize {
    let mut records = Vec::new();
    for node in &cluster.nodes {
        for file in std::fs::read_dir(node.data.join("audit")).unwrap() {
            records.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    String::from_utf8_lossy(&records).matches("\"REQUEST_REPEATED\"").count()
}

/// Rounds in which the leader dies with writes in its hands, and writes of each.
const ROUNDS: u64 = 6;
const BURST: usize = 24;

/// Passes on `count` keyed writes through `node` while `kill` runs; each must be answered as done, once, without its caller
/// sending it again. How many were sent before and answered after the kill.
fn pass_on(cluster: &mut Cluster, node: usize, round: &str, count: usize, kill: impl FnOnce(&mut Cluster)) -> usize {
    let (sent, address, root) = (AtomicU64::new(0), cluster.nodes[node].address.clone(), cluster.root.clone());
    let began = Instant::now();
    let (killed, times) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..count)
            .map(|number| {
                let (sent, mut client) = (&sent, Client::new(&address, &root));
                scope.spawn(move || {
                    client.connect().unwrap();
                    let (id, path) = (format!("{round}-{number}"), format!("secret/data/{round}/w{number}"));
                    let start = began.elapsed();
                    sent.fetch_add(1, Ordering::SeqCst);
                    let (status, answer) = write(&mut client, &path, &id, &json!({"data": {"n": number}})).unwrap();
                    assert_eq!((status, &answer["data"]["version"]), (200, &json!(1)), "{answer}");
                    (start, began.elapsed())
                })
            })
            .collect();
        cluster.wait("all writes are sent", || (sent.load(Ordering::SeqCst) as usize == count).then_some(()));
        kill(cluster);
        let killed = began.elapsed();
        (killed, writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>())
    });
    let late = times.iter().filter(|(start, end)| *start < killed && killed < *end).count();
    for number in 0..count {
        let answer = cluster.client(node).get(&format!("secret/metadata/{round}/w{number}")).expect(200).json();
        assert_eq!(answer["data"]["versions"].as_object().unwrap().len(), 1, "{answer}");
    }
    late
}

#[test]
fn a_node_that_passed_a_write_on_asks_the_next_leader_itself() {
    let mut cluster = Cluster::start(3);
    // The leader stands still: it has the writes, and did none of them.
    let leader = cluster.await_leader(&ALL).0;
    let other = cluster.others(&[leader])[0];
    cluster.pause(leader);
    let late = pass_on(&mut cluster, other, "still", BURST, |cluster| {
        suite::rest(Duration::from_millis(100));
        cluster.kill(leader);
    });
    assert_eq!(late, BURST, "each was in the hands of a leader that died");
    cluster.restart(leader);
    cluster.settle();
    // It dies while it works: some are done, and their answers lost.
    let mut late = 0;
    for round in 0..ROUNDS {
        let leader = cluster.await_leader(&ALL).0;
        let other = cluster.others(&[leader])[0];
        late += pass_on(&mut cluster, other, &format!("round{round}"), BURST, |cluster| {
            suite::rest(Duration::from_millis(2 * round));
            cluster.kill(leader);
        });
        cluster.restart(leader);
        cluster.settle();
    }
    let (all, repeated) = (ROUNDS as usize * BURST, repeated(&cluster));
    eprintln!("repeats: {late} of {all} writes were answered after their leader had died, {repeated} were done before");
    assert!(late > 0, "no kill hit a write");
}
