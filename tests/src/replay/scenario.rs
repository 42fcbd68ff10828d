//! The recorded form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::suite;

/// A recorded exchange of several steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// Places in the body that no step compares.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One request and its recorded answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name in the scenario.
    pub id: String,
    /// The verb.
    pub method: String,
    /// Below `/v1/` unless it starts with `/`.
    pub path: String,
    /// Whether the path is sent as written, without encoding.
    #[serde(default)]
    pub raw_path: bool,
    /// The caller; the root token where it is not said, none where it is empty.
    pub token: Option<String>,
    /// Further headers; `null` takes one away.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
    /// Query parameters; a list is the same name several times.
    #[serde(default)]
    pub query: BTreeMap<String, Value>,
    /// A JSON body.
    #[serde(default, deserialize_with = "also_null")]
    pub body: Option<Value>,
    /// A body as written.
    pub raw_body: Option<String>,
    /// Names for parts of the answer.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// Time that passes before this step.
    pub sleep_ms: Option<u64>,
    /// Places in the body that are not compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The only places that are compared.
    pub keep: Option<Vec<String>>,
    /// Lists whose order does not count.
    #[serde(default)]
    pub unordered: Vec<String>,
    /// Headers that were recorded.
    #[serde(default)]
    pub watch: Vec<String>,
    /// The recorded answers, of which one must match: servers of this family differ.
    #[serde(deserialize_with = "one_or_several")]
    pub expect: Vec<Answer>,
}

/// An answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, volatile values replaced; `null` where there was none.
    #[serde(default)]
    pub body: Value,
    /// The watched headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
}

impl Scenario {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let text = suite::read(path);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Reads all of a folder below `tests/`, in the order of their names.
    pub fn read_all(folder: &str) -> Vec<Self> {
        let folder = suite::data(folder);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        paths.sort();
        assert!(!paths.is_empty(), "{} holds no scenario", folder.display());
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

impl Step {
    /// The step with the variables in place.
    #[must_use]
    pub(super) fn filled_in(&self, variables: &BTreeMap<String, Value>) -> Self {
        let text = |text: &String| match fill(&Value::from(text.as_str()), variables) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let map = |map: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            map.iter().map(|(name, value)| (text(name), fill(value, variables))).collect()
        };
        Self {
            path: text(&self.path),
            token: self.token.as_ref().map(text),
            headers: map(&self.headers),
            query: map(&self.query),
            body: self.body.as_ref().map(|body| fill(body, variables)),
            raw_body: self.raw_body.as_ref().map(text),
            capture: self.capture.iter().map(|(name, place)| (name.clone(), text(place))).collect(),
            ..self.clone()
        }
    }
}

/// Puts variables in place of `${NAME}`, and `"ab"` three times in place of `${ab*3}`. A variable that stands alone
/// keeps its type.
fn fill(value: &Value, variables: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(text) => {
            let alone = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            match alone.and_then(|name| variables.get(name)) {
                Some(value) => value.clone(),
                None => Value::from(fill_text(text, variables)),
            }
        }
        Value::Array(items) => items.iter().map(|item| fill(item, variables)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (fill_text(name, variables), fill(value, variables))).collect()
        }
        other => other.clone(),
    }
}

fn fill_text(text: &str, variables: &BTreeMap<String, Value>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        out += before;
        let Some(end) = from.find('}') else {
            rest = from;
            break;
        };
        let name = &from[2..end];
        let (word, times) = name.split_once('*').map_or((name, None), |(word, times)| (word, times.parse().ok()));
        match (times, variables.get(word)) {
            (Some(times), _) => out += &word.repeat(times),
            (None, Some(Value::String(value))) => out += value,
            (None, Some(value)) => out += &value.to_string(),
            (None, None) => out += &from[..=end],
        }
        rest = &from[end + 1..];
    }
    out + rest
}

/// `"body": null` is a body that says `null`, which is not the same as no body.
fn also_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// An answer, or a list of them under `any_of`.
fn one_or_several<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Answer>, D::Error> {
    let mut value = Value::deserialize(from)?;
    let answers = match value.get_mut("any_of") {
        Some(several) => several.take(),
        None => Value::from(vec![value]),
    };
    serde_json::from_value(answers).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_keep_their_type_where_they_stand_alone() {
        let variables = BTreeMap::from([("N".to_owned(), json!(3)), ("RUN".to_owned(), json!("r1"))]);
        let filled = fill(&json!({"${RUN}": ["${N}", "n=${N}", "${ab*3}!", "${NONE}", "${"]}), &variables);
        assert_eq!(filled, json!({"r1": [3, "n=3", "ababab!", "${NONE}", "${"]}));
    }
}
