//! Histograms by powers of two: what openraft needs of the crate of this name, without its tables.
//!
//! A value falls into the class of its highest bit, and a percentile is the largest value of a class: right to a factor
//! of two, in half a kilobyte.

use std::fmt;
use std::marker::PhantomData;

/// Class 0 is the value 0, class `n` the values with `n` bits.
const CLASSES: usize = u64::BITS as usize + 1;

/// Counts values by the number of their bits. `T` is there because openraft names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; CLASSES],
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// No values yet.
    pub fn new() -> Self {
        Self { counts: [0; CLASSES], of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let class = &mut self.counts[(u64::BITS - value.leading_zeros()) as usize];
        *class = class.saturating_add(times);
    }

    /// How many values there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The usual percentiles; zeros if there were no values.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.total();
        let at = |per_mille: u64| {
            self.at_rank(u64::try_from(u128::from(samples) * u128::from(per_mille) / 1000).unwrap_or(samples))
        };
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The largest value of the class that holds the value number `rank` in order.
    fn at_rank(&self, rank: u64) -> u64 {
        let mut below = 0u64;
        let class = self.counts.iter().position(|count| {
            below = below.saturating_add(*count);
            below > rank || (below == rank && below > 0 && below == self.total())
        });
        match class {
            None | Some(0) => 0,
            Some(class) => u64::MAX >> (CLASSES - 1 - class),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.percentile_stats(), f)
    }
}

/// Percentiles of a histogram: of the values, so many per hundred are at most this large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "{samples} values: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}")
    }
}

/// Named histograms, shown one on a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_factor_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        for value in 0..1000 {
            histogram.record(value);
        }
        histogram.record_n(u64::MAX, 2);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p90), (1002, 511, 1023));
        assert_eq!(stats.p99_9, u64::MAX);
    }
}
