//! Conditions on the parameters of a request: the fields of its body or, for a read, of its query.
//!
//! Values are compared as JSON values by their text, so that `5`, `5.0` and `"5"` are one value and a list is judged item
//! by item. OpenBao 2.6 compares strings only, which lets a denied `"5"` through as `5` or `["5"]`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::capability::Operation;
use crate::rule::Limits;

/// The top-level parameters of a request, looked at only when a rule has conditions on them.
pub trait Parameters {
    /// Gives each parameter to `visit` until that answers `false`.
    fn each(&self, visit: &mut dyn FnMut(&str, &Value) -> bool);
}

impl Parameters for Map<String, Value> {
    fn each(&self, visit: &mut dyn FnMut(&str, &Value) -> bool) {
        for (name, value) in self {
            if !visit(name, value) {
                return;
            }
        }
    }
}

/// Parameter names (lower case) with the values listed for each; an empty list stands for any value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ParameterLists(BTreeMap<String, Vec<Value>>);

impl ParameterLists {
    /// Adds one name with its values. A name already there gets both, and any value if either says so.
    pub(crate) fn add(&mut self, name: &str, values: &[Value]) {
        match self.0.get_mut(name) {
            None => {
                self.0.insert(name.to_owned(), values.to_vec());
            }
            Some(known) if known.is_empty() || values.is_empty() => known.clear(),
            Some(known) => known.extend_from_slice(values),
        }
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, values) in &other.0 {
            self.add(name, values);
        }
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lists as JSON: name to values.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(name, values)| (name.clone(), Value::Array(values.clone()))).collect::<Map<_, _>>().into()
    }
}

/// Whether the parameters of a read, create, update or patch meet the rule's lists.
pub(crate) fn permitted(limits: &Limits, parameters: Option<&dyn Parameters>) -> bool {
    if !limits.required.iter().all(|name| get(parameters, &name.given).is_some()) {
        return false;
    }
    let (Some(parameters), false) = (parameters, limits.allowed.is_empty() && limits.denied.is_empty()) else {
        return true;
    };
    let (allowed, denied) = (&limits.allowed.0, &limits.denied.0);
    let denies_all = denied.contains_key("*");
    let others_allowed = allowed.is_empty() || allowed.contains_key("*");
    let mut good = true;
    parameters.each(&mut |name, value| {
        let name = name.to_lowercase();
        good = !denies_all
            && !denied.get(&name).is_some_and(|listed| listed.is_empty() || touches(listed, value))
            && match allowed.get(&name) {
                None => others_allowed,
                // WHY: `"*"` as a request key: a name like any other, its values are ignored
                Some(_) if name == "*" => true,
                Some(listed) => listed.is_empty() || within(listed, value),
            };
        good
    });
    good
}

/// The page length that a listing may have under `pagination_limit`: the limit itself when none, `0`, nothing or `max` is
/// asked for. `None` if more is asked for, or something that is no length.
pub(crate) fn page(limits: &Limits, limit: u64, parameters: Option<&dyn Parameters>) -> Option<u64> {
    let Some(asked) = get(parameters, "limit") else {
        return (!limits.required.iter().any(|name| name.given == "limit")).then_some(limit);
    };
    let asked = match &asked {
        Value::String(text) if text.is_empty() || text == "max" => 0,
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        Value::Number(number) => number.as_u64()?,
        _ => return None,
    };
    match asked {
        0 => Some(limit),
        asked if asked <= limit => Some(asked),
        _ => None,
    }
}

/// Whether `operation` brings parameters that lists of names apply to.
pub(crate) const fn apply_to(operation: Operation) -> bool {
    matches!(operation, Operation::Read | Operation::Create | Operation::Update | Operation::Patch)
}

fn get(parameters: Option<&dyn Parameters>, wanted: &str) -> Option<Value> {
    let mut found = None;
    parameters?.each(&mut |name, value| {
        if name == wanted {
            found = Some(value.clone());
        }
        found.is_none()
    });
    found
}

/// For denying: whether `value`, or any item of it, is listed.
fn touches(listed: &[Value], value: &Value) -> bool {
    listed.iter().any(|item| equal(item, value))
        || value.as_array().is_some_and(|items| items.iter().any(|item| touches(listed, item)))
}

/// For allowing: whether `value`, or every item of it, is listed. An empty list is not.
fn within(listed: &[Value], value: &Value) -> bool {
    listed.iter().any(|item| equal(item, value))
        || value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(|item| within(listed, item)))
}

/// Whether the listed value and the given one are the same: strings with a `*` at either end as globs, other scalars by
/// text, numbers also by value, lists and objects in every part.
fn equal(listed: &Value, given: &Value) -> bool {
    match (listed, given) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (Value::Null, Value::Null) => true,
        _ => match (scalar_text(listed), scalar_text(given)) {
            (Some(a), Some(b)) => {
                glob_matches(&a, &b)
                    || ((listed.is_number() || given.is_number())
                        && decimal(&a).is_some_and(|a| decimal(&b).is_some_and(|b| a == b)))
            }
            _ => false,
        },
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `*` counts at the beginning and at the end of `pattern`; elsewhere it is itself.
fn glob_matches(pattern: &str, text: &str) -> bool {
    if pattern.len() < 2 {
        return pattern == text; // a lone star is itself, as it is for OpenBao
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => text.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(tail), None) => text.ends_with(tail),
        (None, Some(head)) => text.starts_with(head),
        (None, None) => pattern == text,
    }
}

/// A decimal number in one form: sign, digits without zeros at either end, and the power of ten of the last digit.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let short = digits.trim_end_matches('0');
    if short.is_empty() {
        return Some((false, String::new(), 0));
    }
    let dropped = i64::try_from(digits.len() - short.len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    Some((negative, short.trim_start_matches('0').to_owned(), power))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rule::Required;

    fn limits(allowed: Value, denied: Value, required: &[&str]) -> Limits {
        let lists = |value: Value| {
            let mut lists = ParameterLists::default();
            for (name, values) in value.as_object().unwrap() {
                lists.add(name, values.as_array().unwrap());
            }
            lists
        };
        Limits {
            allowed: lists(allowed),
            denied: lists(denied),
            required: required.iter().map(|name| Required::new((*name).to_owned())).collect(),
            ..Limits::default()
        }
    }

    fn permits(limits: &Limits, body: &Value) -> bool {
        permitted(limits, body.as_object().map(|map| map as &dyn Parameters))
    }

    #[test]
    fn allowed_values() {
        let rule = limits(json!({"size": ["s", "5", 7], "note": [], "host": ["web-*", "*.lan"]}), json!({}), &[]);
        for (body, expected) in [
            (json!({}), true),
            (json!({"size": "s"}), true),
            (json!({"SIZE": "s"}), true),
            (json!({"size": "S"}), false),
            (json!({"size": 5}), true),
            (json!({"size": 5.0}), true),
            (json!({"size": 50e-1}), true),
            (json!({"size": "7"}), true),
            (json!({"size": 8}), false),
            (json!({"size": ["s", 5]}), true),
            (json!({"size": ["s", "xl"]}), false),
            (json!({"size": []}), false),
            (json!({"size": null}), false),
            (json!({"size": {"s": 1}}), false),
            (json!({"note": null}), true),
            (json!({"other": 1}), false),
            (json!({"size": "s", "other": 1}), false),
            (json!({"host": "web-12"}), true),
            (json!({"host": "db.lan"}), true),
            (json!({"host": "db-12"}), false),
        ] {
            assert_eq!(permits(&rule, &body), expected, "{body}");
        }
        assert!(permitted(&rule, None));
        let star = limits(json!({"size": ["s"], "*": ["ignored"]}), json!({}), &[]);
        assert!(permits(&star, &json!({"size": "s", "x": 1})) && !permits(&star, &json!({"size": "m", "x": 1})));
        assert!(permits(&limits(json!({"*": []}), json!({}), &[]), &json!({"a": 1, "*": 2})));
    }

    #[test]
    fn denied_values_cannot_be_dressed_up() {
        let rule = limits(json!({}), json!({"size": ["5", true, null, ["a"]], "secret": []}), &[]);
        for (body, expected) in [
            (json!({"size": "6"}), true),
            (json!({"size": "5"}), false),
            (json!({"size": 5}), false),
            (json!({"size": 5.00}), false),
            (json!({"size": ["5"]}), false),
            (json!({"size": [["x", 5]]}), false),
            (json!({"Size": 5}), false),
            (json!({"size": true}), false),
            (json!({"size": "true"}), false),
            (json!({"size": null}), false),
            (json!({"size": ["a"]}), false),
            (json!({"size": ["b"]}), true),
            (json!({"size": []}), true),
            (json!({"secret": {}}), false),
            (json!({"free": "5"}), true),
        ] {
            assert_eq!(permits(&rule, &body), expected, "{body}");
        }
        let all = limits(json!({"a": []}), json!({"*": ["x"]}), &[]);
        assert!(!permits(&all, &json!({"a": "b"})) && permits(&all, &json!({})));
    }

    #[test]
    fn required_names_are_lower_case_and_exact() {
        let rule = limits(json!({}), json!({}), &["Owner", "stage"]);
        assert!(permits(&rule, &json!({"owner": "x", "stage": null, "more": 1})));
        assert!(!permits(&rule, &json!({"owner": "x"})));
        assert!(!permits(&rule, &json!({"OWNER": "x", "stage": "y"})));
        assert!(!permitted(&rule, None));
    }

    #[test]
    fn decimals_have_one_form() {
        for (a, b) in [("5", "5.0"), ("0", "-0.00"), ("1e3", "1000"), ("0.050", "5E-2"), ("-12", "-1.2e1")] {
            assert_eq!(decimal(a), decimal(b), "{a} {b}");
        }
        assert_ne!(decimal("9007199254740993"), decimal("9007199254740992"));
        assert_ne!(decimal("5"), decimal("-5"));
        for bad in ["", "-", ".", "1x", "e5", "1e999999999999999999999"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_is_never_longer_than_the_limit() {
        let rule = Limits::default();
        let strict = limits(json!({}), json!({}), &["limit"]);
        for (given, expected) in [
            (json!({}), Some(10)),
            (json!({"limit": ""}), Some(10)),
            (json!({"limit": "0"}), Some(10)),
            (json!({"limit": "max"}), Some(10)),
            (json!({"limit": "3"}), Some(3)),
            (json!({"limit": 10}), Some(10)),
            (json!({"limit": "11"}), None),
            (json!({"limit": "-1"}), None),
            (json!({"limit": "x"}), None),
            (json!({"limit": "+1"}), None),
            (json!({"limit": ["1", "2"]}), None),
            (json!({"limit": "99999999999999999999999"}), None),
        ] {
            let map = given.as_object().map(|map| map as &dyn Parameters);
            assert_eq!(page(&rule, 10, map), expected, "{given}");
            if given.get("limit").is_some() {
                assert_eq!(page(&strict, 10, map), expected, "{given}");
            }
        }
        assert_eq!(page(&strict, 10, None), None);
    }
}
