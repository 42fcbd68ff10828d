//! The native face over HTTP, against a whole node.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::boot::{self, Dev, Running};
use crate::config::{Config, Tls};

/// A node with its folder; stops when dropped.
struct Server {
    address: SocketAddr,
    running: Option<Running>,
    folder: tempfile::TempDir,
}

/// An answer: status, head and body; `Null` where the body is empty.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Value,
}

impl Server {
    fn start(dev: Option<&Dev>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data: folder.path().to_owned(), ..Config::default() };
        config.listen.address = "127.0.0.1:0".parse().unwrap();
        config.listen.tls = Tls::Plain;
        config.listen.workers = 2;
        let running = boot::start(config, dev).unwrap();
        let address = running.app.config.listen.address;
        Self { address, running: Some(running), folder }
    }

    /// A development server whose root token is `root`.
    fn dev() -> Self {
        Self::start(Some(&Dev { root_token: Some("root".into()) }))
    }

    /// One exchange, with a header block of one's own.
    fn raw(&self, method: &str, target: &str, head: &str, body: &str) -> Got {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = body.len();
        let request = format!(
            "{method} /v1/{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    /// One exchange with a token and a JSON body.
    fn call(&self, token: &str, method: &str, target: &str, body: &Value) -> Got {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("x-vault-token: {token}\r\ncontent-type: application/json\r\n");
        self.raw(method, target, &head, &text)
    }

    fn root(&self, method: &str, target: &str, body: &Value) -> Got {
        self.call("root", method, target, body)
    }

    /// As root; the answer must have this status.
    #[track_caller]
    fn good(&self, status: u16, method: &str, target: &str, body: &Value) -> Value {
        let got = self.root(method, target, body);
        assert_eq!(got.status, status, "{method} {target}: {}", got.body);
        got.body
    }

    /// As root; the answer must be the problem with this code.
    #[track_caller]
    fn bad(&self, code: &str, method: &str, target: &str, body: &Value) -> Value {
        let got = self.root(method, target, body);
        assert_eq!(got.body["code"], code, "{method} {target}: {}", got.body);
        assert_eq!(got.body["status"], got.status);
        assert!(got.head.contains("content-type: application/problem+json"), "{}", got.head);
        got.body
    }

    /// A secret at `prod/<path>`; gives the target of its own resource.
    #[track_caller]
    fn secret(&self, path: &str) -> String {
        let made = self.good(201, "POST", "secrets", &new_secret(path));
        format!("secrets/{}", made["secretId"].as_str().unwrap())
    }

    #[track_caller]
    fn version(&self, secret: &str, value: &str, status: &str) -> u64 {
        let body = json!({ "value": value, "status": status, "expected_version": null });
        self.good(201, "POST", &format!("{secret}/versions"), &body)["version"].as_u64().unwrap()
    }

    /// A token with a policy.
    fn token(&self, name: &str, policy: &str) -> String {
        self.good(204, "POST", &format!("sys/policies/acl/{name}"), &json!({ "policy": policy }));
        let made =
            self.good(200, "POST", "auth/token/create", &json!({ "policies": [name], "no_default_policy": true }));
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Stops the node; gives its audit records.
    fn stop(mut self) -> String {
        assert!(self.running.take().unwrap().stop());
        let mut out = String::new();
        read_all(&self.folder.path().join("audit"), &mut out);
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

fn read_all(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, out);
        } else {
            out.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
}

fn new_secret(path: &str) -> Value {
    json!({ "environment": "prod", "path": path, "ownerTeam": "payments", "rotationStrategy": "manual" })
}

#[test]
fn a_secret_lives_through_all_its_states() {
    let server = Server::dev();
    let made = server.good(201, "POST", "secrets", &new_secret("app/db"));
    assert_eq!(made["uri"], "keyward+kv2://secret/prod/app/db");
    let id = made["secretId"].as_str().unwrap();
    let secret = format!("secrets/{id}");
    server.bad("CAS_MISMATCH", "POST", "secrets", &new_secret("app/db"));
    server.bad("SECRET_VERSION_NOT_FOUND", "GET", "secrets/prod/app/db", &Value::Null);

    // Versions: the expected one is what `current` points to.
    let write = |value: Value, status: &str, expected: Value| json!({ "value": value, "status": status, "expected_version": expected });
    let versions = format!("{secret}/versions");
    let first = server.good(201, "POST", &versions, &write(json!("one"), "CURRENT", json!(0)));
    assert_eq!((&first["version"], &first["status"]), (&json!(1), &json!("CURRENT")));
    server.bad("CAS_MISMATCH", "POST", &versions, &write(json!("x"), "CURRENT", json!(0)));
    server.good(201, "POST", &versions, &write(json!({ "user": "u", "n": 1.50 }), "PENDING", json!(1)));
    let read = server.good(200, "GET", "secrets/prod/app/db", &Value::Null);
    assert_eq!(
        (&read["data"], &read["version"], &read["status"]),
        (&json!({"value": "one"}), &json!(1), &json!("CURRENT"))
    );
    assert_eq!(read["secretId"], id);

    // The pending one is read by its number or an alias of one's own, promoted, and rolled back.
    let key = server.good(200, "GET", "secrets/prod/app/db?version=2&key=user", &Value::Null);
    assert_eq!((&key["value"], &key["data"]), (&json!("u"), &Value::Null));
    server.bad("SECRET_KEY_NOT_FOUND", "GET", "secrets/prod/app/db?key=user", &Value::Null);
    let point = |version: u64, expected: Value| json!({ "version": version, "expectedPreviousVersion": expected });
    server.good(200, "POST", &format!("{secret}/aliases/next"), &point(2, Value::Null));
    assert_eq!(server.good(200, "GET", "secrets/prod/app/db?alias=next", &Value::Null)["version"], 2);
    let moved = server.good(200, "POST", &format!("{secret}/aliases/current"), &point(2, json!(1)));
    assert_eq!(moved["version"], 2);
    assert_eq!(server.good(200, "GET", "secrets/prod/app/db", &Value::Null)["version"], 2);
    let mismatch = server.bad("ALIAS_CAS_MISMATCH", "POST", &format!("{secret}/aliases/current"), &point(1, json!(1)));
    assert_eq!(mismatch["actual"], 2);
    server.bad("SECRET_VERSION_NOT_FOUND", "GET", "secrets/prod/app/db?alias=next", &Value::Null);
    server.good(200, "POST", &format!("{secret}/aliases/current"), &point(1, json!(2)));
    let body = json!({ "environment": "prod", "path": "app/db", "alias": "previous" });
    assert_eq!(server.good(200, "POST", "secrets/read", &body)["version"], 2);
    let body = json!({ "secretId": id, "key": "value" });
    assert_eq!(server.good(200, "POST", "secrets/read", &body)["value"], "one");

    // Statuses.
    let status = |n: u64, verb: &str| format!("{versions}/{n}/{verb}");
    server.bad("VERSION_STATE_CONFLICT", "POST", &status(1, "disable"), &Value::Null);
    server.bad("VERSION_STATE_CONFLICT", "POST", &status(2, "destroy"), &Value::Null);
    assert_eq!(server.good(200, "POST", &status(2, "disable"), &Value::Null)["status"], "DISABLED");
    server.bad("SECRET_VERSION_DISABLED", "GET", "secrets/prod/app/db?version=2", &Value::Null);
    server.bad("VERSION_STATE_CONFLICT", "POST", &format!("{secret}/aliases/current"), &point(2, json!(1)));
    assert_eq!(server.good(200, "POST", &status(2, "enable"), &json!({}))["status"], "PREVIOUS");
    server.good(200, "POST", &status(2, "disable"), &Value::Null);
    assert_eq!(server.good(200, "POST", &status(2, "destroy"), &Value::Null)["status"], "DESTROYED");
    server.bad("SECRET_VERSION_DESTROYED", "GET", "secrets/prod/app/db?version=2", &Value::Null);
    server.bad("SECRET_VERSION_NOT_FOUND", "POST", &status(9, "enable"), &Value::Null);
    server.good(200, "POST", &status(1, "disable"), &json!({ "emergency": true }));
    server.bad("SECRET_VERSION_DISABLED", "GET", "secrets/prod/app/db", &Value::Null);
    assert_eq!(server.good(200, "POST", &status(1, "enable"), &Value::Null)["status"], "CURRENT");

    // What is known of it.
    let shown = server.good(200, "GET", &secret, &Value::Null);
    assert_eq!((&shown["ownerTeam"], &shown["classification"]), (&json!("payments"), &json!(2)));
    assert_eq!((&shown["currentVersion"], &shown["newestVersion"]), (&json!(1), &json!(2)));
    let list = server.good(200, "GET", &versions, &Value::Null);
    let statuses: Vec<&str> =
        list["versions"].as_array().unwrap().iter().filter_map(|v| v["status"].as_str()).collect();
    assert_eq!(statuses, ["CURRENT", "DESTROYED"]);
    let aliases = server.good(200, "GET", &format!("{secret}/aliases"), &Value::Null);
    assert_eq!(
        (&aliases["aliases"]["current"]["version"], &aliases["aliases"]["previous"]["version"]),
        (&json!(1), &json!(2))
    );

    // Soft deletion.
    server.bad("VERSION_STATE_CONFLICT", "DELETE", &format!("{versions}/1"), &Value::Null);
    server.good(204, "DELETE", &secret, &Value::Null);
    server.bad("SECRET_VERSION_DELETED", "GET", "secrets/prod/app/db", &Value::Null);
    server.good(204, "POST", &format!("{secret}/undelete"), &Value::Null);
    assert_eq!(server.good(200, "GET", "secrets/prod/app/db", &Value::Null)["data"]["value"], "one");

    // None of it stands in the audit by name or value; all of it by kind.
    let audit = server.stop();
    for kind in [
        "SECRET_CREATED",
        "VERSION_CREATED",
        "SECRET_PERMIT",
        "ALIAS_MOVED",
        "VERSION_STATUS_CHANGED",
        "VERSION_DESTROYED",
        "SECRET_DELETED",
        "SECRET_UNDELETED",
        "METADATA_READ",
        "SECRET_ERROR",
    ] {
        let record = audit.lines().find(|line| line.contains(&format!("\"{kind}\"")));
        let record = record.unwrap_or_else(|| panic!("{kind} is not in the audit"));
        assert!(record.contains("\"channel\":\"native\"") && record.contains("\"resource_ref\":\"rr1."), "{record}");
    }
    let pending = audit.lines().find(|line| line.contains("\"version_status\":\"PENDING\"")).unwrap();
    assert!(pending.contains("\"VERSION_CREATED\"") && pending.contains("\"kv_version\":2"), "{pending}");
    assert!(audit.contains("\"alias\":\"next\""));
    assert!(!audit.contains("app/db") && !audit.contains("payments"));
}

#[test]
fn both_faces_work_on_one_secret() {
    let server = Server::dev();
    // Made here, read there.
    let secret = server.secret("a");
    server.version(&secret, "one", "CURRENT");
    let read = |query: &str| server.root("GET", &format!("secret/data/prod/a{query}"), &Value::Null);
    let there = read("");
    assert_eq!(there.body["data"]["data"], json!({ "value": "one" }));
    assert_eq!(there.body["data"]["metadata"]["custom_metadata"]["owner_team"], "payments");

    // A pending version is seen by no unversioned read of either face.
    assert_eq!(server.version(&secret, "two", "PENDING"), 2);
    assert_eq!(read("").body["data"]["metadata"]["version"], 1);
    assert_eq!(server.good(200, "GET", "secrets/prod/a", &Value::Null)["version"], 1);
    assert_eq!(read("?alias=current").body["data"]["metadata"]["version"], 1);
    assert_eq!(read("?alias=previous").status, 404);
    assert_eq!(read("?version=2").body["data"]["data"]["value"], "two");
    server.good(
        200,
        "POST",
        &format!("{secret}/aliases/blue"),
        &json!({ "version": 2, "expectedPreviousVersion": null }),
    );
    assert_eq!(read("?alias=blue").body["data"]["data"]["value"], "two");

    // A write there makes a version that is current, and `cas` counts from what a reader sees.
    let write = json!({ "data": { "value": "three" }, "options": { "cas": 1 } });
    assert_eq!(server.good(200, "POST", "secret/data/prod/a", &write)["data"]["version"], 3);
    assert_eq!(server.good(200, "GET", "secrets/prod/a", &Value::Null)["version"], 3);
    assert_eq!(server.good(200, "GET", "secrets/prod/a?alias=previous", &Value::Null)["version"], 1);

    // Disabled: there is nothing there for either.
    server.good(200, "POST", &format!("{secret}/versions/1/disable"), &Value::Null);
    assert_eq!(read("?version=1").status, 404);
    assert_eq!(read("?alias=previous").status, 404);
    assert_eq!(server.root("GET", "secrets/prod/a?version=1", &Value::Null).status, 410);

    // Rolled back there, seen here.
    server.good(200, "POST", &format!("{secret}/versions/1/enable"), &Value::Null);
    let back = json!({ "alias": "current", "version": 1, "expected_previous_version": 3 });
    server.good(204, "POST", "secret/aliases/prod/a", &back);
    assert_eq!(server.good(200, "GET", "secrets/prod/a", &Value::Null)["data"]["value"], "one");
    assert_eq!(read("").body["data"]["data"]["value"], "one");

    // Made there, found here, by its id, too.
    server.good(200, "POST", "secret/data/prod/b%20c", &json!({ "data": { "k": "v" } }));
    let found = server.good(200, "GET", "secrets/prod/b%20c?key=k", &Value::Null);
    assert_eq!((&found["value"], &found["uri"]), (&json!("v"), &json!("keyward+kv2://secret/prod/b%20c")));
    let id = found["secretId"].as_str().unwrap();
    assert_eq!(server.good(200, "GET", &format!("secrets/{id}"), &Value::Null)["ownerTeam"], Value::Null);

    // Removed there, and the id stands for nothing any more.
    server.good(204, "DELETE", "secret/metadata/prod/b%20c", &Value::Null);
    server.bad("ACCESS_DENIED", "GET", &format!("secrets/{id}"), &Value::Null);
    server.bad("SECRET_NOT_FOUND", "GET", "secrets/prod/b%20c", &Value::Null);
}

#[test]
fn of_two_promotions_with_one_expectation_one_wins() {
    let server = Server::dev();
    let secret = server.secret("raced");
    let mut current = server.version(&secret, "first", "CURRENT");
    for _ in 0..12 {
        let rivals = [server.version(&secret, "a", "PENDING"), server.version(&secret, "b", "PENDING")];
        let start = Barrier::new(rivals.len());
        let promote = |version: u64| {
            let body = json!({ "version": version, "expectedPreviousVersion": current });
            start.wait();
            (version, server.root("POST", &format!("{secret}/aliases/current"), &body))
        };
        let results: Vec<(u64, Got)> = thread::scope(|scope| {
            let running: Vec<_> = rivals.map(|version| scope.spawn(move || promote(version))).into_iter().collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<u64> =
            results.iter().filter(|(_, got)| got.status == 200).map(|(version, _)| *version).collect();
        let [winner] = winners[..] else { panic!("{results:?}") };
        for (_, got) in results.iter().filter(|(version, _)| *version != winner) {
            assert_eq!((got.status, &got.body["code"]), (409, &json!("ALIAS_CAS_MISMATCH")));
        }
        assert_eq!(server.good(200, "GET", "secrets/prod/raced", &Value::Null)["version"], winner);
        let previous = server.good(200, "GET", "secrets/prod/raced?alias=previous", &Value::Null);
        assert_eq!(previous["version"], current);
        current = winner;
    }
}

#[test]
fn aliases_move_by_compare_and_swap() {
    let server = Server::dev();
    let secret = server.secret("aliased");
    server.version(&secret, "1", "CURRENT");
    server.version(&secret, "2", "PENDING");
    let alias = |name: &str| format!("{secret}/aliases/{name}");
    let point = |version: u64, expected: Value| json!({ "version": version, "expectedPreviousVersion": expected });
    for (name, body, code) in [
        ("previous", point(1, Value::Null), "ALIAS_RESERVED"),
        ("next", point(1, Value::Null), "VERSION_STATE_CONFLICT"),
        ("next", point(7, Value::Null), "SECRET_VERSION_NOT_FOUND"),
        ("next", point(2, json!(1)), "ALIAS_CAS_MISMATCH"),
        ("latest", point(2, Value::Null), "INVALID_ALIAS"),
        ("Blue", point(2, Value::Null), "INVALID_ALIAS"),
        ("blue", json!({ "version": 1 }), "INVALID_FIELD"),
        ("blue", json!({ "expectedPreviousVersion": null }), "INVALID_FIELD"),
        ("blue", point(0, Value::Null), "INVALID_FIELD"),
        ("blue", json!({ "version": 1, "expectedPreviousVersion": null, "demote": "disable" }), "INVALID_FIELD"),
    ] {
        server.bad(code, "POST", &alias(name), &body);
    }
    let blue = server.good(200, "POST", &alias("blue"), &point(1, Value::Null));
    let revision = blue["revision"].as_u64().unwrap();
    let head = |revision: u64| {
        format!("x-vault-token: root\r\ncontent-type: application/json\r\nif-match: \"{revision}\"\r\n")
    };
    let body = point(2, json!(1)).to_string();
    assert_eq!(server.raw("POST", &alias("blue"), &head(revision + 1), &body).status, 409);
    assert_eq!(server.raw("POST", &alias("blue"), &head(revision), &body).status, 200);
    server.bad("VERSION_STATE_CONFLICT", "POST", &format!("{secret}/versions/2/disable"), &Value::Null);
    server.bad("INVALID_FIELD", "DELETE", &alias("blue"), &Value::Null);
    server.bad("ALIAS_CAS_MISMATCH", "DELETE", &format!("{}?expectedVersion=1", alias("blue")), &Value::Null);
    server.bad("ALIAS_RESERVED", "DELETE", &format!("{}?expectedVersion=1", alias("current")), &Value::Null);
    server.good(204, "DELETE", &format!("{}?expectedVersion=2", alias("blue")), &Value::Null);
    server.bad("ALIAS_CAS_MISMATCH", "DELETE", &format!("{}?expectedVersion=2", alias("blue")), &Value::Null);
    for n in 0..8 {
        server.good(200, "POST", &alias(&format!("a{n}")), &point(1, Value::Null));
    }
    server.bad("INVALID_FIELD", "POST", &alias("a8"), &point(1, Value::Null));
    // A compromised version is put out of use in the same step.
    let compromised = json!({ "version": 2, "expectedPreviousVersion": 1, "demote": "disable" });
    server.good(200, "POST", &alias("current"), &compromised);
    server.bad("SECRET_VERSION_DISABLED", "GET", "secrets/prod/aliased?version=1", &Value::Null);
}

#[test]
fn one_policy_speaks_for_both_faces() {
    let server = Server::dev();
    let secret = server.secret("held");
    server.version(&secret, "1", "CURRENT");
    server.version(&secret, "2", "PENDING");
    let unknown = "secrets/00000000-0000-4000-8000-000000000000";
    let point = json!({ "version": 2, "expectedPreviousVersion": 1 });
    let write = json!({ "value": "x", "status": "PENDING", "expected_version": null });
    let created = json!({ "environment": "prod", "path": "held2", "ownerTeam": "t", "rotationStrategy": "s" });
    let nothing = Value::Null;
    // What each call needs, and its own target.
    let calls: [(&str, String, &Value, &str, &str); 12] = [
        ("GET", "secrets/prod/held".into(), &nothing, "secret/data/prod/held", "read"),
        ("GET", secret.clone(), &nothing, "secret/metadata/prod/held", "read"),
        ("GET", format!("{secret}/versions"), &nothing, "secret/metadata/prod/held", "read"),
        ("GET", "secrets?prefix=keyward%2Bkv2://secret/prod/".into(), &nothing, "secret/metadata/prod/", "list"),
        ("POST", "secrets".into(), &created, "secret/data/prod/held2", "create"),
        ("POST", format!("{secret}/versions"), &write, "secret/data/prod/held", "update"),
        ("POST", format!("{secret}/aliases/current"), &point, "secret/aliases/prod/held", "update"),
        ("POST", format!("{secret}/versions/1/disable"), &nothing, "secret/metadata/prod/held", "update"),
        ("POST", format!("{secret}/versions/1/destroy"), &nothing, "secret/destroy/prod/held", "update"),
        ("DELETE", format!("{secret}/versions/3"), &nothing, "secret/data/prod/held", "delete"),
        ("POST", format!("{secret}/versions/3/undelete"), &nothing, "secret/undelete/prod/held", "update"),
        ("DELETE", secret.clone(), &nothing, "secret/data/prod/held", "delete"),
    ];
    let nobody = server.token("nobody", "path \"secret/data/other\" { capabilities = [\"read\"] }");
    for (i, (method, target, body, path, capability)) in calls.into_iter().enumerate() {
        // Without the capability: the same answer whether or not the thing exists.
        let denied = server.call(&nobody, method, &target, body);
        assert_eq!((denied.status, &denied.body["code"]), (403, &json!("ACCESS_DENIED")), "{method} {target}");
        assert_eq!(denied.body["detail"], Value::Null);
        let elsewhere = target.replace(&secret, unknown).replace("prod/held", "prod/nothing");
        let absent = server.call(&nobody, method, &elsewhere, body);
        let same = |mut got: Value| {
            got.as_object_mut().unwrap().remove("request_id");
            got
        };
        assert_eq!((absent.status, same(absent.body)), (denied.status, same(denied.body)), "{method} {elsewhere}");
        // Every other capability on that path, and that one on other paths, does not help.
        let others: Vec<&str> =
            ["create", "read", "update", "delete", "list"].into_iter().filter(|other| *other != capability).collect();
        let wrong = format!(
            "path \"{path}\" {{ capabilities = {others:?} }}\npath \"secret/subkeys/*\" {{ capabilities = [\"{capability}\"] }}"
        );
        let wrong = server.token(&format!("wrong-{i}"), &wrong);
        assert_eq!(server.call(&wrong, method, &target, body).status, 403, "{method} {target}");
        // That one does.
        let right =
            server.token(&format!("right-{i}"), &format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}"));
        let done = server.call(&right, method, &target, body);
        assert!((200..300).contains(&done.status), "{method} {target}: {}", done.body);
    }
    // An id that stands for nothing is refused to everybody alike.
    server.bad("ACCESS_DENIED", "GET", unknown, &Value::Null);
    // Where an alias points is told to those who may read the metadata.
    let mover = server.token("mover", "path \"secret/aliases/prod/*\" { capabilities = [\"update\"] }");
    let moved = server.call(&mover, "POST", &format!("{secret}/aliases/current"), &point);
    assert_eq!((moved.status, moved.body.get("actual")), (409, None));
    // A policy that pins what may be written counts here, too.
    let pinned = "path \"secret/data/prod/held\" { capabilities = [\"update\", \"read\"]\n required_parameters = [\"options\"] }";
    let pinned = server.token("pinned", pinned);
    assert_eq!(server.call(&pinned, "POST", &format!("{secret}/versions"), &write).status, 403);
    let mut with_cas = write.clone();
    with_cas["expected_version"] = json!(2);
    assert_eq!(server.call(&pinned, "POST", &format!("{secret}/versions"), &with_cas).status, 201);
}

#[test]
fn requests_are_read_strictly() {
    let server = Server::dev();
    let secret = server.secret("strict");
    let versions = format!("{secret}/versions");
    let json_head = "x-vault-token: root\r\ncontent-type: application/json\r\n";
    for (body, code) in [
        (r#"{"value":"a","value":"b","status":"PENDING","expected_version":null}"#, "DUPLICATE_JSON_KEY"),
        (r#"{"value":"a","status":"PENDING","expected_version":null,"extra":1}"#, "UNKNOWN_FIELD"),
        (r#"{"value":1,"status":"PENDING","expected_version":null}"#, "INVALID_FIELD"),
        (r#"{"value":"a","status":"pending","expected_version":null}"#, "INVALID_FIELD"),
        (r#"{"value":"a","status":"PENDING"}"#, "INVALID_FIELD"),
        (r#"{"value":"a","status":"PENDING","expected_version":"1"}"#, "INVALID_FIELD"),
        (r#"{"value":"a","status":"PENDING","expected_version":null} x"#, "MALFORMED_JSON"),
        (r#"["value"]"#, "MALFORMED_JSON"),
        ("", "INVALID_FIELD"),
    ] {
        let got = server.raw("POST", &versions, json_head, body);
        assert_eq!(got.body["code"], code, "{body}: {}", got.body);
        assert_eq!(got.status, 400);
    }
    let deep = format!("{{\"value\":{{\"a\":{}{}}}}}", "[".repeat(40), "]".repeat(40));
    assert_eq!(server.raw("POST", &versions, json_head, &deep).body["code"], "MALFORMED_JSON");
    let large = format!("{{\"value\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(server.raw("POST", &versions, json_head, &large).status, 413);
    let form = "x-vault-token: root\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(server.raw("POST", &versions, form, "value=x").status, 415);
    let wrap = "x-vault-token: root\r\nx-vault-wrap-ttl: 60s\r\n";
    assert_eq!(server.raw("GET", "secrets/prod/strict", wrap, "").body["code"], "INVALID_FIELD");

    for (method, target, code) in [
        ("GET", "secrets/prod/strict?version=1&alias=next", "VERSION_ALIAS_CONFLICT"),
        ("GET", "secrets/prod/strict?version=0", "INVALID_VERSION"),
        ("GET", "secrets/prod/strict?alias=Next", "INVALID_ALIAS"),
        ("GET", "secrets/prod/strict?version=1&version=1", "AMBIGUOUS_QUERY"),
        ("GET", "secrets/prod/strict?list=true", "UNKNOWN_FIELD"),
        ("GET", "secrets/prod//strict", "ILLEGAL_SEGMENT"),
        ("GET", "secrets/prod/../strict", "ILLEGAL_SEGMENT"),
        ("GET", "secrets/prod/a%2Fb", "ILLEGAL_SEGMENT"),
        ("GET", "secrets/prod/%73trict", "ILLEGAL_ENCODING"),
        ("GET", "secrets/d%61ta/strict", "ILLEGAL_ENCODING"),
        ("GET", "secrets/prod/a%07", "ILLEGAL_CHARACTER"),
        ("GET", "secrets/prod/%C3%A4", "NON_ASCII"),
        ("GET", "secrets/prod", "INVALID_FIELD"),
        ("GET", "secrets", "INVALID_FIELD"),
        ("GET", "secrets?prefix=secret/", "MALFORMED_URI"),
        ("GET", "secrets?prefix=openbao%2Bkv2://secret/", "UNSUPPORTED_SCHEME"),
        ("LIST", "secrets/prod", "METHOD_NOT_ALLOWED"),
        ("PATCH", "secrets/prod/strict", "METHOD_NOT_ALLOWED"),
        ("PUT", "secrets", "METHOD_NOT_ALLOWED"),
        ("DELETE", "secrets/prod/strict", "METHOD_NOT_ALLOWED"),
        ("POST", "secrets/prod/strict", "METHOD_NOT_ALLOWED"),
    ] {
        server.bad(code, method, target, &Value::Null);
    }
    for (field, value, code) in [
        ("environment", json!("data"), "INVALID_FIELD"),
        ("environment", json!("00000000-0000-4000-8000-000000000000"), "INVALID_FIELD"),
        ("environment", json!("a/b"), "INVALID_FIELD"),
        ("path", json!("a//b"), "ILLEGAL_SEGMENT"),
        ("path", json!("a b"), "ILLEGAL_CHARACTER"),
        ("path", json!(["x"; 16].join("/")), "TOO_MANY_SEGMENTS"),
        ("ownerTeam", json!(""), "INVALID_FIELD"),
        ("rotationStrategy", Value::Null, "INVALID_FIELD"),
        ("classification", json!(5), "INVALID_FIELD"),
        ("mount", json!("other"), "INVALID_FIELD"),
        ("mount", json!("sys"), "RESERVED_MOUNT"),
        ("mount", json!("A"), "ILLEGAL_SEGMENT"),
        ("uri", json!("keyward+kv2://secret/a/b"), "UNKNOWN_FIELD"),
    ] {
        let mut body = new_secret("fields");
        body[field] = value;
        server.bad(code, "POST", "secrets", &body);
    }
    server.bad("SECRET_NOT_FOUND", "GET", "secrets/prod/fields", &Value::Null); // none of them made it

    // Credentials.
    let none = server.raw("GET", "secrets/prod/strict", "", "");
    assert_eq!((none.status, &none.body["code"]), (401, &json!("UNAUTHENTICATED")));
    assert!(none.head.contains("www-authenticate: bearer\r\n"), "{}", none.head);
    let wrong = server.call("wrong", "GET", "secrets/prod/strict", &Value::Null);
    assert_eq!((wrong.status, &wrong.body["code"]), (401, &json!("INVALID_TOKEN")));
    assert!(wrong.head.contains("www-authenticate: bearer error=\"invalid_token\""));

    // Nothing that was sent comes back in a refusal.
    let got = server.bad("SECRET_NOT_FOUND", "GET", "secrets/prod/canary-name?key=canary-key", &Value::Null);
    assert!(!got.to_string().contains("canary"));
    assert_eq!(got["type"], "urn:keyward:error:SECRET_NOT_FOUND");
    assert!(got["request_id"].as_str().is_some_and(|id| id.len() == 36));
}

#[test]
fn folders_are_listed_in_pages() {
    let server = Server::dev();
    for name in ["a", "b", "c/d"] {
        server.secret(name);
    }
    server.good(200, "POST", "secret/data/prod/no%C3%A4me", &json!({ "data": {} })); // has no URI
    let all = server.good(200, "GET", "secrets?prefix=keyward%2Bkv2://secret/prod/", &Value::Null);
    let uris = |page: &Value, kind: &str| -> Vec<String> {
        let items = page[kind].as_array().unwrap();
        items.iter().map(|item| item.get("uri").unwrap_or(item).as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(uris(&all, "secrets"), ["keyward+kv2://secret/prod/a", "keyward+kv2://secret/prod/b"]);
    assert_eq!(uris(&all, "prefixes"), ["keyward+kv2://secret/prod/c/"]);
    assert_eq!(all["next"], Value::Null);
    let root = server.good(200, "GET", "secrets?prefix=keyward+kv2://secret/", &Value::Null);
    assert_eq!(uris(&root, "prefixes"), ["keyward+kv2://secret/prod/"]);
    let mut seen = String::new();
    let mut after = String::new();
    loop {
        let target = format!("secrets?prefix=keyward+kv2://secret/prod/&limit=1&after={}", after.replace('/', "%2F"));
        let page = server.good(200, "GET", &target, &Value::Null);
        for uri in [uris(&page, "secrets"), uris(&page, "prefixes")].concat() {
            write!(seen, "{} ", uri.trim_start_matches("keyward+kv2://secret/prod/")).unwrap();
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(seen, "a b c/ ");
    // Names to one who may list, ids to one who may read the metadata.
    let lister = server.token("lister", "path \"secret/metadata/prod/\" { capabilities = [\"list\"] }");
    let names = server.call(&lister, "GET", "secrets?prefix=keyward+kv2://secret/prod/", &Value::Null).body;
    assert_eq!(uris(&names, "secrets").len(), 2);
    assert!(!names.to_string().contains("secretId") && all.to_string().contains("secretId"));
    let empty = server.good(200, "GET", "secrets?prefix=keyward+kv2://secret/none/", &Value::Null);
    assert_eq!(empty, json!({ "secrets": [], "prefixes": [], "next": null }));
    server.bad("INVALID_FIELD", "GET", "secrets?prefix=keyward+kv2://other/", &Value::Null);
}

#[test]
fn a_mount_called_secrets_keeps_its_paths() {
    let server = Server::dev();
    server.good(204, "POST", "sys/mounts/secrets", &json!({ "type": "kv-v2" }));
    server.good(200, "POST", "secrets/data/app", &json!({ "data": { "a": "b" } }));
    assert_eq!(server.good(200, "GET", "secrets/data/app", &Value::Null)["data"]["data"], json!({ "a": "b" }));
    assert_eq!(server.good(200, "LIST", "secrets/metadata/", &Value::Null)["data"]["keys"], json!(["app"]));
    assert_eq!(server.root("GET", "secrets/aliases/app", &Value::Null).status, 200);
    // And the native routes reach it like any other.
    let mut body = new_secret("app");
    body["mount"] = json!("secrets");
    assert_eq!(server.good(201, "POST", "secrets", &body)["uri"], "keyward+kv2://secrets/prod/app");
    let list = server.good(200, "GET", "secrets?prefix=keyward+kv2://secrets/", &Value::Null);
    assert_eq!(list["secrets"][0]["uri"], "keyward+kv2://secrets/app");
    let id = list["secrets"][0]["secretId"].as_str().unwrap();
    let read = json!({ "secretId": id, "key": "a" });
    assert_eq!(server.good(200, "POST", "secrets/read", &read)["value"], "b");
    server.bad("SECRET_NOT_FOUND", "GET", "secrets/prod/app", &Value::Null); // the default mount is another
    // Its secrets stay what they are when it moves.
    let moved = json!({ "from": "secrets", "to": "moved" });
    assert_eq!(server.root("POST", "sys/remount", &moved).status, 200);
    assert_eq!(server.good(200, "GET", &format!("secrets/{id}"), &Value::Null)["uri"], "keyward+kv2://moved/app");
}

#[test]
fn versions_are_kept_for_a_while_before_they_can_be_destroyed() {
    let server = Server::start(None);
    let made = server.raw("POST", "sys/init", "content-type: application/json\r\n", "{}");
    let token = made.body["root_token"].as_str().unwrap();
    let good = |method: &str, target: &str, body: &Value| {
        let got = server.call(token, method, target, body);
        assert!(got.status < 300, "{method} {target}: {}", got.body);
        got.body
    };
    // No mount is called `secret` yet.
    let none = server.call(token, "POST", "secrets", &new_secret("kept"));
    assert_eq!((none.status, &none.body["code"]), (400, &json!("INVALID_FIELD")));
    good("POST", "sys/mounts/secret", &json!({ "type": "kv-v2" }));
    let secret = format!("secrets/{}", good("POST", "secrets", &new_secret("kept"))["secretId"].as_str().unwrap());
    let write = json!({ "value": "x", "status": "PENDING", "expected_version": 0 });
    good("POST", &format!("{secret}/versions"), &write);
    let kept = server.call(token, "POST", &format!("{secret}/versions/1/destroy"), &Value::Null);
    assert_eq!((kept.status, &kept.body["code"]), (409, &json!("VERSION_STATE_CONFLICT")));
    assert!(kept.body["detail"].as_str().unwrap().contains("retention_min_s"));
}

#[test]
fn a_last_use_is_spent_by_a_refused_call_too() {
    let server = Server::dev();
    let policy = "path \"secret/data/prod/*\" { capabilities = [\"read\"] }";
    server.good(204, "POST", "sys/policies/acl/once", &json!({ "policy": policy }));
    let made = server.good(200, "POST", "auth/token/create", &json!({ "policies": ["once"], "num_uses": 1 }));
    let token = made["auth"]["client_token"].as_str().unwrap();
    let accessor = made["auth"]["accessor"].as_str().unwrap();
    let unknown = "secrets/00000000-0000-4000-8000-000000000000";
    assert_eq!(server.call(token, "GET", unknown, &Value::Null).status, 403);
    assert_eq!(server.call(token, "GET", "secrets/prod/x", &Value::Null).status, 401);
    let gone = server.root("POST", "auth/token/lookup-accessor", &json!({ "accessor": accessor }));
    assert_eq!(gone.status, 400);
}
