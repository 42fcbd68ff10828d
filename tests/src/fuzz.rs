//! What fuzzers call. Each target takes any bytes, and fails by panicking or by not coming back.
//!
//! `fuzz/` runs them under cargo-fuzz for as long as one likes; `tests/tests/fuzz_smoke.rs` runs each for about a second.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use keyward_crypto::{Keyring, RootKey};
use keyward_model::{Id, Row, SeededEntropy, Table, Timestamp, command};
use keyward_policy::{Acl, Ask, Operation, Subject};
use keyward_server::http::fields::{Check, Params};
use keyward_server::http::json::{Limits, Object};
use keyward_server::http::request::Head;

/// A target: its name, what it does with the bytes, and bytes to begin with.
pub struct Target {
    /// As in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Well-formed inputs from which mutations start.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "path", run: path, corpus: paths },
    Target { name: "http_body", run: http_body, corpus: bodies },
    Target { name: "hcl", run: hcl, corpus: policies },
    Target { name: "command", run: commands, corpus: batches },
    Target { name: "log_record", run: log_record, corpus: records },
    Target { name: "envelope", run: envelope, corpus: envelopes },
];

/// A request's verb, target and headers.
pub fn path(bytes: &[u8]) {
    const VERBS: &[&str] = &["GET", "LIST", "SCAN", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get"];
    let Some((verb, target)) = bytes.split_first() else { return };
    let verb = VERBS[usize::from(*verb) % VERBS.len()];
    let (Ok(method), Ok(uri)) = (Method::from_bytes(verb.as_bytes()), Uri::try_from(target)) else { return };
    let Ok(head) = Head::read(&method, &uri) else { return };
    assert!(!head.path().starts_with("v1/v1/v1/") || target.len() > 9, "a path grew out of nothing");
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(target) {
        for name in ["x-vault-token", "x-vault-wrap-ttl", "content-type", "authorization"] {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    let built = head.with_body(Id([1; 16]), Timestamp(0), headers, Bytes::new(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    if let Ok(request) = built {
        assert!(!request.path.split('/').any(|segment| segment == ".." || segment == "."), "a climbing path");
        let _token = request.token();
        if let Ok(params) = request.parameters() {
            params.names();
        }
    }
}

/// A JSON or form body, and the coercion of its fields.
pub fn http_body(bytes: &[u8]) {
    if let Ok(Some(object)) = Object::parse(bytes, &Limits::DEFAULT) {
        let text = object.raw().text().to_owned();
        let again = Object::parse(text.as_bytes(), &Limits::DEFAULT);
        assert!(matches!(&again, Ok(Some(second)) if second.len() == object.len()), "{text}: does not read back");
        coerce(&Params::from_body(Some(object), Check::Handler));
    }
    if let Ok(params) = Params::from_form(bytes, Check::Existence) {
        coerce(&params);
    }
    if let Ok(query) = std::str::from_utf8(bytes) {
        coerce(&Params::from_query(query, Check::Handler));
    }
}

fn coerce(params: &Params<'_>) {
    for name in params.names().iter().take(32) {
        drop(params.string(name));
        drop(params.int(name));
        drop(params.bool(name));
        drop(params.duration(name));
        drop(params.signed_duration(name));
        drop(params.ints(name));
        drop(params.strings(name));
        drop(params.map(name));
        drop(params.pairs(name));
        drop(params.time(name));
    }
}

/// A policy text, and decisions under it.
pub fn hcl(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = keyward_policy::parse(text) else { return };
    let paths: Vec<String> = policy.rules.iter().take(4).map(|rule| format!("{rule:?}")).collect();
    let acl = Acl::new(&[Arc::new(policy)], Timestamp(0), &Subject::default());
    for path in paths.iter().map(String::as_str).chain(["", "secret/data/a/b", "sys/mounts", text]) {
        for operation in [Operation::Read, Operation::List, Operation::Update, Operation::Delete] {
            acl.decide(&Ask { operation, path, parameters: None, wrap_ttl: None });
        }
    }
}

/// A batch of commands as the log holds it.
pub fn commands(bytes: &[u8]) {
    if let Ok(batch) = command::decode_batch(bytes) {
        let again = command::decode_batch(&command::encode_batch(&batch));
        assert!(again.is_ok(), "a batch that was read cannot be written");
    }
}

/// A record of the log's file.
pub fn log_record(bytes: &[u8]) {
    keyward_raft::log::record::decode_rubbish(bytes);
}

/// Sealed rows, versions and the keyring itself.
pub fn envelope(bytes: &[u8]) {
    let Ground { root, ring } = ground();
    let row = Row { key: b"key".to_vec(), rev: 1, group: Vec::new(), due: None, head: None, body: bytes.to_vec() };
    assert!(ring.open_row(Table::Tokens, &row).is_err(), "a row opens in a place it was not sealed for");
    let (wrapped, payload) = bytes.split_at(bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0))));
    assert!(ring.open_version(Id([9; 16]), 7, wrapped, payload).is_err(), "a version opens in a foreign place");
    assert!(Keyring::open_from(root, Id([3; 16]), bytes).is_err(), "a keyring opens in a foreign domain");
    keyward_crypto::keyring::row_epoch(bytes);
    keyward_crypto::keyring::wrap_epoch(bytes);
}

struct Ground {
    root: RootKey,
    ring: Keyring,
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let entropy = SeededEntropy::new(7);
        Ground { root: RootKey::generate(&entropy), ring: Keyring::generate(Id([2; 16]), Timestamp(0), &entropy) }
    })
}

fn paths() -> Vec<Vec<u8>> {
    [
        "\0/v1/secret/data/a/b?version=2",
        "\u{1}/v1/secret/metadata/%E2%82%AC/x",
        "\0/v1/secret/metadata/?list=true&limit=3&after=a",
        "\u{3}/v1/sys//mounts/../x/./y",
        "\u{4}/v1/%2e%2e/%2f%2f/sys/raw?help=1;x=%zz",
        "\0/ui/",
        "\u{5}*",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn bodies() -> Vec<Vec<u8>> {
    [
        r#"{"data":{"a":"b","n":12345678901234567890,"f":-1.5e-7,"l":[1,"2",null,true]},"options":{"cas":0}}"#,
        r#"{"ttl":"1h30m","versions":"1,2,3","meta":["a=b","c=d"],"meta":{"x":"\u00e9\ud83d\ude00"}}"#,
        r#"{"a":1}{"b":2} [3] null"#,
        r#"[{"deep":[[[[[[]]]]]]}]"#,
        "ttl=5m&policies=a&policies=b%20c&x=%zz",
        "null",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn policies() -> Vec<Vec<u8>> {
    let mut texts = vec![
        keyward_policy::DEFAULT_POLICY.as_bytes().to_vec(),
        keyward_policy::RESPONSE_WRAPPING_POLICY.as_bytes().to_vec(),
    ];
    texts.extend(
        [
            "path \"secret/+/data/*\" {\n  capabilities = [\"read\", \"list\"] # why\n  min_wrapping_ttl = \"1m\"\n}",
            "path \"a\" { denied_parameters = { \"x\" = [\"1\", 2, true] } required_parameters = [\"y\"] /* c */ }",
            "{\"path\": {\"secret/*\": {\"capabilities\": [\"create\"], \"allowed_parameters\": {\"*\": []}}}}",
            "path \"t/{{identity.entity.id}}\" { policy = <<EOF\nwrite\nEOF\n}",
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    texts
}

fn batches() -> Vec<Vec<u8>> {
    vec![command::encode_batch(&[]), vec![1, 1, 0, 0, 0, 0], vec![2, 0]]
}

fn records() -> Vec<Vec<u8>> {
    vec![vec![1; 64], vec![0; 64], [&[16, 0, 0, 0][..], &[7; 60]].concat()]
}

fn envelopes() -> Vec<Vec<u8>> {
    let Ground { root, ring } = ground();
    let entropy = SeededEntropy::new(8);
    let version = ring.seal_version(Id([1; 16]), 7, b"value", &entropy);
    vec![
        ring.seal_row(Table::Secrets, b"key", 1, b"", None, None, b"row", &entropy),
        [&[version.wrapped.len() as u8][..], &version.wrapped, &version.payload].concat(),
        ring.seal_to(root, &entropy),
    ]
}
