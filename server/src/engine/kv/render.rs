//! The answers of KV v2 as JSON, written straight into the answer's buffer.
//!
//! Only the `data` of the envelope is written here. The value of a secret is spliced in as the bytes that were stored.

use std::collections::BTreeMap;

use keyward_model::{Fraction, Timestamp};

use super::{KvConfig, SecretRecord, Status, Version};
use crate::http::duration::format_seconds;
use crate::http::json::write_string;

/// The answer to a write, and what a patch of a removed version gets: the metadata of one version.
pub fn version(out: &mut Vec<u8>, version: &Version, record: &SecretRecord) {
    out.extend_from_slice(b"{\"created_time\":");
    time(out, Some(version.created));
    out.extend_from_slice(b",\"custom_metadata\":");
    custom_metadata(out, &record.custom_metadata);
    out.extend_from_slice(b",\"deletion_time\":");
    time(out, version.deletion.time());
    out.extend_from_slice(b",\"destroyed\":");
    bool(out, version.status == Status::Destroyed);
    out.extend_from_slice(b",\"version\":");
    number(out, version.number);
    out.push(b'}');
}

/// The answer to a read of a version: `value` is its stored JSON, `None` if it is deleted or destroyed.
pub fn read(out: &mut Vec<u8>, value: Option<&[u8]>, of: &Version, record: &SecretRecord) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(value.unwrap_or(b"null"));
    out.extend_from_slice(b",\"metadata\":");
    version(out, of, record);
    out.push(b'}');
}

/// The answer to a read of subkeys: `tree` comes from [`super::subkeys::of`], `None` if the version is gone.
pub fn subkeys(out: &mut Vec<u8>, tree: Option<&[u8]>, of: &Version, record: &SecretRecord) {
    out.extend_from_slice(b"{\"metadata\":");
    version(out, of, record);
    out.extend_from_slice(b",\"subkeys\":");
    out.extend_from_slice(tree.unwrap_or(b"null"));
    out.push(b'}');
}

/// The answer to a read of `metadata/`.
pub fn metadata(out: &mut Vec<u8>, record: &SecretRecord) {
    out.extend_from_slice(b"{\"cas_required\":");
    bool(out, record.cas_required);
    out.extend_from_slice(b",\"created_time\":");
    time(out, Some(record.created));
    out.extend_from_slice(b",\"current_metadata_version\":");
    number(out, record.metadata_version);
    out.extend_from_slice(b",\"current_version\":");
    number(out, record.current_number());
    out.extend_from_slice(b",\"custom_metadata\":");
    custom_metadata(out, &record.custom_metadata);
    out.extend_from_slice(b",\"delete_version_after\":");
    write_string(out, &format_seconds(record.delete_version_after));
    out.extend_from_slice(b",\"max_versions\":");
    number(out, u64::from(record.max_versions));
    out.extend_from_slice(b",\"metadata_cas_required\":");
    bool(out, record.metadata_cas_required);
    out.extend_from_slice(b",\"oldest_version\":");
    number(out, record.oldest);
    out.extend_from_slice(b",\"updated_time\":");
    time(out, Some(record.updated));
    out.extend_from_slice(b",\"versions\":{");
    // The keys are strings, so 10 comes before 2.
    let by_name: BTreeMap<String, &Version> = record.versions.iter().map(|v| (v.number.to_string(), v)).collect();
    for (i, (name, version)) in by_name.into_iter().enumerate() {
        comma(out, i);
        write_string(out, &name);
        out.extend_from_slice(b":{\"created_time\":");
        time(out, Some(version.created));
        out.extend_from_slice(b",\"deletion_time\":");
        time(out, version.deletion.time());
        out.extend_from_slice(b",\"destroyed\":");
        bool(out, version.status == Status::Destroyed);
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
}

/// The answer to a read of `config`.
pub fn config(out: &mut Vec<u8>, config: &KvConfig) {
    out.extend_from_slice(b"{\"cas_required\":");
    bool(out, config.cas_required);
    out.extend_from_slice(b",\"delete_version_after\":");
    write_string(out, &format_seconds(config.delete_version_after));
    out.extend_from_slice(b",\"max_versions\":");
    number(out, u64::from(config.max_versions));
    out.extend_from_slice(b",\"metadata_cas_required\":");
    bool(out, config.metadata_cas_required);
    out.push(b'}');
}

/// The answer to a list: names in the order given, folders with their `/`.
pub fn keys<'a>(out: &mut Vec<u8>, names: impl IntoIterator<Item = &'a str>) {
    out.extend_from_slice(b"{\"keys\":");
    strings(out, names);
    out.push(b'}');
}

/// The answer to a detailed list: names in byte order, each with its record; folders have none.
pub fn detailed_keys<'a>(
    out: &mut Vec<u8>,
    entries: impl IntoIterator<Item = (&'a str, Option<&'a SecretRecord>)> + Clone,
) {
    out.extend_from_slice(b"{\"key_info\":{");
    for (i, (name, record)) in entries.clone().into_iter().enumerate() {
        comma(out, i);
        write_string(out, name);
        out.push(b':');
        match record {
            Some(record) => metadata(out, record),
            None => out.extend_from_slice(b"{}"),
        }
    }
    out.extend_from_slice(b"},\"keys\":");
    strings(out, entries.into_iter().map(|(name, _)| name));
    out.push(b'}');
}

fn strings<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    out.push(b'[');
    for (i, text) in texts.into_iter().enumerate() {
        comma(out, i);
        write_string(out, text);
    }
    out.push(b']');
}

fn custom_metadata(out: &mut Vec<u8>, map: &BTreeMap<String, String>) {
    if map.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'{');
    for (i, (key, value)) in map.iter().enumerate() {
        comma(out, i);
        write_string(out, key);
        out.push(b':');
        write_string(out, value);
    }
    out.push(b'}');
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let from = out.len();
    loop {
        out.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(from..) {
        digits.reverse();
    }
}

/// A moment in quotes; `""` for none.
fn time(out: &mut Vec<u8>, moment: Option<Timestamp>) {
    out.push(b'"');
    if let Some(moment) = moment {
        moment.write_rfc3339(out, Fraction::Shortest);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use keyward_model::Id;

    use super::super::NewVersion;
    use super::*;

    const AT: Timestamp = Timestamp(1_700_000_000_120_000_000);

    fn record() -> SecretRecord {
        let mut record = SecretRecord::new(Id::ZERO, AT);
        for blob in 1..=10 {
            let new = NewVersion { status: Status::Current, blob, created_by: None };
            record.write(&KvConfig::default(), None, new, AT).unwrap();
        }
        record
    }

    fn shown(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_read_splices_the_stored_bytes() {
        let mut record = record();
        let of = record.version(10).unwrap();
        assert_eq!(
            shown(|out| read(out, Some(b"{ \"n\":1.0 }"), of, &record)),
            "{\"data\":{ \"n\":1.0 },\"metadata\":{\"created_time\":\"2023-11-14T22:13:20.12Z\",\"custom_metadata\":null,\
             \"deletion_time\":\"\",\"destroyed\":false,\"version\":10}}"
        );
        record.delete(&[10], Timestamp(1_700_000_001_000_000_000));
        record.destroy(&[10]);
        record.custom_metadata = BTreeMap::from([("a<b".into(), "x\"y".into())]);
        let of = record.version(10).unwrap();
        let gone = "{\"created_time\":\"2023-11-14T22:13:20.12Z\",\"custom_metadata\":{\"a\\u003cb\":\"x\\\"y\"},\
             \"deletion_time\":\"2023-11-14T22:13:21Z\",\"destroyed\":true,\"version\":10}";
        assert_eq!(shown(|out| read(out, None, of, &record)), format!("{{\"data\":null,\"metadata\":{gone}}}"));
        assert_eq!(shown(|out| version(out, of, &record)), gone);
        assert_eq!(shown(|out| subkeys(out, None, of, &record)), format!("{{\"metadata\":{gone},\"subkeys\":null}}"));
    }

    #[test]
    fn metadata_sorts_versions_as_strings() {
        let text = shown(|out| metadata(out, &record()));
        assert!(text.starts_with(
            "{\"cas_required\":false,\"created_time\":\"2023-11-14T22:13:20.12Z\",\"current_metadata_version\":0,\
             \"current_version\":10,\"custom_metadata\":null,\"delete_version_after\":\"0s\",\"max_versions\":0,\
             \"metadata_cas_required\":false,\"oldest_version\":1,\"updated_time\":\"2023-11-14T22:13:20.12Z\",\
             \"versions\":{\"1\":{\"created_time\":\"2023-11-14T22:13:20.12Z\",\"deletion_time\":\"\",\"destroyed\":false},\
             \"10\":{"
        ));
        assert!(text.ends_with("\"destroyed\":false}}}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn config_and_lists() {
        assert_eq!(
            shown(|out| [0, 7, 10, u64::MAX].into_iter().for_each(|n| number(out, n))),
            "071018446744073709551615"
        );
        let set = KvConfig { max_versions: 3, delete_version_after: 12_319, ..KvConfig::default() };
        assert_eq!(
            shown(|out| config(out, &set)),
            "{\"cas_required\":false,\"delete_version_after\":\"3h25m19s\",\"max_versions\":3,\"metadata_cas_required\":false}"
        );
        assert_eq!(shown(|out| keys(out, ["a", "b&/"])), "{\"keys\":[\"a\",\"b\\u0026/\"]}");
        let record = SecretRecord::new(Id::ZERO, AT);
        let text = shown(|out| detailed_keys(out, [("a", Some(&record)), ("a/", None)]));
        assert!(text.starts_with("{\"key_info\":{\"a\":{\"cas_required\":false,"));
        assert!(text.ends_with("\"versions\":{}},\"a/\":{}},\"keys\":[\"a\",\"a/\"]}"));
    }
}
