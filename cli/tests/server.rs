//! `keyward server` from the outside: a first start, a first secret, a stop, a second start.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};

struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    greeting: String,
}

impl Server {
    /// Starts one, and reads its greeting up to a line that holds `last`.
    fn start(home: &Path, arguments: &[&str], last: &str) -> Self {
        let mut child = keyward(home).arg("server").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        while !greeting.contains(last) {
            assert!(out.read_line(&mut greeting).unwrap() > 0, "the server ended: {greeting}");
        }
        Self { child, out, greeting }
    }

    /// The word that follows `label` in the greeting.
    fn said(&self, label: &str) -> String {
        let rest = self.greeting.split_once(label).expect(label).1;
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// Asks it to stop, and checks that it stops well.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.out.read_to_string(&mut self.greeting).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a failed test; a stopped server is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn keyward(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command
}

fn run(home: &Path, arguments: &[&str], stdin: &str) -> Output {
    let mut command = keyward(home);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn good(home: &Path, arguments: &[&str], stdin: &str) -> String {
    let output = run(home, arguments, stdin);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_server_to_try() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let arguments = ["--dev", "--dev-root-token-id=root", "--dev-listen-address=127.0.0.1:0"];
    let server = Server::start(home, &arguments, "kv get");
    let address = format!("--address={}", server.said("Address:"));
    let good = |arguments: &[&str], stdin: &str| good(home, &[&[address.as_str()], arguments].concat(), stdin);
    let code = |arguments: &[&str]| run(home, &[&[address.as_str()], arguments].concat(), "").status.code();

    good(&["login", "-no-print"], "root");
    good(&["status"], "");
    good(&["kv", "put", "secret/app/db", "user=app", "password=-"], "one");
    good(&["kv", "patch", "secret/app/db", "password=-"], "two");
    let password = |more: &[&str]| good(&[&["kv", "get", "-field=password"], more, &["secret/app/db"]].concat(), "");
    assert_eq!((password(&[]), password(&["-version=1"])), ("two".into(), "one".into()));
    assert_eq!(password(&["-alias=previous"]), "one");
    good(&["alias", "set", "-from=2", "secret/app/db", "current", "1"], "");
    assert_eq!(password(&[]), "one");
    assert_eq!(code(&["alias", "set", "-from=2", "secret/app/db", "current", "1"]), Some(2));
    assert_eq!(good(&["alias", "get", "-field=version", "secret/app/db", "current"], ""), "1");
    good(&["alias", "set", "secret/app/db", "current", "2"], "");
    good(&["kv", "rollback", "-version=1", "secret/app/db"], "");
    assert_eq!(password(&[]), "one");
    assert_eq!(code(&["kv", "put", "-cas=1", "secret/app/db", "a=b"]), Some(2));
    good(&["kv", "delete", "secret/app/db"], "");
    assert_eq!(code(&["kv", "get", "-field=password", "secret/app/db"]), Some(1));
    good(&["kv", "undelete", "-versions=3", "secret/app/db"], "");
    assert_eq!(good(&["kv", "list", "-format=json", "secret"], ""), "[\n  \"app/\"\n]\n");
    good(&["kv", "metadata", "put", "-custom-metadata=team=a", "secret/app/db"], "");
    assert!(good(&["kv", "metadata", "get", "secret/app/db"], "").contains("team"));
    good(&["kv", "destroy", "-versions=1,2", "secret/app/db"], "");
    good(&["kv", "metadata", "delete", "secret/app/db"], "");
    assert_eq!(code(&["kv", "get", "secret/app/db"]), Some(2));

    good(&["policy", "write", "reader", "-"], "path \"secret/data/*\" { capabilities = [\"read\"] }");
    let token = good(&["token", "create", "-policy=reader", "-field=token"], "");
    assert_eq!(good(&["token", "capabilities", "-", "secret/data/x"], &token), "read\n");
    good(&["token", "lookup", "-"], &token);
    good(&["token", "revoke", "-"], &token);
    let wrapping = good(&["write", "-wrap-ttl=60s", "-field=wrapping_token", "sys/wrapping/wrap", "a=b"], "");
    assert_eq!(good(&["unwrap", "-field=a", "-"], &wrapping), "b");
    good(&["secrets", "enable", "-path=old", "-version=1", "kv"], "");
    good(&["kv", "put", "old/x", "a=b"], "");
    assert_eq!(good(&["kv", "get", "-field=a", "old/x"], ""), "b");
    good(&["secrets", "disable", "old"], "");
    good(&["operator", "rotate"], "");

    let bench = ["bench", "--keys=20", "--duration=0.1", "--warm-up=0", "--connections=4", "--format=json"];
    let report = good(&[&bench[..], &["--workload=read,write,mix,list"]].concat(), "");
    let report: Value = serde_json::from_str(&report).unwrap();
    for result in report["results"].as_array().unwrap() {
        assert_eq!(result["server"]["errors"], json!({}), "{result}");
    }
    server.stop();
    assert_eq!(code(&["status"]), Some(1));
}

#[test]
fn a_first_start_is_guided_and_what_was_kept_is_there_after_the_next() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let arguments = ["--data=kept", "--listen=127.0.0.1:0"];
    let server = Server::start(home, &arguments, "kv get");
    assert_eq!(run(home, &["operator", "init", "-status"], "").status.code(), Some(2));
    let token = good(home, &["operator", "init", "-field=root_token"], "");
    good(home, &["login", "-no-print"], &token);
    good(home, &["secrets", "enable", "-path=secret", "kv-v2"], "");
    good(home, &["kv", "put", "secret/app/db", "password=-"], "hunter2");
    server.stop();
    let server = Server::start(home, &arguments, "ready");
    assert_eq!(good(home, &["kv", "get", "-field=password", "secret/app/db"], ""), "hunter2");
    server.stop();
    let report: Value = serde_json::from_str(&good(home, &["audit", "verify", "kept/audit"], "")).unwrap();
    assert_eq!(report["ok"], true);
}
