//! How many requests a route takes per second, from all callers together or from each of them.

mod keys;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use keys::{Found, KeyTable};

/// The most requests per second that can be told from no limit: one interval is 1 µs, a thousand steps of the clock.
pub const MOST_PER_SECOND: f64 = 1e6;

/// A limit shared by all workers: what its user writes holds for the process, however connections are spread.
///
/// Over any time `t`, each key is admitted at most `burst + rate × t` times. The rule is GCRA (ITU-T I.371), a token bucket
/// kept as one number: the time at which the bucket is full again. One compare-and-swap on one atomic decides, so no worker
/// waits for another. A bucket that needs a timer to refill, or two numbers under a lock, was rejected for that reason;
/// tables per worker with the rate divided, because one HTTP/2 connection lives on one worker and would get a quarter.
///
/// Keys are hashed with a secret of the process (SipHash): nobody outside can choose keys that meet in the table. The table
/// has a fixed size; see [`keys`] for what happens when it is full. Time comes in as `now`.
#[derive(Debug)]
pub struct RateLimiter {
    quota: Quota,
    /// Where time starts: buckets count nanoseconds from here.
    base: Instant,
    secret: RandomState,
    keys: Option<KeyTable>,
    /// The one bucket of a limit without keys; else that of keys for which the table has no place.
    shared: AtomicU64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Admitted,
    /// It does not; the same request would be admitted after `wait` if no other came before it.
    Limited {
        /// More than zero.
        wait: Duration,
    },
}

/// A verdict, and whether the key had a bucket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the request.
    pub verdict: Verdict,
    /// The key found no place in the table and shared a bucket with all others of that fate.
    pub overflow: bool,
}

impl RateLimiter {
    /// A limit whose buckets are full. `keys`: how many keys are told apart at once; `None` for one bucket in all.
    pub fn new(quota: Quota, keys: Option<NonZeroU32>, now: Instant) -> Self {
        Self {
            quota,
            base: now,
            secret: RandomState::new(),
            keys: keys.map(KeyTable::new),
            shared: AtomicU64::new(0),
        }
    }

    /// The key of these values, which are not kept. `["ab", "c"]` and `["a", "bc"]` are different keys.
    pub fn key<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        let mut hasher = self.secret.build_hasher();
        for value in values {
            hasher.write_usize(value.len());
            hasher.write(value);
        }
        hasher.finish()
    }

    /// Decides over one request of `key`, which a limit without keys ignores.
    pub fn take(&self, key: u64, now: Instant) -> Decision {
        let now = now.saturating_duration_since(self.base).as_nanos();
        // 2^64 ns are 584 years.
        let now = u64::try_from(now).unwrap_or(u64::MAX / 2);
        if let Some(keys) = &self.keys
            && let Found::Place(verdict) = keys.take(key, &self.quota, now)
        {
            return Decision { verdict, overflow: false };
        }
        let verdict = self.quota.take(&self.shared, now);
        Decision { verdict, overflow: self.keys.is_some() }
    }

    /// Bytes that the table of keys takes, whatever is in it.
    pub fn table_bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, KeyTable::bytes)
    }
}

/// How much, how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Nanoseconds in which one request is earned, rounded up: never more than the rate.
    interval: u64,
    /// How far the time at which a bucket is full may lie ahead for a request to be admitted still.
    tolerance: u64,
}

impl Quota {
    /// `per_second` requests for ever, `burst` at once. `None` unless `0 < per_second <= 10^6` and the bucket fills within
    /// a hundred years.
    pub fn new(per_second: f64, burst: NonZeroU32) -> Option<Self> {
        if !(per_second > 0.0 && per_second <= MOST_PER_SECOND) {
            return None;
        }
        let interval = Duration::try_from_secs_f64(1.0 / per_second).ok()?;
        let exact = interval.as_secs_f64() * per_second >= 1.0;
        let interval = u64::try_from(interval.as_nanos()).ok()? + u64::from(!exact);
        let tolerance = interval.checked_mul(u64::from(burst.get()) - 1)?;
        (tolerance.checked_add(interval)? < u64::MAX / 4).then_some(Self { interval, tolerance })
    }

    /// What a bucket that is full at `full` becomes with one more request; or how long it must wait.
    fn charge(&self, full: u64, now: u64) -> Result<u64, Duration> {
        let full = full.max(now);
        let ahead = full - now;
        if ahead > self.tolerance {
            return Err(Duration::from_nanos(ahead - self.tolerance));
        }
        Ok(full + self.interval)
    }

    /// Charges a bucket that nobody takes away.
    fn take(&self, bucket: &AtomicU64, now: u64) -> Verdict {
        let mut full = bucket.load(Ordering::Relaxed);
        loop {
            let next = match self.charge(full, now) {
                Ok(next) => next,
                Err(wait) => return Verdict::Limited { wait },
            };
            // The number is all there is: nothing else is published with it.
            match bucket.compare_exchange_weak(full, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Verdict::Admitted,
                Err(other) => full = other,
            }
        }
    }
}

#[cfg(test)]
mod tests;
