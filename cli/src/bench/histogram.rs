//! Latencies in buckets: exact up to 128 ns, then within 1 %, from nanoseconds to hours, in 30 kB.

/// Each power of two is cut into this many buckets (2^7).
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;
/// Values from 2^44 ns (five hours) count as that.
const TOP_BITS: u32 = 44;

/// A set of latencies.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Without any.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; ((TOP_BITS - SUB_BITS + 1) as usize) << SUB_BITS], total: 0 }
    }

    /// Adds one, in nanoseconds.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(nanoseconds)) {
            *bucket += 1;
            self.total += 1;
        }
    }

    /// Adds all of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.total += other.total;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// The latency in nanoseconds that this share of all (0 to 1) does not exceed: the upper edge of its bucket. 0 if
    /// there are none.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "counts stay far below 2^52, shares are 0 to 1"
        )]
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge(index as u64);
            }
        }
        0
    }
}

fn index(value: u64) -> usize {
    let value = value.min((1 << TOP_BITS) - 1);
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    // Row `shift` holds the values whose top 8 bits begin with a one; row 0 also those below.
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

fn upper_edge(index: u64) -> u64 {
    if index < 2 * SUB {
        return index;
    }
    let shift = index / SUB - 1;
    ((index - shift * SUB + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_told_within_one_percent(value in 0u64..(1 << TOP_BITS)) {
            let mut histogram = Histogram::new();
            histogram.record(value);
            let told = histogram.quantile(0.5);
            prop_assert!(told >= value && told - value <= value / 100 + 1, "{} told as {}", value, told);
        }
    }

    #[test]
    fn quantiles_of_many() {
        let (mut all, mut half) = (Histogram::new(), Histogram::new());
        for value in 1..=500 {
            half.record(value);
        }
        for value in 501..=1000 {
            all.record(value);
        }
        all.add(&half);
        assert_eq!(all.count(), 1000);
        assert!((500..=505).contains(&all.quantile(0.5)));
        assert!((990..=1000).contains(&all.quantile(0.99)));
        assert_eq!(all.quantile(0.001), 1);
        assert_eq!(Histogram::new().quantile(0.5), 0);
        all.record(u64::MAX);
        assert_eq!(all.count(), 1001);
    }
}
