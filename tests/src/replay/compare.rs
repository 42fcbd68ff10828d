//! Where two bodies differ.

use serde_json::{Number, Value};

/// Adds a line for every place where `got` is not what was wanted. Numbers compare by value; a boolean is no number.
pub(super) fn differences(want: &Value, got: &Value, at: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (name, value) in want {
                match got.get(name) {
                    Some(member) => differences(value, member, &format!("{at}.{name}"), out),
                    None => out.push(format!("{at}.{name}: missing, {} recorded", brief(value))),
                }
            }
            for (name, value) in got.iter().filter(|(name, _)| !want.contains_key(*name)) {
                out.push(format!("{at}.{name}: {} was not recorded", brief(value)));
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (index, (want, got)) in want.iter().zip(got).enumerate() {
                differences(want, got, &format!("{at}[{index}]"), out);
            }
        }
        (Value::Number(want), Value::Number(got)) if same_number(want, got) => {}
        (want, got) if want == got => {}
        (want, got) => out.push(format!("{at}: {} recorded, {} came", brief(want), brief(got))),
    }
}

/// By value: whole numbers exactly, others as binary fractions.
fn same_number(left: &Number, right: &Number) -> bool {
    let whole = |number: &Number| number.to_string().parse::<i128>().ok();
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| left == right),
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(want: &Value, got: &Value) -> usize {
        let mut out = Vec::new();
        differences(want, got, "", &mut out);
        out.len()
    }

    #[test]
    fn each_place_is_told_once() {
        assert_eq!(count(&json!({"a": 1, "b": [1, 2], "c": null}), &json!({"a": 1.0, "b": [1, 3], "d": null})), 3);
        assert_eq!(count(&json!([1]), &json!([1, 2])), 1);
        assert_eq!(count(&json!(1), &json!(true)), 1);
        assert_eq!(count(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)), 1);
    }
}
