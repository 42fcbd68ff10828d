//! The `config` object of a new mount. Unlike the parameters around it, its members are taken as they are: a number where a
//! text is wanted passes, anything else must have the right type.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::LISTS;
use crate::http::duration;
use crate::http::json::{Kind, Raw};
use crate::mounts::SYSTEM_LEASE_S;
use crate::refusal::Refusal;

/// What a new mount is to be like.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Config {
    /// Seconds; 0 = the system's.
    pub(super) default_lease_s: i64,
    /// Seconds; 0 = the system's.
    pub(super) max_lease_s: i64,
    /// Kept and shown.
    pub(super) force_no_cache: bool,
    /// Not checked yet.
    pub(super) listing_visibility: String,
    /// Of the tokens of an auth method; not checked yet.
    pub(super) token_type: String,
    /// Those that are not empty.
    pub(super) lists: BTreeMap<String, Vec<String>>,
    /// Not checked yet; empty where none is asked for.
    pub(super) plugin_version: String,
    /// What a mount of type `plugin` is; empty where that is said elsewhere.
    pub(super) plugin_name: String,
}

impl Config {
    /// Of the object that came; `what` (`mount`, `auth`) stands in the text of a refusal.
    ///
    /// # Errors
    /// A member of another type; leases that are no durations, or do not go together.
    pub(super) fn of(object: Option<Raw<'_>>, what: &str) -> Result<Self, Refusal> {
        let Some(object) = object else { return Ok(Self::default()) };
        let members = Members::of(object)
            .ok_or_else(|| Refusal::malformed(format!("unable to convert given {what} config information")))?;
        let config = Self {
            default_lease_s: lease("default", &members.default_lease)?,
            max_lease_s: lease("max", &members.max_lease)?,
            ..members.rest
        };
        if config.max_lease_s != 0 && config.default_lease_s > config.max_lease_s {
            return Err(Refusal::malformed("given default lease TTL greater than given max lease TTL"));
        }
        if config.max_lease_s == 0 && config.default_lease_s > SYSTEM_LEASE_S {
            return Err(Refusal::malformed(format!(
                "given default lease TTL greater than system max lease TTL of {SYSTEM_LEASE_S}"
            )));
        }
        Ok(config)
    }
}

/// Whole seconds of a lease.
fn lease(which: &str, text: &str) -> Result<i64, Refusal> {
    if text == "system" {
        return Ok(0);
    }
    duration::parse(text)
        .map(|nanos| nanos / 1_000_000_000)
        .map_err(|why| Refusal::malformed(format!("unable to parse {which} TTL of {text}: {why}")))
}

/// The members, each of the type that it must have.
struct Members {
    default_lease: String,
    max_lease: String,
    rest: Config,
}

impl Members {
    /// `None` if one has another type.
    fn of(object: Raw<'_>) -> Option<Self> {
        let text = |name| text(member(object, name)).map(Cow::into_owned);
        lockout(member(object, "user_lockout_config"))?;
        let mut lists = BTreeMap::new();
        for name in LISTS {
            let exact = object.get(name).is_some();
            let list = list(member(object, name), exact)?;
            if !list.is_empty() {
                lists.insert(name.to_owned(), list);
            }
        }
        Some(Self {
            default_lease: text("default_lease_ttl")?,
            max_lease: text("max_lease_ttl")?,
            rest: Config {
                force_no_cache: flag(member(object, "force_no_cache"))?,
                listing_visibility: text("listing_visibility")?,
                token_type: text("token_type")?,
                lists,
                plugin_version: text("plugin_version")?,
                plugin_name: text("plugin_name")?,
                ..Config::default()
            },
        })
    }
}

/// A member by its name, however it is capitalised where it does not stand there exactly; null is none.
fn member<'a>(object: Raw<'a>, name: &str) -> Option<Raw<'a>> {
    let found = object
        .get(name)
        .or_else(|| object.members().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| value.kind() != Kind::Null)
}

/// Whether this can be settings against guessed passwords, as a tune takes them.
pub(super) fn is_lockout(object: Raw<'_>) -> bool {
    let texts = ["lockout_threshold", "lockout_duration", "lockout_counter_reset_duration"];
    texts.iter().all(|name| text(member(object, name)).is_some()) && flag(member(object, "lockout_disable")).is_some()
}

/// A text or a number, as text.
fn text(value: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    let Some(value) = value else { return Some(Cow::Borrowed("")) };
    match value.kind() {
        Kind::String => value.string(),
        Kind::Number => Some(Cow::Borrowed(value.text())),
        Kind::Null => Some(Cow::Borrowed("")),
        Kind::Bool | Kind::Array | Kind::Object => None,
    }
}

/// Yes or no.
fn flag(value: Option<Raw<'_>>) -> Option<bool> {
    match value {
        None => Some(false),
        Some(value) if value.kind() == Kind::Bool => Some(value.text() == "true"),
        Some(_) => None,
    }
}

/// Texts. Those of one text with commas are trimmed, which holds only where the name stands there `exact`ly.
fn list(value: Option<Raw<'_>>, exact: bool) -> Option<Vec<String>> {
    let Some(value) = value else { return Some(Vec::new()) };
    match value.kind() {
        Kind::Array => value.elements().map(|item| text(Some(item)).map(Cow::into_owned)).collect(),
        Kind::String if exact => {
            let joined = value.string()?;
            let parts = joined.split(',').map(|part| part.trim().to_owned());
            Some(if joined.is_empty() { Vec::new() } else { parts.collect() })
        }
        _ => None,
    }
}

/// Settings against guessed passwords: of the right types, and without effect on a mount that checks none.
fn lockout(value: Option<Raw<'_>>) -> Option<()> {
    let Some(object) = value else { return Some(()) };
    if object.kind() != Kind::Object {
        return None;
    }
    let number = |name: &str| match member(object, name) {
        None => Some(0),
        Some(value) if value.kind() == Kind::Number => value.text().parse::<i64>().ok(),
        Some(_) => None,
    };
    number("lockout_threshold").filter(|threshold| *threshold >= 0)?;
    number("lockout_duration")?;
    number("lockout_counter_reset")?;
    flag(member(object, "disable_lockout")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Config, Refusal> {
        Config::of(Some(Raw::trusted(text)), "mount")
    }

    #[test]
    fn members_keep_their_types() {
        for wrong in [
            r#"{"default_lease_ttl": true}"#,
            r#"{"max_lease_ttl": ["1h"]}"#,
            r#"{"listing_visibility": {}}"#,
            r#"{"force_no_cache": "true"}"#,
            r#"{"force_no_cache": 1}"#,
            r#"{"passthrough_request_headers": 5}"#,
            r#"{"allowed_response_headers": ["a", true]}"#,
            r#"{"Allowed_Response_Headers": "a,b"}"#,
            r#"{"token_type": false}"#,
            r#"{"user_lockout_config": "x"}"#,
            r#"{"user_lockout_config": {"lockout_threshold": "3"}}"#,
            r#"{"user_lockout_config": {"lockout_threshold": -1}}"#,
        ] {
            let refused = of(wrong).unwrap_err();
            assert_eq!(refused, Refusal::malformed("unable to convert given mount config information"), "{wrong}");
        }
        let config = of(r#"{"listing_visibility": 5, "user_lockout_config": {"lockout_threshold": 3}}"#).unwrap();
        assert_eq!(config.listing_visibility, "5");
    }

    #[test]
    fn lists_show_what_is_in_them() {
        for (given, list) in [
            (r#"["a,b", " c ", null]"#, vec!["a,b", " c ", ""]),
            (r#"" a , ,b""#, vec!["a", "", "b"]),
            ("[1]", vec!["1"]),
            ("[]", vec![]),
            (r#""""#, vec![]),
            ("null", vec![]),
        ] {
            let config = of(&format!(r#"{{"passthrough_request_headers": {given}}}"#)).unwrap();
            assert_eq!(config.lists.get("passthrough_request_headers").map_or(vec![], Clone::clone), list, "{given}");
            assert_eq!(config.lists.is_empty(), list.is_empty());
        }
    }

    #[test]
    fn leases_go_together() {
        let seconds = |text: &str| of(text).map(|config| (config.default_lease_s, config.max_lease_s));
        assert_eq!(seconds(r#"{"default_lease_ttl": "1h", "max_lease_ttl": 7200}"#), Ok((3600, 7200)));
        assert_eq!(seconds(r#"{"Default_Lease_TTL": "1h", "max_lease_ttl": "system"}"#), Ok((3600, 0)));
        assert_eq!(seconds(r#"{"default_lease_ttl": "-5", "max_lease_ttl": "-1"}"#), Ok((-5, -1)));
        for wrong in [
            r#"{"max_lease_ttl": -5}"#,
            r#"{"default_lease_ttl": "2h", "max_lease_ttl": "1h"}"#,
            r#"{"default_lease_ttl": "769h"}"#,
            r#"{"default_lease_ttl": "1w"}"#,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
