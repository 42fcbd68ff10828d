//! kill -9 in the middle of writes, again and again: what was acknowledged is there afterwards, once, and version
//! numbers have no gap.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use keyward_tests::client::Client;
use keyward_tests::server::{Server, binary};
use keyward_tests::suite::{self, Chance};
use serde_json::{Value, json};

/// How often the node is killed; `KEYWARD_KILLS` says otherwise.
const KILLS: u64 = 50;
/// Clients that write at the same time. Each has secrets of its own, so that it knows what must be there.
const WRITERS: usize = 8;
/// Secrets of each writer in one round.
const SECRETS: u64 = 3;
/// The node dies at most this long after the writers began.
const ROUND_MAX: Duration = Duration::from_millis(250);

/// A head of the audit is taken every five seconds, if there is anything new.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// What one writer knows of one secret.
#[derive(Default)]
struct Known {
    /// The values whose writes were acknowledged, by version.
    acknowledged: BTreeMap<u64, String>,
    /// A value whose write was sent and never answered: it may be there or not.
    open: Option<String>,
}

type Ledger = BTreeMap<String, Known>;

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let kills: u64 = std::env::var("KEYWARD_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut chance = Chance::announced("crash");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::durable(&data);
    let root = server.initialise();
    Client::new(&server.address, &root)
        .put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}}))
        .expect(204);
    Client::new(&server.address, &root).put("secret/config", &json!({"max_versions": 1_000_000})).expect(204);

    let (mut ledgers, mut slowest): (Vec<_>, _) = ((0..WRITERS).map(|_| Ledger::new()).collect(), Duration::ZERO);
    let (mut acknowledged, mut in_doubt, mut checked) = (0, 0, 0);
    for round in 0..kills {
        let life = Duration::from_micros(chance.below(ROUND_MAX.as_micros() as u64));
        load(&mut server, &root, &mut ledgers, round, life);
        acknowledged +=
            ledgers.iter().flat_map(Ledger::values).map(|known| known.acknowledged.len()).sum::<usize>() - checked;

        let start = Instant::now();
        server = Server::durable(&data);
        slowest = slowest.max(start.elapsed());
        assert_eq!(server.seal_status()["sealed"], json!(false), "the key file unseals the node at its start");
        for ledger in &mut ledgers {
            in_doubt += check(&server, &root, ledger);
        }
        checked = ledgers.iter().flat_map(Ledger::values).map(|known| known.acknowledged.len()).sum();
    }
    assert!(server.stop().success(), "{}", server.stderr());
    eprintln!(
        "crash: {kills} kills, {acknowledged} acknowledged writes found, {in_doubt} of the unanswered ones took effect, slowest start {slowest:?}"
    );
    assert!(acknowledged as u64 > kills, "the writers hardly wrote");
    verify_audit(&data);
}

/// Writes from all sides until the node is killed after `life`.
fn load(server: &mut Server, root: &str, ledgers: &mut [Ledger], round: u64, life: Duration) {
    let dead = AtomicBool::new(false);
    let address = server.address.clone();
    std::thread::scope(|scope| {
        let (sender, first_answers) = mpsc::channel();
        for (writer, ledger) in ledgers.iter_mut().enumerate() {
            let (sender, dead, address) = (sender.clone(), &dead, &address);
            scope.spawn(move || write(&mut Client::new(address, root), ledger, (writer, round), dead, &sender));
        }
        drop(sender);
        pause(&first_answers, life);
        server.kill();
        dead.store(true, Ordering::Release);
    });
}

/// Waits until every writer has an answer, then for `life`.
fn pause(answers: &Receiver<()>, life: Duration) {
    for _ in 0..WRITERS {
        answers.recv_timeout(Duration::from_secs(60)).expect("a first answer of every writer");
    }
    let end = Instant::now() + life;
    loop {
        match answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One writer: check-and-set writes to its secrets in turn, until the node is gone.
fn write(
    client: &mut Client,
    ledger: &mut Ledger,
    (writer, round): (usize, u64),
    dead: &AtomicBool,
    answered: &mpsc::Sender<()>,
) {
    for turn in 0_u64.. {
        let path = format!("crash/w{writer}/s{}", turn % SECRETS);
        let known = ledger.entry(path.clone()).or_default();
        let last = known.acknowledged.last_key_value().map_or(0, |(version, _)| *version);
        let value = format!("w{writer} r{round} t{turn}");
        let body = json!({"data": {"value": value}, "options": {"cas": last}}).to_string();
        let headers = [("X-Vault-Token", client.token().to_owned()), ("Content-Type", "application/json".to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        match client.send("PUT", &format!("/v1/secret/data/{path}"), &headers, Some(body.as_bytes())) {
            Ok(response) => {
                let response = response.expect(200);
                let version = response.json()["data"]["version"].as_u64().unwrap();
                assert_eq!(version, last + 1, "{path}: a version number was left out or given twice");
                known.acknowledged.insert(version, value);
                answered.send(()).ok();
            }
            Err(error) => {
                known.open = Some(value);
                // The process is gone a moment before this thread is told.
                assert!(dead.load(Ordering::Acquire) || is_hang_up(&error), "{path}: {error}");
                return;
            }
        }
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof)
}

/// Holds what the node has against what one writer knows. Comes back with how many unanswered writes took effect.
fn check(server: &Server, root: &str, ledger: &mut Ledger) -> usize {
    let mut client = Client::new(&server.address, root);
    let mut in_doubt = 0;
    for (path, known) in ledger {
        let metadata = client.get(&format!("secret/metadata/{path}"));
        let mut versions: Vec<u64> = match metadata.status {
            404 => Vec::new(),
            _ => metadata.expect(200).json()["data"]["versions"]
                .as_object()
                .unwrap()
                .keys()
                .map(|number| number.parse().unwrap())
                .collect(),
        };
        versions.sort_unstable();
        let count = versions.len() as u64;
        assert_eq!(versions, (1..=count).collect::<Vec<_>>(), "{path}: a gap in the version numbers");
        let last = known.acknowledged.last_key_value().map_or(0, |(version, _)| *version);
        assert!(count >= last, "{path}: version {last} was acknowledged, and {count} is the newest");
        assert!(count <= last + 1, "{path}: {count} versions, and {last} were written");
        if count == last + 1 {
            let value = value_of(&mut client, path, count);
            let open = known.open.clone().expect("a write that was never sent is there");
            assert_eq!(value, json!(open), "{path}: version {count}");
            known.acknowledged.insert(count, open);
            in_doubt += 1;
        }
        known.open = None;
        // The newest few: all of them would be read a thousand times over the rounds.
        for (version, value) in known.acknowledged.iter().rev().take(3) {
            assert_eq!(value_of(&mut client, path, *version), json!(value), "{path}: version {version}");
        }
    }
    in_doubt
}

fn value_of(client: &mut Client, path: &str, version: u64) -> Value {
    client.get(&format!("secret/data/{path}?version={version}")).expect(200).json()["data"]["data"]["value"].clone()
}

/// The audit chain of a node that was killed so often is whole.
fn verify_audit(data: &Path) {
    let output = Command::new(binary()).args(["audit", "verify"]).arg(data.join("audit")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "keyward audit verify: {said}");
    eprintln!("crash: keyward audit verify: {said}");
}

/// Writes before a power cut, and records of them that the disk does not have yet.
const WRITES: usize = 40;
const TAKEN: usize = 25;

#[test]
fn audit_records_that_a_power_cut_took_are_made_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::durable(&data);
    let root = server.initialise();
    let mut client = Client::new(&server.address, &root);
    client.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    // What the state remembers of the stream may not be missing: the writes come right after it took a head.
    let heads = |client: &mut Client| client.get("sys/audit-heads").expect(200).json()["data"]["heads"].clone();
    let before = heads(&mut client);
    suite::wait_for("the next head", HEAD_MAX, || (heads(&mut client) != before).then_some(()));
    for number in 0..WRITES {
        client.put(&format!("secret/data/w{number}"), &json!({"data": {"n": number}})).expect(200);
    }
    server.kill();
    let written: Vec<Value> =
        records(&data).into_iter().filter(|record| record["event"] == json!("VERSION_CREATED")).collect();
    assert_eq!(written.len(), WRITES);
    // The log is durable, the records of writes are not until a flush comes by: a power cut leaves the file without them.
    let file = newest(&data);
    let text = std::fs::read_to_string(&file).unwrap();
    let id = text.find(written[WRITES - TAKEN]["id"].as_str().unwrap()).unwrap();
    let at = text[..id].rfind('\n').unwrap() + 1;
    std::fs::write(&file, text[..at].to_owned() + &"\0".repeat(text.len() - at)).unwrap();

    for start in 0..2 {
        let mut server = Server::durable(&data);
        server.kill();
        let again: Vec<Value> =
            records(&data).into_iter().filter(|record| record["event"] == json!("VERSION_CREATED")).collect();
        let ids = |records: &[Value]| records.iter().map(|record| record["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&again), ids(&written), "start {start}: each is there once, in its order");
    }
    verify_audit(&data);
}

/// The newest file of the audit trail.
fn newest(data: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(data.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap()
}

/// The records of the newest file.
fn records(data: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(newest(data)).unwrap();
    text.trim_end_matches('\0').lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
