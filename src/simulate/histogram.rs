//! Latencies, counted in buckets that grow with them.

use super::events::Time;

/// Buckets per doubling: a quantile is at most 1/64 too large.
const STEPS: u64 = 64;

/// Counts of latencies. Small ones are exact to the nanosecond, all others to 1.6 %.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub(super) fn note(&mut self, latency: Time) {
        let bucket = bucket(latency);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// The latency that `share` of all do not exceed; `None` where there are none.
    pub(super) fn quantile(&self, share: f64) -> Option<Time> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among far less than 2^53"
        )]
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        Some(upper(found as u64))
    }
}

/// The bucket of a value: its position of the highest bit, and the six bits below.
fn bucket(value: Time) -> usize {
    let index = if value < STEPS {
        value
    } else {
        let shift = u64::from(value.ilog2()) - 6;
        (shift + 1) * STEPS + (value >> shift) - STEPS
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn upper(index: u64) -> Time {
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((index % STEPS + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_between_its_bounds() {
        for value in (0..5_000).chain((1..50).map(|n| 1 << n)).chain([123_456_789, 15_000_000_000])
        {
            let upper = upper(bucket(value) as u64);
            assert!(upper >= value && upper - value <= value / STEPS, "{value}: {upper}");
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=50).for_each(|value| histogram.note(value));
        assert_eq!([0.0, 0.5, 0.98, 1.0].map(|q| histogram.quantile(q)), [1, 25, 49, 50].map(Some));
    }
}
