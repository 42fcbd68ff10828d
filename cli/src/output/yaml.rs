//! JSON values as YAML 1.2. Text that could be read as anything else is quoted the JSON way, which is YAML, too.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that some YAML reader takes for something else than text.
const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// The document, ending in a line end.
pub(super) fn render(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        leaf => {
            scalar(&mut out, leaf);
            out.push('\n');
        }
    }
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                indent(out, depth);
                text(out, name);
                out.push(':');
                nested(out, value, depth);
            }
        }
        Value::Array(items) => {
            for value in items {
                indent(out, depth);
                out.push('-');
                nested(out, value, depth);
            }
        }
        leaf => scalar(out, leaf),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let is_block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        block(out, value, depth + 1);
    } else {
        out.push(' ');
        scalar(out, value);
        out.push('\n');
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(string) => text(out, string),
        other => {
            write!(out, "{other}").ok();
        }
    }
}

fn text(out: &mut String, string: &str) {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && string.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !RESERVED.contains(&string.to_ascii_lowercase().as_str());
    if plain {
        out.push_str(string);
        return;
    }
    for c in Value::from(string).to_string().chars() {
        match c {
            // Line ends to YAML, ordinary characters to JSON.
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{7f}'..='\u{9f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).ok();
            }
            c => out.push(c),
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shapes_and_quoting() {
        let value =
            json!({"a": {"b": [1, "x", {"c": null}]}, "e": {}, "f": [], "no": "Yes", "t": "2026-01-01", "u": "a: b\n"});
        let expected = "a:\n  b:\n    - 1\n    - x\n    -\n      c: null\ne: {}\nf: []\n\"no\": \"Yes\"\nt: \"2026-01-01\"\nu: \"a: b\\n\"\n";
        assert_eq!(render(&value), expected);
        assert_eq!(render(&json!("plain/path")), "plain/path\n");
        assert_eq!(render(&json!("a\u{85}b")), "\"a\\u0085b\"\n");
    }
}
