//! How long a provider waits before it asks again after a failure.

use std::time::Duration;

use crate::base::rng::Rng;

/// The first wait is 1 s to 2 s; the upper bound doubles up to 30 s, the lower stays.
///
/// 1 s: a source that restarts is found again at once by the standards of whoever restarts it. 30 s: with a thousand
/// sidecars, some 65 questions per second reach a source that is down.
const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(30);

/// Uniform between 1 s and a bound that doubles with each miss from 2 s to 30 s. `misses`: failures in a row, at least 1.
pub(super) fn backoff(misses: u32, rng: &mut Rng) -> Duration {
    // Beyond 2^5 s the bound is MAX anyway.
    let bound = (MIN * (1 << misses.min(5))).min(MAX);
    MIN + rng.duration_up_to(bound.saturating_sub(MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_never_fall_below_a_second() {
        let mut rng = Rng::from_seed(1);
        for (misses, bound) in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (u32::MAX, 30)] {
            let waits: Vec<_> = (0..1_000).map(|_| backoff(misses, &mut rng)).collect();
            let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(
                *low >= MIN && *high <= Duration::from_secs(bound),
                "{misses}: {low:?} {high:?}"
            );
            assert!(*high > Duration::from_secs(bound).mul_f64(0.9), "{misses}: {high:?}");
        }
    }
}
