//! Whole servers, asked over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::*;
use crate::cluster::tests::until;
use crate::config::{Listen, SealKind, Tls};
use crate::mounts::Closed;

fn config(folder: &Path) -> Config {
    let listen = Listen { address: ([127, 0, 0, 1], 0).into(), tls: Tls::Plain, workers: 1, ..Listen::default() };
    Config { data: folder.join("data"), listen, ..Config::default() }
}

/// One exchange on a connection of its own.
pub(crate) fn ask(address: SocketAddr, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /v1/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-vault-token: {token}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn recovery_shares_open_an_installation_whose_key_file_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path()), None).unwrap();
    let address = running.app.config.listen.address;
    let shape = json!({ "recovery_shares": 3, "recovery_threshold": 2 }).to_string();
    let (status, keys) = ask(address, "", "POST", "sys/init", &shape);
    assert_eq!(status, 200, "{keys}");
    let root = keys["root_token"].as_str().unwrap().to_owned();
    assert!(running.stop());

    fs::remove_file(folder.path().join("data/seal/key")).unwrap();
    let running = start(config(folder.path()), None).unwrap();
    let address = running.app.config.listen.address;
    let (_, seal) = ask(address, "", "GET", "sys/seal-status", "");
    assert_eq!((&seal["sealed"], &seal["t"], &seal["n"]), (&json!(true), &json!(2), &json!(3)));
    assert_eq!(ask(address, &root, "GET", "auth/token/lookup-self", "").0, 503);
    for (share, sealed) in [(0, true), (2, false)] {
        let key = json!({ "key": keys["recovery_keys"][share] }).to_string();
        let (status, seal) = ask(address, "", "PUT", "sys/unseal", &key);
        assert_eq!((status, &seal["sealed"]), (200, &json!(sealed)));
    }
    assert_eq!(ask(address, &root, "GET", "auth/token/lookup-self", "").0, 200);
    assert!(running.stop());
}

#[test]
fn without_recovery_shares_a_lost_key_file_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path()), None).unwrap();
    assert_eq!(ask(running.app.config.listen.address, "", "POST", "sys/init", "{}").0, 200);
    assert!(running.stop());
    fs::remove_file(folder.path().join("data/seal/key")).unwrap();
    let error = start(config(folder.path()), None).unwrap_err().to_string();
    assert!(error.contains("the key file is missing"), "{error}");
}

#[test]
fn time_does_not_go_back_over_a_restart_or_with_a_state_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path()), None).unwrap();
    // As if whoever led before had a clock that goes before.
    let ahead = running.app.barrier.now().plus_seconds(240);
    running.app.barrier.generations().note_time(ahead);
    assert_eq!(ask(running.app.config.listen.address, "", "POST", "sys/init", "{}").0, 200);

    let app = &running.app;
    let (generations, outcomes) = (Arc::default(), Arc::new(Outcomes::new(Arc::clone(app.journal()), Arc::default())));
    let (keys, sessions) = (Arc::default(), Arc::default());
    let observer =
        Applied::new(Arc::clone(&generations), keys, sessions, outcomes, Box::new(|error| panic!("{error}")));
    keyward_raft::Observer::replaced(&observer, &app.store);
    drop(observer);
    assert!(generations.newest() >= ahead, "with a state from elsewhere");

    assert!(running.stop());
    let running = start(config(folder.path()), None).unwrap();
    let barrier = &running.app.barrier;
    assert!(barrier.judged_at() >= ahead, "over a restart");
    barrier.generations().note_time(barrier.now().plus_seconds(366 * 86_400));
    assert!(barrier.judged_at() < barrier.now().plus_seconds(301), "a clock that was wrong by a year");
    assert!(running.stop());
}

#[test]
fn a_node_that_asks_nobody_is_sealed_by_whoever_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    (config.seal.kind, config.seal.peer_unseal) = (SealKind::Shamir, true);
    let running = start(config, None).unwrap();
    let address = running.app.config.listen.address;
    let sealed = || {
        let (_, seal) = ask(address, "", "GET", "sys/seal-status", "");
        assert_eq!((&seal["sealed"], &seal["keyward_peer_unseal"]), (&json!(true), &json!("idle")));
        assert_eq!(ask(address, "", "PUT", "sys/seal", "").0, 204);
    };
    sealed(); // not initialised
    let (status, keys) = ask(address, "", "POST", "sys/init", r#"{"secret_shares":1,"secret_threshold":1}"#);
    assert_eq!(status, 200, "{keys}");
    sealed(); // alone
    let key = json!({ "key": keys["keys"][0] }).to_string();
    assert_eq!(ask(address, "", "PUT", "sys/unseal", &key).1["sealed"], json!(false));
    assert_eq!(ask(address, "", "GET", "sys/seal-status", "").1["keyward_peer_unseal"], json!("on"));
    assert!(running.stop());
}

#[test]
fn what_an_operator_asks_needs_an_operator() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev { root_token: Some("root".into()) };
    let running = start(config(folder.path()), Some(&dev)).unwrap();
    let address = running.app.config.listen.address;
    let (_, child) = ask(address, "root", "POST", "auth/token/create", r#"{"policies":["default"]}"#);
    let child = child["auth"]["client_token"].as_str().unwrap().to_owned();
    for (token, expected) in [("", 403), (child.as_str(), 403), ("root", 204)] {
        assert_eq!(ask(address, token, "PUT", "sys/step-down", "{}").0, expected, "{token}");
    }
    for (method, path, member) in [
        ("GET", "sys/audit-key", "key"),
        ("GET", "sys/config/cors", "enabled"),
        ("GET", "sys/host-info", "memory"),
        ("LIST", "sys/version-history", "keys"),
    ] {
        assert_eq!(ask(address, &child, method, path, "").0, 403, "{path}");
        let (status, body) = ask(address, "root", method, path, "");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(!body["data"][member].is_null(), "{path}: {body}");
    }
    let (_, body) = ask(address, "root", "GET", "sys/audit-key", "");
    assert_eq!(body["data"]["key"], json!(running.app.audit_key()));
    assert!(running.stop());
}

#[test]
fn a_value_larger_than_a_log_entry_is_refused_with_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev { root_token: Some("root".into()) };
    let running = start(config(folder.path()), Some(&dev)).unwrap();
    let value = "x".repeat(20 << 20);
    let body = json!({ "data": { "value": value } }).to_string();
    let (status, answer) = ask(running.app.config.listen.address, "root", "POST", "secret/data/large", &body);
    assert_eq!(status, 413, "{answer}");
    assert!(answer["errors"][0].as_str().unwrap().contains("too large; got"), "{answer}");
    assert!(running.stop());
}

#[test]
fn what_closed_a_mount_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev { root_token: Some("root".into()) };
    let running = start(config(folder.path()), Some(&dev)).unwrap();
    let address = running.app.config.listen.address;
    for mount in ["raised", "removed"] {
        assert_eq!(ask(address, "root", "POST", &format!("sys/mounts/{mount}"), r#"{"type":"kv"}"#).0, 204);
        assert_eq!(ask(address, "root", "PUT", &format!("{mount}/a/b"), r#"{"k":"v"}"#).0, 204);
    }
    // As a crash leaves them that comes right after the first command.
    on_this_thread(&running.app, async |worker| {
        let tables = worker.tables().unwrap();
        for (path, closed) in [("raised/", Closed::Raising), ("removed/", Closed::Removing)] {
            let mut mount = Mount::clone(tables.mounts.get(path).unwrap());
            mount.closed = Some(closed);
            let body = mount.encode().unwrap();
            let put = |draft: &mut Draft<'_>| draft.put(Table::Mounts, &mount.id.0, Columns::default(), &body);
            worker.write(&RefCell::new(Facts::of_server(&worker.app.barrier)), put).await.unwrap();
        }
        Ok(())
    })
    .unwrap();
    assert!(running.stop());

    let running = start(config(folder.path()), None).unwrap();
    let address = running.app.config.listen.address;
    let mut answer = (503, Value::Null);
    while answer.0 == 503 {
        answer = ask(address, "root", "GET", "raised/data/a/b", "");
    }
    assert_eq!((answer.0, &answer.1["data"]["data"]["k"]), (200, &json!("v")), "{answer:?}");
    while !ask(address, "root", "GET", "sys/mounts", "").1["data"]["removed/"].is_null() {}
    assert!(running.stop());
}

#[test]
fn a_passphrase_seal_makes_no_recovery_shares() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.seal.kind = SealKind::Passphrase;
    let running = start(config, None).unwrap();
    let address = running.app.config.listen.address;
    let mut body = json!({ "passphrase": "correct horse", "recovery_shares": 3, "recovery_threshold": 2 });
    let (status, answer) = ask(address, "", "POST", "sys/init", &body.to_string());
    assert_eq!(status, 400, "{answer}");
    assert!(answer["errors"][0].as_str().unwrap().contains("recovery"), "{answer}");
    body["recovery_shares"] = json!(0);
    body["recovery_threshold"] = json!(0);
    assert_eq!(ask(address, "", "POST", "sys/init", &body.to_string()).0, 200);
    assert!(running.stop());
}

#[test]
fn the_data_folder_and_all_in_it_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.listen.tls = Tls::LocalCa;
    let running = start(config, None).unwrap();
    assert!(running.stop());
    for name in ["", "log", "tls", "state", "audit"] {
        let mode = fs::metadata(folder.path().join("data").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn records_of_writes_that_a_crash_kept_from_the_audit_file_are_made_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev { root_token: Some("root".into()) };
    let running = start(config(folder.path()), Some(&dev)).unwrap();
    let address = running.app.config.listen.address;
    let recorded = |running: &Running| running.app.journal().last_index();
    let write = |address| ask(address, "root", "POST", "secret/data/a", r#"{"data":{"k":"v"}}"#).0;
    assert_eq!(write(address), 200);
    let last = recorded(&running);
    assert!(last > 0);
    assert!(running.stop());
    // The files are gone, which the state knows: a new stream has to be asked for. Then everything that the log holds is
    // there again after a start.
    fs::remove_dir_all(folder.path().join("data/audit")).unwrap();
    let error = start(config(folder.path()), None).unwrap_err().to_string();
    assert!(error.contains("ends at record 0"), "{error}");
    let identity = folder.path().join("data/identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("\"incarnation\": 1", "\"incarnation\": 2")).unwrap();
    let running = start(config(folder.path()), None).unwrap();
    assert!(recorded(&running) >= last);
    assert!(running.stop());
}

#[test]
fn an_audit_stream_whose_end_was_cut_off_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path()), None).unwrap();
    assert_eq!(ask(running.app.config.listen.address, "", "POST", "sys/init", "{}").0, 200);
    for _ in 0..5 {
        ask(running.app.config.listen.address, "nobody", "GET", "sys/mounts", "");
    }
    assert!(running.stop());
    let mut files = fs::read_dir(folder.path().join("data/audit")).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|end| end == "jsonl")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().last().unwrap().contains("AUDIT_CHECKPOINT"), "the last record of a clean stop");

    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&file, lines[..lines.len() - 3].concat()).unwrap();
    let error = start(config(folder.path()), None).unwrap_err().to_string();
    assert!(error.contains("its end was cut off"), "{error}");
    // Another history of the same length.
    let forged: Vec<String> = lines.iter().map(|line| line.replace("\"AUTH_FAILURE\"", "\"AUTH_SUCCESS\"")).collect();
    fs::write(&file, forged.concat()).unwrap();
    assert!(start(config(folder.path()), None).is_err());
    fs::write(&file, &text).unwrap();
    let running = start(config(folder.path()), None).unwrap();
    assert!(running.stop());
}

#[test]
fn a_sealed_node_tells_its_numbers_where_that_is_said() {
    for (open_metrics, status) in [(false, 503), (true, 200)] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.listen.open_metrics = open_metrics;
        let running = start(config, None).unwrap();
        let (found, told) = ask(running.app.config.listen.address, "", "GET", "sys/metrics", "");
        assert_eq!(found, status, "{told}");
        if open_metrics {
            let gauges = told["Gauges"].as_array().unwrap();
            let sealed = gauges.iter().find(|gauge| gauge["Name"] == "keyward_sealed").unwrap();
            assert_eq!(sealed["Value"], 1.0);
            assert_eq!(running.app.journal().head().0, 1, "the start is recorded, and no scrape");
        }
        assert!(running.stop());
    }
}

#[test]
fn records_that_waited_for_space_are_written_with_no_write_after_them_and_before_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, away) = (folder.path().join("data/audit"), folder.path().join("away"));
    let mut small = config(folder.path());
    small.audit.segment_bytes = 1 << 20;
    let running = start(small, None).unwrap();
    let (app, address) = (Arc::clone(&running.app), running.app.config.listen.address);
    let root = ask(address, "", "POST", "sys/init", "{}").1["root_token"].as_str().unwrap().to_owned();
    let applied = || app.store.reader().unwrap().meta().unwrap().applied.unwrap().index;
    let run_late = || {
        // The next file cannot be made.
        fs::rename(&audit, &away).unwrap();
        for number in 0.. {
            if app.audit_is_late() {
                break;
            }
            assert!(number < 10_000, "the file does not end");
            ask(address, &root, "PUT", "cubbyhole/x", &json!({ "x": number }).to_string());
        }
        let waits = applied();
        assert!(app.journal().last_index() < waits);
        fs::rename(&away, &audit).unwrap();
        waits
    };
    let waits = run_late();
    until("what waited is written", || !app.audit_is_late());
    assert!(app.journal().last_index() >= waits);
    let waits = run_late();
    assert!(running.stop());
    assert!(app.journal().last_index() >= waits);
}
