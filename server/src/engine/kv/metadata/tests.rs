use super::*;
use crate::http::fields::Check;
use crate::http::json::{Limits, Object};

const T0: Timestamp = Timestamp(1_000_000_000_000);

fn read(body: &str, verb: Verb) -> Result<MetadataChange, KvError> {
    let body = Object::parse(body.as_bytes(), &Limits::DEFAULT).unwrap();
    MetadataChange::from_params(&Params::from_body(body, Check::Existence), verb)
}

fn write(record: &mut SecretRecord, body: &str) -> Result<(), KvError> {
    record.apply_metadata(&read(body, Verb::Write)?, &KvConfig::default(), T0)
}

fn patch(record: &mut SecretRecord, body: &str) -> Result<(), KvError> {
    record.apply_metadata(&read(body, Verb::Patch)?, &KvConfig::default(), T0)
}

fn made(body: &str) -> SecretRecord {
    SecretRecord::with_metadata(Id::ZERO, &read(body, Verb::Write).unwrap(), &KvConfig::default(), T0).unwrap()
}

fn custom(record: &SecretRecord) -> Vec<(&str, &str)> {
    record.custom_metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn refused(body: &str) -> String {
    read(body, Verb::Write).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_nothing_done() {
    for body in ["{}", r#"{"metadata_cas":99}"#, r#"{"colour":"red"}"#, r#"{"delete_version_after":null}"#] {
        assert!(read(body, Verb::Write).unwrap().is_empty(), "{body}");
    }
    for body in [r#"{"max_versions":null}"#, r#"{"cas_required":null}"#, r#"{"custom_metadata":null}"#] {
        assert!(!read(body, Verb::Write).unwrap().is_empty(), "{body}");
    }
}

#[test]
fn a_write_changes_what_is_given() {
    let mut record =
        made(r#"{"max_versions":5,"cas_required":true,"delete_version_after":"10m","custom_metadata":{"a":"1"}}"#);
    assert_eq!((record.metadata_version, record.newest), (1, 0));
    write(&mut record, r#"{"custom_metadata":{"int":5,"frac":1.50,"yes":true,"no":false}}"#).unwrap();
    assert_eq!(custom(&record), [("frac", "1.50"), ("int", "5"), ("no", "0"), ("yes", "1")]);
    assert_eq!((record.metadata_version, record.max_versions, record.delete_version_after), (2, 5, 600));
    write(&mut record, r#"{"delete_version_after":0,"max_versions":null,"custom_metadata":{}}"#).unwrap();
    assert!(custom(&record).is_empty());
    assert_eq!((record.max_versions, record.cas_required, record.delete_version_after), (0, true, 0));
}

#[test]
fn a_patch_merges_and_null_resets() {
    let mut record = made(
        r#"{"max_versions":5,"cas_required":true,"delete_version_after":"10m","custom_metadata":{"a":"1","b":"2"}}"#,
    );
    patch(&mut record, r#"{"custom_metadata":{"b":22,"c":"3"}}"#).unwrap();
    assert_eq!(custom(&record), [("a", "1"), ("b", "22"), ("c", "3")]);
    patch(&mut record, r#"{"custom_metadata":{"a":null,"ghost":null}}"#).unwrap();
    assert_eq!(custom(&record), [("b", "22"), ("c", "3")]);
    for body in [r#"{"custom_metadata":{}}"#, r#"{"custom_metadata":[]}"#] {
        patch(&mut record, body).unwrap();
        assert_eq!(custom(&record).len(), 2);
    }
    assert_eq!(record.metadata_version, 5);
    patch(&mut record, r#"{"delete_version_after":0}"#).unwrap();
    assert_eq!(record.delete_version_after, 0);
    patch(&mut record, r#"{"max_versions":null,"cas_required":null,"custom_metadata":null}"#).unwrap();
    assert_eq!((record.max_versions, record.cas_required, custom(&record).len()), (0, false, 0));
}

#[test]
fn the_limits_hold_for_the_result_of_a_patch() {
    let entries = |from: usize, to: usize| {
        let entries: Vec<_> = (from..to).map(|i| format!("\"k{i}\":\"v\"")).collect();
        format!("{{\"custom_metadata\":{{{}}}}}", entries.join(","))
    };
    let mut record = made(&entries(0, 64));
    let before = record.clone();
    let why = "1 error occurred:\n\t* custom_metadata validation failed: payload must contain at most 64 keys, provided 65\n\n";
    assert_eq!(patch(&mut record, &entries(64, 65)).unwrap_err().to_string(), why);
    assert_eq!(refused(&entries(0, 65)), why);
    assert_eq!(record, before);
    patch(&mut record, &entries(10, 20)).unwrap();
}

#[test]
fn refusals_have_openbaos_words() {
    let one = |why: &str| format!("1 error occurred:\n\t* custom_metadata validation failed: {why}\n\n");
    let long = |n: usize| "n".repeat(n);
    for (body, why) in [
        (
            format!(r#"{{"custom_metadata":{{"{}":"v"}}}}"#, long(129)),
            one(&format!("length of key \"{}\" is 129 but must be 0 < len(key) <= 128", long(129))),
        ),
        (
            format!(r#"{{"custom_metadata":{{"k":"{}"}}}}"#, long(513)),
            one("length of value for key \"k\" is 513 but must be 0 < len(value) <= 512"),
        ),
        (r#"{"custom_metadata":{"":"v"}}"#.into(), one("length of key \"\" is 0 but must be 0 < len(key) <= 128")),
        (
            r#"{"custom_metadata":{"k":null}}"#.into(),
            one("length of value for key \"k\" is 0 but must be 0 < len(value) <= 512"),
        ),
        (r#"{"custom_metadata":{"a\tb":"v"}}"#.into(), one("key \"a\\tb\" (a\tb) contains unprintable characters")),
        (r#"{"custom_metadata":{"k":"a\nb"}}"#.into(), one("value for key \"k\" contains unprintable characters")),
        (
            r#"{"custom_metadata":{"k":"","l":""}}"#.into(),
            "2 errors occurred:\n\t* custom_metadata validation failed: length of value for key \"k\" is 0 but must be 0 < len(value) <= 512\
             \n\t* custom_metadata validation failed: length of value for key \"l\" is 0 but must be 0 < len(value) <= 512\n\n"
                .into(),
        ),
        (
            r#"{"custom_metadata":{"m":{"a":"b"}}}"#.into(),
            "custom_metadata validation failed: '' expected type 'string', got unconvertible type 'map[string]interface {}'".into(),
        ),
        (
            r#"{"custom_metadata":["a"]}"#.into(),
            "error converting input for field \"custom_metadata\": '[0]' expected type 'map[string]interface {}', got unconvertible type 'string'".into(),
        ),
        (
            r#"{"delete_version_after":-5}"#.into(),
            "error converting input for field \"delete_version_after\": cannot provide negative value '-5'".into(),
        ),
        (r#"{"max_versions":-1}"#.into(), "max_versions must be between 0 and 4294967295, not -1".into()),
    ] {
        assert_eq!(refused(&body), why, "{body}");
    }
    let edge = format!(r#"{{"custom_metadata":{{"{}":"{}"}}}}"#, long(128), long(512));
    assert!(read(&edge, Verb::Write).is_ok());
}

#[test]
fn metadata_cas_table() {
    let free = KvConfig::default();
    let strict = KvConfig { metadata_cas_required: true, ..free };
    let with = |cas: &str| read(&format!(r#"{{"max_versions":2{cas}}}"#), Verb::Write).unwrap();
    let (none, zero, one) = (with(""), with(r#","metadata_cas":0"#), with(r#","metadata_cas":1"#));
    let make = |change, config| SecretRecord::with_metadata(Id::ZERO, change, config, T0).map(|r| r.metadata_version);
    for (change, config, outcome) in [
        (&none, &free, Ok(1)),
        (&none, &strict, Err(KvError::MetadataCasRequired)),
        (&zero, &strict, Ok(1)),
        (&one, &free, Err(KvError::MetadataCasNotZero)),
    ] {
        assert_eq!(make(change, config), outcome);
    }
    let change_it = |change, config, own| {
        let mut record = made(r#"{"max_versions":1}"#);
        record.metadata_cas_required = own;
        record.apply_metadata(change, config, T0).map(|()| record.metadata_version)
    };
    for (change, config, own, outcome) in [
        (&none, &free, false, Ok(2)),
        (&none, &free, true, Err(KvError::MetadataCasRequired)),
        (&none, &strict, false, Err(KvError::MetadataCasRequired)),
        (&zero, &free, false, Err(KvError::MetadataCasMismatch)),
        (&one, &strict, true, Ok(2)),
    ] {
        assert_eq!(change_it(change, config, own), outcome);
    }
    // A key that a data write made starts at 0.
    assert!(SecretRecord::new(Id::ZERO, T0).apply_metadata(&zero, &strict, T0).is_ok());
}

#[test]
fn a_key_cannot_lift_what_the_mount_demands() {
    let config = KvConfig { cas_required: true, metadata_cas_required: true, ..KvConfig::default() };
    let change = read(r#"{"cas_required":false,"metadata_cas_required":false}"#, Verb::Write).unwrap();
    assert_eq!(change.warnings(&KvConfig::default()), Vec::<&str>::new());
    assert_eq!(
        change.warnings(&config),
        [
            "\"cas_required\" set to false, but is mandated by backend config. This value will be ignored.",
            "\"metadata_cas_required\" set to false, but is mandated by backend config. This value will be ignored.",
        ]
    );
}
