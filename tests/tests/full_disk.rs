//! A disk that runs full under load stops nobody: writes are refused with what to do, reads go on, and when there is space
//! again writes go on by themselves. What was acknowledged is there, whatever ends the process meanwhile.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyward_tests::client::{Client, Response};
use keyward_tests::disk::Disk;
use keyward_tests::server::{Server, binary};
use serde_json::{Value, json};

/// Above the reserve of 192 MiB and what the server takes at first, with room for a load.
const DISK_MIB: u64 = 440;
/// Clients that write at the same time.
const WRITERS: usize = 8;
/// Acknowledged writes that make a load.
const SOME: usize = 200;
/// How long anything may take before the test gives up.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Looks after which something is as it is for good: more than the server lets pass before it tries again.
const LOOKS: usize = 100;
/// How long a client that was refused waits before it asks again.
const PATIENCE: Duration = Duration::from_millis(50);

#[test]
fn a_full_disk_stops_nobody() {
    let disk = match Disk::of_mib(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("NOT TESTED: a full disk, because this machine lets us have none: {why}"),
    };
    let mut server = Server::on_disk(&disk);
    let root = server.initialise();
    let mut client = Client::new(&server.address, &root);
    client.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    let mut known = BTreeSet::new();

    // One big file, as logs or a backup would do it.
    let mut load = Load::begin(&server, &root, "file");
    load.acknowledge(SOME);
    disk.fill();
    refuses(&mut server, &root, &load.acknowledged, 1);
    heals(&server, &disk, &mut load, 1);
    known.extend(load.end());

    // From one moment to the next: what is under way has no space either.
    let mut load = stalled_load(&server, &disk, &root, "once");
    refuses(&mut server, &root, &known, 2);
    assert!(is_stalled(&server), "what was accepted is applied without space");
    heals(&server, &disk, &mut load, 2);
    known.extend(load.end());
    present(&server, &root, &known);

    // While writes wait for space: a kill, then a stop.
    for (name, kill) in [("kill", true), ("stop", false)] {
        let load = stalled_load(&server, &disk, &root, name);
        if kill {
            server.kill();
        } else {
            let began = Instant::now();
            assert!(server.stop().success(), "{}", server.stderr());
            eprintln!("full disk: a stop took {:?}", began.elapsed());
        }
        known.extend(load.end());
        disk.clear(DISK_MIB);
        server = Server::on_disk(&disk);
        present(&server, &root, &known);
        write(&mut Client::new(&server.address, &root), &format!("{name}/after")).unwrap().expect(200);
    }
    eprintln!("full disk: {} acknowledged writes found", known.len());
    assert!(server.stop().success(), "{}", server.stderr());
    verify_audit(&disk);
}

/// The disk is full for the `time`th time: writes are refused and say what to do, reads are answered, the process lives.
fn refuses(server: &mut Server, root: &str, known: &BTreeSet<String>, time: usize) {
    await_that("the log says that the disk is full", || said(server, "the disk is full: ") >= time);
    let mut client = Client::new(&server.address, root);
    let refused = write(&mut client, &format!("refused/{time}")).unwrap().expect(503).text();
    assert!(refused.contains("the disk is full: nothing was written"), "{refused}");
    assert!(refused.contains("writes are taken again when ") && refused.contains(" MiB are free"), "{refused}");
    assert!(known.len() >= SOME);
    for path in known.iter().take(20) {
        assert_eq!(value_of(&mut client, path), json!(value(path)), "{path}");
    }
    assert_eq!(client.get(&format!("secret/data/refused/{time}")).status, 404, "what was refused is there");
    assert!(server.is_alive());
}

/// There is space: writes go on, and nothing was to be started anew.
fn heals(server: &Server, disk: &Disk, load: &mut Load, time: usize) {
    disk.clear(DISK_MIB);
    await_that("the log says that there is space", || said(server, "the disk has space again") >= time);
    load.acknowledge(SOME);
}

/// A load on a disk that is full, with some of it in the log that cannot be applied.
fn stalled_load(server: &Server, disk: &Disk, root: &str, name: &str) -> Load {
    let wal = disk.seen().join("data/state/state.db-wal");
    await_that("the write-ahead log is emptied", || fs::metadata(&wal).unwrap().len() == 0);
    disk.fill_at_once();
    // The first writes are taken, since nobody has looked yet; and the write-ahead log has to grow for them.
    let load = Load::begin(server, root, name);
    let mut looks = 0;
    await_that("an entry waits for space", || {
        looks = if is_stalled(server) { looks + 1 } else { 0 };
        looks > LOOKS
    });
    load
}

/// Whether an entry is in the log and not applied. Under a load that is so now and then, but not for long.
fn is_stalled(server: &Server) -> bool {
    let leader = server.client().without_token().get("sys/leader").expect(200).json();
    leader["raft_committed_index"].as_u64().unwrap() > leader["raft_applied_index"].as_u64().unwrap()
}

/// Clients that write without a pause, each value under a path of its own.
struct Load {
    stop: Arc<(Mutex<bool>, Condvar)>,
    answers: Receiver<String>,
    writers: Vec<JoinHandle<()>>,
    /// The paths whose writes were acknowledged.
    acknowledged: BTreeSet<String>,
}

impl Load {
    fn begin(server: &Server, root: &str, name: &str) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (sender, answers) = mpsc::channel();
        let writers = (0..WRITERS).map(|writer| {
            let (mut client, sender, stop) = (Client::new(&server.address, root), sender.clone(), Arc::clone(&stop));
            let folder = format!("{name}/{writer}");
            std::thread::spawn(move || keep_writing(&mut client, &folder, &sender, &stop))
        });
        let writers = writers.collect();
        Self { stop, answers, writers, acknowledged: BTreeSet::new() }
    }

    /// Waits for `count` more acknowledged writes.
    fn acknowledge(&mut self, count: usize) {
        // What was answered before counts as known, not as more.
        self.acknowledged.extend(self.answers.try_iter());
        for _ in 0..count {
            self.acknowledged.insert(self.answers.recv_timeout(WAIT_MAX).expect("a write is acknowledged"));
        }
    }

    /// Ends it; comes back with everything that was acknowledged.
    fn end(mut self) -> BTreeSet<String> {
        *self.stop.0.lock().unwrap() = true;
        self.stop.1.notify_all();
        for writer in self.writers.drain(..) {
            writer.join().unwrap();
        }
        self.acknowledged.extend(self.answers.try_iter());
        self.acknowledged
    }
}

/// One client of a load: until it is told to stop, or the server is gone.
fn keep_writing(client: &mut Client, folder: &str, acknowledged: &Sender<String>, stop: &(Mutex<bool>, Condvar)) {
    for turn in 0_u64.. {
        let path = format!("{folder}/{turn}");
        let Ok(response) = write(client, &path) else { return };
        let pause = match response.status {
            200 => {
                assert_eq!(response.json()["data"]["version"], json!(1), "{path}: written twice");
                acknowledged.send(path).ok();
                Duration::ZERO
            }
            503 => PATIENCE,
            _ => panic!("{path}: {}", response.text()),
        };
        let stopped = stop.1.wait_timeout_while(stop.0.lock().unwrap(), pause, |stopped| !*stopped).unwrap();
        if *stopped.0 {
            return;
        }
    }
}

fn write(client: &mut Client, path: &str) -> io::Result<Response> {
    let token = client.token().to_owned();
    let headers = [("X-Vault-Token", token.as_str()), ("Content-Type", "application/json")];
    let body = json!({"data": {"value": value(path)}}).to_string();
    client.send("PUT", &format!("/v1/secret/data/{path}"), &headers, Some(body.as_bytes()))
}

/// The value that is written to `path`.
fn value(path: &str) -> String {
    format!("{path} ").repeat(64)
}

fn value_of(client: &mut Client, path: &str) -> Value {
    client.get(&format!("secret/data/{path}")).expect(200).json()["data"]["data"]["value"].clone()
}

/// Everything that was acknowledged is there, once.
fn present(server: &Server, root: &str, known: &BTreeSet<String>) {
    let mut client = Client::new(&server.address, root);
    for path in known {
        let answer = client.get(&format!("secret/data/{path}")).expect(200).json();
        assert_eq!(answer["data"]["data"]["value"], json!(value(path)), "{path}");
        assert_eq!(answer["data"]["metadata"]["version"], json!(1), "{path}");
    }
}

/// How often the server's log says `text`.
fn said(server: &Server, text: &str) -> usize {
    server.stderr().matches(text).count()
}

/// Asks again and again until `condition` holds.
fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WAIT_MAX, "{what}: not within {WAIT_MAX:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The audit chain is whole, through all of it.
fn verify_audit(disk: &Disk) {
    let output = Command::new(binary()).args(["audit", "verify"]).arg(disk.seen().join("data/audit")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "keyward audit verify: {said}");
    eprintln!("full disk: keyward audit verify: {said}");
}
