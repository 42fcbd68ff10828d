//! What differs from run to run, replaced by what kind of thing it is.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Members whose values are volatile whatever they look like.
const TYPED: &[(&str, &str)] = &[
    ("accessor", "<accessor>"),
    ("wrapped_accessor", "<accessor>"),
    ("token_accessor", "<accessor>"),
    ("secret_id_accessor", "<uuid>"),
    ("uuid", "<uuid>"),
    ("entity_id", "<entity>"),
    ("server_time_utc", "<int>"),
    ("creation_time_unix", "<int>"),
];
/// Members whose numbers are volatile.
const NUMBERS: &[&str] = &["creation_time", "expire_time_unix", "issue_time_unix", "lease_duration_left"];
/// Characters above which a string is compared by its hash.
const SHOWN_MAX: usize = 1000;

/// The word that stands for `${RUN}` in this run.
pub(super) struct Run<'a>(pub(super) &'a str);

impl Run<'_> {
    /// A body in which two runs agree. `key` is the member that the value belongs to.
    pub(super) fn normalise(&self, value: &Value, key: Option<&str>) -> Value {
        let key_name = key.unwrap_or_default();
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| (name.replace(self.0, "<run>"), self.normalise(member, Some(name))))
                .collect(),
            Value::Array(items) => items.iter().map(|item| self.normalise(item, key)).collect(),
            Value::Bool(_) | Value::Null => value.clone(),
            Value::Number(number) => {
                let zero = number.as_f64() == Some(0.0);
                match TYPED.iter().find(|(name, _)| *name == key_name) {
                    Some((_, kind)) if !zero => Value::from(*kind),
                    _ if NUMBERS.contains(&key_name) && !zero => Value::from("<int>"),
                    _ => value.clone(),
                }
            }
            Value::String(text) => match TYPED.iter().find(|(name, _)| *name == key_name) {
                Some((_, kind)) if !text.is_empty() => Value::from(*kind),
                _ => Value::from(self.text(text)),
            },
        }
    }

    fn text(&self, text: &str) -> String {
        if is_uuid(text) {
            return "<uuid>".into();
        }
        if is_time(text) {
            return if text == "0001-01-01T00:00:00Z" { "<zero-time>" } else { "<time>" }.into();
        }
        if is_token(text) {
            return "<token>".into();
        }
        let text = text.replace(self.0, "<run>");
        let length = text.chars().count();
        if length > SHOWN_MAX {
            return format!("<{length} characters, sha256 {}>", hex::encode(Sha256::digest(&text)));
        }
        text
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// RFC 3339 with seconds, an optional fraction and a zone.
fn is_time(text: &str) -> bool {
    let shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(byte, like)| if like == b'0' { byte.is_ascii_digit() } else { byte == like })
    };
    let Some((moment, rest)) = text.split_at_checked(19) else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|character: char| character.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    shape(moment, "0000-00-00T00:00:00") && (zone == "Z" || shape(zone, "+00:00") || shape(zone, "-00:00"))
}

fn is_token(text: &str) -> bool {
    let body = ["hvs.", "hvb.", "s.", "b."].iter().find_map(|start| text.strip_prefix(start));
    body.is_some_and(|body| {
        body.len() >= 20 && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.=".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_told_from_likenesses() {
        let rows = [
            ("0f8fad5b-d9cb-469f-a165-70867728950e", "<uuid>"),
            ("0F8FAD5B-d9cb-469f-a165-70867728950e", "0F8FAD5B-d9cb-469f-a165-70867728950e"),
            ("2026-11-25T12:00:00.123456789Z", "<time>"),
            ("2026-11-25T12:00:00+01:00", "<time>"),
            ("0001-01-01T00:00:00Z", "<zero-time>"),
            ("2026-11-25T12:00:00.Z", "2026-11-25T12:00:00.Z"),
            ("2026-11-25 12:00:00Z", "2026-11-25 12:00:00Z"),
            ("s.abcdefghijklmnopqrstuvwx", "<token>"),
            ("s.short", "s.short"),
            ("of r1", "of <run>"),
        ];
        for (text, kind) in rows {
            assert_eq!(Run("r1").normalise(&json!(text), None), json!(kind));
        }
    }

    #[test]
    fn members_decide_over_looks() {
        let body = json!({"accessor": "x", "uuid": "", "creation_time": 5, "expire_time_unix": 0, "r1": {"ttl": 5}});
        let want = json!({"accessor": "<accessor>", "uuid": "", "creation_time": "<int>", "expire_time_unix": 0, "<run>": {"ttl": 5}});
        assert_eq!(Run("r1").normalise(&body, None), want);
        let long = Run("r1").normalise(&json!("x".repeat(1001)), None);
        assert!(long.as_str().is_some_and(|text| text.starts_with("<1001 characters, sha256 ")));
    }
}
