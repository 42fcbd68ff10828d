//! Durations as policies write them: seconds, `1h30m`, `7d`.

use super::quote;

/// Nanoseconds of `text`: digits are seconds, `<n>d` days, anything else a sum of numbers with the units
/// `ns us µs ms s m h`, with or without a sign. Empty is 0.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (digits, unit_seconds) = match text.strip_suffix('d') {
        Some(days) => (days, 86_400),
        None => (text, 1),
    };
    match digits.parse::<i64>() {
        Ok(count) => {
            count.checked_mul(unit_seconds).and_then(|seconds| seconds.checked_mul(SECOND)).ok_or_else(too_long)
        }
        Err(_) if unit_seconds > 1 => Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(digits))),
        Err(_) => units(text),
    }
}

/// Nanoseconds of a number of seconds.
pub(super) fn from_seconds(seconds: f64) -> Result<i64, String> {
    let nanos = seconds * SECOND as f64;
    if nanos.abs() < i64::MAX as f64 { Ok(nanos as i64) } else { Err(too_long()) }
}

const SECOND: i64 = 1_000_000_000;

fn too_long() -> String {
    "multiplication of durations resulted in overflow, one operand may be too large".to_owned()
}

fn units(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let nanos: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        };
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let mut scale = nanos;
        let mut part = i128::from(whole) * nanos;
        for digit in fraction.bytes() {
            scale /= 10;
            part += i128::from(digit - b'0') * scale;
        }
        total += part;
        rest = after;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("", 0),
            ("0", 0),
            ("90", 90 * SECOND),
            ("-5", -5 * SECOND),
            ("7d", 7 * 86_400 * SECOND),
            ("1h30m", 5_400 * SECOND),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1500ms", 1_500_000_000),
            ("-2m", -120 * SECOND),
            ("3µs", 3_000),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("soon", "time: invalid duration \"soon\""),
            ("1w", "time: unknown unit \"w\" in duration \"1w\""),
            ("1d12h", "time: unknown unit \"d\" in duration \"1d12h\""),
            ("1.5", "time: missing unit in duration \"1.5\""),
            ("1.5d", "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("-", "time: invalid duration \"-\""),
            ("9223372037", "multiplication of durations resulted in overflow, one operand may be too large"),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(from_seconds(1.5), Ok(1_500_000_000));
        assert!(from_seconds(1e300).is_err() && from_seconds(f64::NAN).is_err());
    }
}
