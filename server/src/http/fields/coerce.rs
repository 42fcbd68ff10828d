//! One value to one type; the refusals are only the part after the name of the field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use keyward_model::Timestamp;

use super::Input;
use crate::http::duration;
use crate::http::gotext::quote;
use crate::http::json::{Kind, Raw, write_string};

type Why = Cow<'static, str>;

/// A whole number by the rules of the `int` type, from a value inside a body (`options.cas`).
///
/// # Errors
/// The reason, as it stands after the name of a field.
pub fn weak_int(raw: Raw<'_>) -> Result<i64, Why> {
    int(Input::Json(raw))
}

/// A string by the rules of the `string` type, from a value inside a body; null is empty.
///
/// # Errors
/// The reason, as it stands after the name of a field.
pub fn weak_string(raw: Raw<'_>) -> Result<Cow<'_, str>, Why> {
    string(Input::Json(raw))
}

/// Go's `ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

pub(super) fn string(input: Input<'_>) -> Result<Cow<'_, str>, Why> {
    scalar(input).ok_or_else(|| unconvertible("", "string", input))
}

pub(super) fn int(input: Input<'_>) -> Result<i64, Why> {
    int_at("", input)
}

/// The same under the other name that a number of 64 bits has.
pub(super) fn int64(input: Input<'_>) -> Result<i64, Why> {
    named_int("", "int64", input)
}

fn int_at(place: &str, input: Input<'_>) -> Result<i64, Why> {
    named_int(place, "int", input)
}

fn named_int(place: &str, name: &'static str, input: Input<'_>) -> Result<i64, Why> {
    let text = scalar(input).ok_or_else(|| unconvertible(place, name, input))?;
    if text.is_empty() {
        return Ok(0);
    }
    parse_int(&text).map_err(|why| format!("'{place}' cannot parse value as '{name}': strconv.ParseInt: {why}").into())
}

pub(super) fn bool(input: Input<'_>) -> Result<bool, Why> {
    let text = scalar(input).ok_or_else(|| unconvertible("", "bool", input))?;
    if text.is_empty() {
        return Ok(false);
    }
    parse_bool(&text).ok_or("'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax".into())
}

/// Whole seconds.
pub(super) fn duration(input: Input<'_>) -> Result<Option<i64>, Why> {
    let text = match input {
        Input::Json(raw) => match raw.kind() {
            Kind::Null => return Ok(None),
            Kind::String => raw.string().unwrap_or_default(),
            Kind::Number => Cow::Borrowed(raw.text()),
            Kind::Bool | Kind::Array | Kind::Object => return Err("could not parse duration from input".into()),
        },
        Input::Query([one]) => Cow::Borrowed(one.as_str()),
        Input::Query(_) => return Err("could not parse duration from input".into()),
    };
    duration::parse(&text).map(|nanos| Some(nanos / 1_000_000_000))
}

pub(super) fn time(input: Input<'_>) -> Result<Option<Timestamp>, Why> {
    let bad = || Why::Borrowed("could not parse string as date and time");
    let (text, is_number) = match input {
        Input::Json(raw) => match raw.kind() {
            Kind::Null => return Ok(None),
            Kind::String => (raw.string().unwrap_or_default(), false),
            Kind::Number => (Cow::Borrowed(raw.text()), true),
            Kind::Bool | Kind::Array | Kind::Object => return Err("could not parse time from input type".into()),
        },
        Input::Query([one]) => (Cow::Borrowed(one.as_str()), false),
        Input::Query(_) => return Err("could not parse time from input type".into()),
    };
    match duration::decimal(&text) {
        Ok(seconds) => return seconds.checked_mul(1_000_000_000).map(|nanos| Some(Timestamp(nanos))).ok_or_else(bad),
        Err(why) if is_number => return Err(format!("strconv.ParseInt: parsing {}: {why}", quote(&text)).into()),
        Err(_) => {}
    }
    // WHY: the model's parser knows more spellings of RFC 3339 than Go does.
    let strict = text.as_bytes().get(10) == Some(&b'T') && text.is_ascii();
    Timestamp::parse_rfc3339(&text).filter(|_| strict).map(Some).ok_or_else(bad)
}

pub(super) fn ints(input: Input<'_>) -> Result<Vec<i64>, Why> {
    match input {
        Input::Json(raw) => match raw.kind() {
            Kind::Null => Ok(Vec::new()),
            Kind::Array => each(raw.elements().map(Input::Json), int_at),
            Kind::Object if raw.members().next().is_none() => Ok(Vec::new()),
            Kind::String => split_ints(&raw.string().unwrap_or_default()),
            Kind::Number => split_ints(raw.text()),
            Kind::Bool | Kind::Object => each([input], int_at),
        },
        Input::Query([one]) => split_ints(one),
        Input::Query(many) => each(many.chunks(1).map(Input::Query), int_at),
    }
}

fn split_ints(text: &str) -> Result<Vec<i64>, Why> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<String> = text.split(',').map(str::to_owned).collect();
    each(items.chunks(1).map(Input::Query), int_at)
}

// WHY: OpenBao's text for a bad item echoes its value; a value does not belong into an error, so ours does not.
pub(super) fn strings(input: Input<'_>) -> Result<Vec<String>, Why> {
    let item = |place: &str, input| {
        scalar(input).map(|text| text.trim().to_owned()).ok_or_else(|| unconvertible(place, "string", input))
    };
    let split = |text: &str| match text {
        "" => Vec::new(),
        some => some.split(',').map(|part| part.trim().to_owned()).collect(),
    };
    Ok(match input {
        Input::Json(raw) => match raw.kind() {
            Kind::Array => each(raw.elements().map(Input::Json), item)?,
            Kind::Object if raw.members().next().is_none() => Vec::new(),
            Kind::String => split(&raw.string().unwrap_or_default()),
            Kind::Null => Vec::new(),
            Kind::Bool | Kind::Number | Kind::Object => each([input], item)?,
        },
        Input::Query([one]) => split(one),
        Input::Query(many) => each(many.chunks(1).map(Input::Query), item)?,
    })
}

/// The text of an object, or `null`.
pub(super) fn map(input: Input<'_>) -> Result<Cow<'_, str>, Why> {
    let raw = match input {
        Input::Json(raw) if matches!(raw.kind(), Kind::Object | Kind::Null) => return Ok(Cow::Borrowed(raw.text())),
        Input::Json(raw) if raw.kind() == Kind::Array => raw,
        _ => return Err(unconvertible("", "map[string]interface {}", input)),
    };
    let Some(merged) = merge_objects(raw)? else {
        return Ok(Cow::Borrowed("null"));
    };
    let mut out = vec![b'{'];
    for (name, value) in merged {
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(&mut out, &name);
        out.push(b':');
        out.extend_from_slice(value.text().as_bytes());
    }
    out.push(b'}');
    String::from_utf8(out).map(Cow::Owned).map_err(|_| "string field contains invalid UTF-8".into())
}

/// The members of the objects in a list and in the lists inside it; `None` if there is nothing but nulls.
fn merge_objects(list: Raw<'_>) -> Result<Option<BTreeMap<Cow<'_, str>, Raw<'_>>>, Why> {
    const DEPTH_MAX: usize = 64;
    let mut merged: Option<BTreeMap<_, _>> = None;
    let mut open = vec![(list.elements(), 0usize)];
    let mut empty = true;
    while let Some((items, index)) = open.last_mut() {
        let Some(item) = items.next() else {
            if empty {
                merged.get_or_insert_default();
            }
            empty = false;
            open.pop();
            continue;
        };
        *index += 1;
        match item.kind() {
            Kind::Null => empty = false,
            Kind::Object => {
                empty = false;
                merged.get_or_insert_default().extend(item.members());
            }
            Kind::Array if open.len() < DEPTH_MAX => {
                empty = true;
                open.push((item.elements(), 0));
            }
            Kind::Array | Kind::String | Kind::Bool | Kind::Number => {
                let place: String = open.iter().map(|(_, index)| format!("[{}]", index - 1)).collect();
                return Err(unconvertible(&place, "map[string]interface {}", Input::Json(item)));
            }
        }
    }
    Ok(merged)
}

pub(super) fn pairs(input: Input<'_>) -> Result<BTreeMap<String, String>, Why> {
    if let Some(pairs) = scalar_members(input) {
        return Ok(pairs);
    }
    let item = |place: &str, input| scalar(input).ok_or_else(|| unconvertible(place, "string", input));
    let list = match input {
        Input::Json(raw) if raw.kind() == Kind::Array => each(raw.elements().map(Input::Json), item)?,
        Input::Query(many @ [_, _, ..]) => each(many.chunks(1).map(Input::Query), item)?,
        one => each([one], item)?,
    };
    list.into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("invalid key pair {}", quote(&pair)).into()),
        })
        .collect()
}

/// The members of an object, or of the objects in a list, if all are scalars; none for null.
fn scalar_members(input: Input<'_>) -> Option<BTreeMap<String, String>> {
    let Input::Json(raw) = input else {
        return None;
    };
    let members = match raw.kind() {
        Kind::Null => BTreeMap::new(),
        Kind::Object => raw.members().collect(),
        Kind::Array => merge_objects(raw).ok()?.unwrap_or_default(),
        Kind::String | Kind::Bool | Kind::Number => return None,
    };
    members
        .into_iter()
        .map(|(name, value)| Some((name.into_owned(), scalar(Input::Json(value))?.into_owned())))
        .collect()
}

/// Coerces every item; the refusal has a line for each bad one.
fn each<'a, T>(
    items: impl IntoIterator<Item = Input<'a>>,
    coerce: impl Fn(&str, Input<'a>) -> Result<T, Why>,
) -> Result<Vec<T>, Why> {
    let mut good = Vec::new();
    let mut bad = String::new();
    for (i, item) in items.into_iter().enumerate() {
        match coerce(&format!("[{i}]"), item) {
            Ok(value) => good.push(value),
            Err(why) => {
                bad.push('\n');
                bad.push_str(&why);
            }
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(format!("decoding failed due to the following error(s):\n{bad}").into()) }
}

/// The text of a string, number, bool (`1` or `0`) or null (empty); `None` for lists and objects.
fn scalar(input: Input<'_>) -> Option<Cow<'_, str>> {
    match input {
        Input::Json(raw) => match raw.kind() {
            Kind::Null => Some(Cow::Borrowed("")),
            Kind::Bool => Some(Cow::Borrowed(if raw.text() == "true" { "1" } else { "0" })),
            Kind::Number => Some(Cow::Borrowed(raw.text())),
            Kind::String => raw.string(),
            Kind::Array | Kind::Object => None,
        },
        Input::Query([one]) => Some(Cow::Borrowed(one)),
        Input::Query(_) => None,
    }
}

fn unconvertible(place: &str, wanted: &str, got: Input<'_>) -> Why {
    let got = match got {
        Input::Json(raw) => match raw.kind() {
            Kind::Null => "<nil>",
            Kind::Bool => "bool",
            Kind::Number => "json.Number",
            Kind::String => "string",
            Kind::Array => "[]interface {}",
            Kind::Object => "map[string]interface {}",
        },
        Input::Query([_]) => "string",
        Input::Query(_) => "[]string",
    };
    format!("'{place}' expected type '{wanted}', got unconvertible type '{got}'").into()
}

/// Go's `ParseInt(text, 0, 64)`: the base is told by a prefix, and `_` may stand between digits.
fn parse_int(text: &str) -> Result<i64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &unsigned[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &unsigned[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.is_empty() {
        return Err(SYNTAX);
    }
    let mut sum: u64 = 0;
    for c in digits.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(base).ok_or(SYNTAX)?;
        sum = sum
            .checked_mul(u64::from(base))
            .and_then(|sum| sum.checked_add(u64::from(digit)))
            .ok_or("value out of range")?;
    }
    // After a prefix (the octal zero is one) an underscore may come first; never two together, never last.
    if (base == 10 && digits.starts_with('_')) || digits.ends_with('_') || digits.contains("__") {
        return Err(SYNTAX);
    }
    let signed = if negative { -i128::from(sum) } else { i128::from(sum) };
    i64::try_from(signed).map_err(|_| "value out of range")
}
