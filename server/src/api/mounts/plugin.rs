//! Versions of plugins. Our engines are built in, so there is one version of each, and to ask for another is a mistake.

use crate::build::PLUGIN_VERSION;
use crate::http::gotext::quote;
use crate::refusal::Refusal;

/// The version that a caller asks for, in its canonical form (`v1.2.0-beta+build`); `None` for the one that is built in.
///
/// # Errors
/// It is no version.
pub(super) fn other_version(asked: &str) -> Result<Option<String>, Refusal> {
    let version = canonical(asked).ok_or_else(|| {
        Refusal::malformed(format!(
            "version {} is not a valid semantic version: malformed version: {asked}",
            quote(asked)
        ))
    })?;
    Ok((version != PLUGIN_VERSION).then_some(version))
}

/// Three numbers at least, then what marks a version before a release (`-`), then what marks its build (`+`).
fn canonical(text: &str) -> Option<String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, before) = text.split_at(end);
    let mut numbers = numbers.split('.').map(|number| number.parse::<i64>().ok()).collect::<Option<Vec<_>>>()?;
    numbers.resize(numbers.len().max(3), 0);
    let before = (!before.is_empty()).then(|| before.strip_prefix('-').unwrap_or(before));
    let marks = |marks: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '~';
        marks.split('.').all(|mark| !mark.is_empty() && mark.chars().all(allowed))
    };
    if !before.is_none_or(marks) || !build.is_none_or(marks) {
        return None;
    }
    let mut out = format!("v{}", numbers.iter().map(i64::to_string).collect::<Vec<_>>().join("."));
    for (sign, marks) in [('-', before), ('+', build)] {
        if let Some(marks) = marks {
            out.push(sign);
            out.push_str(marks);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_numbers_and_marks() {
        for (asked, version) in [
            ("1", "v1.0.0"),
            ("v1.2", "v1.2.0"),
            ("01.2.3.4", "v1.2.3.4"),
            ("1.0.0-rc.1+linux", "v1.0.0-rc.1+linux"),
            ("1.0beta", "v1.0.0-beta"),
        ] {
            assert_eq!(other_version(asked).unwrap().as_deref(), Some(version), "{asked}");
        }
        for asked in
            ["", "x", "v", "1.", ".1", "1..2", "1.0-", "1.0+", "1.0-a..b", "1 ", "1.0-ä", "99999999999999999999"]
        {
            assert!(other_version(asked).is_err(), "{asked}");
        }
    }

    #[test]
    fn the_version_that_is_built_in_is_no_other() {
        assert_eq!(other_version(PLUGIN_VERSION).unwrap(), None);
    }
}
