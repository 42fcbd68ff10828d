use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::parameters::Parameters;
use crate::template::{Alias, Entity};
use crate::{DEFAULT_POLICY, RESPONSE_WRAPPING_POLICY, parse};

fn acl(texts: &[&str]) -> Acl {
    acl_at(texts, Timestamp(0), &Subject::default())
}

fn acl_at(texts: &[&str], now: Timestamp, subject: &Subject) -> Acl {
    let policies: Vec<_> = texts.iter().map(|text| Arc::new(parse(text).unwrap())).collect();
    Acl::new(&policies, now, subject)
}

fn ask(operation: Operation, path: &str) -> Ask<'_> {
    Ask { operation, path, parameters: None, wrap_ttl: None }
}

fn allowed(acl: &Acl, operation: Operation, path: &str) -> bool {
    acl.decide(&ask(operation, path)).allowed
}

fn allowed_with(acl: &Acl, operation: Operation, path: &str, parameters: &Value) -> bool {
    let parameters = parameters.as_object().map(|map| map as &dyn Parameters);
    acl.decide(&Ask { parameters, ..ask(operation, path) }).allowed
}

fn wrapped(acl: &Acl, path: &str, seconds: u64) -> bool {
    acl.decide(&Ask { wrap_ttl: Some(Duration::from_secs(seconds)), ..ask(Operation::Read, path) }).allowed
}

const WRITES: [Operation; 7] = [
    Operation::Read,
    Operation::List,
    Operation::Scan,
    Operation::Create,
    Operation::Update,
    Operation::Patch,
    Operation::Delete,
];

#[test]
fn each_operation_asks_for_its_capability() {
    let acl = acl(&[r#"
        path "k/create" { capabilities = ["create"] }
        path "k/read" { capabilities = ["read"] }
        path "k/update" { capabilities = ["update"] }
        path "k/delete" { capabilities = ["delete"] }
        path "k/patch" { capabilities = ["patch"] }
        path "k/list" { capabilities = ["list"] }
        path "k/scan" { capabilities = ["scan"] }
        path "k/none" { }
    "#]);
    for (word, own) in ["create", "read", "update", "delete", "patch", "list", "scan"].iter().zip([
        Operation::Create,
        Operation::Read,
        Operation::Update,
        Operation::Delete,
        Operation::Patch,
        Operation::List,
        Operation::Scan,
    ]) {
        for operation in WRITES {
            let path = format!("k/{word}{}", if operation.is_listing() { "/" } else { "" });
            assert_eq!(allowed(&acl, operation, &path), operation == own, "{operation:?} {path}");
            assert!(!allowed(&acl, operation, "k/none") && !allowed(&acl, operation, "k/absent"));
        }
        assert!(allowed(&acl, Operation::Help, &format!("k/{word}")));
    }
    assert!(!allowed(&acl, Operation::Help, "k/none") && !allowed(&acl, Operation::Help, "k/absent"));
}

#[test]
fn old_words() {
    let acl = acl(&[r#"
        path "r" { policy = "read" }
        path "w" { policy = "write" }
        path "s" { policy = "sudo" }
        path "d" { policy = "deny" capabilities = ["read"] }
        path "both" { policy = "read" capabilities = ["patch"] }
    "#]);
    assert_eq!(acl.capabilities("r"), ["list", "read"]);
    assert_eq!(acl.capabilities("w"), ["create", "delete", "list", "read", "update"]);
    assert_eq!(acl.capabilities("s"), ["create", "delete", "list", "read", "sudo", "update"]);
    assert_eq!(acl.capabilities("d"), ["deny"]);
    assert_eq!(acl.capabilities("both"), ["list", "patch", "read"]);
}

#[test]
fn deny_wins_on_one_path_and_a_more_exact_rule_escapes_it() {
    let allow = r#"path "kv/*" { capabilities = ["read", "update"] } path "kv/b" { capabilities = ["read"] }"#;
    let deny = r#"path "kv/*" { capabilities = ["deny"] }"#;
    for order in [[allow, deny], [deny, allow]] {
        let acl = acl(&order);
        assert!(!allowed(&acl, Operation::Read, "kv/a"));
        assert!(allowed(&acl, Operation::Read, "kv/b"));
        assert!(!allowed(&acl, Operation::Update, "kv/b"));
        assert_eq!(acl.capabilities("kv/a"), ["deny"]);
    }
    let mixed = acl(&[r#"path "kv/b" { capabilities = ["read", "deny", "update"] }"#]);
    assert!(!allowed(&mixed, Operation::Read, "kv/b"));
}

#[test]
fn rules_for_one_path_add_up() {
    let acl = acl(&[
        r#"path "k" { capabilities = ["read"] } path "k" { capabilities = ["list"] }"#,
        r#"path "/k" { capabilities = ["update"] }"#,
    ]);
    assert_eq!(acl.capabilities("k"), ["list", "read", "update"]);
    assert_eq!(acl.capabilities("/k"), ["list", "read", "update"]);
}

#[test]
fn a_longer_prefix_replaces_a_shorter_one() {
    let acl = acl(&[r#"
        path "kv/app*" { capabilities = ["read"] }
        path "kv/app/deep/*" { capabilities = ["update"] }
        path "kv/app/two" { capabilities = ["delete"] }
        path "st**" { capabilities = ["read"] }
        path "in*side" { capabilities = ["read"] }
    "#]);
    for (path, words) in [
        ("kv/app/one", "read"),
        ("kv/apple", "read"),
        ("kv/app", "read"),
        ("kv/app/two", "delete"),
        ("kv/app/deep/x", "update"),
        ("kv/app/deep/", "update"),
        ("kv/app/deep", "read"),
        ("kv/ap", "deny"),
        ("kv/App", "deny"),
        ("st*x", "read"),
        ("stx", "deny"),
        ("in*side", "read"),
        ("inxside", "deny"),
    ] {
        assert_eq!(acl.capabilities(path), [words], "{path}");
    }
}

#[test]
fn plus_stands_for_one_segment() {
    let acl = acl(&[r#"
        path "kv/+/config" { capabilities = ["read"] }
        path "kv/prod/*" { capabilities = ["update"] }
        path "kv/+/+/deep" { capabilities = ["delete"] }
        path "kv/+/x*" { capabilities = ["list"] }
        path "kv/dev/+" { capabilities = ["create"] }
        path "lit/a+b" { capabilities = ["read"] }
        path "lit/b+/c" { capabilities = ["read"] }
    "#]);
    for (path, words) in [
        ("kv/test/config", "read"),
        ("kv/a/b/config", "deny"),
        ("kv/config", "deny"),
        ("kv/prod/config", "update"),
        ("kv/a/b/deep", "delete"),
        ("kv/a/xyz", "list"),
        ("kv/a/xyz/more", "list"),
        ("kv/dev/config", "create"),
        ("kv/dev/xyz", "create"),
        ("kv/dev/", "create"),
        ("lit/a+b", "read"),
        ("lit/axb", "deny"),
        ("lit/b+/c", "read"),
        ("lit/bx/c", "deny"),
    ] {
        assert_eq!(acl.capabilities(path), [words], "{path}");
    }
}

#[test]
fn plus_at_the_ends_and_with_a_star() {
    for (pattern, path, expected) in [
        ("+", "a", true),
        ("+", "a/b", false),
        ("+/b", "a/b", true),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/+/*", "a/b/", true),
        ("a/+/*", "a/b/c/d", true),
        ("a/+/*", "a/b", false),
        ("+/*", "a/", true),
        ("+/+", "a/", true),
        ("a/+/c*", "a/b/cd/e", true),
        ("a/+/c*", "a/b/d/ce", false),
    ] {
        let acl = acl(&[&format!("path \"{pattern}\" {{ capabilities = [\"read\"] }}")]);
        assert_eq!(allowed(&acl, Operation::Read, path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_order_of_patterns_field_by_field() {
    // each line: the pattern that wins, one that loses against it, a path that both match
    for (winner, loser, path) in [
        ("a/b*", "a/+", "a/bc"),
        ("a/b/+/d", "a/+/c/d", "a/b/c/d"),
        ("a/+/c", "a/+/*", "a/b/c"),
        ("a/+", "a/*", "a/b"),
        ("a/+/c/d", "a/+/+/d", "a/b/c/d"),
        ("a/+/bc*", "a/+/b*", "a/x/bcd"),
        ("a/+/+/d/e", "a/+/c/+/+", "a/b/c/d/e"),
        ("a/+/c/+", "a/+/+/d", "a/b/c/d"),
    ] {
        for (first, second) in [(winner, loser), (loser, winner)] {
            let text = [first, second].map(|pattern| {
                let word = if pattern == winner { "read" } else { "deny" };
                format!("path \"{pattern}\" {{ capabilities = [\"{word}\"] }}")
            });
            assert!(allowed(&acl(&[&text[0], &text[1]]), Operation::Read, path), "{winner} over {loser}");
        }
    }
}

#[test]
fn listings_fall_back_to_the_path_without_its_slash() {
    let text = |path: &str| format!("path \"{path}\" {{ capabilities = [\"list\", \"read\"] }}");
    for (pattern, path, expected) in [
        ("m/box", "m/box/", true),
        ("m/box/", "m/box/", true),
        ("m/box/", "m/box/in/", false),
        ("m/bo*", "m/box/", true),
        ("m/+", "m/box/", true),
        ("m/box/*", "m/box/", true),
        ("m/box/x", "m/box/", false),
    ] {
        let acl = acl(&[&text(pattern)]);
        assert_eq!(allowed(&acl, Operation::List, path), expected, "{pattern} {path}");
        assert!(!allowed(&acl, Operation::Scan, path));
    }
    assert!(!allowed(&acl(&[&text("m/box")]), Operation::Read, "m/box/"));
    // the rule with the slash is asked first, then exact before pattern
    let acl = acl(&[r#"
        path "m/box" { capabilities = ["list"] }
        path "m/box/" { capabilities = ["deny"] }
        path "n/box" { capabilities = ["list"] }
        path "n/box/*" { capabilities = ["deny"] }
    "#]);
    assert!(!allowed(&acl, Operation::List, "m/box/") && allowed(&acl, Operation::List, "n/box/"));
}

#[test]
fn root_protected_paths_need_sudo() {
    let plain = acl(&[r#"path "sys/*" { capabilities = ["create", "read", "update", "delete", "list"] }
                         path "auth/token/accessors*" { capabilities = ["list"] }"#]);
    let mighty = acl(&[r#"path "sys/*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }
                          path "auth/token/accessors*" { capabilities = ["list", "sudo"] }"#]);
    for (operation, path) in [
        (Operation::Update, "sys/auth/up"),
        (Operation::Delete, "sys/auth/up"),
        (Operation::List, "sys/auth/"),
        (Operation::Read, "sys/audit"),
        (Operation::List, "auth/token/accessors/"),
        (Operation::List, "sys/leases/lookup/auth/token/"),
        (Operation::Read, "sys/config/cors"),
        (Operation::Read, "/sys/config/cors"),
    ] {
        assert!(!allowed(&plain, operation, path) && allowed(&mighty, operation, path), "{path}");
    }
    assert!(allowed(&plain, Operation::Read, "sys/mounts") && allowed(&plain, Operation::Read, "sys/auth"));
    let verdict = mighty.decide(&ask(Operation::Scan, "sys/mounts/"));
    assert!(verdict.sudo && !verdict.allowed);
}

#[test]
fn parameters_of_writes_and_reads() {
    let acl = acl(&[r#"
        path "some" { capabilities = ["create", "update", "delete"] allowed_parameters = { "Size" = ["s", "m"] "note" = [] } }
        path "not" { capabilities = ["update"] denied_parameters = { "size" = ["xl", 5] } }
        path "r" { capabilities = ["update", "read", "delete", "list"] required_parameters = ["owner", "Stage"] }
    "#]);
    assert!(allowed_with(&acl, Operation::Create, "some", &json!({"size": "m", "note": 1})));
    assert!(!allowed_with(&acl, Operation::Create, "some", &json!({"size": "xl"})));
    assert!(!allowed_with(&acl, Operation::Update, "some", &json!({"size": "m", "colour": "red"})));
    assert!(allowed_with(&acl, Operation::Delete, "some", &json!({"colour": "red"})));
    for value in [json!("xl"), json!(["xl"]), json!(5), json!("5"), json!([[5]])] {
        assert!(!allowed_with(&acl, Operation::Update, "not", &json!({ "size": value })), "{value}");
    }
    assert!(allowed_with(&acl, Operation::Update, "not", &json!({"size": "s"})));
    assert!(allowed_with(&acl, Operation::Update, "r", &json!({"owner": 1, "stage": 2, "more": 3})));
    assert!(!allowed_with(&acl, Operation::Update, "r", &json!({"OWNER": 1, "STAGE": 2})));
    assert!(!allowed(&acl, Operation::Read, "r"));
    assert!(allowed(&acl, Operation::Delete, "r") && allowed(&acl, Operation::List, "r/"));
}

#[test]
fn merged_parameter_lists() {
    let acl = acl(&[
        r#"path "p" { capabilities = ["update"] allowed_parameters = { a = ["1"] b = ["1"] } denied_parameters = { c = ["1"] } required_parameters = ["a"] }"#,
        r#"path "p" { capabilities = ["read"] allowed_parameters = { a = ["2"] b = [] } denied_parameters = { c = ["2"] } required_parameters = ["a", "b"] }"#,
        r#"path "p" { capabilities = ["read"] }"#,
    ]);
    assert!(allowed_with(&acl, Operation::Update, "p", &json!({"a": "1", "b": "9"})));
    assert!(allowed_with(&acl, Operation::Update, "p", &json!({"a": "2", "b": "9"})));
    assert!(!allowed_with(&acl, Operation::Update, "p", &json!({"a": "3", "b": "9"})));
    assert!(!allowed_with(&acl, Operation::Update, "p", &json!({"a": "1"})));
    assert!(!allowed_with(&acl, Operation::Update, "p", &json!({"a": "1", "b": "9", "c": "1"})));
}

#[test]
fn wrapping_bounds() {
    let acl = acl(&[
        r#"path "w" { capabilities = ["read"] min_wrapping_ttl = "60s" max_wrapping_ttl = "300s" }
           path "m" { capabilities = ["read"] max_wrapping_ttl = "2m" }
           path "n" { capabilities = ["read"] min_wrapping_ttl = 90 }
           path "never" { capabilities = ["read"] min_wrapping_ttl = "2m" }
           path "less" { capabilities = ["read"] min_wrapping_ttl = "-1s" }"#,
        r#"path "never" { capabilities = ["list"] max_wrapping_ttl = "1m" }
           path "n" { capabilities = ["read"] min_wrapping_ttl = 30 }"#,
    ]);
    for (path, seconds, expected) in [
        ("w", 30, false),
        ("w", 60, true),
        ("w", 300, true),
        ("w", 600, false),
        ("m", 1, true),
        ("m", 121, false),
        ("n", 29, false),
        ("n", 30, true),
        ("never", 90, false),
        ("less", 1, true),
    ] {
        assert_eq!(wrapped(&acl, path, seconds), expected, "{path} {seconds}");
    }
    for path in ["w", "m", "n", "never"] {
        assert!(!allowed(&acl, Operation::Read, path));
    }
    assert!(allowed(&acl, Operation::Read, "less") && allowed(&acl, Operation::Help, "w"));
}

#[test]
fn pages_and_key_filters_of_listings() {
    let acl = acl(&[
        r#"path "m/*" { capabilities = ["list", "scan", "read"] pagination_limit = 50
             list_scan_response_keys_filter_path = "{{ .path | replace \"m/\" \"d/\" }}{{ .key }}" }
           path "d/box/a" { capabilities = ["read"] }
           path "d/box/in" { capabilities = ["list"] }"#,
        r#"path "m/*" { capabilities = ["list"] pagination_limit = 20
             list_scan_response_keys_filter_path = "x/{{ .key }}" }"#,
    ]);
    for operation in [Operation::List, Operation::Scan] {
        let verdict = acl.decide(&ask(operation, "m/box/"));
        assert_eq!((verdict.allowed, verdict.pagination_limit), (true, Some(20)));
        let filter = verdict.keys_filter.unwrap();
        for (key, expected) in [("a", true), ("b", false), ("in/", true), ("in", false), ("out/", false)] {
            assert_eq!(acl.shows(filter, "m/box/", key), expected, "{key}");
        }
        assert!(allowed_with(&acl, operation, "m/box/", &json!({"limit": "20"})));
        assert!(!allowed_with(&acl, operation, "m/box/", &json!({"limit": "21"})));
    }
    let read = acl.decide(&ask(Operation::Read, "m/box"));
    assert!(read.allowed && read.pagination_limit.is_none() && read.keys_filter.is_none());
}

#[test]
fn expired_rules_count_as_absent() {
    let text = r#"
        path "a" { capabilities = ["read"] expiration = "1970-01-01T00:01:40Z" }
        path "a" { capabilities = ["list"] expiration = 200 }
    "#;
    let at = |seconds| acl_at(&[text], Timestamp(0).plus_seconds(seconds), &Subject::default());
    assert_eq!(at(100).capabilities("a"), ["list", "read"]);
    assert_eq!(at(100).good_until, Some(Timestamp(0).plus_seconds(100)));
    assert_eq!(at(101).capabilities("a"), ["list"]);
    assert_eq!(at(101).good_until, Some(Timestamp(0).plus_seconds(200)));
    assert_eq!(at(201).capabilities("a"), ["deny"]);
    assert_eq!(at(201).good_until, None);
}

#[test]
fn an_expired_policy_counts_as_absent() {
    let policy = |text, expires| Arc::new(Policy { expires, ..parse(text).unwrap() });
    let end = Timestamp(0).plus_seconds(100);
    let held = [
        policy("path \"a\" { capabilities = [\"read\", \"deny\"] }", Some(end)),
        policy("path \"a\" { capabilities = [\"list\"] expiration = 200 }", None),
    ];
    let at = |seconds| Acl::new(&held, Timestamp(0).plus_seconds(seconds), &Subject::default());
    assert_eq!(at(100).capabilities("a"), ["deny"]);
    assert_eq!(at(100).good_until, Some(end));
    assert_eq!(at(101).capabilities("a"), ["list"]);
    assert_eq!(at(101).good_until, Some(Timestamp(0).plus_seconds(200)));
}

#[test]
fn templates_make_one_folder_a_caller() {
    let text = r#"
        path "kv/{{identity.entity.aliases.up_1.name}}/*" { capabilities = ["create", "read", "update"] }
        path "/kv/id/{{ identity.entity.id }}" { capabilities = ["read"] }
    "#;
    let subject = |name: &str| Subject {
        entity: Some(Entity {
            id: format!("id-{name}"),
            aliases: vec![Alias { mount_accessor: "up_1".into(), name: name.into(), ..Alias::default() }],
            ..Entity::default()
        }),
        groups: Vec::new(),
    };
    let ada = acl_at(&[text], Timestamp(0), &subject("ada"));
    assert!(allowed(&ada, Operation::Update, "kv/ada/k") && allowed(&ada, Operation::Read, "kv/id/id-ada"));
    assert!(!allowed(&ada, Operation::Read, "kv/bea/k") && !allowed(&ada, Operation::Read, "kv/id/id-bea"));
    let nobody = acl(&[text]);
    assert!(!allowed(&nobody, Operation::Read, "kv/{{identity.entity.aliases.up_1.name}}/k"));
    assert!(!allowed(&nobody, Operation::Read, "kv//k"));
    for name in ["+", "a*", "a/b"] {
        assert!(!acl_at(&[text], Timestamp(0), &subject(name)).has_access_under("kv/"), "{name}");
    }
    let mut policy = parse(text).unwrap();
    assert!(policy.is_templated());
    policy.allow_wildcards_in_templates = true;
    let wild = Acl::new(&[Arc::new(policy)], Timestamp(0), &subject("+"));
    assert!(allowed(&wild, Operation::Read, "kv/anyone/k"));
}

#[test]
fn the_default_policy() {
    let acl = acl(&[DEFAULT_POLICY]);
    for (path, words) in [
        ("auth/token/lookup-self", vec!["read"]),
        ("auth/token/renew-self", vec!["update"]),
        ("auth/token/revoke-self", vec!["update"]),
        ("cubbyhole/x", vec!["create", "delete", "list", "read", "update"]),
        ("cubbyhole/", vec!["create", "delete", "list", "read", "update"]),
        ("sys/tools/hash", vec!["update"]),
        ("sys/tools/hash/sha2-512", vec!["update"]),
        ("sys/tools/random", vec!["deny"]),
        ("sys/wrapping/wrap", vec!["update"]),
        ("sys/wrapping/rewrap", vec!["deny"]),
        ("sys/leases/renew", vec!["update"]),
        ("identity/oidc/provider/p/authorize", vec!["read", "update"]),
        ("secret/data/x", vec!["deny"]),
        ("auth/token/create", vec!["deny"]),
    ] {
        assert_eq!(acl.capabilities(path), words, "{path}");
    }
    let wrapping = self::acl(&[RESPONSE_WRAPPING_POLICY]);
    assert!(allowed(&wrapping, Operation::Read, "cubbyhole/response"));
    assert!(allowed(&wrapping, Operation::Update, "sys/wrapping/unwrap"));
    assert!(!allowed(&wrapping, Operation::Read, "auth/token/lookup-self"));
}

#[test]
fn root_may_everything() {
    let acl = Acl::root();
    for operation in WRITES {
        let verdict = acl.decide(&ask(operation, "sys/raw/x"));
        assert!(verdict.allowed && verdict.sudo && acl.is_root());
    }
    assert_eq!(acl.capabilities("x"), ["root"]);
    assert!(acl.has_access_under("x/"));
    assert_eq!(Value::from(acl.resultant()), json!({"root": true}));
}

#[test]
fn reach_into_a_mount() {
    for (rule, mount, expected) in [
        ("secret/data/x", "secret/", true),
        ("secret/*", "secret/", true),
        ("secret", "secret/", true),
        ("se*", "secret/", true),
        ("*", "secret/", true),
        ("+/data/x", "secret/", true),
        ("+", "secret/", true),
        ("secret/+/x", "secret/", true),
        ("+/sec*", "a/secret/", true),
        ("+/b*", "a/bc/d/", true),
        ("a/+/d/x", "a/b/", true),
        ("secrets/x", "secret/", false),
        ("sec", "secret/", false),
        ("other/*", "secret/", false),
        ("+/x", "a/b/", false),
        ("b/+", "a/", false),
    ] {
        let text = |word: &str| format!("path \"{rule}\" {{ capabilities = [{word}] }}");
        assert_eq!(acl(&[&text("\"patch\"")]).has_access_under(mount), expected, "{rule} {mount}");
        assert!(!acl(&[&text("\"deny\"")]).has_access_under(mount));
        assert!(!acl(&[&text("")]).has_access_under(mount));
    }
    let acl = acl(&[r#"path "se*" { capabilities = ["read"] } path "secret/*" { capabilities = ["deny"] }"#]);
    assert!(!acl.has_access_under("secret/") && acl.has_access_under("second/"));
}

#[test]
fn the_resulting_rules() {
    let acl = acl(&[r#"
        path "k/a" { capabilities = ["read"] }
        path "k/t/*" { capabilities = ["list", "create"] min_wrapping_ttl = "1m" max_wrapping_ttl = "90.5s"
          allowed_parameters = { a = ["b", 1] } denied_parameters = { c = [] } required_parameters = ["D"] }
        path "k/no" { capabilities = ["deny"] }
        path "k/+/x" { capabilities = ["read"] }
    "#]);
    let expected = json!({
        "exact_paths": {"k/a": {"capabilities": ["read"]}, "k/no": {"capabilities": ["deny"]}},
        "glob_paths": {"k/t/": {
            "capabilities": ["create", "list"], "min_wrapping_ttl": 60, "max_wrapping_ttl": 90,
            "allowed_parameters": {"a": ["b", 1]}, "denied_parameters": {"c": []}, "required_parameters": ["D"],
        }},
        "root": false,
    });
    assert_eq!(Value::from(acl.resultant()), expected);
}

#[test]
fn a_table_is_good_from_its_making_to_the_next_end() {
    let at = |seconds: i64| Timestamp(0).plus_seconds(seconds);
    let policy = |ends: i64| Arc::new(Policy { expires: Some(at(ends)), ..Policy::default() });
    let acl = Acl::new(&[policy(100), policy(200)], at(150), &Subject::default());
    assert!(acl.is_good(at(150)) && acl.is_good(at(199)));
    assert!(!acl.is_good(at(200)), "what has ended is not in force");
    assert!(!acl.is_good(at(149)), "what it took for ended may be in force");
    assert!(Acl::root().is_good(at(0)));
}

#[test]
fn a_policy_that_cannot_be_read_takes_all_rights_until_it_ends() {
    let end = Timestamp(0).plus_seconds(100);
    let plain = Arc::new(parse(r#"path "a" { capabilities = ["read"] }"#).unwrap());
    let unreadable = Arc::new(Policy { unreadable: true, expires: Some(end), ..Policy::default() });
    let at = |now| Acl::new(&[plain.clone(), unreadable.clone()], now, &Subject::default());
    assert!(!allowed(&at(end), Operation::Read, "a") && !at(end).has_access_under("a"));
    assert!(allowed(&at(end.plus_seconds(1)), Operation::Read, "a") && !at(end).is_good(end));
}
