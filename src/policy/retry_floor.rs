//! Retries that need no traffic: the part of a retry budget that all workers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A purse that fills with `per_second` retries, up to one second's worth, but at least to one whole retry.
///
/// One for all workers. Divided between them it would either be too small to spend (3/s over four workers is 0.75 each, and
/// an upstream with hardly a request could never retry), or hold one whole retry at each, which is more than was promised.
/// It is touched only where a retry is to be paid and requests have not earned it, so that sharing costs a request nothing.
///
/// Held as the instant at which it was empty (the theoretical arrival time of GCRA, ITU-T I.371): one word, filled by the
/// passing of time, taken from by compare-and-swap. Invariant: over any time `t`, no more than `max(1, per_second) +
/// per_second × t` is taken, by however many workers.
#[derive(Debug)]
pub struct RetryFloor {
    /// When it was made, full.
    made: Instant,
    per_second: f64,
    /// How long it takes to fill; zero: it never holds anything.
    full: Duration,
    /// Nanoseconds from `made - full` to when it was empty.
    empty: AtomicU64,
}

impl RetryFloor {
    /// A full one. Nothing can be taken where `per_second` is below a millionth, or not finite.
    pub fn new(per_second: f64, now: Instant) -> Self {
        let fills = per_second.is_finite() && per_second >= 1e-6;
        let full = if fills {
            Duration::from_secs_f64((1.0 / per_second).max(1.0))
        } else {
            Duration::ZERO
        };
        let per_second = if fills { per_second } else { 0.0 };
        Self { made: now, per_second, full, empty: AtomicU64::new(0) }
    }

    /// True where there is never anything in it.
    pub fn is_none(&self) -> bool {
        self.full.is_zero()
    }

    /// What is in it, in retries.
    pub fn available(&self, now: Instant) -> f64 {
        let since = self.at(now).saturating_sub(self.empty.load(Ordering::Relaxed));
        Duration::from_nanos(since).min(self.full).as_secs_f64() * self.per_second
    }

    /// Takes `part` of a retry, `0.0..=1.0`. Returns `false`, and takes nothing, where less is in it.
    pub fn try_take(&self, part: f64, now: Instant) -> bool {
        if self.is_none() {
            return false;
        }
        let cost = nanos(Duration::from_secs_f64(part.clamp(0.0, 1.0) / self.per_second));
        let (now, full) = (self.at(now), nanos(self.full));
        // The order of other memory does not matter: this word is all that is shared.
        let taken = self.empty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty| {
            // One nanosecond over: three thirds of a second are not quite one.
            let emptied = empty.max(now.saturating_sub(full)) + cost;
            (emptied <= now + 1).then_some(emptied)
        });
        taken.is_ok()
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.made) + self.full)
    }
}

/// 584 years of them fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain(floor: &RetryFloor, now: Instant) -> usize {
        (0..).take_while(|_| floor.try_take(1.0, now)).count()
    }

    #[test]
    fn one_second_of_it_can_be_taken_at_once_and_fills_again() {
        let now = Instant::now();
        let floor = RetryFloor::new(3.0, now);
        assert_eq!(drain(&floor, now), 3);
        assert_eq!(drain(&floor, now + SECOND / 3), 1);
        assert_eq!(drain(&floor, now + SECOND * 2), 3);
        assert_eq!(drain(&floor, now + SECOND * 3600), 3);
    }

    #[test]
    fn a_slow_one_holds_one_whole_retry() {
        let now = Instant::now();
        let floor = RetryFloor::new(0.1, now);
        assert_eq!(drain(&floor, now), 1);
        assert_eq!(drain(&floor, now + SECOND * 9), 0);
        assert_eq!(drain(&floor, now + SECOND * 10), 1);
    }

    #[test]
    fn parts_add_up() {
        let now = Instant::now();
        let floor = RetryFloor::new(2.0, now);
        assert!(floor.try_take(0.5, now) && floor.try_take(0.75, now));
        assert!((floor.available(now) - 0.75).abs() < 1e-6);
        assert!(!floor.try_take(0.8, now) && floor.try_take(0.75, now));
        assert!(floor.available(now) < 1e-6);
    }

    #[test]
    fn senseless_rates_hold_nothing() {
        let now = Instant::now();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            let floor = RetryFloor::new(rate, now);
            assert!(floor.is_none() && !floor.try_take(0.0, now + SECOND * 3600), "{rate}");
            assert!(floor.available(now) < 1e-9);
        }
    }

    #[test]
    fn workers_that_take_at_once_get_no_more_than_there_is() {
        let now = Instant::now();
        for _ in 0..200 {
            let floor = RetryFloor::new(50.0, now);
            let taken: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&floor, now))).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).sum()
            });
            assert_eq!(taken, 50);
        }
    }

    /// Random walks: over any stretch no more is taken than it held and what came in since; what is in it stays between nothing and full.
    #[test]
    fn over_any_time_no_more_is_taken_than_was_promised() {
        for seed in 0..50 {
            let mut rng = crate::base::rng::Rng::from_seed(seed);
            let rate = [0.1, 0.5, 1.0, 3.0, 50.0][rng.below(5)];
            let (mut now, mut taken) = (Instant::now(), Vec::new());
            let floor = RetryFloor::new(rate, now);
            for _ in 0..400 {
                now += SECOND.mul_f64(rng.fraction() * 2.0 / rate * rng.fraction());
                let part = rng.fraction();
                if floor.try_take(part, now) {
                    taken.push((now, part));
                }
                let left = floor.available(now);
                assert!((0.0..=rate.max(1.0) + 1e-6).contains(&left), "seed {seed}: {left}");
            }
            for (from, (start, _)) in taken.iter().enumerate() {
                let mut sum = 0.0;
                for (at, part) in &taken[from..] {
                    sum += part;
                    let promised = rate.max(1.0) + rate * (*at - *start).as_secs_f64();
                    assert!(sum <= promised + 1e-6, "seed {seed}: {sum} of {promised}");
                }
            }
        }
    }
}
