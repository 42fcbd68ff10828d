//! The audit of a whole cluster: its nodes remember where each of their streams stands, so that an edit, a cut end and a
//! second history of any of them is found, in which file and from which record on.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_audit::{AuditKey, Durability, Journal, Options};
use keyward_model::event::{Event, EventKind, EventOutcome, Ulid};
use keyward_model::{Id, Secret, Timestamp};
use keyward_tests::cluster::Cluster;
use keyward_tests::server::binary;
use serde_json::{Value, json};

const ALL: [usize; 3] = [0, 1, 2];

/// `keyward audit …` against a node.
fn audit(cluster: &Cluster, node: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("audit").args(arguments).env_clear();
    command.env("KEYWARD_ADDR", &cluster.nodes[node].address).env("KEYWARD_TOKEN", &cluster.root);
    command.env("HOME", cluster.folder()).output().unwrap()
}

/// The verdict over copies of all nodes' files.
fn verify(folders: &[PathBuf], heads: &Path) -> (Option<i32>, Value) {
    let mut command = Command::new(binary());
    let output = command.args(["audit", "verify", "--heads"]).arg(heads).args(folders).env_clear().output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{told}")))
}

/// The one finding of a report: its stream's folder, `seq`, kind and file.
fn finding(report: &Value) -> (String, u64, String, String) {
    let mut found = Vec::new();
    for stream in report["streams"].as_array().unwrap() {
        for error in stream["errors"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((
                text(&stream["folder"]),
                error["seq"].as_u64().unwrap(),
                text(&error["kind"]),
                text(&error["file"]),
            ));
        }
    }
    assert!(!found.is_empty(), "{report:#}");
    found.swap_remove(0)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn newest(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap()
}

#[test]
fn what_was_done_to_the_files_of_any_node_is_found() {
    let mut cluster = Cluster::start(3);
    for node in ALL {
        for number in 0..10 {
            cluster.client(node).post("secret/data/app", &json!({"data": {"n": number}})).expect(200);
            cluster.client(node).get("secret/data/app").expect(200);
        }
    }
    // Every node's head comes to all nodes.
    cluster.wait("the heads of all nodes", || {
        let all = ALL.iter().all(|node| {
            let told = cluster.client(*node).get("sys/audit-heads").expect(200).json();
            let heads = told["data"]["heads"].as_array().unwrap().clone();
            heads.len() == 3 && heads.iter().all(|head| head["seq"].as_u64() > Some(20) && head["name"].is_string())
        });
        all.then_some(())
    });
    let output = audit(&cluster, 1, &["heads"]);
    assert!(output.status.success(), "{output:?}");
    let heads = cluster.folder().join("heads");
    std::fs::write(&heads, &output.stdout).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
    let live: Vec<String> =
        cluster.nodes.iter().map(|node| node.data.join("audit").to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = ["verify", "--cluster"].into_iter().chain(live.iter().map(String::as_str)).collect();
    let output = audit(&cluster, 2, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    // A clean stop ends each stream with a checkpoint.
    for node in ALL {
        cluster.stop(node);
        let text = std::fs::read_to_string(newest(&cluster.nodes[node].data.join("audit"))).unwrap();
        assert!(text.lines().last().unwrap().contains("\"AUDIT_CHECKPOINT\""), "node {node}");
    }

    for node in ALL {
        let place = |name: &str| -> Vec<PathBuf> {
            let folders =
                ALL.iter().map(|other| cluster.folder().join(format!("{name}{node}")).join(other.to_string()));
            let folders: Vec<PathBuf> = folders.collect();
            ALL.iter().for_each(|other| copy(&cluster.nodes[*other].data.join("audit"), &folders[*other]));
            folders
        };
        let folders = place("whole");
        let (code, report) = verify(&folders, &heads);
        assert_eq!((code, report["streams"].as_array().unwrap().len()), (Some(0), 3), "{report:#}");

        // One member of one record.
        let folders = place("edited");
        let file = newest(&folders[node]);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let at = lines.iter().position(|line| line.contains("\"outcome\":\"success\"")).unwrap();
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        edited[at] = edited[at].replace("\"outcome\":\"success\"", "\"outcome\":\"deny\"");
        std::fs::write(&file, edited.concat()).unwrap();
        let (code, report) = verify(&folders, &heads);
        let (folder, seq, kind, named) = finding(&report);
        assert_eq!((code, kind.as_str(), seq), (Some(1), "hash_mismatch", at as u64 + 1), "{report:#}");
        assert_eq!((PathBuf::from(folder), PathBuf::from(named)), (folders[node].clone(), file));

        // The end, cleanly between two records.
        let folders = place("cut");
        let file = newest(&folders[node]);
        std::fs::write(&file, lines[..15].concat()).unwrap();
        let (code, report) = verify(&folders, &heads);
        let (folder, seq, kind, _) = finding(&report);
        assert_eq!((code, kind.as_str(), seq), (Some(1), "gap", 16), "{report:#}");
        assert_eq!(PathBuf::from(folder), folders[node]);

        // All of it.
        let folders = place("gone");
        std::fs::remove_dir_all(&folders[node]).unwrap();
        std::fs::create_dir(&folders[node]).unwrap();
        let (code, report) = verify(&folders, &heads);
        assert_eq!((code, finding(&report).2.as_str()), (Some(1), "gap"), "{report:#}");
    }
}

#[test]
fn a_node_whose_end_was_cut_off_does_not_go_on() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader(&ALL).0;
    let victim = cluster.others(&[leader])[0];
    for number in 0..20 {
        cluster.client(victim).post("secret/data/app", &json!({"data": {"n": number}})).expect(200);
    }
    // The stop gives the last head away: nobody has to wait for it.
    cluster.stop(victim);
    let folder = cluster.nodes[victim].data.join("audit");
    let file = newest(&folder);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    std::fs::write(&file, lines[..lines.len() - 6].concat()).unwrap();
    // It may have to hear of the head first: then it comes up, and ends by itself as soon as its state says so.
    let told = cluster.try_restart(victim).map_or_else(|told| told, |()| cluster.await_end(victim));
    assert!(told.contains("its end was cut off") && told.contains("incarnation"), "{told}");

    // With its files put back it goes on.
    std::fs::write(&file, &text).unwrap();
    cluster.restart(victim);
    cluster.settle();
    cluster.client(victim).get("secret/data/app").expect(200);
}

#[test]
fn a_second_history_of_a_node_is_found() {
    let mut cluster = Cluster::start(3);
    let node = 1;
    cluster.client(node).post("secret/data/app", &json!({"data": {"n": 1}})).expect(200);
    cluster.stop(node);
    let (data, twin) = (cluster.nodes[node].data.clone(), cluster.folder().join("twin"));
    copy(&data.join("audit"), &twin);
    cluster.restart(node);
    cluster.settle();
    cluster.client(node).get("secret/data/app").expect(200);
    cluster.stop(node);
    // Somebody who has the node's key goes on with a copy of its files.
    let identity: Value = serde_json::from_slice(&std::fs::read(data.join("identity.json")).unwrap()).unwrap();
    let seed = STANDARD.decode(identity["audit_key"].as_str().unwrap()).unwrap();
    let options = Options {
        segment_bytes: 1 << 26,
        durability: Durability::Kernel,
        key: AuditKey::from_seed(&Secret::new(seed.try_into().unwrap())).unwrap(),
    };
    let id = Id::from_uuid(identity["node"].as_str().unwrap()).unwrap();
    let journal = Journal::open(&twin, id, 1, options).unwrap();
    let common = journal.head().0;
    let mut batch = journal.batch();
    for number in 0..100 {
        let moment = Timestamp(1_900_000_000_000_000_000);
        batch.push(&Event::new(Ulid(number), moment, EventKind::SysStart, EventOutcome::Success));
    }
    journal.append(&mut batch).unwrap();
    journal.last_checkpoint(Timestamp(1_900_000_000_000_000_000)).unwrap();
    drop(journal);

    let nobody = cluster.folder().join("none");
    std::fs::write(&nobody, "").unwrap();
    assert_eq!(verify(std::slice::from_ref(&twin), &nobody).0, Some(0), "it is well formed by itself");
    let (code, report) = verify(&[data.join("audit"), twin.clone()], &nobody);
    let (_, seq, kind, file) = finding(&report);
    assert_eq!((code, kind.as_str(), seq), (Some(1), "fork", common + 1), "{report:#}");
    assert!(file.starts_with(cluster.folder().to_str().unwrap()), "{file}");
    // The heads say which of them is the true one.
    let heads = cluster.folder().join("heads");
    std::fs::write(&heads, audit(&cluster, 0, &["heads"]).stdout).unwrap();
    let mut all: Vec<PathBuf> = [0, 2].iter().map(|other| cluster.nodes[*other].data.join("audit")).collect();
    all.push(data.join("audit"));
    assert_eq!(verify(&all, &heads).0, Some(0));
    all[2] = twin.clone();
    let (code, report) = verify(&all, &heads);
    let (folder, _, kind, _) = finding(&report);
    assert_eq!((code, kind.as_str(), PathBuf::from(folder)), (Some(1), "fork", twin), "{report:#}");
}
