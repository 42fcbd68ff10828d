use keyward_model::SeededEntropy;

use super::*;
use crate::http::fields::Check;
use crate::http::json::{Limits, Object};

fn read(body: &str) -> Result<Call, Refusal> {
    let object = Object::parse(body.as_bytes(), &Limits::DEFAULT).unwrap();
    Call::read(&Params::from_body(object, Check::Handler))
}

#[test]
fn policies_are_a_list_or_one_name() {
    for (body, names) in [
        ("{}", &[][..]),
        (r#"{"policies":null}"#, &[]),
        (r#"{"policies":[]}"#, &[]),
        (r#"{"policies":"a,b"}"#, &["a,b"]),
        (r#"{"policies":["a","b"]}"#, &["a", "b"]),
        (r#"{"policies":[""]}"#, &[""]),
        (r#"{"policies":[7,true]}"#, &["7", "1"]),
    ] {
        assert_eq!(read(body).map(|call| call.policies), Ok(names.iter().map(|n| (*n).to_owned()).collect()), "{body}");
    }
    for body in [r#"{"policies":[[]]}"#, r#"{"policies":{"a":1}}"#] {
        assert!(
            matches!(read(body).map(|_| ()), Err(Refusal::Malformed(text)) if text.contains("\"policies\"")),
            "{body}"
        );
    }
}

#[test]
fn meta_is_absent_or_there() {
    for (body, meta) in [
        ("{}", None),
        (r#"{"meta":null}"#, None),
        (r#"{"meta":{}}"#, Some(&[][..])),
        (r#"{"meta":{"n":5,"t":"x"}}"#, Some(&[("n", "5"), ("t", "x")])),
        (r#"{"meta":"k=v"}"#, Some(&[("k", "v")])),
        (r#"{"meta":["k=v","l="]}"#, Some(&[("k", "v"), ("l", "")])),
    ] {
        let meta = meta.map(|pairs| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(read(body).map(|call| call.meta), Ok(meta), "{body}");
    }
}

#[test]
fn lives_that_are_asked_for() {
    const SUDO: &str = "root or sudo privileges required to create periodic token";
    type Case = (&'static str, bool, Result<[i64; 3], &'static str>);
    let table: &[Case] = &[
        ("{}", false, Ok([0, 0, 0])),
        (r#"{"ttl":90}"#, false, Ok([0, 0, 90 * SECOND])),
        (r#"{"ttl":"300ms"}"#, false, Ok([0, 0, 300_000_000])),
        (r#"{"ttl":"2d","lease":"4m"}"#, false, Ok([0, 0, 172_800 * SECOND])),
        (r#"{"ttl":"","lease":"4m"}"#, false, Ok([0, 0, 240 * SECOND])),
        (r#"{"ttl":0,"lease":"4m"}"#, false, Ok([0, 0, 0])),
        (r#"{"period":"15m","explicit_max_ttl":"1h"}"#, true, Ok([3600 * SECOND, 900 * SECOND, 0])),
        (r#"{"period":"0s"}"#, false, Ok([0, 0, 0])),
        (r#"{"period":"15m","ttl":"-1s"}"#, false, Err(SUDO)),
        (r#"{"period":"-15m"}"#, false, Err("period must be positive")),
        (r#"{"ttl":"-5m"}"#, true, Err("ttl must be positive")),
        (r#"{"lease":"-5m"}"#, true, Err("lease must be positive")),
        (r#"{"explicit_max_ttl":"-1h","ttl":"x"}"#, true, Err("explicit_max_ttl must be positive")),
        (r#"{"ttl":"soon"}"#, true, Err("time: invalid duration \"soon\"")),
        (r#"{"ttl":1.5}"#, true, Err("time: missing unit in duration \"1.5\"")),
    ];
    for &(body, sudo, answer) in table {
        let lives = read(body).unwrap().lives(sudo).map(|l| [l.explicit_max, l.period, l.ttl]);
        assert_eq!(lives, answer.map_err(Refusal::malformed), "{body}");
    }
}

#[test]
fn what_is_refused_at_once() {
    for (body, sudo, text) in [
        (r#"{"type":"batch"}"#, true, "batch tokens are not offered: leave `type` out or ask for \"service\""),
        (r#"{"type":"crate","num_uses":-1}"#, true, "invalid 'token_type' value"),
        (r#"{"num_uses":-1}"#, true, "number of uses cannot be negative"),
        (r#"{"entity_alias":"x"}"#, true, "'entity_alias' is only allowed in combination with token role"),
        (r#"{"id":"mine"}"#, false, "root or sudo privileges required to specify token id"),
    ] {
        assert_eq!(read(body).unwrap().check(sudo), Err(Refusal::malformed(text)), "{body}");
    }
    assert_eq!(read(r#"{"id":"mine","type":"service","num_uses":"3"}"#).unwrap().check(true), Ok(()));
}

#[test]
fn how_a_life_begins() {
    const HOUR: i64 = 3600 * SECOND;
    let now = Timestamp(1_700_000_000 * SECOND);
    let entropy = SeededEntropy::new(1);
    #[rustfmt::skip]
    let table = [
        // policy, wanted, explicit max, period → seconds, ends after, renewable
        ("a",    0,          0,        0,    2_764_800, Some(768 * HOUR), true),
        ("a",    SECOND / 4, 0,        0,            0, Some(SECOND / 4), true),
        ("root", 0,          0,        0,            0, None,             false),
        ("root", HOUR,       0,        0,         3600, Some(HOUR),       true),
        ("root", 0,          2 * HOUR, 0,         7200, Some(2 * HOUR),   true),
        ("root", 0,          0,        HOUR,      3600, Some(HOUR),       true),
    ];
    for (policy, wanted, explicit_max, period, seconds, end, renewable) in table {
        let fresh = Token::new(TokenKind::Service, "auth/token/create", vec![policy.into()], now, &entropy);
        let mut token = Token { renewable: true, ..fresh };
        let bounds = Bounds { default: 768 * HOUR, max: 768 * HOUR, explicit_max, period };
        assert_eq!(token.begin(&bounds, wanted, now), Ok(None));
        assert_eq!((token.creation_ttl_s, token.renewable), (seconds, renewable), "{policy} {wanted}");
        assert_eq!(token.expires, end.map(|end| Timestamp(now.0 + end)), "{policy} {wanted}");
    }
}
