//! Secret URIs, as far as this face has to read and write them: `keyward+kv2://<mount>/<path>`.
//!
//! A path is taken segment by segment as it was sent, never decoded twice and never cleaned. One name has one spelling:
//! what need not be escaped must not be, and what cannot stand in a URI is refused with a code that says why.

use crate::refusal::Problem;

/// Scheme of every URI that this server resolves itself.
const SCHEME: &str = "keyward+kv2://";
/// The longest URI, in octets.
const URI_BYTES_MAX: usize = 1024;
/// The longest mount, in octets.
const MOUNT_BYTES_MAX: usize = 63;
/// Segments of a path.
const SEGMENTS_MAX: usize = 16;
/// The longest segment as it is written, in octets.
const SEGMENT_BYTES_MAX: usize = 128;
/// Mounts that hold no secrets of people.
const RESERVED: [&str; 5] = ["sys", "auth", "identity", "cubbyhole", "keyward-internal"];
/// What may stand in a path, but only as an escape.
const ENCODABLE: &[u8] = b" !$&'();[]{}";

/// A mount's name: 1 to 63 of `a-z 0-9 - _`, with a letter or digit at both ends.
///
/// # Errors
/// The problem by its code.
pub(super) fn mount(name: &str) -> Result<(), Problem> {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err(Problem::AMBIGUOUS_MOUNT);
    }
    if bytes.contains(&b'*') {
        return Err(Problem::INVALID_WILDCARD);
    }
    if bytes.len() > MOUNT_BYTES_MAX {
        return Err(Problem::SEGMENT_TOO_LONG);
    }
    let inner = |b: &u8| edge(Some(b)) || matches!(b, b'-' | b'_');
    if !edge(bytes.first()) || !edge(bytes.last()) || !bytes.iter().all(inner) {
        return Err(Problem::ILLEGAL_SEGMENT);
    }
    if RESERVED.contains(&name) { Err(Problem::RESERVED_MOUNT) } else { Ok(()) }
}

/// A path of 1 to 16 segments as written, decoded into the form in which the store has it.
///
/// # Errors
/// The problem by its code: that of the first segment that has one.
pub(super) fn path(written: &str) -> Result<String, Problem> {
    if let Some(problem) = written.bytes().find_map(never) {
        return Err(problem);
    }
    if written.split('/').count() > SEGMENTS_MAX {
        return Err(Problem::TOO_MANY_SEGMENTS);
    }
    let mut out = String::with_capacity(written.len());
    for (i, written) in written.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        segment(written, &mut out)?;
    }
    Ok(out)
}

/// A URI that ends in `/`: the mount, and the folder in decoded form (empty: the mount's root).
///
/// # Errors
/// The problem by its code, in the order in which the parts are read.
pub(super) fn prefix(uri: &str) -> Result<(&str, String), Problem> {
    if uri.is_empty() {
        return Err(Problem::MALFORMED_URI);
    }
    if uri.len() > URI_BYTES_MAX {
        return Err(Problem::URI_TOO_LONG);
    }
    if let Some(problem) = uri.bytes().find_map(never) {
        return Err(problem);
    }
    let Some((scheme, rest)) = uri.split_once("://") else { return Err(Problem::MALFORMED_URI) };
    check_scheme(scheme)?;
    match (rest.find('?'), rest.find('#')) {
        (Some(query), Some(key)) if query < key => return Err(Problem::AMBIGUOUS_QUERY),
        (_, Some(_)) => return Err(Problem::ILLEGAL_FRAGMENT),
        (Some(_), None) => return Err(Problem::AMBIGUOUS_QUERY),
        (None, None) => {}
    }
    let (name, folder) = rest.split_once('/').map_or((rest, None), |(name, folder)| (name, Some(folder)));
    mount(name)?;
    match folder {
        None => Err(Problem::AMBIGUOUS_MOUNT),
        Some("") => Ok((name, String::new())),
        Some(folder) => {
            let folder = folder.strip_suffix('/').ok_or(Problem::TRAILING_SLASH_MISMATCH)?;
            Ok((name, path(folder)?))
        }
    }
}

/// The URI of a secret, or with a slash at the end of the path that of a folder. `None`: the mount or the path has a name
/// that no URI covers, as the compatible face may give them.
pub(super) fn of(name: &str, stored: &str) -> Option<String> {
    mount(name).ok()?;
    let mut out = format!("{SCHEME}{name}/");
    let (inner, slash) = stored.strip_suffix('/').map_or((stored, ""), |folder| (folder, "/"));
    if inner.is_empty() || inner.split('/').count() > SEGMENTS_MAX {
        return None;
    }
    for (i, stored) in inner.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        let written = written(stored)?;
        segment(&written, &mut String::new()).ok()?;
        out.push_str(&written);
    }
    out.push_str(slash);
    (out.len() <= URI_BYTES_MAX).then_some(out)
}

/// How a stored segment is written; `None` if it has an octet that no URI has.
pub(super) fn written(stored: &str) -> Option<String> {
    let mut out = String::with_capacity(stored.len());
    for byte in stored.bytes() {
        match byte {
            b if is_literal(b) => out.push(char::from(b)),
            b if ENCODABLE.contains(&b) => out.push_str(&format!("%{b:02X}")),
            _ => return None,
        }
    }
    Some(out)
}

fn check_scheme(scheme: &str) -> Result<(), Problem> {
    if scheme.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Problem::SCHEME_NOT_LOWERCASE);
    }
    let (provider, engine) = scheme.split_once('+').map_or((scheme, None), |(p, e)| (p, Some(e)));
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !word(provider) || !engine.is_none_or(word) {
        return Err(Problem::MALFORMED_URI);
    }
    match (provider, engine) {
        ("keyward", Some("kv2")) => Ok(()),
        ("keyward", _) => Err(Problem::UNSUPPORTED_ENGINE),
        _ => Err(Problem::UNSUPPORTED_SCHEME),
    }
}

/// Octets that stand nowhere in a URI.
fn never(byte: u8) -> Option<Problem> {
    match byte {
        0..0x20 | 0x7f | b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|' => Some(Problem::ILLEGAL_CHARACTER),
        0x80.. => Some(Problem::NON_ASCII),
        _ => None,
    }
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~@:+,=".contains(&byte)
}

/// Decodes one segment to the end of `out`.
fn segment(written: &str, out: &mut String) -> Result<(), Problem> {
    if written.is_empty() {
        return Err(Problem::ILLEGAL_SEGMENT);
    }
    if written.len() > SEGMENT_BYTES_MAX {
        return Err(Problem::SEGMENT_TOO_LONG);
    }
    let from = out.len();
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b if is_literal(b) => out.push(char::from(b)),
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(), digit());
                let (Some(high), Some(low)) = (high, low) else { return Err(Problem::ILLEGAL_ENCODING) };
                out.push(escaped(u8::try_from(high * 16 + low).unwrap_or(0))?);
            }
            b'*' => return Err(Problem::INVALID_WILDCARD),
            _ => return Err(Problem::ILLEGAL_CHARACTER),
        }
    }
    let decoded = out.get(from..).unwrap_or_default();
    if decoded == "." || decoded.contains("..") || decoded.starts_with(' ') || decoded.ends_with(' ') {
        return Err(Problem::ILLEGAL_SEGMENT);
    }
    Ok(())
}

/// What an escape stands for.
fn escaped(octet: u8) -> Result<char, Problem> {
    match octet {
        0x80.. => Err(Problem::NON_ASCII),
        0..0x20 | 0x7f => Err(Problem::ILLEGAL_CHARACTER),
        b'/' | b'\\' => Err(Problem::ILLEGAL_SEGMENT),
        b'*' => Err(Problem::INVALID_WILDCARD),
        b'%' | b'#' | b'?' => Err(Problem::ILLEGAL_ENCODING),
        b if is_literal(b) => Err(Problem::ILLEGAL_ENCODING),
        b if ENCODABLE.contains(&b) => Ok(char::from(b)),
        _ => Err(Problem::ILLEGAL_CHARACTER),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_are_read() {
        assert_eq!(prefix("keyward+kv2://secret/"), Ok(("secret", String::new())));
        assert_eq!(prefix("keyward+kv2://secret/prod/a%20b/"), Ok(("secret", "prod/a b".into())));
        for (uri, problem) in [
            ("", Problem::MALFORMED_URI),
            ("secret/prod/", Problem::MALFORMED_URI),
            ("Keyward+kv2://secret/", Problem::SCHEME_NOT_LOWERCASE),
            ("vault+kv2://secret/", Problem::UNSUPPORTED_SCHEME),
            ("keyward://secret/", Problem::UNSUPPORTED_ENGINE),
            ("keyward+kv2:///a/", Problem::AMBIGUOUS_MOUNT),
            ("keyward+kv2://secret", Problem::AMBIGUOUS_MOUNT),
            ("keyward+kv2://sys/", Problem::RESERVED_MOUNT),
            ("keyward+kv2://a.b/", Problem::ILLEGAL_SEGMENT),
            ("keyward+kv2://secret/prod", Problem::TRAILING_SLASH_MISMATCH),
            ("keyward+kv2://secret//", Problem::ILLEGAL_SEGMENT),
            ("keyward+kv2://secret/a/../b/", Problem::ILLEGAL_SEGMENT),
            ("keyward+kv2://secret/*/", Problem::INVALID_WILDCARD),
            ("keyward+kv2://secret/a#k", Problem::ILLEGAL_FRAGMENT),
            ("keyward+kv2://secret/a/?version=1", Problem::AMBIGUOUS_QUERY),
            ("keyward+kv2://secret/a b/", Problem::ILLEGAL_CHARACTER),
            ("keyward+kv2://secret/\u{e4}/", Problem::NON_ASCII),
        ] {
            assert_eq!(prefix(uri), Err(problem), "{uri}");
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (written, problem) in [
            ("", Problem::ILLEGAL_SEGMENT),
            ("a//b", Problem::ILLEGAL_SEGMENT),
            ("a/", Problem::ILLEGAL_SEGMENT),
            (".", Problem::ILLEGAL_SEGMENT),
            ("a..b", Problem::ILLEGAL_SEGMENT),
            ("%20a", Problem::ILLEGAL_SEGMENT),
            ("a%2Fb", Problem::ILLEGAL_SEGMENT),
            ("a%5cb", Problem::ILLEGAL_SEGMENT),
            ("%61", Problem::ILLEGAL_ENCODING),
            ("%25", Problem::ILLEGAL_ENCODING),
            ("%2", Problem::ILLEGAL_ENCODING),
            ("%zz", Problem::ILLEGAL_ENCODING),
            ("%2a", Problem::INVALID_WILDCARD),
            ("%00", Problem::ILLEGAL_CHARACTER),
            ("a!b", Problem::ILLEGAL_CHARACTER),
            ("%c3%a4", Problem::NON_ASCII),
            (&"a".repeat(129), Problem::SEGMENT_TOO_LONG),
            (&["a"; 17].join("/"), Problem::TOO_MANY_SEGMENTS),
        ] {
            assert_eq!(path(written), Err(problem), "{written}");
        }
        assert_eq!(path("prod/a%20b/c@d:e+f"), Ok("prod/a b/c@d:e+f".into()));
        assert_eq!(of("secret", "prod/a b"), Some("keyward+kv2://secret/prod/a%20b".into()));
        assert_eq!(of("secret", "prod/"), Some("keyward+kv2://secret/prod/".into()));
        for (mount, stored) in
            [("team/kv", "a"), ("secret", "\u{e4}"), ("secret", "a?"), ("secret", " a"), ("secret", "")]
        {
            assert_eq!(of(mount, stored), None, "{mount} {stored}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_comes_back(written: String) {
            if let Ok(stored) = path(&written) {
                let uri = of("secret", &stored);
                if let Some(uri) = uri {
                    prop_assert_eq!(path(uri.strip_prefix("keyward+kv2://secret/").unwrap()), Ok(stored));
                }
            }
            drop(prefix(&written));
            mount(&written).ok();
        }

        #[test]
        fn likely_paths_come_back(written in "([a-c. ]|%20|%2[0-9A-F]|/){0,12}") {
            if let Ok(stored) = path(&written) {
                let uri = of("secret", &stored).unwrap();
                prop_assert_eq!(path(uri.strip_prefix("keyward+kv2://secret/").unwrap()), Ok(stored));
            }
        }
    }
}
