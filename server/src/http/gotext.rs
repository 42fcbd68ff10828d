//! Text as Go prints it: what its `unicode.IsPrint` lets through, and its quoted strings.
//!
//! Error texts of the compatible surface quote the caller's words, and clients and recordings compare them byte by byte.

use std::fmt::Write as _;

/// Whether Go's `unicode.IsPrint` holds: letters, marks, numbers, punctuation, symbols and the ASCII space.
///
/// The standard library's Unicode is newer than that of Go 1.26 (15.0): what was assigned since is printable here.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    // WHY: the standard library knows the same classes, but shows them only through `escape_debug`, which leaves a
    // printable character as it is. The letter in front keeps combining marks from being escaped for standing first.
    let mut buffer = [b'a'; 5];
    let used = 1 + c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..used]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// `text` in double quotes with Go's escapes (`%q`).
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        push_escaped(&mut out, c, '"');
    }
    out.push('"');
    out
}

/// One byte of malformed input in single quotes, as Go's JSON scanner names it: a byte stands for the character of
/// that number.
pub fn quote_byte(byte: u8) -> String {
    let mut out = String::from("'");
    match byte {
        b'"' => out.push('"'),
        other => push_escaped(&mut out, char::from(other), '\''),
    }
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char, mark: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        _ if c == mark => out.extend(['\\', mark]),
        _ if is_printable(c) => out.push(c),
        _ => {
            let code = u32::from(c);
            // Writing to a string cannot fail.
            let _ = match code {
                0..=0x1f | 0x7f => write!(out, "\\x{code:02x}"),
                0..=0xffff => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_is_what_go_prints() {
        for c in ['a', ' ', '~', 'é', 'я', '語', '🔑', '\u{301}', '\u{fffd}', '"', '\\', '\'', '€'] {
            assert!(is_printable(c), "{c:?}");
        }
        for c in [
            '\n',
            '\u{7f}',
            '\u{80}',
            '\u{a0}',
            '\u{ad}',
            '\u{1680}',
            '\u{200b}',
            '\u{200e}',
            '\u{2028}',
            '\u{3000}',
            '\u{e000}',
            '\u{10ffff}',
            '\u{378}',
        ] {
            assert!(!is_printable(c), "{c:?}");
        }
    }

    #[test]
    fn quoted_text_is_go_quoted() {
        for (text, quoted) in [
            ("k", "\"k\""),
            ("a\tb\"\\", "\"a\\tb\\\"\\\\\""),
            ("\u{a0}\u{1}\u{7f}\u{e0001}", "\"\\u00a0\\x01\\x7f\\U000e0001\""),
            ("é'", "\"é'\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
        for (byte, quoted) in
            [(b'\'', "'\\''"), (b'"', "'\"'"), (b'x', "'x'"), (b'\n', "'\\n'"), (0xef, "'ï'"), (0x80, "'\\u0080'")]
        {
            assert_eq!(quote_byte(byte), quoted);
        }
    }
}
