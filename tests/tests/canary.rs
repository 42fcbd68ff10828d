//! Unique values go through every API, also where they are refused; afterwards none of them is found in the data folder,
//! in the audit trail or in what the process printed, in any of the forms that a value can take.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_tests::client::Client;
use keyward_tests::disguise::Finder;
use keyward_tests::server::Server;
use keyward_tests::suite::Chance;
use serde_json::{Value, json};

/// An alias. The audit record names it, so that the search must find it.
const CONTROL: &str = "control-0123456789abcdef";

/// The values that must not be seen again, by what they were.
struct Canaries {
    chance: Chance,
    values: BTreeMap<String, Vec<u8>>,
}

impl Canaries {
    /// A fresh value. It has characters that JSON, URLs and shells write differently.
    fn fresh(&mut self, name: &str) -> String {
        self.plain(name) + "<\"é&"
    }

    /// A fresh value of letters and digits.
    fn plain(&mut self, name: &str) -> String {
        let value = format!("canary{:016x}{:016x}", self.chance.word(), self.chance.word());
        self.keep(name, value.as_bytes());
        value
    }

    /// A value that the server made.
    fn keep(&mut self, name: &str, value: &[u8]) {
        assert!(self.values.insert(name.to_owned(), value.to_vec()).is_none(), "{name} is there twice");
    }
}

#[test]
fn no_secret_is_found_outside_of_its_place() {
    let mut canaries = Canaries { chance: Chance::announced("canary"), values: BTreeMap::new() };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = ["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--plain", "--seal", "shamir"];
    let mut server = Server::start(&arguments);
    let (mut root, shares) = initialise(&server, &mut canaries);
    unseal(&server, &shares, &mut canaries);
    root = Client::new(&server.address, root.token());

    kv_version_2(&mut root, &mut canaries);
    kv_version_1(&mut root, &mut canaries);
    native(&mut root, &mut canaries);
    cubbyhole_and_wrapping(&mut root, &mut canaries);
    tokens(&mut root, &mut canaries);
    refusals(&mut root, &mut canaries);

    let finder = Finder::new(canaries.values.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    let running = look(&finder, &data);
    assert!(!look(&Finder::new([("control", CONTROL.as_bytes())]), &data).found.is_empty(), "the search finds nothing");
    cores_are_off(server.pid());
    root.put("sys/seal", &json!({})).expect(204);
    assert!(server.stop().success(), "{}", server.stderr());
    let stopped = look(&finder, &data);
    let printed = finder.find(&server.output());
    eprintln!("canary: {} values, {} and {} bytes of files", canaries.values.len(), running.bytes, stopped.bytes);
    assert!(running.bytes > 1000 && stopped.bytes > 1000, "there was nothing to look at");
    assert!(running.found.is_empty(), "while the node ran: {:#?}", running.found);
    assert!(stopped.found.is_empty(), "after it stopped: {:#?}", stopped.found);
    assert!(printed.is_empty(), "the process printed {printed:?}:\n{}", String::from_utf8_lossy(&server.output()));
}

fn initialise(server: &Server, canaries: &mut Canaries) -> (Client, Vec<String>) {
    let answer = server
        .client()
        .without_token()
        .put("sys/init", &json!({"secret_shares": 3, "secret_threshold": 2}))
        .expect(200)
        .json();
    let shares: Vec<String> =
        answer["keys_base64"].as_array().unwrap().iter().map(|share| share.as_str().unwrap().to_owned()).collect();
    for (number, share) in shares.iter().enumerate() {
        canaries.keep(&format!("share {number}"), &STANDARD.decode(share).unwrap());
    }
    let root = answer["root_token"].as_str().unwrap();
    canaries.keep("root token", root.as_bytes());
    (Client::new(&server.address, root), shares)
}

fn unseal(server: &Server, shares: &[String], canaries: &mut Canaries) {
    let mut anyone = server.client().without_token();
    let wrong = canaries.plain("a wrong share");
    anyone.put("sys/unseal", &json!({"key": STANDARD.encode(&wrong[..33])}));
    anyone.put("sys/unseal", &json!({"reset": true}));
    for share in &shares[..2] {
        anyone.put("sys/unseal", &json!({"key": share})).expect(200);
    }
    assert_eq!(server.seal_status()["sealed"], json!(false));
}

fn kv_version_2(root: &mut Client, canaries: &mut Canaries) {
    root.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    let (folder, leaf) = (canaries.plain("kv 2 folder"), canaries.plain("kv 2 leaf"));
    let data = format!("secret/data/{folder}/{leaf}");
    let (name, value) = (canaries.fresh("kv 2 name"), canaries.fresh("kv 2 value"));
    root.put(&data, &json!({"data": {name: value}})).expect(200);
    let patch = [("Content-Type", "application/merge-patch+json")];
    let patched = json!({"data": {"more": canaries.fresh("kv 2 patch")}});
    root.call_with("PATCH", &data, &patch, Some(&patched)).expect(200);
    let metadata = json!({"custom_metadata": {canaries.plain("metadata name"): canaries.plain("metadata value")}});
    root.put(&format!("secret/metadata/{folder}/{leaf}"), &metadata).expect(204);
    root.get(&data).expect(200);
    root.get(&format!("secret/subkeys/{folder}/{leaf}")).expect(200);
    root.list(&format!("secret/metadata/{folder}")).expect(200);
    root.list(&format!("secret/detailed-metadata/{folder}")).expect(200);
    root.delete(&data).expect(204);
    root.put(&format!("secret/undelete/{folder}/{leaf}"), &json!({"versions": [2]})).expect(204);
    root.put(&format!("secret/destroy/{folder}/{leaf}"), &json!({"versions": [1]})).expect(204);
    let gone = canaries.plain("removed leaf");
    root.put(&format!("secret/data/{gone}"), &json!({"data": {"v": canaries.fresh("removed value")}})).expect(200);
    root.delete(&format!("secret/metadata/{gone}")).expect(204);
    root.put("sys/rotate", &json!({})).expect(204);
    root.put(&data, &json!({"data": {"v": canaries.fresh("value under the second key")}})).expect(200);
}

fn kv_version_1(root: &mut Client, canaries: &mut Canaries) {
    root.put("sys/mounts/old", &json!({"type": "kv"})).expect(204);
    let path = format!("old/{}/{}", canaries.plain("kv 1 folder"), canaries.plain("kv 1 leaf"));
    root.put(&path, &json!({canaries.fresh("kv 1 name"): canaries.fresh("kv 1 value")})).expect(204);
    root.get(&path).expect(200);
    root.put(&path, &json!({"v": canaries.fresh("kv 1 second value")})).expect(204);
    root.delete(&path).expect(204);
}

fn native(root: &mut Client, canaries: &mut Canaries) {
    let (environment, path) = (canaries.plain("environment"), canaries.plain("native path"));
    let wish = json!({
        "environment": environment,
        "path": path,
        "ownerTeam": canaries.plain("owner"),
        "rotationStrategy": canaries.plain("strategy"),
    });
    let made = root.post("secrets", &wish).expect(201).json();
    let secret = format!("secrets/{}", made["secretId"].as_str().unwrap());
    let version = |value: String, status: &str| json!({"value": value, "status": status, "expected_version": null});
    let first = version(canaries.fresh("native value"), "CURRENT");
    root.post(&format!("{secret}/versions"), &first).expect(201);
    let second = version(canaries.fresh("pending native value"), "PENDING");
    root.post(&format!("{secret}/versions"), &second).expect(201);
    let alias = CONTROL;
    let point = |expected: Value| json!({"version": 2, "expectedPreviousVersion": expected});
    root.post(&format!("{secret}/aliases/{alias}"), &point(Value::Null)).expect(200);
    root.get(&format!("secrets/{environment}/{path}?alias={alias}")).expect(200);
    root.post(&format!("{secret}/aliases/current"), &point(json!(1))).expect(200);
    root.post(&format!("{secret}/aliases/current"), &point(json!(1))).expect(409);
    root.get(&secret).expect(200);
    root.post(&format!("{secret}/versions"), &json!({"value": canaries.fresh("refused native value"), "extra": 1}));
    root.post("secrets/read", &json!({"environment": canaries.plain("no environment"), "path": "x"}));
    root.delete(&secret).expect(204);
}

fn cubbyhole_and_wrapping(root: &mut Client, canaries: &mut Canaries) {
    let path = format!("cubbyhole/{}", canaries.plain("cubbyhole path"));
    root.put(&path, &json!({canaries.fresh("cubbyhole name"): canaries.fresh("cubbyhole value")})).expect(204);
    root.get(&path).expect(200);
    let wrap = [("X-Vault-Wrap-TTL", "5m")];
    for name in ["opened", "rewrapped", "left"] {
        let payload = json!({"v": canaries.fresh(&format!("{name} wrapped value"))});
        let answer = root.call_with("PUT", "sys/wrapping/wrap", &wrap, Some(&payload)).expect(200).json();
        let token = kept_token(&answer["wrap_info"]["token"], &format!("{name} wrapping token"), canaries);
        root.put("sys/wrapping/lookup", &json!({"token": token})).expect(200);
        match name {
            "opened" => drop(root.put("sys/wrapping/unwrap", &json!({"token": token})).expect(200)),
            "rewrapped" => {
                let answer = root.put("sys/wrapping/rewrap", &json!({"token": token})).expect(200).json();
                kept_token(&answer["wrap_info"]["token"], "wrapping token after rewrapping", canaries);
            }
            _ => {}
        }
    }
}

fn tokens(root: &mut Client, canaries: &mut Canaries) {
    let chosen = canaries.plain("chosen token id");
    let wish = json!({"id": chosen, "policies": ["default"], "meta": {"note": canaries.plain("token metadata")}});
    root.put("auth/token/create", &wish).expect(200);
    root.with_token(&chosen).get("auth/token/lookup-self").expect(200);
    root.put("auth/token/lookup", &json!({"token": chosen})).expect(200);
    root.put("auth/token/renew", &json!({"token": chosen})).expect(200);
    let answer = root.put("auth/token/create", &json!({"policies": ["default"], "ttl": "1h"})).expect(200).json();
    let made = kept_token(&answer["auth"]["client_token"], "token", canaries);
    root.with_token(&made).put("auth/token/renew-self", &json!({})).expect(200);
    root.with_token(&made).put("cubbyhole/x", &json!({"v": canaries.fresh("value of a token")})).expect(204);
    root.put("auth/token/revoke", &json!({"token": made})).expect(204);
}

/// What is refused is not kept either, nor told to a log.
fn refusals(root: &mut Client, canaries: &mut Canaries) {
    let json = [("Content-Type", "application/json"), ("X-Vault-Token", root.token())].map(|(n, v)| (n, v.to_owned()));
    let json = json.each_ref().map(|(name, value)| (*name, value.as_str()));
    let broken = format!("{{\"data\": {{\"v\": \"{}\" ]", canaries.plain("value in broken JSON"));
    root.send("PUT", "/v1/secret/data/x", &json, Some(broken.as_bytes())).unwrap().expect(400);
    let unknown = canaries.plain("unknown token");
    root.with_token(&unknown).get("secret/data/x").expect(403);
    root.put("auth/token/lookup", &json!({"token": canaries.plain("token of nobody")}));
    root.put("auth/token/revoke", &json!({"token": canaries.plain("revoked token of nobody")}));
    root.put("sys/wrapping/unwrap", &json!({"token": canaries.plain("wrapping token of nobody")})).expect(400);
    root.get(&format!("nowhere/{}", canaries.plain("path without mount"))).expect(404);
    root.get(&format!("secret/data/none?{}={}", canaries.plain("parameter"), canaries.plain("argument")));
    root.put("secret/data/x", &json!({"data": canaries.plain("data of the wrong type")})).expect(400);
    root.put("secret/data/x", &json!({"data": {}, "options": {"cas": canaries.plain("cas of the wrong type")}}));
    root.put(
        "secret/data/x",
        &json!({"data": {"v": canaries.fresh("value with a wrong cas")}, "options": {"cas": 99}}),
    )
    .expect(400);
    root.call("BREW", &format!("secret/data/{}", canaries.plain("path with a wrong verb")), None).expect(405);
    let bearer = format!("Bearer {}", canaries.plain("bearer token"));
    root.send("GET", "/v1/secret/data/x", &[("Authorization", &bearer)], None).unwrap().expect(403);
    let header = canaries.plain("header");
    root.call_with("GET", "secret/data/none", &[("X-Vault-Wrap-TTL", &header), ("X-Canary", &header)], None);
    root.put(
        "sys/policies/acl/bad",
        &json!({"policy": format!("path \"x\" {{ {} }}", canaries.plain("broken policy"))}),
    );
}

fn kept_token(token: &Value, name: &str, canaries: &mut Canaries) -> String {
    let token = token.as_str().unwrap().to_owned();
    canaries.keep(name, token.as_bytes());
    token
}

/// What was looked at, and what was found.
struct Looked {
    bytes: u64,
    found: Vec<String>,
}

fn look(finder: &Finder, folder: &Path) -> Looked {
    let mut looked = Looked { bytes: 0, found: Vec::new() };
    let mut folders = vec![folder.to_owned()];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    for path in paths {
        let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        looked.found.extend(finder.find(name.as_bytes()).into_iter().map(|what| format!("name {name}: {what}")));
        // A file may be let go between the listing and the reading.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        looked.bytes += bytes.len() as u64;
        looked.found.extend(finder.find(&bytes).into_iter().map(|what| format!("{name}: {what}")));
    }
    looked
}

/// A process that may not write a core file leaves none.
fn cores_are_off(pid: u32) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max core file size"));
    if let Some(line) = line {
        assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
    }
}
