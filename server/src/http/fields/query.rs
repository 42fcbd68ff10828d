//! Query strings and form bodies.

use std::collections::BTreeMap;

/// The longest form body, in bytes.
const FORM_BYTES_MAX: usize = 10 << 20;

/// A form body that does not parse. The status is 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("error parsing form data")]
pub struct BadForm;

/// The pairs of a query; bad ones and the name `help` are dropped.
pub(super) fn parse(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in query.as_bytes().split(|b| *b == b'&').filter(|pair| !pair.is_empty()).filter_map(split) {
        if name != "help" {
            pairs.entry(name).or_default().push(value);
        }
    }
    pairs
}

/// The pairs of a form body; several values of one name become one, joined by commas.
pub(super) fn parse_form(body: &[u8]) -> Result<BTreeMap<String, Vec<String>>, BadForm> {
    if body.len() > FORM_BYTES_MAX {
        return Err(BadForm);
    }
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = split(pair).ok_or(BadForm)?;
        pairs.entry(name).or_default().push(value);
    }
    for values in pairs.values_mut() {
        *values = vec![values.join(",")];
    }
    Ok(pairs)
}

/// Name and value of one pair; `None` for a `;` or a bad escape.
fn split(pair: &[u8]) -> Option<(String, String)> {
    if pair.contains(&b';') {
        return None;
    }
    let mut parts = pair.splitn(2, |b| *b == b'=');
    Some((unescape(parts.next()?)?, unescape(parts.next().unwrap_or_default())?))
}

fn unescape(text: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut nibble = || char::from(*bytes.next()?).to_digit(16).and_then(|n| u8::try_from(n).ok());
                nibble()? << 4 | nibble()?
            }
            other => other,
        });
    }
    Some(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
