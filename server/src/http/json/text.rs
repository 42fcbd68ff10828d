//! Strings in JSON: written as Go's encoder writes them, read as its decoder reads them.

use std::borrow::Cow;

/// Appends `text` as a JSON string, quotes included.
///
/// `< > &` and U+2028/2029 are escaped, so that an answer is safe inside HTML, as with Go's encoder.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut kept = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let long;
        let (escape, width): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            8 => (b"\\b", 1),
            12 => (b"\\f", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0..0x20 | b'<' | b'>' | b'&' => {
                long = [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)];
                (&long, 1)
            }
            0xe2 if bytes.get(i + 1..i + 3) == Some(&[0x80, 0xa8]) => (b"\\u2028", 3),
            0xe2 if bytes.get(i + 1..i + 3) == Some(&[0x80, 0xa9]) => (b"\\u2029", 3),
            _ => continue,
        };
        out.extend_from_slice(&bytes[kept..i]);
        out.extend_from_slice(escape);
        kept = i + width;
    }
    out.extend_from_slice(&bytes[kept..]);
    out.push(b'"');
}

/// What the inside of a JSON string (without its quotes, already found well-formed) means.
///
/// Lone surrogates and bytes that are not UTF-8 become U+FFFD, one for each escape or byte.
pub(super) fn decode(inside: &[u8]) -> Cow<'_, str> {
    if !inside.contains(&b'\\')
        && let Ok(text) = std::str::from_utf8(inside)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(stop) = rest.iter().position(|b| *b == b'\\') {
        let (plain, escape) = rest.split_at(stop);
        push_lossy(&mut out, plain);
        let used = push_escape(&mut out, escape);
        rest = escape.get(used..).unwrap_or_default();
    }
    push_lossy(&mut out, rest);
    Cow::Owned(out)
}

/// Reads one escape at the start of `bytes`, pushes its meaning and says how long it was.
fn push_escape(out: &mut String, bytes: &[u8]) -> usize {
    let plain = match bytes.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let (c, used) = unicode_escape(bytes);
            out.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
            return used;
        }
        Some(other) => char::from(*other),
        None => return 1,
    };
    out.push(plain);
    2
}

/// The character of a `\uXXXX` escape or surrogate pair at the start of `bytes`, and its length; `None` for a lone
/// surrogate.
pub(super) fn unicode_escape(bytes: &[u8]) -> (Option<char>, usize) {
    let first = code_unit(bytes).unwrap_or(0xd800);
    if (0xd800..0xdc00).contains(&first)
        && let Some(second @ 0xdc00..0xe000) = bytes.get(6..).and_then(code_unit)
    {
        return (char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)), 12);
    }
    (char::from_u32(first), 6)
}

/// The number of a `\uXXXX` escape at the start of `bytes`.
pub(super) fn code_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// Appends `bytes`, each byte that is not part of UTF-8 as U+FFFD.
fn push_lossy(out: &mut String, mut bytes: &[u8]) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => return out.push_str(text),
            Err(error) => {
                let (good, bad) = bytes.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(good).unwrap_or_default());
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = bad.get(1..).unwrap_or_default();
            }
        }
    }
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_gos() {
        assert_eq!(
            written("<a>&\u{2028}\u{2029}\u{8}\u{c}\n\r\t\"\\/\u{1}\u{1f}\u{7f}é\u{2027}"),
            "\"\\u003ca\\u003e\\u0026\\u2028\\u2029\\b\\f\\n\\r\\t\\\"\\\\/\\u0001\\u001f\u{7f}é\u{2027}\""
        );
    }

    #[test]
    fn what_is_not_text_becomes_the_replacement_character() {
        for (inside, text) in [
            (&b"plain"[..], "plain"),
            (b"\\u0061\\n\\/", "a\n/"),
            (b"\\ud83d\\udd11", "🔑"),
            (b"\\ud83d", "\u{fffd}"),
            (b"\\ud83dx", "\u{fffd}x"),
            (b"\\udd11\\ud83d", "\u{fffd}\u{fffd}"),
            (b"a\xffb", "a\u{fffd}b"),
            (b"\xe2\x82", "\u{fffd}\u{fffd}"),
            (b"\\", ""),
            (b"\\u12", "\u{fffd}"),
        ] {
            assert_eq!(decode(inside), text, "{inside:?}");
        }
    }

    proptest! {
        #[test]
        fn written_text_reads_back(text: String) {
            let json = written(&text);
            prop_assert_eq!(decode(&json.as_bytes()[1..json.len() - 1]), text.as_str());
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_bytes_decode(bytes: Vec<u8>) {
            drop(decode(&bytes));
        }
    }
}
