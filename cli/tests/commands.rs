//! The real binary against a small responder: arguments in, requests on the wire, output and exit code out.
//!
//! The responder knows no rules of its own. Each test says which request gets which answer; a request that no answer was
//! laid out for gets a 599, so that a command which asks for more than expected fails its test.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod responder;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use keyward_model::event::{Event, EventKind, EventOutcome, Ulid};
use keyward_model::{Id, Secret, Timestamp};
use responder::{Responder, Run, denied, envelope, preflight};
use serde_json::{Value, json};

const MOUNTS: &str = "GET /v1/sys/internal/ui/mounts/secret/app/db";

fn kv() -> Responder {
    Responder::start().on(MOUNTS, 200, preflight("secret/", "2"))
}

fn version(number: u64) -> Value {
    json!({"created_time": "2026-11-25T12:00:00Z", "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": number})
}

#[test]
fn put_sends_what_was_piped_and_never_echoes_it() {
    let server = kv().on("PUT /v1/secret/data/app/db", 200, envelope(&version(1)));
    let run = server.run(&["kv", "put", "-cas=0", "secret/app/db", "password=-", "user=app"], "hunter2\n");
    run.expect(0);
    assert_eq!(
        server.body("PUT /v1/secret/data/app/db"),
        json!({
            "data": {"password": "hunter2\n", "user": "app"}, "options": {"cas": 0},
        })
    );
    assert!(run.out.contains("version            1"), "{}", run.out);
    assert!(!run.out.contains("hunter2") && !run.err.contains("hunter2"));
    assert_eq!(server.header("x-vault-token"), Some("test-token".into()));
    assert_eq!(server.header("x-vault-request"), Some("true".into()));
}

#[test]
fn get_in_every_form() {
    let body = envelope(&json!({"data": {"password": "hunter2", "port": 1e2}, "metadata": version(3)}));
    let server = kv().on("GET /v1/secret/data/app/db", 200, body);
    let table = server.run(&["kv", "get", "secret/app/db"], "");
    table.expect(0);
    assert!(table.out.contains("password    hunter2\n"), "{}", table.out);
    assert!(table.out.contains("version 3 of secret/app/db"), "{}", table.out);
    assert_eq!(server.run(&["kv", "get", "-field=password", "secret/app/db"], "").expect(0).out, "hunter2");
    let json_out = server.run(&["kv", "get", "-format=json", "secret/app/db"], "").expect(0).out;
    assert_eq!(serde_json::from_str::<Value>(&json_out).unwrap()["data"]["data"]["password"], "hunter2");
    let yaml = server.run(&["kv", "get", "--format", "yaml", "secret/app/db"], "").expect(0).out;
    assert!(yaml.contains("\n    password: hunter2\n"), "{yaml}");
    server.run(&["kv", "get", "-field=absent", "secret/app/db"], "").expect(1);
}

#[test]
fn get_by_mount_version_and_alias() {
    let body = envelope(&json!({"data": {"a": "b"}, "metadata": version(2)}));
    let server = Responder::start()
        .on("GET /v1/sys/internal/ui/mounts/team/kv", 200, preflight("team/kv/", "2"))
        .on("GET /v1/team/kv/data/app/db?version=2", 200, body.clone())
        .on("GET /v1/team/kv/data/app/db?alias=previous", 200, body);
    server.run(&["kv", "get", "-mount=team/kv", "-version=2", "app/db"], "").expect(0);
    server.run(&["kv", "get", "-mount", "team/kv", "-alias", "previous", "app/db"], "").expect(0);
}

#[test]
fn nothing_there_is_exit_code_2() {
    let server = kv()
        .on("GET /v1/secret/data/app/db", 404, json!({"errors": []}))
        .on("GET /v1/secret/metadata/app/db?list=true", 404, json!({"errors": []}))
        .on("GET /v1/sys/policies/acl/none", 404, json!({"errors": []}));
    for arguments in
        [&["kv", "get", "secret/app/db"][..], &["kv", "list", "secret/app/db"], &["policy", "read", "none"]]
    {
        let run = server.run(arguments, "");
        run.expect(2);
        assert!(run.err.starts_with("error: "), "{}", run.err);
        assert!(run.out.is_empty());
    }
}

#[test]
fn a_deleted_version_shows_what_is_left_of_it() {
    let mut metadata = version(3);
    metadata["deletion_time"] = "2026-11-25T13:00:00Z".into();
    let server = kv().on("GET /v1/secret/data/app/db", 404, envelope(&json!({"data": null, "metadata": metadata})));
    let run = server.run(&["kv", "get", "secret/app/db"], "");
    run.expect(0);
    assert!(run.out.contains("deleted as of 2026-11-25T13:00:00Z"), "{}", run.out);
    assert!(run.err.contains("keyward kv undelete -versions=3 secret/app/db"), "{}", run.err);
}

#[test]
fn version_1_mounts_work_without_prefixes() {
    let server = Responder::start()
        .on("GET /v1/sys/internal/ui/mounts/old/app", 200, preflight("old/", "1"))
        .on("PUT /v1/old/app", 204, Value::Null)
        .on("GET /v1/old/app", 200, envelope(&json!({"a": "b"})))
        .on("GET /v1/old/app?list=true", 200, envelope(&json!({"keys": ["x", "y/"]})))
        .on("DELETE /v1/old/app", 204, Value::Null);
    server.run(&["kv", "put", "old/app", "a=b"], "").expect(0);
    assert_eq!(server.body("PUT /v1/old/app"), json!({"a": "b"}));
    assert_eq!(server.run(&["kv", "get", "-field", "a", "old/app"], "").expect(0).out, "b");
    assert_eq!(server.run(&["kv", "list", "old/app"], "").expect(0).out, "Keys\n----\nx\ny/\n");
    server.run(&["kv", "delete", "old/app"], "").expect(0);
    server.run(&["kv", "undelete", "-versions=1", "old/app"], "").expect(1);
}

#[test]
fn patch_falls_back_to_read_and_write_with_cas() {
    let server = kv()
        .on("PATCH /v1/secret/data/app/db", 403, denied())
        .on("GET /v1/secret/data/app/db", 200, envelope(&json!({"data": {"a": "1", "b": "2"}, "metadata": version(4)})))
        .on("PUT /v1/secret/data/app/db", 200, envelope(&version(5)));
    server.run(&["kv", "patch", "-remove-data=b", "secret/app/db", "c=3"], "").expect(0);
    assert_eq!(server.header_of("PATCH /v1/secret/data/app/db", "content-type"), "application/merge-patch+json");
    let written = server.body("PUT /v1/secret/data/app/db");
    assert_eq!(written, json!({"data": {"a": "1", "c": "3"}, "options": {"cas": 4}}));
    server.run(&["kv", "patch", "-method=patch", "secret/app/db", "c=3"], "").expect(2);
}

#[test]
fn versions_are_sent_as_numbers_in_text() {
    let server = kv()
        .on("PUT /v1/secret/delete/app/db", 204, Value::Null)
        .on("PUT /v1/secret/undelete/app/db", 204, Value::Null)
        .on("PUT /v1/secret/destroy/app/db", 204, Value::Null)
        .on("DELETE /v1/secret/data/app/db", 204, Value::Null)
        .on("DELETE /v1/secret/metadata/app/db", 204, Value::Null);
    for verb in ["delete", "undelete", "destroy"] {
        server.run(&["kv", verb, "-versions=1,2", "secret/app/db"], "").expect(0);
        assert_eq!(server.body(&format!("PUT /v1/secret/{verb}/app/db")), json!({"versions": ["1", "2"]}));
    }
    server.run(&["kv", "delete", "secret/app/db"], "").expect(0);
    server.run(&["kv", "metadata", "delete", "secret/app/db"], "").expect(0);
    server.run(&["kv", "destroy", "secret/app/db"], "").expect(1);
}

#[test]
fn rollback_writes_the_old_value_over_the_version_it_saw() {
    let value = |text: &str, number| envelope(&json!({"data": {"a": text}, "metadata": version(number)}));
    let server = kv()
        .on("GET /v1/secret/data/app/db", 200, value("new", 4))
        .on("GET /v1/secret/data/app/db?version=2", 200, value("old", 2))
        .on("PUT /v1/secret/data/app/db", 200, envelope(&version(5)));
    server.run(&["kv", "rollback", "-version=2", "secret/app/db"], "").expect(0);
    let written = server.body("PUT /v1/secret/data/app/db");
    assert_eq!(written, json!({"data": {"a": "old"}, "options": {"cas": 4}}));
}

#[test]
fn metadata_sends_only_what_was_given() {
    let server = kv()
        .on("PUT /v1/secret/metadata/app/db", 204, Value::Null)
        .on("PATCH /v1/secret/metadata/app/db", 204, Value::Null)
        .on(
            "GET /v1/secret/metadata/app/db",
            200,
            envelope(&json!({
                "current_version": 10, "max_versions": 0, "custom_metadata": {"team": "a"},
                "versions": {"10": version(10), "9": version(9)},
            })),
        );
    let arguments = ["kv", "metadata", "put", "-max-versions=5", "-custom-metadata=team=a", "secret/app/db"];
    server.run(&arguments, "").expect(0);
    let body = server.body("PUT /v1/secret/metadata/app/db");
    assert_eq!(body, json!({"max_versions": 5, "custom_metadata": {"team": "a"}}));
    let arguments = ["kv", "metadata", "patch", "-cas-required=false", "-remove-custom-metadata=team", "secret/app/db"];
    server.run(&arguments, "").expect(0);
    let body = server.body("PATCH /v1/secret/metadata/app/db");
    assert_eq!(body, json!({"cas_required": false, "custom_metadata": {"team": null}}));
    let table = server.run(&["kv", "metadata", "get", "secret/app/db"], "").expect(0).out;
    let (nine, ten) = (table.find("\n9 ").unwrap(), table.find("\n10 ").unwrap());
    assert!(nine < ten, "{table}");
}

#[test]
fn aliases_move_by_compare_and_swap() {
    let aliases = json!({"aliases": {"current": 2, "previous": 1, "canary": 3}, "secret_id": "x"});
    let server =
        kv().on("GET /v1/secret/aliases/app/db", 200, aliases).on("POST /v1/secret/aliases/app/db", 204, Value::Null);
    let list = server.run(&["alias", "list", "secret/app/db"], "").expect(0).out;
    assert_eq!(list, "Alias       Version\n-----       -------\ncurrent     2\nprevious    1\ncanary      3\n");
    assert_eq!(server.run(&["alias", "get", "-field=version", "secret/app/db", "current"], "").expect(0).out, "2");
    server.run(&["alias", "get", "secret/app/db", "next"], "").expect(2);
    for (from, expected) in [("-from=none", json!(null)), ("-from=7", json!(7)), ("--", json!(2))] {
        let mut arguments = vec!["alias", "set", "secret/app/db", "current", "3"];
        arguments.push(from);
        server.run(&arguments, "").expect(0);
        let body = server.body("POST /v1/secret/aliases/app/db");
        assert_eq!(body, json!({"alias": "current", "version": 3, "expected_previous_version": expected}));
    }
    let told = json!({"errors": ["alias does not point to the expected version"]});
    let raced = kv().on("POST /v1/secret/aliases/app/db", 400, told);
    assert!(
        raced.run(&["alias", "set", "-from=1", "secret/app/db", "current", "3"], "").expect(2).err.contains("moved")
    );
    let raced = kv().on("POST /v1/secret/aliases/app/db", 409, json!({"errors": ["ALIAS_CAS_MISMATCH"]}));
    let run = raced.run(&["alias", "set", "-from=1", "secret/app/db", "current", "3"], "");
    run.expect(2);
    assert!(run.err.contains("nothing was moved"), "{}", run.err);
}

#[test]
fn tokens() {
    let auth = json!({
        "request_id": "r", "data": null, "wrap_info": null, "warnings": null,
        "auth": {"client_token": "s.new", "accessor": "acc", "policies": ["app"], "lease_duration": 3600, "renewable": true},
    });
    let server = Responder::start()
        .on("POST /v1/auth/token/create", 200, auth.clone())
        .on(
            "GET /v1/auth/token/lookup-self",
            200,
            envelope(&json!({"id": "test-token", "policies": ["root"], "ttl": 0})),
        )
        .on("POST /v1/auth/token/lookup-accessor", 200, envelope(&json!({"id": "", "policies": ["root"]})))
        .on("PUT /v1/auth/token/renew-self", 200, auth)
        .on("PUT /v1/auth/token/revoke", 204, Value::Null)
        .on("PUT /v1/auth/token/revoke-self", 204, Value::Null)
        .on("POST /v1/sys/capabilities-self", 200, envelope(&json!({"a/b": ["update", "read"]})));
    let arguments = ["token", "create", "-policy=app", "-ttl=1h", "-renewable=false", "-use-limit=3", "-field=token"];
    assert_eq!(server.run(&arguments, "").expect(0).out, "s.new");
    let body = server.body("POST /v1/auth/token/create");
    assert_eq!(body, json!({"policies": ["app"], "ttl": "1h", "renewable": false, "num_uses": 3}));
    server.run(&["token", "lookup"], "").expect(0);
    server.run(&["token", "lookup", "-accessor", "acc"], "").expect(0);
    server.run(&["token", "renew", "-increment=10m"], "").expect(0);
    assert_eq!(server.body("PUT /v1/auth/token/renew-self"), json!({"increment": "10m"}));
    server.run(&["token", "revoke", "-"], "s.gone\n").expect(0);
    assert_eq!(server.body("PUT /v1/auth/token/revoke"), json!({"token": "s.gone"}));
    server.run(&["token", "revoke", "-self"], "").expect(0);
    server.run(&["token", "revoke"], "").expect(1);
    assert_eq!(server.run(&["token", "capabilities", "a/b"], "").expect(0).out, "read, update\n");
}

#[test]
fn login_keeps_the_token_and_says_so_without_showing_it_elsewhere() {
    let server = Responder::start()
        .on("GET /v1/auth/token/lookup-self", 200, envelope(&json!({"id": "s.mine", "policies": ["app"], "ttl": 60})))
        .on("PUT /v1/auth/userpass/login/ann", 200, json!({"request_id": "r", "auth": {"client_token": "s.ann"}}));
    let home = tempfile::tempdir().unwrap();
    let run = server.run_at(home.path(), &["login", "-no-print"], "s.mine\n", &[]);
    run.expect(0);
    assert!(!run.out.contains("s.mine") && !run.err.contains("s.mine"));
    assert_eq!(std::fs::read_to_string(home.path().join(".keyward-token")).unwrap(), "s.mine");
    assert_eq!(server.header("x-vault-token"), Some("s.mine".into()));
    let arguments = ["login", "-method=userpass", "-token-only", "username=ann", "password=-"];
    assert_eq!(server.run_at(home.path(), &arguments, "pw", &[]).expect(0).out, "s.ann\n");
    assert_eq!(server.body("PUT /v1/auth/userpass/login/ann"), json!({"password": "pw"}));
    assert_eq!(std::fs::read_to_string(home.path().join(".keyward-token")).unwrap(), "s.mine");
}

#[test]
fn status_tells_sealed_from_unreachable() {
    let seal = |sealed: bool| json!({"type": "shamir", "initialized": true, "sealed": sealed, "t": 3, "n": 5, "progress": 1, "nonce": "x", "version": "1"});
    let open = Responder::start().on("GET /v1/sys/seal-status", 200, seal(false)).on(
        "GET /v1/sys/leader",
        200,
        json!({"ha_enabled": true, "is_self": true}),
    );
    let run = open.run(&["status"], "");
    run.expect(0);
    assert!(run.out.contains("Sealed             false\n"), "{}", run.out);
    let sealed = Responder::start().on("GET /v1/sys/seal-status", 200, seal(true));
    let run = sealed.run(&["status", "-format=json"], "");
    run.expect(2);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap()["sealed"], true);
    let nobody = Responder::start().on("GET /v1/sys/seal-status", 500, json!({"errors": ["x"]}));
    nobody.run(&["status"], "").expect(1);
}

#[test]
fn operator_commands() {
    let server = Responder::start()
        .on("GET /v1/sys/seal-status", 200, json!({"type": "shamir", "sealed": true}))
        .on("GET /v1/sys/init", 200, json!({"initialized": false}))
        .on("PUT /v1/sys/init", 200, json!({"keys": ["aa"], "keys_base64": ["qg=="], "root_token": "s.root"}))
        .on("PUT /v1/sys/unseal", 200, json!({"type": "shamir", "sealed": false, "t": 1, "n": 1, "progress": 0}))
        .on("PUT /v1/sys/seal", 204, Value::Null)
        .on("POST /v1/sys/rotate/keyring", 404, json!({"errors": ["unsupported path"]}))
        .on("POST /v1/sys/rotate", 204, Value::Null)
        .on("GET /v1/sys/key-status", 200, envelope(&json!({"term": 2, "install_time": "now", "encryptions": 0})));
    server.run(&["operator", "init", "-status"], "").expect(2);
    let out = server.run(&["operator", "init", "-n", "1", "-t=1"], "").expect(0).out;
    assert!(out.contains("Unseal Key 1: qg==\n") && out.contains("Initial Root Token: s.root\n"), "{out}");
    assert_eq!(server.body("PUT /v1/sys/init"), json!({"secret_shares": 1, "secret_threshold": 1}));
    let phrase = Responder::start()
        .on("GET /v1/sys/seal-status", 200, json!({"type": "passphrase", "sealed": true}))
        .on("PUT /v1/sys/init", 200, json!({"keys": [], "keys_base64": [], "root_token": "s.root"}));
    let run = phrase.run(&["operator", "init"], "correct horse\n").expect(0);
    assert_eq!(phrase.body("PUT /v1/sys/init"), json!({"passphrase": "correct horse"}));
    assert!(run.err.contains("keyward login"), "{}", run.err);
    server.run(&["operator", "unseal"], "qg==\n").expect(0);
    assert_eq!(server.body("PUT /v1/sys/unseal"), json!({"key": "qg=="}));
    server.run(&["operator", "unseal", "-reset"], "").expect(0);
    assert_eq!(server.body("PUT /v1/sys/unseal"), json!({"reset": true}));
    server.run(&["operator", "seal"], "").expect(0);
    let out = server.run(&["operator", "rotate"], "").expect(0).out;
    assert!(out.contains("Key Term            2\n"), "{out}");
}

#[test]
fn members_of_a_cluster() {
    let member = |id: &str, leader: bool| {
        json!({"id": id, "raft_id": "1", "name": id, "role": "voter", "leader": leader, "lag": 0,
            "last_heard_ms": null, "node_address": "h:1", "api_address": "u", "certificate_until": "soon"})
    };
    let members = json!({"members": [member("one", true), member("two", false)], "leader": "1", "term": 1});
    let server = Responder::start()
        .on("GET /v1/sys/seal-status", 200, json!({"type": "keyfile", "initialized": true, "sealed": false}))
        .on("GET /v1/sys/leader", 200, json!({"ha_enabled": true, "is_self": true}))
        .on("GET /v1/sys/cluster/members", 200, envelope(&members))
        .on(
            "POST /v1/sys/cluster/join-token",
            200,
            envelope(&json!({"join_token": "kwj1.x", "expires": "soon", "name": null})),
        )
        .on("DELETE /v1/sys/cluster/members/two?force=true", 204, Value::Null)
        .on("DELETE /v1/sys/cluster/members/nobody", 404, json!({"errors": []}))
        .on("POST /v1/sys/cluster/members/two/promote", 204, Value::Null)
        .on("PUT /v1/sys/step-down", 204, Value::Null);
    let run = server.run(&["operator", "join-token", "-ttl=5m", "-name=two"], "").expect(0);
    assert_eq!(run.out, "kwj1.x\n", "one line to hand on; the rest is a hint");
    assert!(run.err.contains("keyward server --join"), "{}", run.err);
    assert_eq!(server.body("POST /v1/sys/cluster/join-token"), json!({"ttl": "5m", "name": "two"}));
    assert_eq!(server.run(&["operator", "join-token", "-field=join_token"], "").expect(0).out, "kwj1.x");
    let out = server.run(&["operator", "members"], "").expect(0).out;
    assert!(out.lines().any(|line| line.starts_with("one") && line.contains('*')), "{out}");
    let out = server.run(&["operator", "members", "-format=json"], "").expect(0).out;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), members);
    let out = server.run(&["status"], "").expect(0).out;
    assert!(out.contains("Sealed") && out.lines().any(|line| line.starts_with("two")), "{out}");
    server.run(&["operator", "remove", "-force", "two"], "").expect(0);
    server.run(&["operator", "promote", "two"], "").expect(0);
    server.run(&["operator", "step-down"], "").expect(0);
    assert!(server.run(&["operator", "remove", "nobody"], "").expect(2).err.contains("no member `nobody`"));
}

#[test]
fn policies_and_mounts() {
    let server = Responder::start()
        .on("GET /v1/sys/policies/acl?list=true", 200, envelope(&json!({"keys": ["default", "root"]})))
        .on("GET /v1/sys/policies/acl/app", 200, envelope(&json!({"name": "app", "policy": "path \"a\" {}"})))
        .on("PUT /v1/sys/policies/acl/app", 204, Value::Null)
        .on(
            "GET /v1/sys/mounts",
            200,
            envelope(&json!({"kv/": {"type": "kv", "accessor": "kv_1", "description": "d", "config": {}}})),
        )
        .on("POST /v1/sys/mounts/team", 204, Value::Null)
        .on("POST /v1/sys/mounts/team/tune", 204, Value::Null)
        .on("POST /v1/sys/remount", 200, envelope(&json!({"migration_id": "m"})))
        .on("DELETE /v1/sys/mounts/team", 204, Value::Null);
    assert_eq!(server.run(&["policy", "list"], "").expect(0).out, "default\nroot\n");
    assert_eq!(server.run(&["policy", "read", "app"], "").expect(0).out, "path \"a\" {}\n");
    server.run(&["policy", "write", "app", "-"], "path \"b\" {}\n").expect(0);
    assert_eq!(server.body("PUT /v1/sys/policies/acl/app"), json!({"policy": "path \"b\" {}"}));
    assert!(server.run(&["secrets", "list"], "").expect(0).out.contains("kv/     kv      kv_1"));
    server.run(&["secrets", "enable", "-path=team/", "-version=2", "-description=x", "kv"], "").expect(0);
    let body = server.body("POST /v1/sys/mounts/team");
    assert_eq!(body, json!({"type": "kv", "config": {}, "options": {"version": "2"}, "description": "x"}));
    server.run(&["secrets", "tune", "-max-lease-ttl=1h", "team/"], "").expect(0);
    assert_eq!(server.body("POST /v1/sys/mounts/team/tune"), json!({"max_lease_ttl": "1h"}));
    server.run(&["secrets", "move", "team/", "crew/"], "").expect(0);
    assert_eq!(server.body("POST /v1/sys/remount"), json!({"from": "team", "to": "crew"}));
    server.run(&["secrets", "disable", "team/"], "").expect(0);
    let names = server.run(&["policy", "list", "-format=json"], "").expect(0).out;
    assert_eq!(serde_json::from_str::<Value>(&names).unwrap(), json!(["default", "root"]));
}

#[test]
fn any_path() {
    let server = Responder::start()
        .on("GET /v1/cubbyhole/a", 200, envelope(&json!({"k": "v"})))
        .on("PUT /v1/cubbyhole/a", 204, Value::Null)
        .on("DELETE /v1/cubbyhole/a", 204, Value::Null)
        .on("GET /v1/cubbyhole/?list=true", 599, Value::Null)
        .on("GET /v1/cubbyhole?list=true", 200, envelope(&json!({"keys": ["a"]})))
        .on("PUT /v1/sys/wrapping/unwrap", 200, envelope(&json!({"k": "v"})));
    assert_eq!(server.run(&["read", "-field=k", "cubbyhole/a"], "").expect(0).out, "v");
    server.run(&["write", "cubbyhole/a"], "").expect(1);
    server.run(&["write", "-f", "cubbyhole/a"], "").expect(0);
    server.run(&["write", "cubbyhole/a", "-"], r#"{"n": 12345678901234567890.10}"#).expect(0);
    assert_eq!(server.raw_body("PUT /v1/cubbyhole/a"), r#"{"n":12345678901234567890.10}"#);
    assert_eq!(server.run(&["list", "-format=json", "cubbyhole/"], "").expect(0).out, "[\n  \"a\"\n]\n");
    server.run(&["delete", "cubbyhole/a"], "").expect(0);
    server.run(&["unwrap", "-"], "s.wrap\n").expect(0);
    assert_eq!(server.body("PUT /v1/sys/wrapping/unwrap"), json!({"token": "s.wrap"}));
    server.run(&["read", "-wrap-ttl=60s", "cubbyhole/a"], "").expect(0);
    assert_eq!(server.header("x-vault-wrap-ttl"), Some("60s".into()));
    server.run(&["read", "a/../b"], "").expect(1);
}

#[test]
fn refusals_say_what_to_do() {
    let server = kv().on("GET /v1/secret/data/app/db", 403, denied());
    let run = server.run(&["kv", "get", "secret/app/db"], "");
    run.expect(2);
    assert!(run.err.contains("the token may not read `secret/data/app/db`"), "{}", run.err);
    assert!(run.err.contains(r#"path "secret/data/app/db" { capabilities = ["read"] }"#), "{}", run.err);
    let sealed = Responder::start().on(MOUNTS, 503, json!({"errors": ["Vault is sealed"]}));
    let run = sealed.run(&["kv", "get", "secret/app/db"], "");
    run.expect(2);
    assert!(run.err.contains("keyward operator unseal"), "{}", run.err);
}

#[test]
fn addresses_that_do_not_answer() {
    let home = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("http://127.0.0.1:{port}");
    let run = Run::of(home.path(), &["token", "lookup"], "", &[("BAO_ADDR", &address)]);
    run.expect(2);
    assert!(run.err.contains("connection refused") && run.err.contains("comes from BAO_ADDR"), "{}", run.err);
    let run = Run::of(home.path(), &["status"], "", &[("VAULT_ADDR", &address)]);
    run.expect(1);
    let plain = Responder::start();
    let tls = plain.address().replace("http://", "https://");
    let run = Run::of(home.path(), &["token", "lookup", "-address", &tls], "", &[]);
    run.expect(2);
    assert!(run.err.contains(&format!("--address {}", plain.address())), "{}", run.err);
    Run::of(home.path(), &["token", "lookup", "-address", "nonsense"], "", &[]).expect(1);
}

#[test]
fn certificates_are_believed_by_name_of_their_authority_only() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["bench-responder", "--tls", "--read-bytes=2", "--write-bytes=2", "--list-bytes=2"];
    let mut server = Run::command(home.path(), &arguments, &[]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let authority = home.path().join("authority.pem");
    std::fs::write(&authority, said["certificate"].as_str().unwrap()).unwrap();
    let address = format!("https://localhost:{}", said["port"]);
    let run = |host: &str, variables: &[(&str, &str)]| {
        Run::of(home.path(), &["token", "lookup", "-address", &address.replace("localhost", host)], "", variables)
    };
    assert!(run("localhost", &[]).expect(2).err.contains("--ca-cert FILE or KEYWARD_CACERT"));
    let known = [("VAULT_CACERT", authority.to_str().unwrap())];
    // Its answer is no JSON: we got through.
    assert!(run("localhost", &known).expect(2).err.contains("unexpected answer"));
    assert!(run("127.0.0.1", &known).expect(2).err.contains("is for another name"));
    assert!(run("127.0.0.1", &[("KEYWARD_SKIP_VERIFY", "true")]).expect(2).err.contains("unexpected answer"));
    assert!(
        run("localhost", &[("KEYWARD_CACERT", "/does/not/exist")]).expect(1).err.contains("cannot read the authority")
    );
    let plain = address.replace("https", "http");
    let run = Run::of(home.path(), &["token", "lookup", "-address", &plain], "", &[]).expect(2);
    assert!(run.err.contains(&format!("--address {address}")), "{}", run.err);
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[test]
fn bench_makes_measures_and_removes() {
    let server = Responder::start()
        .on("GET /v1/sys/internal/ui/mounts/kv", 200, preflight("kv/", "2"))
        .otherwise(200, envelope(&version(1)));
    let arguments = [
        "bench",
        "-mount=kv",
        "--connections=1,3",
        "--workload=read,write,mix,list",
        "--keys=25",
        "--rounds=2",
        "--duration=0.05",
        "--warm-up=0.01",
        "--format=json",
    ];
    let report: Value = serde_json::from_str(&server.run(&arguments, "").expect(0).out).unwrap();
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 8);
    for result in results {
        for measured in [&result["server"], &result["bare"]] {
            assert!(measured["requests"].as_u64().unwrap() > 0, "{result}");
            assert!(measured["p50_us"].as_f64().unwrap() > 0.0, "{result}");
            assert_eq!(measured["errors"], json!({}), "{result}");
        }
        assert!(result["of_bare"].as_f64().unwrap() > 0.0, "{result}");
    }
    assert_eq!(server.count("DELETE /v1/kv/metadata/keyward-bench/f000000"), 25);
    assert_eq!(server.count("DELETE /v1/kv/metadata/keyward-bench/f0000002/k4"), 1);
    assert!(server.count("PUT /v1/kv/data/keyward-bench/f000000") >= 25);

    let filled = server.run(&["bench", "-mount=kv", "--populate=30", "--prefix=a/b"], "").expect(0);
    assert!(filled.out.contains("\n30 "), "{}", filled.out);
    assert_eq!((server.count("PUT /v1/kv/data/a/b/f"), server.count("DELETE /v1/kv/metadata/a/b/")), (30, 0));
    server.run(&["bench", "-mount=kv", "--connections=0"], "").expect(1);
}

#[test]
fn bench_deals_its_connections_out_to_all_nodes() {
    let node = || {
        Responder::start()
            .on("GET /v1/sys/internal/ui/mounts/secret", 200, preflight("secret/", "2"))
            .otherwise(200, envelope(&version(1)))
    };
    let (one, two) = (node(), node());
    let also = format!("--also={}", two.address());
    let arguments = ["bench", "--connections=2", "--keys=5", "--duration=0.1", "--warm-up=0", "--format=json", &also];
    let report: Value = serde_json::from_str(&one.run(&arguments, "").expect(0).out).unwrap();
    assert_eq!(report["settings"]["addresses"].as_array().unwrap().len(), 2);
    assert!(report["results"][0]["server"]["longest_silence_ms"].as_f64().unwrap() > 0.0, "{report}");
    for server in [&one, &two] {
        assert!(server.count("GET /v1/secret/data/keyward-bench/f000000") > 0);
    }
}

#[test]
fn bench_counts_what_is_refused_as_errors() {
    let server = Responder::start()
        .on("GET /v1/sys/internal/ui/mounts/secret", 200, preflight("secret/", "2"))
        .on("GET /v1/secret/data/keyward-bench/f0000000/k0", 200, Value::Null)
        .on("PUT /v1/secret/data/keyward-bench/f0000000/k0", 200, Value::Null)
        .on("GET /v1/secret/metadata/keyward-bench/f0000000?list=true", 200, Value::Null)
        .otherwise(503, json!({"errors": ["Vault is sealed"]}));
    let arguments = ["bench", "--populated", "--connections=2", "--duration=0.05", "--warm-up=0", "--no-bare"];
    let run = server.run(&arguments, "").expect(0);
    assert!(run.err.contains("times status 503"), "{}", run.err);
    let run = server.run(&["bench", "--populate=3"], "").expect(2);
    assert!(run.err.contains("status 503"), "{}", run.err);
    let run = Responder::start().run(&["bench"], "").expect(2);
    assert!(run.err.contains("599"), "{}", run.err);
}

#[test]
fn a_write_whose_outcome_is_not_known_is_sent_again_as_the_same() {
    let unknown = json!({"errors": ["it is not known whether this was done: read before you try again"]});
    let put = "PUT /v1/secret/data/app/db";
    let server = kv().on(put, 503, unknown).on("GET /v1/secret/data/app/db", 200, envelope(&json!({"data": {}})));
    assert!(server.run(&["kv", "put", "secret/app/db", "a=1"], "").expect(2).err.contains("not known"));
    let first = server.headers_of(put, "idempotency-key");
    assert_eq!(first.len(), 4);
    assert!(first[0].is_some() && first.iter().all(|id| *id == first[0]), "{first:?}");
    server.run(&["kv", "put", "secret/app/db", "a=1"], "").expect(2);
    assert_ne!(server.headers_of(put, "idempotency-key")[4], first[0], "another write is another one");
    server.run(&["read", "secret/data/app/db"], "").expect(0);
    assert_eq!(server.headers_of("GET /v1/secret/data/app/db", "idempotency-key"), [None]);

    let refused = kv().on(put, 503, json!({"errors": ["no node leads at the moment: nothing was changed; try again"]}));
    refused.run(&["kv", "put", "secret/app/db", "a=1"], "").expect(2);
    assert_eq!(refused.headers_of(put, "idempotency-key").len(), 1, "what was not done is the caller's to repeat");

    let full = json!({"errors": ["too many writes with an Idempotency-Key are remembered, of this token or in all"]});
    let full = kv().on(put, 503, full);
    full.run(&["kv", "put", "secret/app/db", "a=1"], "").expect(2);
    let ids = full.headers_of(put, "idempotency-key");
    assert!(matches!(&ids[..], [Some(_), None]), "once more, without one: {ids:?}");
}

#[test]
fn an_audit_trail_is_verified_without_a_server() {
    let home = tempfile::tempdir().unwrap();
    let audit = |arguments: &[&str]| Run::of(home.path(), &[&["audit", "verify"], arguments].concat(), "", &[]);
    audit(&[]).expect(2);
    audit(&["absent"]).expect(3);
    audit(&["."]).expect(3);
    let options = keyward_audit::Options {
        segment_bytes: 1 << 20,
        durability: keyward_audit::Durability::Kernel,
        key: keyward_audit::AuditKey::from_seed(&Secret::new([7; 32])).unwrap(),
    };
    let folder = home.path().join("trail");
    let journal = keyward_audit::Journal::open(&folder, Id([1; 16]), 1, options).unwrap();
    let mut batch = journal.batch();
    for number in 0..3 {
        let moment = Timestamp(1_764_000_000_000_000_000 + number);
        let id = Ulid(u128::from(number.unsigned_abs()));
        batch.push(&Event::new(id, moment, EventKind::SysStart, EventOutcome::Success));
    }
    journal.append(&mut batch).unwrap();
    let (seq, hash) = journal.head();
    let head = json!({"stream": journal.stream(), "seq": seq, "hash": hex::encode(hash)});
    drop(journal);
    std::fs::write(home.path().join("heads"), format!("# remembered\n{head}\n")).unwrap();
    let report: Value = serde_json::from_str(&audit(&["trail", "--checkpoints=heads"]).expect(0).out).unwrap();
    assert_eq!((&report["ok"], &report["streams"][0]["events"]), (&json!(true), &json!(3)));
    let table = audit(&["--from=trail", "-format=table"]).expect(0).out;
    assert!(table.contains("whole"), "{table}");
    audit(&["trail", "--keys=heads"]).expect(2);

    let mut segments = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.find(|path| path.extension().is_some_and(|extension| extension == "jsonl")).unwrap();
    let text = std::fs::read_to_string(&segment).unwrap().replacen("SYS_START", "SYS_STARS", 1);
    std::fs::write(&segment, text).unwrap();
    let run = audit(&["trail", "-format=table"]).expect(1);
    assert!(run.out.contains("NOT WHOLE") && run.err.contains("at record 1"), "{}{}", run.out, run.err);
}

#[test]
fn usage_errors_are_exit_code_1_and_help_is_0() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["kv", "put", "secret/app"][..], &["nonsense"], &["kv", "rollback", "secret/app"]] {
        Run::of(home.path(), arguments, "", &[]).expect(1);
    }
    assert!(Run::of(home.path(), &["version"], "", &[]).expect(0).out.starts_with("keyward "));
    assert!(Run::of(home.path(), &["kv", "--help"], "", &[]).expect(0).out.contains("rollback"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(Run::of(home.path(), &["completion", shell], "", &[]).expect(0).out.contains("rollback"));
    }
    Run::of(home.path(), &["status"], "", &[("KEYWARD_FORMAT", "xml")]).expect(1);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Run::command(home.path(), &["completion", "zsh"], &[]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
