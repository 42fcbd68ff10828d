use proptest::prelude::*;

use super::*;

fn parse(body: &[u8]) -> Result<Option<String>, String> {
    match Object::parse(body, &Limits::DEFAULT) {
        Ok(object) => Ok(object.map(|o| o.raw().text().to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

fn refused(body: &[u8]) -> String {
    parse(body).unwrap_err()
}

#[test]
fn bodies_without_data() {
    for body in [&b""[..], b"   ", b"\r\n\t", b"null", b" null \n", b"null {\"a\":1}"] {
        assert_eq!(parse(body), Ok(None), "{body:?}");
    }
}

#[test]
fn what_is_taken_is_kept_to_the_byte() {
    for body in [
        &b"{}"[..],
        b"{\"data\" : {\"a\":1}}",
        b"{\"a\":[1.0,1E5,-0,1e-400,12345678901234567890],\"b\":\"\\u0041\\ud83d\\udd11\\/\"}",
        b"{\"a\":1,\"A\":2}",
    ] {
        assert_eq!(parse(body), Ok(Some(String::from_utf8(body.to_vec()).unwrap())));
        assert!(matches!(Object::parse(body, &Limits::DEFAULT).unwrap().unwrap().text, Cow::Borrowed(_)));
    }
    assert_eq!(parse(b" \n {\"data\" : {\"a\":1}}\n\n"), Ok(Some("{\"data\" : {\"a\":1}}".into())));
}

#[test]
fn what_follows_the_first_value_is_checked_and_ignored() {
    for body in [&b"{\"a\":1}{\"a\":2}"[..], b"{\"a\":1} 12 null", b"{\"a\":1}{", b"{\"a\":1}[[{\"x\":"] {
        assert_eq!(parse(body), Ok(Some("{\"a\":1}".into())), "{body:?}");
    }
}

#[test]
fn what_could_not_be_stored_as_it_is_is_written_anew() {
    for (body, kept) in [
        (&b"{\"data\":{\"b\":1,\"a\":\"first\",\"a\":\"second\"}}"[..], "{\"data\":{\"a\":\"second\",\"b\":1}}"),
        (b"{\"data\":{\"a\":1},\"data\":{\"b\": 2.0}}", "{\"data\":{\"b\":2.0}}"),
        (b"{\"a\":\"x\xffy\"}", "{\"a\":\"x\u{fffd}y\"}"),
        (b"{\"a\":\"\\ud800<\"}", "{\"a\":\"\u{fffd}\\u003c\"}"),
        (b"{\"\\u0061\":1,\"a\":2}", "{\"a\":2}"),
        (b"{\"a\":[{\"x\":{\"q\":1,\"q\":[]}},null,true]}", "{\"a\":[{\"x\":{\"q\":[]}},null,true]}"),
    ] {
        assert_eq!(parse(body), Ok(Some(kept.into())));
    }
}

#[test]
fn refusals_have_the_servers_words() {
    for (body, why) in [
        (&b"{\"data\":{\"a\":1}"[..], "unexpected EOF"),
        (b"{\"a\":tr", "unexpected EOF"),
        (b"{\"a\":\"x", "unexpected EOF"),
        (b"{\"a\":1}\"x", "unexpected EOF"),
        (b"{\"a\":-", "unexpected EOF"),
        (b"{\"data\":{\"a\":1},}", "invalid character '}' looking for beginning of object key string"),
        (b"{'data':{'a':1}}", "invalid character '\\''"),
        (b"{bad", "invalid character 'b'"),
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"{\"data\":{\"a\":1}} x", "invalid character 'x' looking for beginning of value"),
        (b"{\"data\":{\"a\":NaN}}", "invalid character 'N' looking for beginning of value"),
        (b"{\"data\":{\"a\":01}}", "invalid character '1' after object key:value pair"),
        (b"{\"data\":{\"a\":\"x\ny\"}}", "invalid character '\\n' in string literal"),
        (b"{\"data\":{\"a\":\"\\x41\"}}", "invalid character 'x' in string escape code"),
        (b"{\"a\":\"\\u00g0\"}", "invalid character 'g' in \\u hexadecimal character escape"),
        (b"{\"a\":nul!}", "invalid character '!' in literal null (expecting 'l')"),
        (b"{\"a\":1.}", "invalid character '}' after decimal point in numeric literal"),
        (b"{\"a\":1e+}", "invalid character '}' in exponent of numeric literal"),
        (b"{\"a\":-x}", "invalid character 'x' in numeric literal"),
        (b"{\"a\" 1}", "invalid character '1' after object key"),
        (b"{\"a\":[1 2]}", "invalid character '2' after array element"),
        (b"{\"a\":[1,]}", "invalid character ']' looking for beginning of value"),
        (b"{\"a\":1]", "invalid character ']' after object key:value pair"),
        (b"{\"a\":1}}", "invalid character '}' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"[{\"data\":{}}]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (b"\"data\"", "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        (b"12", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        (b"true", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
        (b"{\"a\":1e400}", "json: cannot unmarshal number 1e400 into Go value of type float64"),
        (b"{}-1e999", "json: cannot unmarshal number -1e999 into Go value of type float64"),
    ] {
        assert_eq!(refused(body), format!("failed to decode JSON input: {why}"), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let flat = |n: usize| {
        let members: Vec<_> = (0..n).map(|i| format!("\"k{i}\":\"v\"")).collect();
        format!("{{\"data\":{{{}}}}}", members.join(","))
    };
    assert!(parse(flat(499).as_bytes()).is_ok());
    assert_eq!(
        refused(flat(500).as_bytes()),
        "refused JSON input due to high complexity: exceeded maximum number of strings"
    );

    let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(parse(deep(9_999).as_bytes()).is_ok());
    assert_eq!(
        refused(deep(10_000).as_bytes()),
        "failed to decode JSON input: invalid character '[' exceeded max depth"
    );

    // An object, its name of one byte, and one string: 88 + 33 + 32 + its length.
    let wide = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
    let room = 34_078_720 - 88 - 33 - 32;
    assert!(parse(wide(room).as_bytes()).is_ok());
    assert_eq!(
        refused(wide(room + 1).as_bytes()),
        "refused JSON input due to high complexity: exceeded maximum estimated memory limits"
    );
}

#[test]
fn escapes_and_stray_bytes_count_as_what_they_become() {
    for (inside, length) in [
        (&b"abc"[..], 3),
        (b"\\n\\u0041\\\\", 3),
        (b"\\ud83d\\udd11", 4),
        (b"\\ud83d", 3),
        (b"\\u20ac", 3),
        (b"\xff\xffa", 7),
    ] {
        let body = [b"{\"\":\"", inside, b"\"}"].concat();
        let exact = 88 + 32 + 32 + length;
        let limits = |memory_bytes_max| Limits { memory_bytes_max, ..Limits::DEFAULT };
        assert!(Object::parse(&body, &limits(exact)).is_ok(), "{inside:?}");
        assert!(Object::parse(&body, &limits(exact - 1)).is_err(), "{inside:?}");
    }
}

#[test]
fn members_are_found_in_place() {
    let body = b" {\"data\": {\"a\":[1,{\"b\":2}]} ,\"options\":null,\"n\":-1.50,\"s\":\"x\\ty\"} ";
    let object = Object::parse(body, &Limits::DEFAULT).unwrap().unwrap();
    assert_eq!(object.get("data").unwrap().text(), "{\"a\":[1,{\"b\":2}]}");
    assert_eq!(object.get("options").unwrap().kind(), Kind::Null);
    assert_eq!(object.get("n").unwrap().text(), "-1.50");
    assert_eq!(object.get("s").unwrap().string().unwrap(), "x\ty");
    assert!(object.get("Data").is_none());
    let items: Vec<_> = object.get("data").unwrap().get("a").unwrap().elements().map(Raw::text).collect();
    assert_eq!(items, ["1", "{\"b\":2}"]);
    assert_eq!(object.members().count(), object.len());
}

/// A long body of many small values, so that the passes are quick and do not recurse.
#[test]
fn deep_values_are_written_anew_without_recursion() {
    let body =
        format!("{{\"a\":{}1{},\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000), "[".repeat(9000), "]".repeat(9000));
    assert_eq!(parse(body.as_bytes()), Ok(Some(format!("{{\"a\":{}{}}}", "[".repeat(9000), "]".repeat(9000)))));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c<é\"\\\\]{0,3}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_another_parser(value in json()) {
        let object = serde_json::json!({ "data": value });
        for text in [object.to_string(), serde_json::to_string_pretty(&object).unwrap()] {
            let parsed = Object::parse(text.as_bytes(), &Limits::DEFAULT).unwrap().unwrap();
            let data = parsed.get("data").unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(data.text()).unwrap(), &value);
            let anew = tape::normalise(text.as_bytes()).unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&anew).unwrap(), &object);
        }
    }

    #[test]
    fn rubbish_never_panics(body in "[\\[\\]{}:,\"\\\\ualse01.e+ -]{0,40}", bytes: Vec<u8>) {
        drop(Object::parse(&bytes, &Limits::DEFAULT));
        let ours = Object::parse(body.as_bytes(), &Limits::DEFAULT);
        if let Ok(theirs) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body) {
            let object = ours.unwrap().unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(object.raw().text()).unwrap(), theirs);
        }
        let raw = Raw::trusted(&body);
        drop((raw.kind(), raw.string(), raw.elements().count(), raw.members().count()));
        drop(Tape::new(body.as_bytes()));
    }
}
