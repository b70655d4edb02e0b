//! Circuit breaking by state: stop asking an upstream that fails, and find out carefully when it works again.

mod permits;

use std::time::Duration;

use tokio::time::Instant;

use super::window::Window;

pub use permits::{Pass, Permits};

/// How long the ramp after the probes takes.
pub const RAMP: Duration = Duration::from_secs(1);

/// After each such step twice as many requests may run at once: 2, 4, 8 … 1 024 after a second.
const RAMP_STEP: Duration = Duration::from_millis(100);

/// When an upstream counts as failing, and how it is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Opens at this share of failures, `0.0..=1.0`.
    pub errors: f64,
    /// Opens at a share of slow answers; `None`: however slow they are.
    pub slow: Option<SlowCalls>,
    /// Both shares are those of this window.
    pub window: Duration,
    /// Fewer requests than this in the window say nothing.
    pub min_requests: u64,
    /// How long everything is refused.
    pub open_for: Duration,
    /// Requests that must succeed one after the other before more are let in.
    pub probes: u32,
}

/// What is slow, and how much of it opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// Opens at this share, `0.0..=1.0`.
    pub share: f64,
    /// An answer whose head took longer than this is slow.
    pub over: Duration,
}

/// The states that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Everything passes.
    Closed,
    /// Everything is refused.
    Open,
    /// A few pass: probes one at a time, then the ramp.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in metrics, logs and pages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Requests that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All that say something about the upstream.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were slow, where that is judged; one can be both.
    pub slow: u64,
}

impl Tally {
    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            slow: self.slow.saturating_sub(before.slow),
        }
    }
}

/// What workers have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Of requests that were let in while the breaker was closed, since ever.
    pub closed: Tally,
    /// Of requests let in by the running half-open state, since it began.
    pub recovery: Tally,
    /// Requests of the running half-open state that have not ended.
    pub in_flight: u32,
}

/// What workers do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is refused.
    Refuse,
    /// It passes while fewer than this many are under way.
    AtMost(u32),
}

/// A change of state, and the numbers that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state that ended.
    pub from: BreakerState,
    /// The state that began.
    pub to: BreakerState,
    /// What was counted in the one that ended.
    pub tally: Tally,
    /// Why, in words for the log.
    pub why: &'static str,
}

/// The rule; one per upstream, run by the control thread at each of its ticks.
///
/// *Closed*: outcomes are counted over a sliding window. With at least `min_requests` in it, a share of failures of `errors`
/// or more (or of slow answers) opens. *Open*: everything is refused for `open_for`, so that the upstream has time
/// and callers get an answer at once instead of a timeout. *Half-open*: one request at a time is let through; the first bad
/// one (failed, or slow where that is judged) opens again, `probes` good ones in a row begin the ramp: at most 2
/// at once, doubling each 100 ms, closed after one second. Without the ramp the whole traffic would fall on an upstream with
/// empty caches and cold pools in one moment, and knock it over again. During the ramp the shares are judged over its own
/// requests, from `probes` of them on.
///
/// A half-open state in which nothing ends for `open_for` (the probe hangs, or its callers leave each time) opens
/// again: without that one hanging request would keep all others out for ever. Nothing to do without traffic: half-open
/// waits for the next request.
///
/// What counts: success and failure of attempts. Callers that leave, and what we refuse ourselves, say nothing about the
/// upstream. Requests that were let in before it opened and end later say nothing about its recovery.
///
/// Source: Nygard, *Release It!*; Hystrix (20 requests, 50 %, 5 s, one probe), resilience4j (slow calls, several
/// probes); the ramp and the bound on hanging probes are ours. Invariants: open refuses everything, probes run one at a time,
/// the ramp only rises.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    stage: Stage,
    since: Instant,
    window: Window<3>,
    /// What of `Seen::closed` is in the window already.
    counted: Tally,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Closed,
    Open,
    /// `moved`: the last time that something ended, or nothing was under way.
    Probing {
        done: Tally,
        moved: Instant,
    },
    /// `before`: what the probes had counted.
    Ramp {
        before: Tally,
        began: Instant,
    },
}

impl Breaker {
    /// Closed, with an empty window.
    pub fn new(settings: BreakerSettings, now: Instant) -> Self {
        Self {
            settings,
            stage: Stage::Closed,
            since: now,
            window: Window::new(settings.window, now),
            counted: Tally::default(),
        }
    }

    /// The state.
    pub fn state(&self) -> BreakerState {
        match self.stage {
            Stage::Closed => BreakerState::Closed,
            Stage::Open => BreakerState::Open,
            Stage::Probing { .. } | Stage::Ramp { .. } => BreakerState::HalfOpen,
        }
    }

    /// When the state began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What the window holds.
    pub fn tally(&self) -> Tally {
        let [requests, failed, slow] = self.window.sum();
        Tally { requests, failed, slow }
    }

    /// What workers do until the next tick.
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self.stage {
            Stage::Closed => Verdict::Pass,
            Stage::Open => Verdict::Refuse,
            Stage::Probing { .. } => Verdict::AtMost(1),
            Stage::Ramp { began, .. } => {
                Verdict::AtMost(ramp(now.saturating_duration_since(began)))
            }
        }
    }

    /// Looks at what was counted, at `now`. At most one change of state at a time; `now` never goes back.
    pub fn tick(&mut self, seen: &Seen, now: Instant) -> Option<Transition> {
        let ended = seen.closed.since(self.counted);
        self.counted = seen.closed;
        match self.stage {
            Stage::Closed => {
                self.window.add([ended.requests, ended.failed, ended.slow], now);
                let tally = self.tally();
                let why = self.judge(tally, self.settings.min_requests)?;
                Some(self.enter(Stage::Open, tally, why, now))
            }
            Stage::Open => {
                if now.saturating_duration_since(self.since) < self.settings.open_for {
                    return None;
                }
                let stage = Stage::Probing { done: Tally::default(), moved: now };
                Some(self.enter(stage, Tally::default(), "its time is over", now))
            }
            Stage::Probing { done, moved } => self.probe(seen, done, moved, now),
            Stage::Ramp { before, began } => {
                let tally = seen.recovery.since(before);
                let least = u64::from(self.settings.probes).max(1);
                if let Some(why) = self.judge(tally, least) {
                    return Some(self.enter(Stage::Open, tally, why, now));
                }
                if now.saturating_duration_since(began) < RAMP {
                    return None;
                }
                self.window.clear();
                Some(self.enter(Stage::Closed, tally, "the upstream answers again", now))
            }
        }
    }

    fn probe(
        &mut self,
        seen: &Seen,
        done: Tally,
        moved: Instant,
        now: Instant,
    ) -> Option<Transition> {
        let tally = seen.recovery;
        if tally.failed + tally.slow > 0 {
            return Some(self.enter(Stage::Open, tally, "a probe failed", now));
        }
        if tally.requests >= u64::from(self.settings.probes) {
            self.stage = Stage::Ramp { before: tally, began: now };
            return None;
        }
        if tally != done || seen.in_flight == 0 {
            self.stage = Stage::Probing { done: tally, moved: now };
        } else if now.saturating_duration_since(moved) >= self.settings.open_for {
            return Some(self.enter(Stage::Open, tally, "a probe got no answer", now));
        }
        None
    }

    /// Why these numbers open the breaker; `None`: they do not.
    fn judge(&self, tally: Tally, least: u64) -> Option<&'static str> {
        if tally.requests < least.max(1) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests in a window")]
        let reaches = |count: u64, share: f64| {
            // None at all is no share of anything, not even of 0 %.
            count > 0 && count as f64 >= share * tally.requests as f64
        };
        if reaches(tally.failed, self.settings.errors) {
            return Some("too many requests failed");
        }
        let slow = self.settings.slow.filter(|slow| reaches(tally.slow, slow.share));
        slow.map(|_| "too many requests were slow")
    }

    fn enter(&mut self, stage: Stage, tally: Tally, why: &'static str, now: Instant) -> Transition {
        let from = self.state();
        self.stage = stage;
        self.since = now;
        Transition { from, to: self.state(), tally, why }
    }
}

/// How many may be under way at once, so long after the ramp began.
fn ramp(elapsed: Duration) -> u32 {
    let steps = elapsed.as_millis() / RAMP_STEP.as_millis();
    let steps = u32::try_from(steps).unwrap_or(u32::MAX).min(30);
    2 << steps.min(29)
}

#[cfg(test)]
mod tests;
