//! Counts over the last so many seconds, in ten steps.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: usize = 10;

/// A sliding window of `N` counts: ten buckets, of which the oldest leaves as a whole.
///
/// What was added counts for nine to ten tenths of the window's length. Ten buckets cost one addition per count whatever
/// the traffic, where a list of the requests themselves would grow with it (Hystrix, resilience4j and Linkerd's
/// `success_rate` use ten as well). Owned by one thread.
#[derive(Debug, Clone)]
pub struct Window<const N: usize> {
    bucket: Duration,
    buckets: [[u64; N]; BUCKETS],
    index: usize,
    /// When the running bucket ends.
    ends: Instant,
}

impl<const N: usize> Window<N> {
    /// An empty window of `length`, at least 10 ms.
    pub fn new(length: Duration, now: Instant) -> Self {
        let bucket = (length / 10).max(Duration::from_millis(1));
        Self { bucket, buckets: [[0; N]; BUCKETS], index: 0, ends: now + bucket }
    }

    /// Adds what has happened up to `now`.
    pub fn add(&mut self, counts: [u64; N], now: Instant) {
        self.roll(now);
        for (sum, count) in self.buckets[self.index].iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
    }

    /// What the window holds; as of the last [`Window::add`].
    pub fn sum(&self) -> [u64; N] {
        let mut sum = [0; N];
        for bucket in &self.buckets {
            for (sum, count) in sum.iter_mut().zip(bucket) {
                *sum += count;
            }
        }
        sum
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [[0; N]; BUCKETS];
    }

    fn roll(&mut self, now: Instant) {
        if now < self.ends {
            return;
        }
        let late = now.saturating_duration_since(self.ends);
        let steps = (late.as_nanos() / self.bucket.as_nanos()).saturating_add(1);
        if steps >= BUCKETS as u128 {
            self.clear();
            self.ends = now + self.bucket;
            return;
        }
        for _ in 0..steps {
            self.index = (self.index + 1) % BUCKETS;
            self.buckets[self.index] = [0; N];
            self.ends += self.bucket;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn what_was_added_leaves_after_nine_to_ten_tenths() {
        let start = Instant::now();
        let mut window = Window::<2>::new(Duration::from_secs(10), start);
        window.add([3, 1], start + Duration::from_millis(300));
        window.add([0, 0], start + Duration::from_millis(9_999));
        assert_eq!(window.sum(), [3, 1]);
        window.add([0, 0], start + Duration::from_secs(10));
        assert_eq!(window.sum(), [0, 0]);
    }

    #[test]
    fn it_holds_no_less_than_nine_tenths_and_no_more_than_the_whole() {
        for seed in 0..50 {
            let mut rng = Rng::from_seed(seed);
            let start = Instant::now();
            let length = Duration::from_millis(10 * (1 + rng.below(200) as u64));
            let mut window = Window::<1>::new(length, start);
            let mut all: Vec<(Instant, u64)> = Vec::new();
            let mut now = start;
            for _ in 0..400 {
                now += rng.duration_up_to(length / 4);
                let count = rng.below(5) as u64;
                window.add([count], now);
                all.push((now, count));
                let within = |age: Duration| -> u64 {
                    all.iter().filter(|(at, _)| now - *at < age).map(|(_, count)| count).sum()
                };
                let [sum] = window.sum();
                assert!(within(length / 10 * 9) <= sum && sum <= within(length), "seed {seed}");
            }
        }
    }
}
