//! Chance: what arrives when, how long work takes, and what the policies draw.

use std::cell::RefCell;
use std::time::Duration;

use super::events::{SECOND, Time};
use super::faults::nanos;
use crate::base::rng::Rng;
use crate::config::ServiceTime;

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

/// Separate generators, so that two policies that are compared see the same requests arrive at the same moments.
#[derive(Debug)]
pub(super) struct Chance {
    /// When requests arrive, and at which sidecar.
    pub(super) arrivals: Rng,
    /// How long work takes, and which requests a fault hits.
    pub(super) work: Rng,
    /// What the policies draw.
    pub(super) policy: RefCell<Rng>,
}

impl Chance {
    pub(super) fn from_seed(seed: u64) -> Self {
        let mut seeds = Rng::from_seed(seed);
        Self {
            arrivals: Rng::from_seed(seeds.bits()),
            work: Rng::from_seed(seeds.bits()),
            policy: RefCell::new(Rng::from_seed(seeds.bits())),
        }
    }

    /// Until the next request, of `rate` per second: exponential, as those of many independent callers are.
    pub(super) fn pause(&mut self, rate: f64) -> Time {
        let mean = Duration::from_secs_f64((1.0 / rate).min(1e6));
        scaled(nanos(mean), -(1.0 - self.arrivals.fraction()).ln())
    }
}

/// A log-normal distribution, as service times are: no shorter than nothing, most near the median, a few far above.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogNormal {
    median: Time,
    sigma: f64,
}

impl LogNormal {
    pub(super) fn new(time: ServiceTime) -> Self {
        let ratio = time.p99.as_secs_f64() / time.median.as_secs_f64();
        Self { median: nanos(time.median), sigma: ratio.ln() / Z99 }
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> Time {
        if self.sigma <= 0.0 {
            return self.median;
        }
        // Box and Muller, one of the two.
        let radius = (-2.0 * (1.0 - rng.fraction()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.fraction()).cos();
        scaled(self.median, (self.sigma * normal).exp())
    }
}

/// `time` × `factor`, at most an hour.
pub(super) fn scaled(time: Time, factor: f64) -> Time {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below an hour, where nanoseconds are exact in 53 bits"
    )]
    let scaled = (time as f64 * factor).clamp(0.0, (3_600 * SECOND) as f64) as Time;
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_the_median_and_the_percentile_that_were_asked_for() {
        let millis = Duration::from_millis;
        let times = LogNormal::new(ServiceTime { median: millis(10), p99: millis(60) });
        let mut rng = Rng::from_seed(1);
        let mut drawn: Vec<Time> = (0..100_000).map(|_| times.draw(&mut rng)).collect();
        drawn.sort_unstable();
        let near = |found: Time, wanted: Time| found.abs_diff(wanted) * 50 < wanted;
        assert!(near(drawn[50_000], 10_000_000), "{}", drawn[50_000]);
        assert!(near(drawn[99_000], 60_000_000), "{}", drawn[99_000]);
    }

    #[test]
    fn a_constant_is_constant() {
        let time = ServiceTime { median: Duration::from_millis(5), p99: Duration::from_millis(5) };
        assert_eq!(LogNormal::new(time).draw(&mut Rng::from_seed(3)), 5_000_000);
    }

    #[test]
    fn requests_arrive_at_their_rate() {
        let mut chance = Chance::from_seed(7);
        let total: Time = (0..100_000).map(|_| chance.pause(200.0)).sum();
        assert!(total.abs_diff(500 * SECOND) < 5 * SECOND, "{total}");
    }
}
