//! Durations as Vault's clients write them and Go prints them.

use std::borrow::Cow;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a day.
const DAY: i64 = 86_400 * SECOND;
const OVERFLOW: &str = "multiplication of durations resulted in overflow, one operand may be too large";

/// Reads a duration field and gives nanoseconds.
///
/// Digits alone are seconds, `7d` is whole days, anything else is a Go duration (`1h30m`, `1.5s`); empty is zero.
///
/// # Errors
/// The text of Go's parser, for instance ``time: unknown unit "w" in duration "1w"``.
pub fn parse(text: &str) -> Result<i64, Cow<'static, str>> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(seconds) = decimal(text) {
        return seconds.checked_mul(SECOND).ok_or(Cow::Borrowed(OVERFLOW));
    }
    if let Some(days) = text.strip_suffix('d') {
        let days = decimal(days)
            .map_err(|why| Cow::Owned(format!("strconv.ParseInt: parsing {}: {why}", super::gotext::quote(days))))?;
        return days.checked_mul(DAY).ok_or(Cow::Borrowed(OVERFLOW));
    }
    parse_go(text)
}

/// Reads a Go duration (`time.ParseDuration`) and gives nanoseconds.
///
/// # Errors
/// The text of Go's parser.
pub fn parse_go(text: &str) -> Result<i64, Cow<'static, str>> {
    let invalid = || Cow::Owned(format!("time: invalid duration {}", time_quote(text)));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole_text, after) = rest.split_at(digits);
        let whole = leading_integer(whole_text).ok_or_else(invalid)?;
        let (fraction_text, after) = match after.strip_prefix('.') {
            Some(fraction) => fraction.split_at(fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len())),
            None => ("", after),
        };
        if whole_text.is_empty() && fraction_text.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit_text, after) = after.split_at(end);
        if unit_text.is_empty() {
            return Err(Cow::Owned(format!("time: missing unit in duration {}", time_quote(text))));
        }
        let unit = unit_nanos(unit_text).ok_or_else(|| {
            Cow::Owned(format!("time: unknown unit {} in duration {}", time_quote(unit_text), time_quote(text)))
        })?;
        let part = whole.checked_mul(unit).and_then(|nanos| nanos.checked_add(fraction_nanos(fraction_text, unit)));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= i64::MIN.unsigned_abs())
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// Nanoseconds as Go prints a duration: `3h0m0s`, `1.5s`, `0s`, `-1s`.
pub fn format(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    if n < 1_000_000_000 {
        let (unit, name) = match n {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{}{name}", n / unit, fraction(n % unit, unit));
    }
    let (seconds, rest) = (n / 1_000_000_000, fraction(n % 1_000_000_000, 1_000_000_000));
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{sign}{s}{rest}s"),
        (0, _) => format!("{sign}{m}m{s}{rest}s"),
        _ => format!("{sign}{h}h{m}m{s}{rest}s"),
    }
}

/// Whole seconds as Go prints a duration.
pub fn format_seconds(seconds: i64) -> String {
    format(seconds.saturating_mul(SECOND))
}

fn fraction(rest: u64, unit: u64) -> String {
    if rest == 0 {
        return String::new();
    }
    let width = usize::try_from(unit.ilog10()).unwrap_or(9);
    let digits = format!("{rest:0width$}");
    format!(".{}", digits.trim_end_matches('0'))
}

fn unit_nanos(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn leading_integer(digits: &str) -> Option<u64> {
    digits.bytes().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|sum| *sum <= i64::MIN.unsigned_abs())
    })
}

/// The part after the point, in nanoseconds, rounded as Go does: digits that no longer fit 63 bits do not count.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0u64, 1.0);
    for digit in digits.bytes() {
        match value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0'))) {
            Some(next) if next <= i64::MIN.unsigned_abs() => value = next,
            _ => break,
        }
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

/// `strconv.ParseInt(text, 10, 64)`: the value, or why not.
pub(crate) fn decimal(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    text.parse().map_err(|_| "value out of range")
}

/// The quoting of Go's `time` package: bytes outside printable ASCII as `\x..`.
fn time_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            0x20..0x80 => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn every_form_that_clients_use() {
        for (text, nanos) in [
            ("", 0),
            ("0", 0),
            ("90", 90 * SECOND),
            ("-5", -5 * SECOND),
            ("+5", 5 * SECOND),
            ("1h30m", 5400 * SECOND),
            ("1.5s", 1500 * MS),
            ("1500ms", 1500 * MS),
            ("7d", 7 * DAY),
            ("-1d", -DAY),
            ("-1h", -3600 * SECOND),
            (".5s", 500 * MS),
            ("1.s", SECOND),
            ("2us", 2000),
            ("2µs", 2000),
            ("3h25m19s", 12319 * SECOND),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refusals_have_gos_words() {
        for (text, why) in [
            ("1.5", "time: missing unit in duration \"1.5\""),
            ("soon", "time: invalid duration \"soon\""),
            ("1w", "time: unknown unit \"w\" in duration \"1w\""),
            ("1e3", "time: unknown unit \"e\" in duration \"1e3\""),
            ("1d12h", "time: unknown unit \"d\" in duration \"1d12h\""),
            ("1.5d", "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
            ("9223372037", OVERFLOW),
            ("99999999d", OVERFLOW),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("é", "time: invalid duration \"\\xc3\\xa9\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
        ] {
            assert_eq!(parse(text), Err(Cow::Borrowed(why)), "{text}");
        }
    }

    #[test]
    fn printed_as_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (-SECOND, "-1s"),
            (90 * SECOND, "1m30s"),
            (10_800 * SECOND, "3h0m0s"),
            (172_800 * SECOND, "48h0m0s"),
            (1500 * MS, "1.5s"),
            (1_100_000, "1.1ms"),
            (1_050, "1.05µs"),
            (7, "7ns"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos: i64) {
            prop_assert_eq!(parse_go(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn rubbish_never_panics(text in "\\PC{0,12}|[0-9.a-zµ+-]{0,24}") {
            drop(parse(&text));
        }
    }
}
