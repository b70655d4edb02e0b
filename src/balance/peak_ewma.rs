//! The better of two random endpoints by latency and load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::candidates::Candidates;
use super::two_choices;
use crate::base::rng::Rng;

/// What an endpoint is thought to take before it was ever asked: Finagle's and Linkerd's 30 ms.
const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// How fast the past is forgotten: after 10 s without a peak an estimate has come 63 % of the way to what is seen.
const DECAY_MILLIS: f64 = 10_000.0;

/// The less loaded of two endpoints, where load is `latency estimate × (requests in flight per weight + 1)`.
///
/// Two choices instead of the minimum over all: nearly as even (maximum load `ln ln n`, Mitzenmacher 2001), O(1), and
/// without the stampede of many proxies that see the same minimum. Latency in it moves load off an endpoint whose
/// requests take long before any fails.
pub(super) fn pick(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    let members = candidates.set.members();
    two_choices::pick(candidates, rng, |index| {
        members[index].endpoint.latency_nanos(candidates.now) * (candidates.load(index) + 1.0)
    })
}

/// A peak-sensitive moving average of latencies, shared by all workers.
///
/// A latency above the estimate replaces it at once: trouble is believed immediately. One below pulls it down by the
/// weight `1 − e^(−elapsed/10 s)`: recovery is believed slowly. Between observations a *reader* sees the estimate decay
/// towards 0, so that an endpoint which was shunned is tried again without a timer.
/// Source: Finagle `PeakEwma.scala`, tower `load/peak_ewma.rs`.
///
/// Estimate and time are one 64-bit word (`f32` nanoseconds, and milliseconds since `origin`), replaced by
/// compare-and-swap: no update is lost, and no reader sees the estimate of one update with the time of another. Workers
/// read their clocks before they get here, so an update may carry an earlier time than the one in place; elapsed time
/// then counts as 0, which at worst keeps an estimate a moment longer. `Relaxed`: no other memory hangs on it.
#[derive(Debug)]
pub(super) struct PeakEwma {
    origin: Instant,
    word: AtomicU64,
}

impl PeakEwma {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, word: AtomicU64::new(pack(nanos(DEFAULT_RTT), 0)) }
    }

    /// Takes in a latency.
    pub(super) fn observe(&self, latency: Duration, now: Instant) {
        let (seen, now) = (nanos(latency), self.ticks(now));
        let _previous = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (estimate, then) = unpack(word);
            let elapsed = elapsed_ticks(then, now);
            let next = if seen >= estimate {
                seen
            } else {
                let kept = decay(elapsed);
                estimate * kept + seen * (1.0 - kept)
            };
            Some(pack(next, then.wrapping_add(elapsed)))
        });
    }

    /// Takes in a latency that is known to be at least this: it may raise the estimate, never lower it.
    pub(super) fn observe_at_least(&self, latency: Duration, now: Instant) {
        if nanos(latency) > self.read(now) {
            self.observe(latency, now);
        }
    }

    /// Takes a latency for all that is known.
    pub(super) fn restart(&self, latency: Duration, now: Instant) {
        self.word.store(pack(nanos(latency), self.ticks(now)), Ordering::Relaxed);
    }

    /// The estimate in nanoseconds, decayed to `now`.
    pub(super) fn read(&self, now: Instant) -> f64 {
        let (estimate, then) = unpack(self.word.load(Ordering::Relaxed));
        estimate * decay(elapsed_ticks(then, self.ticks(now)))
    }

    /// Milliseconds since `origin`, modulo 2^32 (50 days).
    fn ticks(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.origin);
        let millis =
            since.as_secs().wrapping_mul(1000).wrapping_add(u64::from(since.subsec_millis()));
        low_half(millis)
    }
}

/// Milliseconds from `then` to `now`; 0 where `then` is later (or more than 24 days ago, which looks the same).
fn elapsed_ticks(then: u32, now: u32) -> u32 {
    let elapsed = now.wrapping_sub(then);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

fn decay(elapsed: u32) -> f64 {
    if elapsed == 0 { 1.0 } else { (-f64::from(elapsed) / DECAY_MILLIS).exp() }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn pack(estimate: f64, ticks: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "24 bits are enough for an estimate")]
    let estimate = estimate as f32;
    u64::from(estimate.to_bits()) << 32 | u64::from(ticks)
}

fn unpack(word: u64) -> (f64, u32) {
    (f64::from(f32::from_bits(low_half(word >> 32))), low_half(word))
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low_half(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn near(actual: f64, expected: Duration) -> bool {
        (actual / nanos(expected) - 1.0).abs() < 1e-3
    }

    #[test]
    fn a_peak_counts_at_once_and_recovery_takes_its_time() {
        let start = Instant::now();
        let ewma = PeakEwma::new(start);
        assert!(near(ewma.read(start), 30 * MS));
        ewma.observe(800 * MS, start);
        assert!(near(ewma.read(start), 800 * MS));
        ewma.observe(10 * MS, start + SECOND);
        // 800 × e^-0.1 + 10 × (1 − e^-0.1)
        assert!(near(ewma.read(start + SECOND), Duration::from_micros(724_822)));
    }

    #[test]
    fn an_unused_estimate_decays_so_that_the_endpoint_is_tried_again() {
        let start = Instant::now();
        let ewma = PeakEwma::new(start);
        ewma.observe(5 * SECOND, start);
        assert!(near(ewma.read(start + 10 * SECOND), Duration::from_micros(1_839_397)));
        assert!(ewma.read(start + 60 * SECOND) < nanos(30 * MS));
    }

    #[test]
    fn many_small_steps_decay_as_much_as_one_large() {
        let start = Instant::now();
        let (often, once) = (PeakEwma::new(start), PeakEwma::new(start));
        often.observe(SECOND, start);
        once.observe(SECOND, start);
        for step in 1..=25_000_u32 {
            often.observe(Duration::ZERO, start + Duration::from_micros(400) * step);
        }
        once.observe(Duration::ZERO, start + 10 * SECOND);
        let at = start + 10 * SECOND;
        assert!((often.read(at) / once.read(at) - 1.0).abs() < 1e-2);
    }

    #[test]
    fn an_earlier_now_neither_decays_nor_rewinds() {
        let start = Instant::now();
        let ewma = PeakEwma::new(start);
        ewma.observe(SECOND, start + 5 * SECOND);
        ewma.observe(MS, start);
        assert!(near(ewma.read(start), SECOND));
        assert!(near(ewma.read(start + 5 * SECOND), SECOND));
    }

    #[test]
    fn a_lower_bound_never_lowers_the_estimate() {
        let start = Instant::now();
        let ewma = PeakEwma::new(start);
        ewma.observe_at_least(MS, start + SECOND);
        assert!(near(ewma.read(start), 30 * MS));
        ewma.observe_at_least(SECOND, start + SECOND);
        assert!(near(ewma.read(start + SECOND), SECOND));
    }

    #[test]
    fn the_clock_survives_its_wrap_after_fifty_days() {
        let start = Instant::now();
        let ewma = PeakEwma::new(start);
        let wrap = Duration::from_millis(u64::from(u32::MAX));
        let day = 24 * 3600 * SECOND;
        for days in 1..60 {
            ewma.observe(SECOND, start + day * days);
        }
        ewma.observe(SECOND, start + wrap.max(day * 60));
        assert!(near(ewma.read(start + day * 60), SECOND));
        assert!(ewma.read(start + day * 60 + 100 * SECOND) < nanos(MS));
    }
}
