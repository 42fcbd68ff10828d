//! The names inside a secret without their values.

use super::patch::Malformed;
use crate::http::json::{Kind, NodeId, Tape};

/// What is still to be written, the next one last.
enum Step {
    Text(&'static str),
    Name(NodeId),
    /// A value, and how many levels of names may still be shown.
    Value(NodeId, u64),
}

/// The tree of names in `stored`: every value that is not an object with members becomes `null`.
///
/// `depth` is the parameter of the request: names of that many levels are shown, 0 is all of them, less than 0 is one.
///
/// # Errors
/// [`Malformed`]
pub fn of(stored: &[u8], depth: i64) -> Result<Vec<u8>, Malformed> {
    let levels = if depth == 0 { u64::MAX } else { u64::try_from(depth).unwrap_or(1) };
    let tape = Tape::new(stored).ok_or(Malformed)?;
    if tape.kind(Tape::ROOT) == Kind::Object && tape.members(Tape::ROOT).next().is_none() {
        return Ok(b"{}".to_vec());
    }
    let mut out = Vec::new();
    let mut todo = vec![Step::Value(Tape::ROOT, levels)];
    while let Some(step) = todo.pop() {
        let from = todo.len();
        match step {
            Step::Text(text) => out.extend_from_slice(text.as_bytes()),
            Step::Name(node) => out.extend_from_slice(tape.text(node)),
            Step::Value(node, levels) => {
                let members = (tape.kind(node) == Kind::Object && levels > 0).then(|| tape.members(node));
                let mut open = false;
                for (name, value) in members.into_iter().flatten() {
                    todo.extend([Step::Text(if open { "," } else { "{" }), Step::Name(name), Step::Text(":")]);
                    todo.push(Step::Value(value, levels - 1));
                    open = true;
                }
                todo.push(Step::Text(if open { "}" } else { "null" }));
            }
        }
        if let Some(new) = todo.get_mut(from..) {
            new.reverse();
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_openbao_was_seen_to_show() {
        let stored = r#"{"a":1,"b":{"c":{"d":"x","e":[1,2]},"f":{}},"g":null}"#;
        let whole = r#"{"a":null,"b":{"c":{"d":null,"e":null},"f":null},"g":null}"#;
        for (stored, depth, shown) in [
            (stored, 0, whole),
            (stored, 9, whole),
            (stored, 3, whole),
            (stored, 2, r#"{"a":null,"b":{"c":null,"f":null},"g":null}"#),
            (stored, 1, r#"{"a":null,"b":null,"g":null}"#),
            (stored, -1, r#"{"a":null,"b":null,"g":null}"#),
            ("{}", 0, "{}"),
            (" { } ", 1, "{}"),
            ("null", 0, "null"),
        ] {
            assert_eq!(String::from_utf8(of(stored.as_bytes(), depth).unwrap()).unwrap(), shown, "{stored} {depth}");
        }
        let deep = |inner: &str| format!("{}{inner}{}", "{\"a\":".repeat(9000), "}".repeat(9000));
        assert_eq!(of(deep("1").as_bytes(), 0).unwrap(), deep("null").into_bytes());
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "[\\[\\]{},:\"a1n]{0,20}", depth: i64) {
            drop(of(text.as_bytes(), depth));
        }
    }
}
