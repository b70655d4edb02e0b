//! Client-side throttling: send no more than a multiple of what the upstream accepts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::window::Window;
use crate::base::rng::Rng;

/// How long requests and acceptances are remembered.
pub const WINDOW: Duration = Duration::from_secs(120);

/// The most that is refused. The book's formula comes near to 1 in an outage: then too little is sent to notice its end.
pub const MOST: f64 = 0.9;

/// How long nothing must be turned away before the throttling ends.
const QUIET: Duration = Duration::from_millis(500);

/// Requests that were wanted, and those that the upstream accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Attempts that ended with a word of the upstream, and those that were refused here.
    pub wanted: u64,
    /// Attempts that were sent and ended.
    pub sent: u64,
    /// Those of them that the upstream accepted.
    pub accepted: u64,
}

/// The rule; one per upstream, run by the control thread at each of its ticks.
///
/// An upstream that is short of capacity spends what it has on turning requests away. So refuse here, with the probability
///
/// `max(0, (wanted − k × accepted) / (wanted + 1))`, at most 0.9,
///
/// over the last two minutes. Nothing is refused while at least `1 / k` of the requests are accepted. Above that the
/// upstream is sent `k` times what it accepts: with `k = 2` as many are turned away as accepted, so that it is noticed
/// at once when more could be. What is refused here counts as wanted, or the probability would forget the demand.
///
/// *Accepted* is every answer but "too much" and "not now" (429, 503, gRPC RESOURCE_EXHAUSTED and UNAVAILABLE); no
/// answer at all (no connection, reset, timeout) is none. Callers that leave count nowhere.
///
/// Two minutes of an outage would keep throttling for two minutes after its end. Hence, unlike the book: when nothing was
/// turned away for half a second and ten requests (for `k = 2`; in general so many that, at one in `k` accepted, it
/// happens once in a thousand times), the past is forgotten. In an overload that does not happen, as `k` times too much is
/// sent. And the probability ends at 0.9: a tenth of the traffic is enough to notice.
///
/// Source: *Site Reliability Engineering*, chapter 21, "Client-Side Throttling" (k = 2, two minutes); the upper bound
/// as in Envoy's admission control (0.8). Invariant: `0.0 <= probability <= 0.9`.
#[derive(Debug)]
pub struct Throttle {
    /// 1 and more.
    k: f64,
    window: Window<2>,
    /// What is in the window already.
    counted: Demand,
    /// Accepted in a row, and since when nothing was turned away.
    streak: u64,
    quiet_since: Instant,
    /// How long a streak tells of recovery.
    enough: u64,
    probability: f64,
}

impl Throttle {
    /// Nothing known, nothing refused.
    pub fn new(k: f64, now: Instant) -> Self {
        let k = if k.is_finite() { k.max(1.0) } else { 1.0 };
        Self {
            k,
            window: Window::new(WINDOW, now),
            counted: Demand::default(),
            streak: 0,
            quiet_since: now,
            enough: enough(k),
            probability: 0.0,
        }
    }

    /// Looks at what was counted since ever, at `now`; returns the probability of refusing.
    pub fn tick(&mut self, seen: Demand, now: Instant) -> f64 {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let (wanted, sent, accepted) = (
            since(seen.wanted, self.counted.wanted),
            since(seen.sent, self.counted.sent),
            since(seen.accepted, self.counted.accepted),
        );
        self.counted = seen;
        self.window.add([wanted, accepted], now);
        if sent > accepted {
            (self.streak, self.quiet_since) = (0, now);
        } else {
            self.streak += accepted;
        }
        let quiet = now.saturating_duration_since(self.quiet_since) >= QUIET;
        if self.probability > 0.0 && quiet && self.streak >= self.enough {
            self.window.clear();
        }
        let [wanted, accepted] = self.window.sum();
        self.probability = refused_share(wanted, accepted, self.k);
        self.probability
    }

    /// The share that is refused, as of the last tick.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// What the window holds: wanted, accepted.
    pub fn demand(&self) -> (u64, u64) {
        let [wanted, accepted] = self.window.sum();
        (wanted, accepted)
    }
}

/// How many accepted in a row tell of recovery: by chance that happens once in a thousand times.
fn enough(k: f64) -> u64 {
    let (mut count, mut odds) = (0, 1.0);
    while odds < 1_000.0 && count < 100 {
        (count, odds) = (count + 1, odds * k);
    }
    count
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests in a window")]
fn refused_share(wanted: u64, accepted: u64, k: f64) -> f64 {
    let surplus = wanted as f64 - k * accepted as f64;
    (surplus / (wanted as f64 + 1.0)).clamp(0.0, MOST)
}

/// What workers have of it: the probability, and where requests are counted. All orderings are `Relaxed`.
#[derive(Debug, Default)]
pub struct Odds {
    /// In units of 1 / 2^32; 0: everything passes.
    refused: AtomicU32,
    wanted: AtomicU64,
    sent: AtomicU64,
    accepted: AtomicU64,
}

impl Odds {
    /// True where this request is to be refused; it is counted then. Draws a number only where some are.
    pub fn refuses(&self, rng: &mut Rng) -> bool {
        let odds = self.refused.load(Ordering::Relaxed);
        let refused = odds > 0 && rng.bits() >> 32 < u64::from(odds);
        if refused {
            self.wanted.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// Counts an attempt that was sent and has ended.
    pub fn settle(&self, accepted: bool) {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
        if accepted {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has been counted since ever.
    pub fn seen(&self) -> Demand {
        Demand {
            wanted: self.wanted.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
        }
    }

    /// Makes a probability known.
    pub fn publish(&self, probability: f64) {
        let units = probability.clamp(0.0, 1.0) * f64::from(u32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=u32::MAX"
        )]
        self.refused.store(units as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    #[test]
    fn the_probability_follows_the_documented_table() {
        for (wanted, accepted, k, expected) in [
            (0, 0, 2.0, 0.0),
            (100, 100, 2.0, 0.0),
            (100, 50, 2.0, 0.0),
            (1_000, 333, 2.0, 0.333_67),
            (1_000, 100, 2.0, 0.799_2),
            (1_000, 0, 2.0, 0.9),
            (1, 0, 2.0, 0.5),
            (1_000, 333, 1.1, 0.633_07),
        ] {
            let share = refused_share(wanted, accepted, k);
            assert!((share - expected).abs() < 1e-5, "{wanted} {accepted} {k}: {share}");
        }
    }

    /// A throttle as the control thread and workers hold it, before an upstream of a certain capacity.
    struct Bench {
        throttle: Throttle,
        odds: Odds,
        rng: Rng,
        now: Instant,
    }

    impl Bench {
        fn new(k: f64) -> Self {
            let now = Instant::now();
            let rng = Rng::from_seed(1);
            Self { throttle: Throttle::new(k, now), odds: Odds::default(), rng, now }
        }

        /// Offers so many in each tick, of which the upstream accepts `capacity`. Returns what was sent and accepted.
        fn run(&mut self, ticks: u32, offered: u32, capacity: u32) -> (u32, u32) {
            let (mut all_sent, mut all_accepted) = (0, 0);
            for _ in 0..ticks {
                let mut sent = 0;
                for _ in 0..offered {
                    if !self.odds.refuses(&mut self.rng) {
                        self.odds.settle(sent < capacity);
                        sent += 1;
                    }
                }
                all_sent += sent;
                all_accepted += sent.min(capacity);
                self.now += TICK;
                let probability = self.throttle.tick(self.odds.seen(), self.now);
                assert!((0.0..=MOST).contains(&probability), "{probability}");
                self.odds.publish(probability);
            }
            (all_sent, all_accepted)
        }
    }

    #[test]
    fn an_overloaded_upstream_is_sent_k_times_what_it_accepts() {
        for k in [1.5, 2.0, 3.0] {
            let mut bench = Bench::new(k);
            bench.run(2_400, 100, 20);
            let (sent, accepted) = bench.run(2_400, 100, 20);
            let times = f64::from(sent) / f64::from(accepted);
            assert!((times - k).abs() < 0.1, "{times} for k = {k}");
            assert!(accepted > 2_400 * 20 * 97 / 100, "its capacity is used: {accepted}");
        }
    }

    #[test]
    fn a_healthy_upstream_is_never_throttled() {
        let mut bench = Bench::new(2.0);
        assert_eq!(bench.run(4_000, 10, 10), (40_000, 40_000));
    }

    #[test]
    fn after_an_outage_all_is_sent_again_within_two_seconds() {
        let mut bench = Bench::new(2.0);
        bench.run(100, 10, 10);
        bench.run(2_400, 10, 0);
        let (sent, _) = bench.run(100, 10, 0);
        assert!((50..200).contains(&sent), "a tenth finds out: {sent}");
        bench.run(40, 10, 10);
        assert_eq!(bench.run(100, 10, 10), (1_000, 1_000));
    }

    #[test]
    fn the_smaller_k_the_longer_the_streak_that_tells_of_recovery() {
        assert_eq!([1.0, 1.1, 1.5, 2.0, 10.0].map(enough), [100, 73, 18, 10, 3]);
    }

    #[test]
    fn random_walks_keep_the_probability_within_bounds() {
        for seed in 0..100 {
            let mut rng = Rng::from_seed(seed);
            let mut bench = Bench::new(1.0 + rng.fraction() * 9.0);
            for _ in 0..50 {
                let offered = u32::try_from(rng.below(50)).unwrap();
                let capacity = u32::try_from(rng.below(50)).unwrap();
                bench.run(1 + u32::try_from(rng.below(30)).unwrap(), offered, capacity);
            }
        }
    }
}
