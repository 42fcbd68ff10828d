use std::collections::BTreeMap;
use std::net::IpAddr;

use keyward_model::event::{Auth, EventKind, EventOutcome, ObjectChange, Subject, Ulid};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::chain::Chain;
use crate::checkpoint::AuditKey;

/// What an event for a KV read with everything on looks like.
pub(crate) fn read_event(n: u64) -> Event<'static> {
    Event {
        tenant_id: Some("default".into()),
        subject: Some(Subject { kind: "token", id: "root".into() }),
        auth: Some(Auth { method: "token".into(), mfa: false, token_jti_hash: Some([0xab; 16]) }),
        source_ip: Some(IpAddr::from([127, 0, 0, 1])),
        request_id: Some("ab010203-0405-0607-0809-0a0b0c0d0eff".into()),
        action: Some("read"),
        channel: Some("vault"),
        resource_ref: Some("rr1.1.AAECAwQFBgcICQoLDA0ODw".into()),
        provider: Some("keyward"),
        engine: Some("kv2"),
        kv_version: Some(n),
        decision_source: Some("pdp"),
        latency_us: Some(17),
        ..Event::new(
            Ulid(n.into()),
            Timestamp(1_764_075_600_123_456_789),
            EventKind::SecretPermit,
            EventOutcome::Success,
        )
    }
}

pub(crate) fn signer() -> crate::chain::Signer {
    crate::chain::Signer {
        stream: "n1-0001".into(),
        node: "n1".into(),
        key: AuditKey::from_seed(&keyward_model::Secret::new([1; 32])).unwrap(),
    }
}

/// RFC 8785 for what serde_json reads, written without regard to the code under test.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<Vec<u16>, _> =
                members.iter().map(|(name, value)| (name.encode_utf16().collect(), (name, value))).collect();
            let members: Vec<_> = sorted
                .values()
                .map(|(name, value)| format!("{}:{}", serde_json::to_string(name).unwrap(), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        // serde_json writes strings with the same escapes as RFC 8785 §3.2.2.2.
        other => other.to_string(),
    }
}

fn lines_of(pieces: &Pieces) -> Vec<u8> {
    let mut lines = Vec::new();
    Chain::start("n1-0001").link_all(&signer(), pieces, &mut lines);
    lines
}

#[test]
fn a_read_is_recorded_like_this() {
    let mut pieces = Pieces::default();
    pieces.push(&read_event(7), Some("n1"), None);
    let line = String::from_utf8(lines_of(&pieces)).unwrap();
    let hash = line.split_once("\"hash\":\"").unwrap().1.split_once('"').unwrap().0;
    let expected = [
        r#"{"action":"read","auth":{"method":"token","mfa":false,"token_jti_hash":"abababababababababababababababab"},"#,
        r#""channel":"vault","decision_source":"pdp","engine":"kv2","event":"SECRET_PERMIT","hash":""#,
        hash,
        r#"","id":"ae_00000000000000000000000007","kv_version":7,"latency_us":{"total":17},"node":"n1","#,
        r#""outcome":"success","prev":"ee1de7185bcd1060081f62db8ce84a3df91310a7da3eda3139ada872355ad099","#,
        r#""provider":"keyward","request_id":"ab010203-0405-0607-0809-0a0b0c0d0eff","#,
        r#""resource_ref":"rr1.1.AAECAwQFBgcICQoLDA0ODw","seq":1,"source":{"ip":"127.0.0.1"},"stream":"n1-0001","#,
        r#""subject":{"id":"root","type":"token"},"tenant_id":"default","ts":"2025-11-25T13:00:00.123Z","v":1}"#,
        "\n",
    ];
    assert_eq!(line, expected.concat());
}

#[test]
fn an_intent_finds_its_place_later() {
    let place = LogPlace { term: 3, index: 41 };
    let event = Event { version_status: Some("CURRENT"), ..read_event(7) };
    let mut direct = Pieces::default();
    direct.push(&Event { replicated: Some(place), ..event.clone() }, Some("n1"), None);
    let mut later = Pieces::default();
    later.push(&read_event(1), Some("n1"), None);
    assert_eq!(later.push_intent(&intent(&event), "n1", place), Ok(()));
    let lines = lines_of(&later);
    let second = lines.split(|&b| b == b'\n').nth(1).unwrap();
    let direct = lines_of(&direct);
    let strip = |line: &[u8]| {
        let mut value: Value = serde_json::from_slice(line).unwrap();
        value.as_object_mut().unwrap().retain(|name, _| !["hash", "prev", "seq"].contains(&name.as_str()));
        value
    };
    assert_eq!(strip(second), strip(&direct));
    assert_eq!(canonical(&serde_json::from_slice(second).unwrap()).as_bytes(), second);

    let before = later.bytes.len();
    for bad in [&b"{}"[..], b"", b"{\"v\":1}", &direct[..direct.len() - 1], &intent(&event)[1..]] {
        assert_eq!(later.push_intent(bad, "n1", place), Err(IntentError));
        assert_eq!((later.bytes.len(), later.records.len()), (before, 2));
    }
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let mut out = Vec::new();
    text(&mut out, "", &"€".repeat(100));
    assert_eq!(out.len(), 2 + 85 * 3);
    assert!(str::from_utf8(&out).is_ok());
}

fn any_event() -> impl Strategy<Value = Event<'static>> {
    let word = || option::of(prop_oneof!["[a-z]{0,8}", any::<String>()]);
    (
        (any::<i64>(), any::<u128>(), 0..EventKind::ALL.len(), option::of(Just("ACCESS_DENIED")), word(), word()),
        (word(), any::<bool>(), option::of(any::<[u8; 16]>()), option::of(any::<IpAddr>()), word(), word()),
        (option::of(0..1u64 << 53), word(), option::of(0..1u64 << 53), word(), option::of((0..9u64, 0..99u64))),
    )
        .prop_map(|((ts, id, kind, code, tenant, subject), (auth, mfa, jti, ip, request, resource), rest)| {
            let (kv_version, alias, latency_us, change, place) = rest;
            Event {
                code,
                tenant_id: tenant.map(Into::into),
                subject: subject.map(|id| Subject { kind: "token", id: id.into() }),
                auth: auth.map(|method| Auth { method: method.into(), mfa, token_jti_hash: jti }),
                source_ip: ip,
                request_id: request.map(Into::into),
                action: code.map(|_| "read"),
                channel: jti.map(|_| "vault"),
                resource_ref: resource.map(Into::into),
                provider: jti.map(|_| "keyward"),
                engine: ip.map(|_| "kv2"),
                kv_version,
                alias: alias.map(Into::into),
                version_status: kv_version.map(|_| "CURRENT"),
                decision_source: code.map(|_| "guard"),
                latency_us,
                change: change.map(|object| ObjectChange { object: object.into() }),
                replicated: place.map(|(term, index)| LogPlace { term, index }),
                ..Event::new(Ulid(id), Timestamp(ts), EventKind::ALL[kind], EventOutcome::Deny)
            }
        })
}

proptest! {
    #[test]
    fn every_record_is_canonical(events in prop::collection::vec(any_event(), 1..5)) {
        let mut pieces = Pieces::default();
        for event in &events {
            pieces.push(event, Some("n1"), None);
        }
        let lines = lines_of(&pieces);
        let mut prev = Chain::start("n1-0001").hash;
        for text in lines.strip_suffix(b"\n").unwrap().split(|&b| b == b'\n') {
            let value: Value = serde_json::from_slice(text).unwrap();
            prop_assert_eq!(canonical(&value), str::from_utf8(text).unwrap());
            let line = line::parse(text).unwrap();
            prop_assert_eq!(line.prev, prev);
            // The hash covers the canonical form of the record without `hash` and `prev`.
            let mut bare = value.clone();
            bare.as_object_mut().unwrap().retain(|name, _| name != "hash" && name != "prev");
            prop_assert_eq!(line.covered.concat(), canonical(&bare).into_bytes());
            prop_assert_eq!(keyward_crypto::chain::next(&prev, &[canonical(&bare).as_bytes()]), line.hash);
            prev = line.hash;
        }
    }

    #[test]
    fn an_intent_is_the_event_without_its_place(event in any_event(), term in 0..9u64, index in 0..99u64) {
        let place = LogPlace { term, index };
        let mut direct = Pieces::default();
        direct.push(&Event { replicated: Some(place), ..event.clone() }, Some("n1"), None);
        let mut later = Pieces::default();
        prop_assert!(later.push_intent(&intent(&event), "n1", place).is_ok());
        prop_assert_eq!(&later.bytes, &direct.bytes);
        prop_assert_eq!(later.records[0].ends, direct.records[0].ends);
    }
}
