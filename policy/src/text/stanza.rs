//! The tree of a policy text to rules. The order of the checks decides which of several faults is named.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward_model::Timestamp;

use super::node::{Item, Node, Value};
use super::{RULES_MAX, duration, quote};
use crate::capability::Capabilities;
use crate::filter::KeysFilter;
use crate::parameters::ParameterLists;
use crate::rule::{Limits, Policy, Required, Rule};
use crate::template;

const STANZA_KEYS: [&str; 12] = [
    "allowed_parameters",
    "capabilities",
    "comment",
    "denied_parameters",
    "expiration",
    "list_scan_response_keys_filter_path",
    "max_wrapping_ttl",
    "mfa_methods",
    "min_wrapping_ttl",
    "pagination_limit",
    "policy",
    "required_parameters",
];

/// The policy that the top-level items say.
pub(super) fn policy(items: Vec<Item>) -> Result<Policy, String> {
    check_keys(&items, &["name", "path"], "")?;
    let mut policy = Policy::default();
    let (named, paths): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| key(item) == "name");
    for node in Fields::new(named).of("name") {
        policy.name = Some(text(node, "root.name")?);
    }
    if paths.len() > RULES_MAX {
        return Err(format!("{} paths are more than {RULES_MAX}", paths.len()));
    }
    for item in paths {
        policy.rules.push(rule(item)?);
    }
    Ok(policy)
}

fn rule(item: Item) -> Result<Rule, String> {
    let path = item.keys.get(1).map_or("path", String::as_str).to_owned();
    if !template::is_balanced(&path) {
        return Err("failed to validate policy templating: unbalanced templating characters".to_owned());
    }
    let prefix = format!("path {}: ", quote(&path));
    let here = |error: String| format!("{prefix}{error}");
    let kind = item.value.kind();
    let Value::Object(items) = item.value.value else {
        return Err(here(format!("cannot check HCL keys of type {kind}")));
    };
    check_keys(&items, &STANZA_KEYS, &prefix)?;
    let fields = Fields::new(items);

    let mut old_policy = String::new();
    for node in fields.of("policy") {
        old_policy = text(node, "root.Policy").map_err(here)?;
    }
    let words = strings(&fields, "capabilities", "root.Capabilities").map_err(here)?;
    let mut expiration = String::new();
    for node in fields.of("expiration") {
        expiration = text(node, "root.expiration").map_err(here)?;
    }
    let allowed = lists(&fields, "allowed_parameters").map_err(here)?;
    let denied = lists(&fields, "denied_parameters").map_err(here)?;
    let required = strings(&fields, "required_parameters", "root.required_parameters").map_err(here)?;
    strings(&fields, "mfa_methods", "root.mfa_methods").map_err(here)?;
    let mut pagination_limit = 0;
    for node in fields.of("pagination_limit") {
        pagination_limit = whole_number(node).map_err(here)?;
    }
    let mut filter = String::new();
    for node in fields.of("list_scan_response_keys_filter_path") {
        filter = text(node, "root.list_scan_response_keys_filter_path").map_err(here)?;
    }

    let expires = match expiration.as_str() {
        "" => None,
        text => Some(
            moment(text)
                .ok_or_else(|| here("invalid expiration time: could not parse string as date and time".to_owned()))?,
        ),
    };
    if path.contains("+*") {
        let path = quote(path.strip_prefix('/').unwrap_or(&path));
        return Err(format!("path {path}: invalid use of wildcards ('+*' is forbidden)"));
    }
    let capabilities = capabilities(words, &old_policy).map_err(here)?;
    let mut rule = Rule { path, capabilities, limits: Limits::default(), expires };
    if capabilities.contains(Capabilities::DENY) {
        return Ok(rule); // what else it says has no effect and is not looked at
    }
    let min = last_duration(&fields, "min_wrapping_ttl")?;
    let max = last_duration(&fields, "max_wrapping_ttl")?;
    if min != 0 && max != 0 && max < min {
        return Err("max_wrapping_ttl cannot be less than min_wrapping_ttl".to_owned());
    }
    rule.limits = Limits {
        allowed,
        denied,
        required: required.into_iter().map(Required::new).collect(),
        min_wrapping_ttl: positive(min),
        max_wrapping_ttl: positive(max),
        pagination_limit: u64::try_from(pagination_limit).ok().filter(|limit| *limit > 0),
        keys_filter: (!filter.is_empty()).then(|| keys_filter(&filter, capabilities)).transpose()?,
    };
    Ok(rule)
}

/// The capabilities of the list `words` and the old word. Case counts.
fn capabilities(words: Vec<String>, old_policy: &str) -> Result<Capabilities, String> {
    let mut words = words;
    let old: &[&str] = match old_policy {
        "" => &[],
        "deny" => return Ok(Capabilities::DENY),
        "read" => &["read", "list"],
        "write" => &["create", "read", "update", "delete", "list"],
        "sudo" => &["create", "read", "update", "delete", "list", "sudo"],
        other => return Err(format!("invalid policy {}", quote(other))),
    };
    words.extend(old.iter().map(|word| (*word).to_owned()));
    let mut set = Capabilities::NONE;
    for word in &words {
        match Capabilities::from_word(word) {
            Some(Capabilities::DENY) => return Ok(Capabilities::DENY),
            Some(bit) => set = set.and(bit),
            None => return Err(format!("invalid capability {}", quote(word))),
        }
    }
    Ok(set)
}

fn keys_filter(source: &str, capabilities: Capabilities) -> Result<KeysFilter, String> {
    if !capabilities.contains(Capabilities::LIST) {
        return Err(
            "list_scan_response_keys_filter_path needs to be used on a path with the list capability".to_owned()
        );
    }
    let filter = KeysFilter::compile(source)
        .map_err(|error| format!("unable to compile template for list_scan_response_keys_filter_path: {error}"))?;
    if !filter.uses_key() {
        return Err("list_scan_response_keys_filter_path resulted in same path for two different keys".to_owned());
    }
    Ok(filter)
}

fn positive(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
}

/// RFC 3339, or seconds since 1970.
fn moment(text: &str) -> Option<Timestamp> {
    match text.parse::<i64>() {
        Ok(seconds) => Some(Timestamp(0).plus_seconds(seconds)),
        Err(_) => Timestamp::parse_rfc3339(text),
    }
}

fn check_keys(items: &[Item], known: &[&str], prefix: &str) -> Result<(), String> {
    let wrong: Vec<String> = items
        .iter()
        .filter(|item| !known.contains(&key(item)))
        .take(ERRORS_MAX)
        .map(|item| format!("\t* {prefix}invalid key {} on line {}\n", quote(key(item)), item.line))
        .collect();
    match wrong.len() {
        0 => Ok(()),
        1 => Err(format!("1 error occurred:\n{}\n", wrong.concat())),
        count => Err(format!("{count} errors occurred:\n{}\n", wrong.concat())),
    }
}

/// Most faults listed in one message.
const ERRORS_MAX: usize = 100;

fn key(item: &Item) -> &str {
    item.keys.first().map_or("", String::as_str)
}

/// The values of a stanza by key, each key with all its values in order.
struct Fields(BTreeMap<String, Vec<Node>>);

impl Fields {
    fn new(items: Vec<Item>) -> Self {
        let mut fields: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        for item in items {
            let at = item.value.at;
            let mut keys = item.keys.into_iter();
            let name = keys.next().unwrap_or_default();
            // Labels of a block stand for objects in one another: `a "b" { … }` says `a = { b = { … } }`.
            let value = keys.rev().fold(item.value, |value, label| Node {
                at,
                value: Value::Object(vec![Item { keys: vec![label], line: item.line, value }]),
            });
            fields.entry(name).or_default().push(value);
        }
        Self(fields)
    }

    fn of(&self, name: &str) -> &[Node] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

fn text(node: &Node, label: &str) -> Result<String, String> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        _ => Err(node.error(&format!("{label}: unknown type for string {}", node.kind()))),
    }
}

/// All items of all lists called `name`.
fn strings(fields: &Fields, name: &str, label: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for node in fields.of(name) {
        match &node.value {
            Value::List(nodes) => {
                for node in nodes {
                    out.push(text(node, &format!("{label}[{}]", out.len()))?);
                }
            }
            Value::Object(items) if items.is_empty() => {}
            Value::Object(_) => return Err(node.error(&format!("{label}[0]: unknown type for string *ast.ObjectItem"))),
            _ => return Err(node.error(&format!("unknown slice type: {}", node.kind()))),
        }
    }
    Ok(out)
}

fn lists(fields: &Fields, name: &str) -> Result<ParameterLists, String> {
    // Values of one spelling of a name are joined first; then the spellings in upper and lower case meet.
    let mut spelled: BTreeMap<&str, Vec<serde_json::Value>> = BTreeMap::new();
    for node in fields.of(name) {
        let Value::Object(items) = &node.value else {
            return Err(node.error(&format!("root.{name}: not an object type for map ({})", node.kind())));
        };
        for item in items {
            let values = spelled.entry(key(item)).or_default();
            match (&item.value.value, item.keys.len()) {
                (Value::List(nodes), 1) => {
                    for node in nodes {
                        values.push(json(node)?);
                    }
                }
                (Value::Object(_), _) => values.push(json(&labelled(item))?),
                _ => return Err(item.value.error(&format!("unknown slice type: {}", item.value.kind()))),
            }
        }
    }
    let mut lists = ParameterLists::default();
    for (name, values) in &spelled {
        lists.add(&name.to_lowercase(), values);
    }
    Ok(lists)
}

/// The value of `item` under its labels.
fn labelled(item: &Item) -> Node {
    item.keys.iter().skip(1).rev().fold(item.value.clone(), |value, label| Node {
        at: item.value.at,
        value: Value::Object(vec![Item { keys: vec![label.clone()], line: item.line, value }]),
    })
}

fn json(node: &Node) -> Result<serde_json::Value, String> {
    Ok(match &node.value {
        Value::Text(text) => text.clone().into(),
        Value::Number(text) => base_any(text)?.into(),
        Value::Float(text) => match text.parse().ok().and_then(serde_json::Number::from_f64) {
            Some(number) => number.into(),
            None => return Err(format!("strconv.ParseFloat: parsing {}: value out of range", quote(text))),
        },
        Value::Bool(flag) => (*flag).into(),
        Value::Null => serde_json::Value::Null,
        Value::List(nodes) => nodes.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Object(items) => items
            .iter()
            .map(|item| Ok((key(item).to_owned(), json(&labelled(item))?)))
            .collect::<Result<serde_json::Map<_, _>, String>>()?
            .into(),
    })
}

fn whole_number(node: &Node) -> Result<i64, String> {
    match &node.value {
        Value::Number(text) | Value::Text(text) => base_any(text),
        _ => Err(node.error(&format!("root.pagination_limit: unknown type {}", node.kind()))),
    }
}

/// A whole number: decimal, `0x`, `0o`, `0b`, or octal with a leading 0; `_` may stand between digits.
fn base_any(text: &str) -> Result<i64, String> {
    let error = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(text));
    let (sign, rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { "-" } else { "" }, rest),
        None => ("", text),
    };
    let lower = rest.to_ascii_lowercase();
    let (digits, base) = match lower.as_bytes() {
        [b'0', b'x', ..] => (lower.get(2..), 16),
        [b'0', b'o', ..] => (lower.get(2..), 8),
        [b'0', b'b', ..] => (lower.get(2..), 2),
        [b'0', _, ..] => (lower.get(1..), 8),
        _ => (Some(lower.as_str()), 10),
    };
    let digits = digits.unwrap_or_default();
    let plain = digits.replace('_', "");
    if plain.is_empty() || digits.ends_with('_') || digits.contains("__") || !plain.chars().all(|c| c.is_digit(base)) {
        return Err(error("invalid syntax"));
    }
    i64::from_str_radix(&format!("{sign}{plain}"), base).map_err(|_| error("value out of range"))
}

fn last_duration(fields: &Fields, name: &str) -> Result<i64, String> {
    let Some(node) = fields.of(name).last() else {
        return Ok(0);
    };
    let nanos = match &node.value {
        Value::Text(text) => duration::parse(text),
        Value::Number(text) => base_any(text).and_then(|seconds| duration::parse(&seconds.to_string())),
        Value::Float(text) => duration::from_seconds(text.parse().unwrap_or(f64::NAN)),
        _ => Err("could not parse duration from input".to_owned()),
    };
    nanos.map_err(|error| format!("error parsing {name}: {error}"))
}
