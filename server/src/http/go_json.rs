//! JSON text as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped, keys sorted by bytes.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = special.chars();
            writer.write_all(match chars.next() {
                Some('<') => b"\\u003c",
                Some('>') => b"\\u003e",
                Some('&') => b"\\u0026",
                Some('\u{2028}') => b"\\u2028",
                _ => b"\\u2029",
            })?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// `value` as JSON text. Maps of `serde_json` are sorted by key already.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    // Writing a `Value` into memory has no failure.
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter));
    debug_assert!(written.is_ok());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_are_escaped_and_reread() {
        let value = Value::from("a<b>&\u{2028}\u{2029}\"\u{7}é");
        let text = to_vec(&value);
        assert_eq!(text, "\"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\\"\\u0007é\"".as_bytes());
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value);
    }
}
