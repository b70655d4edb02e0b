//! How many retries an upstream may be sent, whatever fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::retry_floor::RetryFloor;

const BUCKETS: usize = 10;

/// Hides the error of binary fractions: 0.29 × 100 requests is 28.999… retries.
const ROUNDING: f64 = 1e-9;

/// Caps retries at `ratio` of recent requests plus a floor per second; one per upstream and worker.
///
/// A fixed number of attempts multiplies load exactly when the upstream is weakest: three attempts are three times the
/// load of an outage. A budget bounds the amplification instead: over any time `t`, and over all workers that share the floor,
///
/// `retries <= ratio × requests + floor × t + burst`, where `burst = max(1, floor)`.
///
/// Two purses. *Credit*, each worker's own: a request in the window earns `ratio`; what was spent in the window is taken
/// off. As spending leaves the window no earlier than what earned it, a request never pays twice. *Floor*, see
/// [`RetryFloor`]: so that an upstream with few requests can retry at all. Parts of both add up to a retry.
///
/// Credit needs nothing atomic: ratios of workers add up by themselves.
/// Source: Finagle `RetryBudget`, tower `TpsBudget` (which keeps the whole window's floor as its burst: 100 retries at
/// once with Linkerd's 10/s; we allow one second's). Invariant: neither purse is ever below 0.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    /// Retries earned by a request: 0.2 is one retry for five requests.
    ratio: f64,
    /// Pays what credit does not.
    floor: Arc<RetryFloor>,
    /// A tenth of the window.
    bucket: Duration,
    /// What happened in each tenth; `index` is the running one.
    buckets: [Bucket; BUCKETS],
    index: usize,
    /// When the running bucket ends.
    ends: Instant,
    /// Sums over the buckets that are over, so that a deposit touches one bucket only.
    past: Bucket,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    requests: u64,
    /// Credit spent, in retries.
    spent: f64,
}

impl RetryBudget {
    /// A budget with a floor of its own. `ratio` is 0 to 1; both count as 0 where negative or not finite.
    pub fn new(ratio: f64, floor_per_second: f64, window: Duration, now: Instant) -> Self {
        Self::sharing(ratio, Arc::new(RetryFloor::new(floor_per_second, now)), window, now)
    }

    /// A budget whose window is empty and whose floor other workers have, too. `window` is at least 10 ms.
    pub fn sharing(ratio: f64, floor: Arc<RetryFloor>, window: Duration, now: Instant) -> Self {
        let bucket = (window / 10).max(Duration::from_millis(1));
        Self {
            ratio: if ratio.is_finite() { ratio.max(0.0) } else { 0.0 },
            floor,
            bucket,
            buckets: [Bucket::default(); BUCKETS],
            index: 0,
            ends: now + bucket,
            past: Bucket::default(),
        }
    }

    /// True where it can never pay for anything.
    pub fn is_none(&self) -> bool {
        self.ratio <= 0.0 && self.floor.is_none()
    }

    /// Counts a request (not a retry): it earns `ratio` of a retry for the length of the window.
    pub fn deposit(&mut self, now: Instant) {
        self.roll(now);
        self.buckets[self.index].requests += 1;
    }

    /// Spends one retry. Returns `false`, and spends nothing, where less than one is left.
    pub fn try_withdraw(&mut self, now: Instant) -> bool {
        self.roll(now);
        let credit = self.credit().min(1.0);
        let missing = 1.0 - credit;
        if missing > ROUNDING && !self.floor.try_take(missing, now) {
            return false;
        }
        self.buckets[self.index].spent += credit;
        true
    }

    /// Spends one retry whether there is one or not. What is missing is owed: requests of the window earn that first.
    pub fn withdraw(&mut self, now: Instant) {
        if !self.try_withdraw(now) {
            self.buckets[self.index].spent += 1.0;
        }
    }

    /// Retries that could be spent now; fractional, never negative.
    pub fn available(&self, now: Instant) -> f64 {
        let mut rolled = self.clone();
        rolled.roll(now);
        rolled.credit() + self.floor.available(now)
    }

    fn credit(&self) -> f64 {
        let running = self.buckets[self.index];
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests in a window")]
        let requests = (self.past.requests + running.requests) as f64;
        (self.ratio * requests - self.past.spent - running.spent).max(0.0)
    }

    /// Starts the bucket that `now` falls into, forgetting those that have left the window.
    fn roll(&mut self, now: Instant) {
        if now < self.ends {
            return;
        }
        let late = now.saturating_duration_since(self.ends);
        let steps = (late.as_nanos() / self.bucket.as_nanos()).saturating_add(1);
        if steps >= BUCKETS as u128 {
            self.buckets = [Bucket::default(); BUCKETS];
            self.ends = now + self.bucket;
        } else {
            for _ in 0..steps {
                self.index = (self.index + 1) % BUCKETS;
                self.buckets[self.index] = Bucket::default();
                self.ends += self.bucket;
            }
        }
        self.past = self.buckets.iter().fold(Bucket::default(), |sum, bucket| Bucket {
            requests: sum.requests + bucket.requests,
            spent: sum.spent + bucket.spent,
        });
    }
}

#[cfg(test)]
mod tests;
