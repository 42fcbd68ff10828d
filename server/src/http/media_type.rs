//! The content type of a patch, read by the rules of Go's `mime.ParseMediaType`: clients see its texts.

use std::collections::BTreeMap;

const INVALID_PARAMETER: &str = "mime: invalid media parameter";

/// The media type in `text`, in lower case and without its parameters, which must be well formed.
///
/// # Errors
/// What Go says of it.
pub(super) fn read(text: &str) -> Result<String, &'static str> {
    let (kind, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let kind = kind.trim().to_lowercase();
    check_kind(&kind)?;
    let mut known = BTreeMap::new();
    while !rest.trim_start().is_empty() {
        let Some((name, value, after)) = parameter(rest.trim_start()) else {
            // A semicolon may end it.
            return if rest.trim() == ";" { Ok(kind) } else { Err(INVALID_PARAMETER) };
        };
        if known.insert(name, value.clone()).is_some_and(|before| before != value) {
            return Err("mime: duplicate parameter name");
        }
        rest = after;
    }
    Ok(kind)
}

fn check_kind(kind: &str) -> Result<(), &'static str> {
    match token(kind) {
        ("", _) => Err("mime: no media type"),
        (_, "") => Ok(()),
        (_, rest) => match rest.strip_prefix('/').map(token) {
            None => Err("mime: expected slash after first token"),
            Some(("", _)) => Err("mime: expected token after slash"),
            Some((_, "")) => Ok(()),
            Some(_) => Err("mime: unexpected content after media subtype"),
        },
    }
}

/// Name and value of the parameter that `text` begins with, and what comes after it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=').filter(|_| !name.is_empty())?.trim_start();
    let (value, after) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let (value, after) = token(rest);
            (value.to_owned(), after)
        }
    };
    (!value.is_empty() || after.len() < rest.len()).then(|| (name.to_lowercase(), value, after))
}

/// The token that `text` begins with (RFC 2045), and the rest.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !is_special(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

fn is_special(c: char) -> bool {
    "()<>@,;:\\\"/[]?=".contains(c)
}

/// The content of a quoted string whose first quote is taken off, and what comes after its last one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\r' | '\n' => return None,
            '\\' if text[at + 1..].starts_with(is_special) => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_openbao_was_seen_to_say() {
        let patch = "application/merge-patch+json";
        for fine in ["", ";", "; charset=utf-8", ";a=\"x;y\\\"z\"", " ; A = b ; c=d;", "; a=1; a=1", "; a=\"\""] {
            assert_eq!(read(&format!("Application/Merge-Patch+JSON{fine}")), Ok(patch.into()), "{fine}");
        }
        for (text, why) in [
            ("", "mime: no media type"),
            ("/", "mime: no media type"),
            (";", "mime: no media type"),
            ("\"x\"/y", "mime: no media type"),
            ("()", "mime: no media type"),
            ("a b", "mime: expected slash after first token"),
            ("x()", "mime: expected slash after first token"),
            ("application /x", "mime: expected slash after first token"),
            ("x/", "mime: expected token after slash"),
            ("x/\"y\"", "mime: expected token after slash"),
            ("x/y z", "mime: unexpected content after media subtype"),
            ("x/y; charset=\"a", INVALID_PARAMETER),
            ("x/y;;", INVALID_PARAMETER),
            ("x/y; a", INVALID_PARAMETER),
            ("x/y; a=", INVALID_PARAMETER),
            ("x/y; a=1; a=2", "mime: duplicate parameter name"),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
        assert_eq!(read("text"), Ok("text".into()));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "[a/;= \"\\\\\r\u{e9}]{0,24}") {
            drop(read(&text));
        }
    }
}
