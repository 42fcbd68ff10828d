//! The volume of the audit runs full while the rest has space: nothing is answered without its record, status is told, and
//! when there is space again all goes on by itself. What was answered is in the records, and they are whole.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keyward_tests::client::{Client, Response};
use keyward_tests::disk::Disk;
use keyward_tests::server::{Server, binary};
use serde_json::{Value, json};

const DISK_MIB: u64 = 16;
/// The smallest that a segment may be: little is kept ready ahead of the records then.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Answers with which something is as it is for good.
const SOME: usize = 50;
/// Turns for which there is more than enough space ready, with two records of at least 500 bytes each.
const TURNS_MAX: u64 = 2 * SEGMENT_BYTES / 1000;
/// How long nothing may change before the test gives up.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_full_audit_volume_answers_nothing_unrecorded_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let audit = data.join("audit");
    fs::create_dir_all(&audit).unwrap();
    let disk = match Disk::at(&audit, DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("NOT TESTED: a full audit volume, because this machine lets us have none: {why}"),
    };
    let config = folder.path().join("keyward.toml");
    let text = format!(
        "data = {data:?}\n[listen]\naddress = \"127.0.0.1:0\"\ntls = \"plain\"\n[audit]\nsegment_bytes = {SEGMENT_BYTES}\n"
    );
    fs::write(&config, text).unwrap();
    let mut server = start(&disk, &config);
    let root = server.initialise();
    let mut client = Client::new(&server.address, &root);
    client.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);

    let mut seen = Seen::default();
    seen.until_all(&mut client, 200);
    for time in 1..=2 {
        disk.fill_at_once();
        seen.until_all(&mut client, 503);
        client.without_token().get("sys/health").expect(200);
        assert!(server.is_alive(), "{}", server.stderr());
        // What was refused is not there, and what is there is not told.
        let refused = client.get("secret/data/0").expect(503).text();
        assert!(refused.contains("audit"), "{refused}");
        if time == 2 {
            server.kill();
        }
        disk.clear(DISK_MIB * (time + 1));
        if time == 2 {
            server = start(&disk, &config);
            client = Client::new(&server.address, &root);
        }
        seen.until_all(&mut client, 200);
    }
    for (name, version) in &seen.written {
        let metadata = client.get(&format!("secret/metadata/{name}")).expect(200).json();
        assert_eq!(metadata["data"]["current_version"], json!(version), "{name}");
    }
    assert!(server.stop().success(), "{}", server.stderr());
    let records = verified_records(&disk);
    let mut outcomes: HashMap<&str, Vec<&str>> = HashMap::new();
    for record in &records {
        if let (Some(request), Some(outcome)) = (record["request_id"].as_str(), record["outcome"].as_str()) {
            outcomes.entry(request).or_default().push(outcome);
        }
    }
    for request in &seen.answered {
        assert_eq!(outcomes.get(request.as_str()), Some(&vec!["success"]), "{request} was answered");
    }
    eprintln!("full audit: {} answered, {} refused, {} records", seen.answered.len(), seen.refused, records.len());
}

fn start(disk: &Disk, config: &Path) -> Server {
    Server::launch(disk.command(binary()).args(["server", "--config"]).arg(config))
        .unwrap_or_else(|failure| panic!("keyward server: {failure}"))
}

/// What a client was told.
#[derive(Default)]
struct Seen {
    turn: u64,
    /// Request ids of good answers.
    answered: Vec<String>,
    /// The newest version of each secret that was acknowledged.
    written: BTreeMap<String, u64>,
    refused: u64,
}

impl Seen {
    /// Writes and reads until [`SOME`] answers of each kind in a row have this status.
    fn until_all(&mut self, client: &mut Client, status: u16) {
        let (mut last, mut turns, mut in_a_row) = (Instant::now(), 0, 0);
        while in_a_row < SOME {
            assert!(turns < TURNS_MAX, "{turns} turns, and not all answers are {status}");
            assert!(last.elapsed() < WAIT_MAX, "no {status} within {WAIT_MAX:?}");
            let name = (self.turn % 20).to_string();
            let path = format!("secret/data/{name}");
            self.turn += 1;
            let written = client.put(&path, &json!({"data": {"turn": self.turn}}));
            if let Some(told) = self.note(&written) {
                self.written.insert(name.clone(), told["data"]["version"].as_u64().unwrap());
            }
            let read = client.get(&path);
            if let Some(told) = self.note(&read) {
                assert_eq!(told["data"]["metadata"]["version"], json!(self.written[&name]));
            }
            let as_wished = (written.status, read.status) == (status, status);
            in_a_row = if as_wished { in_a_row + 1 } else { 0 };
            // One that is refused costs nothing, so that is waited for by time; one that is answered takes space.
            let refused = (written.status, read.status) == (503, 503);
            turns += u64::from(!refused);
            if as_wished || !refused {
                last = Instant::now();
            }
        }
    }

    fn note(&mut self, response: &Response) -> Option<Value> {
        match response.status {
            200 => {
                let told = response.json();
                self.answered.push(told["request_id"].as_str().unwrap().to_owned());
                Some(told)
            }
            503 => {
                self.refused += 1;
                None
            }
            _ => panic!("{}", response.text()),
        }
    }
}

/// The records of a chain that is whole.
fn verified_records(disk: &Disk) -> Vec<Value> {
    let output = Command::new(binary()).args(["audit", "verify"]).arg(disk.seen()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "keyward audit verify: {said}");
    let files = fs::read_dir(disk.seen()).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text: String = segments.map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
