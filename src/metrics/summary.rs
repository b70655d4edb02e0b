//! The few numbers that fit on one line.

use std::fmt;

use prometheus::Histogram;
use prometheus::core::Metric;

use super::{RouteMetrics, UpstreamMetrics};

/// Requests so far, over several routes and upstreams.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Answered.
    pub requests: u64,
    /// Answered below 500.
    pub successes: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Half of the requests took less, in seconds.
    pub p50: f64,
    /// 99 of 100 requests took less, in seconds.
    pub p99: f64,
}

impl Summary {
    /// Adds them up.
    pub fn of<'a>(
        routes: impl Iterator<Item = &'a RouteMetrics>,
        upstreams: impl Iterator<Item = &'a UpstreamMetrics>,
    ) -> Self {
        let mut summary = Self::default();
        let mut durations = Vec::new();
        for route in routes {
            let (all, good) = route.totals();
            summary.requests += all;
            summary.successes += good;
            durations.push(&route.duration);
        }
        summary.retries = upstreams.map(|upstream| upstream.totals().1).sum();
        summary.p50 = quantile(&durations, 0.5);
        summary.p99 = quantile(&durations, 0.99);
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests == 0 {
            return f.write_str("no requests yet");
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let share = self.successes as f64 / self.requests as f64;
        write!(
            f,
            "{} requests, {:.2} % success, {} retries, p50 {:.1} ms, p99 {:.1} ms",
            self.requests,
            share * 100.0,
            self.retries,
            self.p50 * 1e3,
            self.p99 * 1e3
        )
    }
}

/// The quantile `q` of several histograms with the same buckets, by linear interpolation inside the bucket as PromQL has
/// it; 0 where they are empty, the last bound where it lies beyond.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn quantile(histograms: &[&Histogram], q: f64) -> f64 {
    let metrics: Vec<_> = histograms.iter().map(|histogram| histogram.metric()).collect();
    let Some(first) = metrics.first() else { return 0.0 };
    let total: u64 = metrics.iter().map(|metric| metric.get_histogram().get_sample_count()).sum();
    if total == 0 {
        return 0.0;
    }
    let rank = q * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (index, bucket) in first.get_histogram().get_bucket().iter().enumerate() {
        let counted = |metric: &prometheus::proto::Metric| {
            metric.get_histogram().get_bucket()[index].cumulative_count()
        };
        let cumulative = metrics.iter().map(counted).sum::<u64>() as f64;
        let upper = bucket.upper_bound();
        if cumulative >= rank && cumulative > below {
            return lower + (upper - lower) * (rank - below) / (cumulative - below);
        }
        (below, lower) = (cumulative, upper);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    #[test]
    fn quantiles_lie_inside_the_bucket_that_holds_them() {
        let opts = HistogramOpts::new("a", "a").buckets(vec![1.0, 2.0, 4.0]);
        let (a, b) =
            (Histogram::with_opts(opts.clone()).unwrap(), Histogram::with_opts(opts).unwrap());
        assert!(quantile(&[&a, &b], 0.5).abs() < 1e-9);
        for _ in 0..50 {
            a.observe(0.5);
            b.observe(3.0);
        }
        assert!((quantile(&[&a, &b], 0.25) - 0.5).abs() < 1e-9);
        assert!((quantile(&[&a, &b], 0.75) - 3.0).abs() < 1e-9);
        b.observe(9.0);
        assert!((quantile(&[&b], 1.0) - 4.0).abs() < 1e-9);
    }
}
