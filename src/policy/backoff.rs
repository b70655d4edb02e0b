//! How long to wait before a retry.

use std::time::Duration;

use crate::base::rng::Rng;

/// Exponential backoff with full jitter: uniform in `[0, min(max, first × 2^(n−1)))` before the n-th retry.
///
/// Full jitter rather than a fixed or half-jittered wait, because requests that failed together would otherwise return
/// together; among the usual forms it needs the fewest attempts in all under contention (Brooker, "Exponential Backoff
/// And Jitter", AWS Architecture Blog 2015). Defaults (25 ms..250 ms) are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound of every wait.
    pub max: Duration,
}

impl Backoff {
    /// The longest wait before retry number `retry`, where the first retry is 1.
    pub fn bound(&self, retry: u32) -> Duration {
        let doublings = retry.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }

    /// The wait before retry number `retry`, where the first retry is 1.
    pub fn wait(&self, retry: u32, rng: &mut Rng) -> Duration {
        rng.duration_up_to(self.bound(retry))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let bounds: Vec<_> = (1..=6).map(|retry| Backoff::default().bound(retry)).collect();
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250].map(MS));
    }

    #[test]
    fn extreme_numbers_neither_overflow_nor_exceed_the_maximum() {
        let backoff = Backoff { first: Duration::MAX, max: MS(7) };
        for retry in [0, 1, 32, 33, u32::MAX] {
            assert_eq!(backoff.bound(retry), MS(7));
        }
    }

    #[test]
    fn waits_fill_the_whole_range_evenly() {
        let mut rng = Rng::from_seed(7);
        let backoff = Backoff { first: MS(100), max: MS(100) };
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let wait = backoff.wait(1, &mut rng);
            assert!(wait <= MS(100));
            tenths[usize::try_from(wait.as_millis() / 10).unwrap().min(9)] += 1;
        }
        assert!(tenths.iter().all(|&count| (850..1150).contains(&count)), "{tenths:?}");
    }
}
