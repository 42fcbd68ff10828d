use proptest::prelude::*;

use super::super::json::Limits;
use super::*;

/// Coerces the field `f` of the body `{"f":<value>}` at a handler and shows the outcome.
fn with<T>(value: &str, read: impl for<'p> Fn(&'p Params<'p>) -> Result<T, FieldError>) -> Result<T, String> {
    let body = format!("{{\"f\":{value}}}");
    let params = Params::from_body(Object::parse(body.as_bytes(), &Limits::DEFAULT).unwrap(), Check::Handler);
    read(&params).map_err(|error| {
        let text = error.to_string();
        text.strip_prefix("Field validation failed: error converting input for field \"f\": ").unwrap().to_owned()
    })
}

fn int(value: &str) -> Result<Option<i64>, String> {
    with(value, |p| p.int("f"))
}

fn string(value: &str) -> Result<Option<String>, String> {
    with(value, |p| Ok(p.string("f")?.map(Cow::into_owned)))
}

fn map(value: &str) -> Result<Option<String>, String> {
    with(value, |p| Ok(p.map("f")?.map(Cow::into_owned)))
}

const SYNTAX: &str = "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax";
const RANGE: &str = "'' cannot parse value as 'int': strconv.ParseInt: value out of range";

#[test]
fn refusals_begin_as_the_endpoint_does() {
    for (check, text) in [
        (Check::Existence, "error converting input for field \"n\": "),
        (Check::Handler, "Field validation failed: error converting input for field \"n\": "),
    ] {
        assert_eq!(Params::from_query("n=x", check).int("n").unwrap_err().to_string(), format!("{text}{SYNTAX}"));
    }
}

#[test]
fn absent_is_none() {
    let params = Params::from_body(None, Check::Handler);
    assert_eq!(params.int("f"), Ok(None));
    assert_eq!(params.string("f"), Ok(None));
    assert!(params.names().is_empty());
}

#[test]
fn whole_numbers() {
    for (value, n) in [
        ("10", 10),
        ("-3", -3),
        ("\"10\"", 10),
        ("\"+5\"", 5),
        ("\"0x0a\"", 10),
        ("\"0X_A\"", 10),
        ("\"0b1010\"", 10),
        ("\"0o12\"", 10),
        ("\"012\"", 10),
        ("\"0_12\"", 10),
        ("\"1_000\"", 1000),
        ("\"0\"", 0),
        ("\"\"", 0),
        ("null", 0),
        ("true", 1),
        ("false", 0),
        ("\"-9223372036854775808\"", i64::MIN),
    ] {
        assert_eq!(int(value), Ok(Some(n)), "{value}");
    }
    for value in
        ["1.5", "1.0", "1e3", "\"abc\"", "\"08\"", "\" 1\"", "\"1_\"", "\"_1\"", "\"1__0\"", "\"0x\"", "\"-\"", "\"x\""]
    {
        assert_eq!(int(value), Err(SYNTAX.into()), "{value}");
    }
    for value in ["9223372036854775808", "\"-9223372036854775809\"", "99999999999999999999"] {
        assert_eq!(int(value), Err(RANGE.into()), "{value}");
    }
    assert_eq!(int("[1]"), Err("'' expected type 'int', got unconvertible type '[]interface {}'".into()));
    assert_eq!(int("{}"), Err("'' expected type 'int', got unconvertible type 'map[string]interface {}'".into()));
    let twice = Params::from_query("f=1&f=2", Check::Existence);
    assert!(
        twice.int("f").unwrap_err().to_string().ends_with("'' expected type 'int', got unconvertible type '[]string'")
    );
}

#[test]
fn strings_and_bools() {
    for (value, text) in
        [("\"x\"", Some("x")), ("1.50", Some("1.50")), ("true", Some("1")), ("false", Some("0")), ("null", None)]
    {
        assert_eq!(string(value), Ok(text.map(str::to_owned)), "{value}");
    }
    assert_eq!(string("[]"), Err("'' expected type 'string', got unconvertible type '[]interface {}'".into()));

    let bool = |value: &str| with(value, |p| p.bool("f"));
    for (value, yes) in [("true", true), ("1", true), ("\"T\"", true), ("0", false), ("\"\"", false), ("null", false)] {
        assert_eq!(bool(value), Ok(Some(yes)), "{value}");
    }
    for value in ["2", "1.0", "\"yes\"", "\"tRUE\""] {
        assert_eq!(bool(value), Err("'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax".into()));
    }
}

#[test]
fn durations() {
    let signed = |value: &str| with(value, |p| p.signed_duration("f"));
    let plain = |value: &str| with(value, |p| p.duration("f"));
    for (value, seconds) in [
        ("3600", Some(3600)),
        ("\"90\"", Some(90)),
        ("\"1h30m\"", Some(5400)),
        ("\"1500ms\"", Some(1)),
        ("\"-500ms\"", Some(0)),
        ("\"7d\"", Some(604_800)),
        ("\"\"", Some(0)),
        ("null", None),
    ] {
        assert_eq!(plain(value), Ok(seconds), "{value}");
    }
    assert_eq!(signed("\"-1h\""), Ok(Some(-3600)));
    for (value, why) in [
        ("-5", "cannot provide negative value '-5'"),
        ("\"-1h\"", "cannot provide negative value '-3600'"),
        ("1.5", "time: missing unit in duration \"1.5\""),
        ("1e3", "time: unknown unit \"e\" in duration \"1e3\""),
        ("true", "could not parse duration from input"),
        ("[]", "could not parse duration from input"),
    ] {
        assert_eq!(plain(value), Err(why.into()), "{value}");
    }
}

#[test]
fn lists_of_numbers() {
    let ints = |value: &str| with(value, |p| p.ints("f"));
    for (value, list) in [
        ("[1,\"2\",true,null,\"\"]", vec![1, 2, 1, 0, 0]),
        ("\"1,2,3\"", vec![1, 2, 3]),
        ("5", vec![5]),
        ("true", vec![1]),
        ("\"\"", vec![]),
        ("null", vec![]),
        ("{}", vec![]),
        ("[]", vec![]),
    ] {
        assert_eq!(ints(value), Ok(Some(list)), "{value}");
    }
    let bad = |i: usize| format!("'[{i}]' cannot parse value as 'int': strconv.ParseInt: invalid syntax");
    let head = "decoding failed due to the following error(s):\n\n";
    assert_eq!(ints("\"3, 4\""), Err(format!("{head}{}", bad(1))));
    assert_eq!(ints("[\"x\",1,1.5]"), Err(format!("{head}{}\n{}", bad(0), bad(2))));
    assert_eq!(
        ints("{\"v\":1}"),
        Err(format!("{head}'[0]' expected type 'int', got unconvertible type 'map[string]interface {{}}'"))
    );
    assert_eq!(Params::from_query("f=1&f=2", Check::Handler).ints("f"), Ok(Some(vec![1, 2])));
}

#[test]
fn lists_of_strings() {
    let strings = |value: &str| with(value, |p| p.strings("f"));
    for (value, list) in [
        ("[\"a,b\",\" c \",\"\",1,true,null]", vec!["a,b", "c", "", "1", "1", ""]),
        ("\"a, b,,c\"", vec!["a", "b", "", "c"]),
        ("\" \"", vec![""]),
        ("7", vec!["7"]),
        ("null", vec![]),
        ("\"\"", vec![]),
        ("{}", vec![]),
    ] {
        assert_eq!(strings(value), Ok(Some(list.into_iter().map(str::to_owned).collect())), "{value}");
    }
    assert!(
        strings("[[1]]")
            .unwrap_err()
            .ends_with("'[0]' expected type 'string', got unconvertible type '[]interface {}'")
    );
}

#[test]
fn maps() {
    for (value, text) in [
        ("{ \"a\" : 1 }", "{ \"a\" : 1 }"),
        ("null", "null"),
        ("[]", "{}"),
        ("[[]]", "{}"),
        ("[null]", "null"),
        ("[[null]]", "null"),
        ("[{},null]", "{}"),
        ("[{\"a\":1},{\"b\":2.0,\"a\":[3]}]", "{\"a\":[3],\"b\":2.0}"),
        ("[[{\"a\":1}],{\"b\":2}]", "{\"a\":1,\"b\":2}"),
    ] {
        assert_eq!(map(value), Ok(Some(text.into())), "{value}");
    }
    for (value, place, kind) in [
        ("\"text\"", "", "string"),
        ("7", "", "json.Number"),
        ("true", "", "bool"),
        ("[\"a\",\"b\"]", "[0]", "string"),
        ("[{},[{},1]]", "[1][1]", "json.Number"),
    ] {
        let why = format!("'{place}' expected type 'map[string]interface {{}}', got unconvertible type '{kind}'");
        assert_eq!(map(value), Err(why), "{value}");
    }
}

#[test]
fn pairs_and_times() {
    let pairs = |value: &str| with(value, |p| p.pairs("f")).map(|map| map.unwrap().into_iter().collect::<Vec<_>>());
    let ab = || vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())];
    for value in ["{\"a\":1,\"b\":\"x=y\"}", "[\"a=1\",\"b=x=y\"]", "[{\"a\":true},{\"b\":\"x=y\"}]"] {
        assert_eq!(pairs(value), Ok(ab()), "{value}");
    }
    assert_eq!(pairs("{\"k\":null}"), Ok(vec![("k".into(), String::new())]));
    assert_eq!(pairs("\"a\""), Err("invalid key pair \"a\"".into()));

    let time = |value: &str| with(value, |p| p.time("f"));
    assert_eq!(time("1700000000"), Ok(Some(Timestamp(1_700_000_000_000_000_000))));
    assert_eq!(time("\"2023-11-14T22:13:20Z\""), Ok(Some(Timestamp(1_700_000_000_000_000_000))));
    assert_eq!(time("null"), Ok(None));
    for (value, why) in [
        ("\"today\"", "could not parse string as date and time"),
        ("\"\"", "could not parse string as date and time"),
        ("\"2023-11-14 22:13:20Z\"", "could not parse string as date and time"),
        ("99999999999999", "could not parse string as date and time"),
        ("true", "could not parse time from input type"),
        ("1.5", "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
    ] {
        assert_eq!(time(value), Err(why.into()), "{value}");
    }
}

#[test]
fn warnings_name_what_was_not_used() {
    let body = b"{\"data\":1,\"note\":2,\"also\":3,\"path\":4}";
    let params = Params::from_body(Object::parse(body, &Limits::DEFAULT).unwrap(), Check::Existence);
    let (data, path) = (Field::map("data"), Field::captured("path"));
    let ignored = "Endpoint ignored these unrecognized parameters: [also note]";
    let replaced =
        "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [path]";
    assert_eq!(params.warnings(&[data, path]), [ignored, replaced]);
    assert_eq!(params.warnings(&[data, Field::int("note"), Field::int("also"), Field::int("path")]), [""; 0]);
    assert_eq!(params.warnings(&[path, data, Field::int("note"), Field::int("also")]), [replaced]);
}

#[test]
fn queries_and_forms() {
    let mut params = Params::from_query("a=1&a=2&b=x+y%2Fz&c&bad=%zz&semi=1;2&help=&%41=v&list=true", Check::Handler);
    assert_eq!(params.names(), ["A", "a", "b", "c", "list"]);
    assert_eq!(params.string("b").unwrap().unwrap(), "x y/z");
    assert_eq!(params.string("c").unwrap().unwrap(), "");
    params.remove("list");
    assert!(params.get("list").is_none());

    let form = Params::from_form(b"data=x&versions=1&versions=2", Check::Handler).unwrap();
    assert_eq!(form.ints("versions"), Ok(Some(vec![1, 2])));
    for bad in [&b"a=%z"[..], b"a=1;b=2", b"a=%2"] {
        assert_eq!(Params::from_form(bad, Check::Handler).err(), Some(BadForm));
    }
}

proptest! {
    #[test]
    fn numbers_read_back(n: i64) {
        prop_assert_eq!(int(&n.to_string()), Ok(Some(n)));
        prop_assert_eq!(int(&format!("\"{n}\"")), Ok(Some(n)));
    }

    #[test]
    fn rubbish_never_panics(query in "[a-c=&%;+0-9_x\u{e9}]{0,30}", value in "[\\[\\]{},:\"a-f0-9.x_=-]{0,20}") {
        let mut all = vec![Params::from_query(&query, Check::Handler)];
        all.extend(Params::from_form(query.as_bytes(), Check::Handler));
        let body = format!("{{\"a\":{value}}}");
        all.extend(Object::parse(body.as_bytes(), &Limits::DEFAULT).map(|o| Params::from_body(o, Check::Handler)));
        for p in all {
            drop((p.string("a"), p.int("a"), p.bool("a"), p.duration("a"), p.ints("a"), p.strings("a")));
            drop((p.map("a"), p.pairs("a"), p.time("a"), p.warnings(&[])));
        }
    }
}
