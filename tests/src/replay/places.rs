//! Dotted places in a body: `data.keys.0`, `data.*.created_time`.

use serde_json::{Map, Value};

/// The value at one place; numbers name items of lists.
pub fn dig<'a>(value: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('.').try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// As [`dig`]; `null` where there is nothing.
pub fn at<'a>(value: &'a Value, place: &str) -> &'a Value {
    dig(value, place).unwrap_or(&Value::Null)
}

/// Calls `act` with every object and key that a place names. `*` stands for every key, or for every item of a list; a
/// list is walked through by itself.
fn each(value: &mut Value, parts: &[&str], act: &mut impl FnMut(&mut Map<String, Value>, &str)) {
    let Some((first, rest)) = parts.split_first() else { return };
    match value {
        Value::Array(items) => {
            let parts = if *first == "*" { rest } else { parts };
            items.iter_mut().for_each(|item| each(item, parts, act));
        }
        Value::Object(members) => {
            let keys: Vec<String> = match *first {
                "*" => members.keys().cloned().collect(),
                key => members.contains_key(key).then(|| key.to_owned()).into_iter().collect(),
            };
            for key in keys {
                if rest.is_empty() {
                    act(members, &key);
                } else if let Some(member) = members.get_mut(&key) {
                    each(member, rest, act);
                }
            }
        }
        _ => {}
    }
}

/// Takes away what a place names.
pub(super) fn drop(value: &mut Value, place: &str) {
    each(value, &place.split('.').collect::<Vec<_>>(), &mut |members, key| {
        members.remove(key);
    });
}

/// Puts the lists that a place names into one order.
pub(super) fn sort(value: &mut Value, place: &str) {
    each(value, &place.split('.').collect::<Vec<_>>(), &mut |members, key| {
        if let Some(Value::Array(items)) = members.get_mut(key) {
            items.sort_by_cached_key(Value::to_string);
        }
    });
}

/// Only what the places name, as `{place: value}`; a place with `*` gives a list.
pub(super) fn keep(value: &Value, places: &[String]) -> Value {
    let mut out = Map::new();
    for place in places {
        let mut found = Vec::new();
        let parts: Vec<_> = place.split('.').collect();
        each(&mut value.clone(), &parts, &mut |members, key| found.extend(members.get(key).cloned()));
        if parts.contains(&"*") && !found.is_empty() {
            out.insert(place.clone(), Value::from(found));
        } else if let Some(first) = found.into_iter().next() {
            out.insert(place.clone(), first);
        }
    }
    Value::from(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stars_and_lists_are_walked_through() {
        let body = json!({"a": [{"t": 1, "k": 2}, {"t": 3}], "b": {"x": {"t": 4}, "y": 5}});
        let mut less = body.clone();
        drop(&mut less, "a.t");
        drop(&mut less, "b.*.t");
        assert_eq!(less, json!({"a": [{"k": 2}, {}], "b": {"x": {}, "y": 5}}));
        assert_eq!(
            keep(&body, &["a.t".into(), "a.*.t".into(), "b.y".into(), "b.z".into()]),
            json!({"a.t": 1, "a.*.t": [1, 3], "b.y": 5})
        );
        assert_eq!(dig(&body, "a.1.t"), Some(&json!(3)));
        assert_eq!(at(&body, "a.2.t"), &Value::Null);
    }
}
