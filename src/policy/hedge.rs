//! When a second attempt is raced against a slow first one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::units::Ratio;

/// Latencies are told apart by an eighth of a power of two: an estimate is at most 12.5 % too high, and never too low.
const STEPS: u64 = 8;
/// The finest latency that is told apart: 2^6 µs, far below what a timer can wait for.
const FINEST: u32 = 6;
/// 2^27 µs are 134 s; what took longer counts as that.
const COARSEST: u32 = 27;
const BUCKETS: usize = 168;

/// Latencies of the last one to two windows count: enough for a rank at 50 requests per second, and a change shows within seconds.
const WINDOW: Duration = Duration::from_secs(10);

/// How often the percentile is looked up anew. In between, it costs one load.
const REFRESH: Duration = Duration::from_millis(100);

/// So many must lie beyond the percentile before it is believed: 100 samples for p95, 500 for p99.
const BEYOND: f64 = 5.0;

/// No timer is finer, and a first attempt that is so young is not slow.
const LEAST: Duration = Duration::from_millis(1);

/// How long the first attempt is waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After {
    /// Always this long.
    Fixed(Duration),
    /// As long as this share of first attempts takes: `p95` hedges about one request in twenty.
    Percentile(Ratio),
}

/// The hedging of a route, shared by all workers.
///
/// A request whose first attempt takes unusually long is sent a second time, to another endpoint, and the first good answer
/// wins; the other is cancelled. That cuts the tail which single slow endpoints cause, at the price of some more requests: at
/// most one for each, none that could do harm twice ([`super::retry::idempotent`]), none that the retry budget does not pay for. Source: Dean and
/// Barroso, "The Tail at Scale" (2013), "hedged requests"; gRFC A6.
///
/// The percentile is of first attempts. One that is cancelled because the second won counts with its time so far, which is
/// beyond the percentile; leaving it out would let each hedge lower the percentile, and so hedge more.
#[derive(Debug)]
pub struct Hedge {
    after: After,
    latencies: Option<Latencies>,
}

impl Hedge {
    /// Hedging that has seen nothing yet.
    pub fn new(after: After, now: Instant) -> Self {
        let latencies = matches!(after, After::Percentile(_)).then(|| Latencies::new(now));
        Self { after, latencies }
    }

    /// Its setting.
    pub fn after(&self) -> After {
        self.after
    }

    /// How long to wait for the first attempt; `None` while too few were seen to say what is slow.
    pub fn delay(&self, now: Instant) -> Option<Duration> {
        match (self.after, &self.latencies) {
            (After::Percentile(share), Some(latencies)) => {
                latencies.percentile(share.fraction(), now).map(|delay| delay.max(LEAST))
            }
            (After::Fixed(delay), _) => Some(delay),
            (After::Percentile(_), None) => None,
        }
    }

    /// Learns what a first attempt took, or has taken when it was cancelled.
    pub fn record(&self, took: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies.record(took);
        }
    }
}

/// A histogram of the last seconds, written by all workers without locks.
///
/// Two generations of buckets: one that is written, and the one before. A count that is made while they change places may
/// be lost; an estimate does not notice. P² was rejected: its five markers need several numbers to change together, and it never forgets.
#[derive(Debug)]
struct Latencies {
    base: Instant,
    /// Nanoseconds from `base` at which the percentile is looked up anew.
    refresh: AtomicU64,
    /// Nanoseconds; 0: not known.
    cached: AtomicU64,
    /// Number of the window that is written.
    window: AtomicU64,
    running: Box<[AtomicU32]>,
    before: Box<[AtomicU32]>,
}

impl Latencies {
    fn new(base: Instant) -> Self {
        let buckets = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self {
            base,
            refresh: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            window: AtomicU64::new(0),
            running: buckets(),
            before: buckets(),
        }
    }

    fn record(&self, took: Duration) {
        self.running[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn percentile(&self, share: f64, now: Instant) -> Option<Duration> {
        let now = now.saturating_duration_since(self.base).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX / 2);
        let due = self.refresh.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(REFRESH));
        let refresh = now >= due
            && self
                .refresh
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if refresh {
            self.turn(now / nanos(WINDOW));
            let found = self.look_up(share).map_or(0, nanos);
            self.cached.store(found, Ordering::Relaxed);
        }
        let cached = self.cached.load(Ordering::Relaxed);
        (cached > 0).then(|| Duration::from_nanos(cached))
    }

    /// Forgets what has left the window.
    fn turn(&self, window: u64) {
        let last = self.window.swap(window, Ordering::Relaxed);
        if window == last {
            return;
        }
        for (running, before) in self.running.iter().zip(&self.before) {
            let count = running.swap(0, Ordering::Relaxed);
            before.store(if window == last + 1 { count } else { 0 }, Ordering::Relaxed);
        }
    }

    /// The upper end of the bucket in which the percentile lies.
    fn look_up(&self, share: f64) -> Option<Duration> {
        let counts = || {
            let pairs = self.running.iter().zip(&self.before);
            pairs.map(|(a, b)| {
                u64::from(a.load(Ordering::Relaxed)) + u64::from(b.load(Ordering::Relaxed))
            })
        };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
        let all = counts().sum::<u64>() as f64;
        if all * (1.0 - share) < BEYOND - 1e-9 {
            return None;
        }
        let rank = all * share;
        let mut below = 0.0;
        for (index, count) in counts().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
            let count = count as f64;
            below += count;
            if below >= rank && count > 0.0 {
                return Some(upper_end(index));
            }
        }
        None
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.clamp(1 << FINEST, (1 << COARSEST) - 1);
    let power = micros.ilog2();
    let step = (micros >> (power - STEPS.ilog2())) % STEPS;
    let index = u64::from(power - FINEST) * STEPS + step;
    usize::try_from(index).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

fn upper_end(index: usize) -> Duration {
    let index = index as u64;
    let power = index / STEPS + u64::from(FINEST);
    let micros = (STEPS + index % STEPS + 1) << (power - u64::from(STEPS.ilog2()));
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests;
