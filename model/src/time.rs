//! Time as an argument: a stamp, and the clock it comes from.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// A moment in UTC, in nanoseconds since 1970. Covers the years 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// How many fractional digits the text of a moment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fraction {
    /// As many as it needs, at most nine; none for a whole second.
    Shortest,
    /// Always three, rounded down: every text has 24 bytes, and texts sort as moments do.
    Millis,
}

impl Timestamp {
    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// The moment `seconds` later (earlier if negative), held within the representable range.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(SECOND)))
    }

    /// The nearest whole second, for arithmetic that Vault does on rounded stamps.
    #[must_use]
    pub const fn rounded_to_second(self) -> Self {
        let shifted = self.0.saturating_add(SECOND / 2);
        Self(shifted - shifted.rem_euclid(SECOND))
    }

    /// RFC 3339 in UTC with as many fractional digits as needed (at most nine), ending in `Z`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }

    /// Appends RFC 3339 in UTC, ending in `Z`. Nothing is allocated besides: records and answers show several of these.
    pub fn write_rfc3339(self, out: &mut Vec<u8>, fraction: Fraction) {
        let in_day = self.0.rem_euclid(DAY);
        let (year, month, day) = date(self.0.div_euclid(DAY));
        let mut text = *b"0000-00-00T00:00:00.000000000";
        for (place, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, in_day / (3_600 * SECOND)),
            (14..16, in_day / (60 * SECOND) % 60),
            (17..19, in_day / SECOND % 60),
            (20..29, in_day % SECOND),
        ] {
            let mut rest = value;
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        let end = match (fraction, text.iter().rposition(|digit| *digit != b'0')) {
            (Fraction::Millis, _) => 23,
            (Fraction::Shortest, Some(last)) if last > 19 => last + 1,
            (Fraction::Shortest, _) => 19,
        };
        out.extend_from_slice(&text[..end]);
        out.push(b'Z');
    }

    /// Reads RFC 3339 with any offset; `None` if the text is not one or outside the range.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(parsed.as_nanosecond()).ok().map(Self)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
const fn date(days: i64) -> (i64, i64, i64) {
    let from_march_0000 = days + 719_468;
    let (era, in_era) = (from_march_0000.div_euclid(146_097), from_march_0000.rem_euclid(146_097));
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let (month, next_year) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(stamp) => write!(f, "{stamp}"),
            Err(_) => f.write_str("0001-01-01T00:00:00Z"), // unreachable: every i64 of nanoseconds is in jiff's range
        }
    }
}

/// Where the time comes from. One real clock is made in `main`; tests hold a [`ManualClock`].
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that moves only when told.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock by `seconds`.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds.saturating_mul(SECOND), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(at: Timestamp, fraction: Fraction) -> String {
        let mut out = Vec::new();
        at.write_rfc3339(&mut out, fraction);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_trimmed_and_reads_back() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500_000_000, "1970-01-01T00:00:01.5Z"),
            (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        ] {
            assert_eq!(Timestamp(nanos).rfc3339(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Some(Timestamp(nanos)));
        }
        assert_eq!(Timestamp::parse_rfc3339("2023-11-14T23:13:20+01:00"), Some(Timestamp(1_700_000_000 * SECOND)));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn texts_with_milliseconds_have_one_length() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000_000_000, "2000-03-01T00:00:00.000Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854Z"),
            (i64::MIN, "1677-09-21T00:12:43.145Z"),
        ] {
            assert_eq!(written(Timestamp(nanos), Fraction::Millis), text);
        }
    }

    #[test]
    fn shortest_texts_have_the_digits_that_they_need() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (10 * SECOND, "1970-01-01T00:00:10Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (20_120_000_000, "1970-01-01T00:00:20.12Z"),
        ] {
            assert_eq!(written(Timestamp(nanos), Fraction::Shortest), text);
        }
    }

    proptest! {
        /// `Display` has the calendar of another library.
        #[test]
        fn the_calendar_is_the_gregorian_one(nanos: i64, seconds in -9_000_000_000i64..9_000_000_000) {
            for at in [Timestamp(nanos), Timestamp(seconds * SECOND)] {
                prop_assert_eq!(written(at, Fraction::Shortest), at.to_string());
                let millis = Timestamp(at.0 - at.0.rem_euclid(1_000_000));
                prop_assert_eq!(Timestamp::parse_rfc3339(&written(millis, Fraction::Millis)), Some(millis));
            }
        }
    }
}
