//! Adaptive concurrency: how many requests at once an upstream takes before it only lets them wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The limit of the start: enough to learn from, too little to hurt.
pub const FIRST: u32 = 20;

/// The least: one in service, one on its way, one spare. With fewer, one slow request would hide the latency of all others.
pub const LEAST: u32 = 3;

/// The most, as the default of `limits.in_flight`.
pub const MOST: u32 = 1_024;

/// The limit is looked at no more often than this.
const WINDOW: Duration = Duration::from_millis(100);

/// And not before so many requests have ended.
const SAMPLES: u64 = 10;

/// Latency may be this many times the normal one before the limit shrinks: noise is no queue.
const TOLERANCE: f64 = 1.5;

/// One refusal in so many answers is more than single endpoints or single callers explain.
const TOO_MUCH: u64 = 10;

/// How much of each new limit is taken over.
const SMOOTHING: f64 = 0.2;

/// How fast the normal latency follows the present one: most of a step within a minute.
const LEARNING: Duration = Duration::from_secs(60);

/// Windows whose plain mean the normal latency begins with.
const WARM_UP: u32 = 10;

/// How long the limit may be in full use before the latency is looked at with a third of it.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// The longest that such a look takes.
const LOOK_ENDS: Duration = Duration::from_secs(2);

/// Attempts that have ended, since ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    /// Those whose latency tells of load: answers that are no failure, and timeouts.
    pub requests: u64,
    /// Their latencies together, in ns.
    pub nanos: u64,
    /// Answers that say "too much" or "not now" (429, 503, gRPC RESOURCE_EXHAUSTED, UNAVAILABLE).
    pub refused: u64,
}

impl Latencies {
    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            nanos: self.nanos.saturating_sub(before.nanos),
            refused: self.refused.saturating_sub(before.refused),
        }
    }

    /// Mean latency in ns; `None` where nothing has ended.
    fn mean(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an average of ns needs no 64 bits")]
        let mean = || self.nanos as f64 / self.requests as f64;
        (self.requests > 0).then(mean)
    }
}

/// The rule; one per upstream, run by the control thread at each of its ticks.
///
/// As long as an upstream has a free slot, more requests at once mean more throughput at the same latency; beyond that they
/// wait inside it, and latency grows with them. So the ratio of normal to present latency says how much of the
/// present concurrency is queue. Each window (100 ms, and at least 10 requests)
///
/// `limit ← 0.8 × limit + 0.2 × (limit × gradient + √limit)`, `gradient = min(1, max(1/2, 1.5 × normal / present))`.
///
/// With the gradient at 1 the limit grows, by `0.2 × √limit`; it rests where the requests that wait are about a third of
/// it. Nothing changes while less than half of the limit is in use: such latencies say nothing about more. A window in
/// which a tenth of the answers or more say "too much" or "not now" shrinks the limit by 2 %, whatever the latency.
///
/// The *normal* latency is a moving average over a minute in which the limit was not in full use. In an overload that
/// lasts, Gradient2's average takes the queue for normal in the end, and the limit drifts up for ever. Hence, unlike
/// there: after 10 s of full use a third of the limit holds for a moment, the queue runs empty, and what is measured then
/// is the normal latency. (BBR does the same with its window, to find the round trip without queues.) That costs some
/// 1 % of the throughput.
///
/// Source: Netflix concurrency-limits, `Gradient2Limit` (tolerance 1.5, smoothing 0.2); √limit as in its
/// `GradientLimit` and in Envoy's adaptive concurrency, as a constant 4 is too much for small upstreams and too little for
/// large ones. Invariant: `3 <= limit <= 1024`, and a third of it in a look.
#[derive(Debug)]
pub struct Gradient {
    limit: f64,
    /// In ns; 0: not known yet.
    normal: f64,
    /// Windows that `normal` is made of, up to `WARM_UP`.
    learned: u32,
    /// What was counted when the running window began, and when that was.
    before: Latencies,
    began: Instant,
    /// The most requests at once that a tick of this window has seen.
    most: u32,
    /// Since when the limit is in use without a break, and without a look.
    busy_since: Instant,
    look: Option<Look>,
}

/// A third of the limit holds.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Until the requests of before have ended.
    Empties { since: Instant, until: Instant },
    /// And measured.
    Measures { since: Instant },
}

impl Gradient {
    /// Nothing known: the first limit.
    pub fn new(now: Instant) -> Self {
        Self {
            limit: f64::from(FIRST),
            normal: 0.0,
            learned: 0,
            before: Latencies::default(),
            began: now,
            most: 0,
            busy_since: now,
            look: None,
        }
    }

    /// How many may be under way at once.
    pub fn limit(&self) -> u32 {
        let limit = if self.look.is_some() { self.limit / 3.0 } else { self.limit };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1024")]
        let limit = limit.clamp(1.0, f64::from(MOST)) as u32;
        limit
    }

    /// The latency without a queue, as far as it is known.
    pub fn normal_latency(&self) -> Duration {
        Duration::from_secs_f64(self.normal / 1e9)
    }

    /// Looks at what was counted since ever, with so many requests under way, at `now`; returns the limit.
    pub fn tick(&mut self, seen: Latencies, in_flight: u32, now: Instant) -> u32 {
        self.most = self.most.max(in_flight);
        if let Some(look) = self.look {
            self.look_on(look, seen, now);
            return self.limit();
        }
        let window = seen.since(self.before);
        let elapsed = now.saturating_duration_since(self.began);
        let ended = window.requests + window.refused;
        if elapsed < WINDOW || ended < SAMPLES {
            return self.limit();
        }
        let full = f64::from(self.most) >= self.limit / 2.0;
        if !full {
            self.busy_since = now;
        }
        let present = window.mean();
        if let Some(present) = present {
            self.learn(present, elapsed, full);
        }
        if window.refused * TOO_MUCH >= ended {
            self.set(self.limit * (1.0 - SMOOTHING / 10.0));
        } else if let Some(present) = present.filter(|_| full) {
            let gradient = (TOLERANCE * self.normal / present.max(1.0)).clamp(0.5, 1.0);
            let wanted = self.limit * gradient + self.limit.sqrt();
            self.set(self.limit + SMOOTHING * (wanted - self.limit));
        }
        self.start_window(seen, now);
        if now.saturating_duration_since(self.busy_since) >= LOOK_AFTER {
            // By then those of before have ended, and so have the first that found the shorter queue.
            let empties = Duration::from_secs_f64(present.unwrap_or_default() / 1e9);
            let until = now + empties.clamp(WINDOW, LOOK_ENDS / 2);
            self.look = Some(Look::Empties { since: now, until });
        }
        self.limit()
    }

    fn look_on(&mut self, look: Look, seen: Latencies, now: Instant) {
        let (since, measures) = match look {
            Look::Empties { since, until } if now >= until => {
                self.look = Some(Look::Measures { since });
                self.start_window(seen, now);
                return;
            }
            Look::Empties { since, .. } => (since, false),
            Look::Measures { since } => (since, true),
        };
        let window = seen.since(self.before);
        let long = now.saturating_duration_since(self.began) >= WINDOW;
        let late = now.saturating_duration_since(since) >= LOOK_ENDS;
        if measures && long && window.requests >= SAMPLES {
            self.normal = window.mean().unwrap_or(self.normal);
        } else if !late {
            return;
        }
        self.look = None;
        self.busy_since = now;
        self.start_window(seen, now);
    }

    fn learn(&mut self, present: f64, elapsed: Duration, full: bool) {
        if self.learned < WARM_UP {
            self.learned += 1;
            self.normal += (present - self.normal) / f64::from(self.learned);
            return;
        }
        if !full {
            let weight = (elapsed.as_secs_f64() / LEARNING.as_secs_f64()).min(1.0);
            self.normal += (present - self.normal) * weight;
        }
        if self.normal > present * 2.0 {
            // Back to normal after a long time of load: no need to wait a minute for the average.
            self.normal *= 0.95;
        }
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(LEAST), f64::from(MOST));
    }

    fn start_window(&mut self, seen: Latencies, now: Instant) {
        (self.before, self.began, self.most) = (seen, now, 0);
    }
}

/// Where workers count latencies. All orderings are `Relaxed`.
#[derive(Debug, Default)]
pub struct LatencySums {
    requests: AtomicU64,
    nanos: AtomicU64,
    refused: AtomicU64,
}

impl LatencySums {
    /// Counts an attempt whose latency tells of load.
    pub fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer that says "too much" or "not now". How fast it came says nothing.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted since ever.
    pub fn seen(&self) -> Latencies {
        Latencies {
            requests: self.requests.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
