//! How long a token lives: at birth, and at each renewal.
//!
//! As in Vault the ends are cut to whole seconds before they are compared; what a caller asks for may have a part of a
//! second, so that `300ms` is a short life and not the default one.

use keyward_model::Timestamp;

use crate::http::duration;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// What bounds a token's life. All in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What a token gets that asks for nothing.
    pub default: i64,
    /// The longest that the mount allows, counted from the token's birth; not for periodic tokens.
    pub max: i64,
    /// The longest that was set for this one token, counted from its birth; 0 for none.
    pub explicit_max: i64,
    /// What a periodic token gets at every renewal; 0 for one that is not periodic.
    pub period: i64,
}

/// A life that was granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// Nanoseconds from now.
    pub ttl: i64,
    /// Said to the caller where less was granted than asked for.
    pub warning: Option<String>,
}

/// Grants a life of `wanted` nanoseconds from `now` (0: the default) to a token born at `born`. `None` if its time is up, or no
/// time is allowed at all: nothing more can be granted.
pub fn grant(bounds: &Bounds, wanted: i64, born: Timestamp, now: Timestamp) -> Option<Granted> {
    let explicit_max = Some(bounds.explicit_max).filter(|max| *max > 0);
    let max = explicit_max.map_or(bounds.max, |explicit| explicit.min(bounds.max));
    let mut warning = None;
    let (mut ttl, end) = if bounds.period > 0 {
        if bounds.period > max {
            warning = Some(format!(
                "period of \"{}\" exceeded the effective max_ttl of \"{}\"; period value is capped accordingly",
                short(bounds.period),
                short(max)
            ));
        }
        (bounds.period.min(max), explicit_max)
    } else {
        (if wanted > 0 { wanted } else { bounds.default }, Some(max))
    };
    if let Some(end) = end {
        // One that was born by a clock that went far ahead gets no more than a new one.
        let age = now.seconds().saturating_sub(born.seconds()).max(0).saturating_mul(SECOND);
        let left = end.saturating_sub(age);
        if left <= 0 {
            return None;
        }
        if ttl > left {
            warning = Some(format!(
                "TTL of \"{}\" exceeded the effective max_ttl of \"{}\"; TTL value is capped accordingly",
                short(ttl),
                short(left)
            ));
            ttl = left;
        }
    }
    (ttl > 0).then_some(Granted { ttl, warning })
}

/// When a life of `ttl` nanoseconds ends. Never past `explicit_max` nanoseconds (0: none) from birth, to the nanosecond.
pub fn end(ttl: i64, explicit_max: i64, born: Timestamp, now: Timestamp) -> Timestamp {
    let end = now.0.saturating_add(ttl);
    Timestamp(if explicit_max > 0 { end.min(born.0.saturating_add(explicit_max)) } else { end })
}

/// Whole seconds, cut towards zero: what is shown.
pub fn seconds(nanos: i64) -> i64 {
    nanos / SECOND
}

/// Whole seconds, rounded up: what is kept of a bound, so that a part of a second does not become "no bound".
pub fn seconds_up(nanos: i64) -> i64 {
    nanos.saturating_add(SECOND - 1) / SECOND
}

/// A duration as Go prints it, without the parts that are zero: `1h`, `9m59s`, `1h5s`.
fn short(nanos: i64) -> String {
    let full = duration::format(nanos);
    let full = full.strip_suffix("m0s").map_or_else(|| full.clone(), |minutes| format!("{minutes}m"));
    full.replacen("h0m", "h", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * SECOND;
    const BORN: Timestamp = Timestamp(1_700_000_000 * SECOND + 700_000_000);

    #[test]
    fn lives() {
        struct Case {
            name: &'static str,
            wanted: i64,
            period: i64,
            explicit_max: i64,
            /// Seconds since birth.
            age: i64,
            ttl: Option<i64>,
            warning: Option<&'static str>,
        }
        let none = Case {
            name: "the default",
            wanted: 0,
            period: 0,
            explicit_max: 0,
            age: 0,
            ttl: Some(768 * HOUR),
            warning: None,
        };
        for case in [
            Case { name: "as asked", wanted: HOUR, ttl: Some(HOUR), ..none },
            Case { name: "part of a second", wanted: SECOND / 3, ttl: Some(SECOND / 3), ..none },
            Case {
                name: "over the system's",
                wanted: 9000 * HOUR,
                warning: Some(
                    "TTL of \"9000h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly",
                ),
                ..none
            },
            Case {
                name: "over its own maximum",
                wanted: 2 * HOUR,
                explicit_max: HOUR,
                ttl: Some(HOUR),
                warning: Some(
                    "TTL of \"2h\" exceeded the effective max_ttl of \"1h\"; TTL value is capped accordingly",
                ),
                ..none
            },
            Case {
                name: "the default over its own maximum",
                explicit_max: 600 * SECOND,
                ttl: Some(600 * SECOND),
                warning: Some(
                    "TTL of \"768h\" exceeded the effective max_ttl of \"10m\"; TTL value is capped accordingly",
                ),
                ..none
            },
            Case {
                name: "renewed near its maximum",
                wanted: 5 * HOUR,
                explicit_max: HOUR,
                age: 3001,
                ttl: Some(599 * SECOND),
                warning: Some(
                    "TTL of \"5h\" exceeded the effective max_ttl of \"9m59s\"; TTL value is capped accordingly",
                ),
                ..none
            },
            Case {
                name: "born by a clock that was ahead",
                wanted: 2 * HOUR,
                explicit_max: HOUR,
                age: -400 * 86_400,
                ttl: Some(HOUR),
                warning: Some(
                    "TTL of \"2h\" exceeded the effective max_ttl of \"1h\"; TTL value is capped accordingly",
                ),
                ..none
            },
            Case { name: "its maximum is over", wanted: SECOND, explicit_max: HOUR, age: 3600, ttl: None, ..none },
            Case {
                name: "a period, whatever is asked",
                wanted: 3 * HOUR,
                period: 900 * SECOND,
                ttl: Some(900 * SECOND),
                ..none
            },
            Case {
                name: "a period outlives the mount's maximum",
                period: HOUR,
                age: 4_000_000,
                ttl: Some(HOUR),
                ..none
            },
            Case {
                name: "a long period",
                period: 900 * HOUR,
                warning: Some(
                    "period of \"900h\" exceeded the effective max_ttl of \"768h\"; period value is capped accordingly",
                ),
                ..none
            },
            Case {
                name: "a period near the token's own maximum",
                period: 900 * SECOND,
                explicit_max: HOUR,
                age: 3000,
                ttl: Some(600 * SECOND),
                warning: Some(
                    "TTL of \"15m\" exceeded the effective max_ttl of \"10m\"; TTL value is capped accordingly",
                ),
                ..none
            },
            none,
        ] {
            let bounds =
                Bounds { default: 768 * HOUR, max: 768 * HOUR, explicit_max: case.explicit_max, period: case.period };
            let granted = grant(&bounds, case.wanted, BORN, BORN.plus_seconds(case.age));
            assert_eq!(granted.as_ref().map(|g| g.ttl), case.ttl, "{}", case.name);
            assert_eq!(granted.and_then(|g| g.warning).as_deref(), case.warning, "{}", case.name);
        }
    }

    #[test]
    fn no_life_passes_its_own_maximum() {
        let now = Timestamp(BORN.0 + HOUR - 1);
        assert_eq!(end(2 * SECOND, HOUR, BORN, now), Timestamp(BORN.0 + HOUR));
        assert_eq!(end(2 * SECOND, 0, BORN, now), Timestamp(now.0 + 2 * SECOND));
        assert_eq!(end(i64::MAX, 0, BORN, now), Timestamp(i64::MAX));
    }

    #[test]
    fn durations_without_their_zeros() {
        for (seconds, text) in
            [(3600, "1h"), (3605, "1h5s"), (599, "9m59s"), (600, "10m"), (36_000, "10h"), (45, "45s")]
        {
            assert_eq!(short(seconds * SECOND), text);
        }
        assert_eq!((seconds(1_999_999_999), seconds_up(1), seconds_up(SECOND)), (1, 1, 1));
    }
}
