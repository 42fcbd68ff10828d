//! Merging a patch into a stored value, with Vault's departures from RFC 7396.

use std::collections::BTreeMap;

use keyward_model::SecretBytes;

use crate::http::json::{Kind, NodeId, Tape};

/// A stored value or a patch that is not one JSON value: neither can be after the checks at the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("value of a secret is not JSON; restore the database from a backup")]
pub struct Malformed;

/// What is still to be written, the next one last.
enum Step {
    /// Text as it is.
    Text(&'static str),
    /// A part of the stored value, or a name in it, as it is, nulls included.
    Stored(NodeId),
    /// The same of the patch.
    Patch(NodeId),
    /// A part of the patch without the null members of its objects.
    Clean(NodeId),
    /// An object of the stored value with an object of the patch.
    Merge(NodeId, NodeId),
}

/// The value after the patch. Numbers, and all that the patch does not name, keep their text.
///
/// Null removes a member at any depth, in objects that are new and inside arrays, too, but for an array in the place of an
/// object, which is taken as it is; objects merge, anything else replaces; nulls that were stored and are not named stay. A patch of `null` is the value `null`, and a stored `null` is
/// patched as `{}`.
///
/// # Errors
/// [`Malformed`]
pub fn merge(stored: &[u8], patch: &[u8]) -> Result<SecretBytes, Malformed> {
    let stored = Tape::new(stored).ok_or(Malformed)?;
    let patch = Tape::new(patch).ok_or(Malformed)?;
    let mut out = SecretBytes::new(Vec::with_capacity(stored.text(Tape::ROOT).len() + patch.text(Tape::ROOT).len()));
    let mut todo = vec![over(&stored, Tape::ROOT, &patch, Tape::ROOT)];
    while let Some(step) = todo.pop() {
        let from = todo.len();
        match step {
            Step::Text(text) => out.expose_mut().extend_from_slice(text.as_bytes()),
            Step::Stored(node) => out.expose_mut().extend_from_slice(stored.text(node)),
            Step::Patch(node) => out.expose_mut().extend_from_slice(patch.text(node)),
            Step::Clean(node) => clean(&mut todo, &patch, node, out.expose_mut()),
            Step::Merge(old, new) => merge_objects(&mut todo, &stored, old, &patch, new),
        }
        if let Some(new) = todo.get_mut(from..) {
            new.reverse();
        }
    }
    Ok(out)
}

/// What a part of the patch does to a part of the stored value.
fn over(stored: &Tape<'_>, old: NodeId, patch: &Tape<'_>, new: NodeId) -> Step {
    match (stored.kind(old), patch.kind(new)) {
        (Kind::Object, Kind::Object) => Step::Merge(old, new),
        (Kind::Object, _) => Step::Patch(new),
        _ => Step::Clean(new),
    }
}

fn merge_objects(todo: &mut Vec<Step>, stored: &Tape<'_>, old: NodeId, patch: &Tape<'_>, new: NodeId) {
    let named: BTreeMap<_, _> = patch.members(new).map(|(name, value)| (patch.string(name), value)).collect();
    let known: BTreeMap<_, ()> = stored.members(old).map(|(name, _)| (stored.string(name), ())).collect();
    todo.push(Step::Text("{"));
    let mut first = true;
    for (name, value) in stored.members(old) {
        let step = match named.get(&stored.string(name)) {
            None => Step::Stored(value),
            Some(new) if patch.kind(*new) == Kind::Null => continue,
            Some(new) => over(stored, value, patch, *new),
        };
        member(todo, &mut first, Step::Stored(name), step);
    }
    for (name, value) in patch.members(new) {
        if patch.kind(value) != Kind::Null && !known.contains_key(&patch.string(name)) {
            member(todo, &mut first, Step::Patch(name), Step::Clean(value));
        }
    }
    todo.push(Step::Text("}"));
}

fn clean(todo: &mut Vec<Step>, patch: &Tape<'_>, node: NodeId, out: &mut Vec<u8>) {
    match patch.kind(node) {
        Kind::Object => {
            todo.push(Step::Text("{"));
            let mut first = true;
            for (name, value) in patch.members(node) {
                if patch.kind(value) != Kind::Null {
                    member(todo, &mut first, Step::Patch(name), Step::Clean(value));
                }
            }
            todo.push(Step::Text("}"));
        }
        Kind::Array => {
            todo.push(Step::Text("["));
            for (i, item) in patch.items(node).enumerate() {
                todo.extend([Step::Text(if i == 0 { "" } else { "," }), Step::Clean(item)]);
            }
            todo.push(Step::Text("]"));
        }
        Kind::Null | Kind::Bool | Kind::Number | Kind::String => out.extend_from_slice(patch.text(node)),
    }
}

fn member(todo: &mut Vec<Step>, first: &mut bool, name: Step, value: Step) {
    if !std::mem::take(first) {
        todo.push(Step::Text(","));
    }
    todo.extend([name, Step::Text(":"), value]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn merged(stored: &str, patch: &str) -> String {
        String::from_utf8(merge(stored.as_bytes(), patch.as_bytes()).unwrap().expose().clone()).unwrap()
    }

    #[test]
    fn what_openbao_was_seen_to_do() {
        for (stored, patch, result) in [
            // add and change, remove, remove deep
            (r#"{"a":1,"b":{"x":1}}"#, r#"{"a":2,"n":"n"}"#, r#"{"a":2,"b":{"x":1},"n":"n"}"#),
            (r#"{"a":1,"s":"t"}"#, r#"{"s":null,"ghost":null}"#, r#"{"a":1}"#),
            (r#"{"b":{"y":{"deep":true,"keep":"k"}}}"#, r#"{"b":{"y":{"deep":null}}}"#, r#"{"b":{"y":{"keep":"k"}}}"#),
            // lists replace, scalars and objects replace each other
            (r#"{"l":[1,2,3]}"#, r#"{"l":[9]}"#, r#"{"l":[9]}"#),
            (r#"{"a":2,"b":{"x":1}}"#, r#"{"a":{"in":1},"b":"flat"}"#, r#"{"a":{"in":1},"b":"flat"}"#),
            // nothing to change; an empty object over an object and over a scalar
            (r#"{"m":{"a":1},"x":1}"#, "{}", r#"{"m":{"a":1},"x":1}"#),
            (r#"{"m":{"a":1},"x":1}"#, r#"{"m":{},"x":{}}"#, r#"{"m":{"a":1},"x":{}}"#),
            // nulls vanish from new objects, also inside lists, where null items stay; stored ones stay
            ("{}", r#"{"fresh":{"gone":null,"kept":1}}"#, r#"{"fresh":{"kept":1}}"#),
            ("{}", r#"{"o":{"p":null}}"#, r#"{"o":{}}"#),
            ("{}", r#"{"list":[null,{"z":null}]}"#, r#"{"list":[null,{}]}"#),
            (r#"{"r":[1],"s":1}"#, r#"{"r":[{"z":null}],"s":[{"z":null}]}"#, r#"{"r":[{}],"s":[{}]}"#),
            // but for a list in the place of an object
            (r#"{"r":{"q":1}}"#, r#"{"r":[{"z":null,"y":{"x":null}}]}"#, r#"{"r":[{"z":null,"y":{"x":null}}]}"#),
            (r#"{"r":{}}"#, r#"{"r":[null,[{"z":null}]]}"#, r#"{"r":[null,[{"z":null}]]}"#),
            (r#"{"n":null,"a":{"m":null}}"#, r#"{"a":{"x":1}}"#, r#"{"n":null,"a":{"m":null,"x":1}}"#),
            // the whole value
            (r#"{"a":1}"#, "null", "null"),
            ("null", r#"{"c":1,"d":null}"#, r#"{"c":1}"#),
            // numbers and names keep their text; names are compared by what they mean
            (
                r#"{"big":12345678901234567890,"f":1.0}"#,
                r#"{"e":1E5}"#,
                r#"{"big":12345678901234567890,"f":1.0,"e":1E5}"#,
            ),
            (r#"{"\u0061":1}"#, r#"{"a":2}"#, r#"{"\u0061":2}"#),
        ] {
            assert_eq!(merged(stored, patch), result, "{stored} + {patch}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = |inner: &str| format!("{}{inner}{}", "{\"a\":".repeat(9000), "}".repeat(9000));
        assert_eq!(merged(&deep("{\"b\":1}"), &deep("{\"b\":null,\"c\":2}")), deep("{\"c\":2}"));
    }

    /// The rule in two lines of recursion.
    fn naive(stored: &Value, patch: &Value) -> Value {
        let Value::Object(new) = patch else {
            return match patch {
                Value::Array(items) if !stored.is_object() => items
                    .iter()
                    .map(|item| if item.is_null() { Value::Null } else { naive(&Value::Null, item) })
                    .collect(),
                other => other.clone(),
            };
        };
        let mut out = stored.as_object().cloned().unwrap_or_default();
        for (name, value) in new {
            match value {
                Value::Null => drop(out.remove(name)),
                value => {
                    let merged = naive(out.get(name).unwrap_or(&Value::Null), value);
                    out.insert(name.clone(), merged);
                }
            }
        }
        Value::Object(out)
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Into::into), "[a<\"]{0,2}".prop_map(Into::into)];
        let any = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c\"]", any, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn agrees_with_the_rule(stored in object(), patch in object()) {
            let text = merged(&stored.to_string(), &patch.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), naive(&stored, &patch));
        }

        #[test]
        fn rubbish_never_panics(a in "[\\[\\]{},:\"a1n]{0,20}", b in "[\\[\\]{},:\"a1n]{0,20}") {
            drop(merge(a.as_bytes(), b.as_bytes()));
        }
    }
}
