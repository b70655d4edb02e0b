//! Active health checks of one endpoint: what their results amount to, and when the next one is due.
//!
//! **Why results in a row.** One lost packet must not take an endpoint out of use, and one lucky answer must not bring it
//! back: a verdict turns after `fall` failures or `rise` passes in a row, and whatever agrees with it in between starts the
//! count anew. An endpoint that flaps faster than that keeps its verdict. The very first result decides alone: until
//! then nothing is known, and waiting for more would only keep the endpoint out of use longer.
//!
//! **Why a faster pace.** `fall: 3` at an interval of 5 s would take 10 to 15 s to notice. While results contradict the
//! verdict, checks come [`FASTER`] times as often, until the verdict turns or a result agrees with it again. The pace of a
//! settled endpoint, which is what N sidecars multiply, stays `interval`. (HAProxy: `fastinter`; Envoy: `unhealthy_edge_interval`.)
//!
//! **Why jitter.** Sidecars that start together, or learn of an endpoint together, would else check it together for ever. The first
//! check is spread over [`FIRST`], the second over most of an interval, every later one by ± 10 %.
//!
//! Health and ejection (outlier detection) are separate states: a check that passes does not bring an ejected endpoint back. It
//! need not take the way that requests take. (Envoy un-ejects by default, and has a switch against it.)

use std::time::Duration;

use tokio::time::Instant;

use crate::base::rng::Rng;

/// How many times as often an endpoint is checked while results contradict its verdict. Bounds what one flapping
/// endpoint costs: never more than this times the settled pace.
pub const FASTER: u32 = 5;

/// First checks are spread over this, or over the faster interval where that is shorter: readiness waits for them.
pub const FIRST: Duration = Duration::from_millis(250);

/// How far each wait is off its length at most, as a share of it.
const JITTER: f64 = 0.1;

/// When to check, and how many results in a row turn a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HealthSettings {
    /// From the start of a check to the start of the next. Above 0. Default 5 s.
    pub interval: Duration,
    /// From a check's start to its answer; later is a failure. Above 0. Default 1 s.
    pub timeout: Duration,
    /// Passes in a row after which an unhealthy endpoint is healthy. At least 1. Default 2.
    pub rise: u32,
    /// Failures in a row after which a healthy endpoint is unhealthy. At least 1. Default 3.
    pub fall: u32,
}

/// What the checks of an endpoint say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No check has ended yet.
    Unknown,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

impl Verdict {
    /// The word in logs and on the admin page.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The state of one endpoint's checks.
///
/// Invariants: `Unknown` exactly until the first result; a verdict turns only with `rise` or `fall` results in a row
/// against it; every wait is within ± 10 % of `interval` or of `interval ÷ FASTER` (the one after the first
/// result: between the two); checks of one endpoint never overlap.
#[derive(Debug)]
pub struct Health {
    settings: HealthSettings,
    verdict: Verdict,
    /// What the last result was, and how many of its kind there were in a row, this one included.
    last: Option<(bool, u32)>,
    /// The second check has been given its time.
    spread: bool,
}

impl Health {
    /// Nothing known yet.
    pub fn new(settings: HealthSettings) -> Self {
        Self { settings, verdict: Verdict::Unknown, last: None, spread: false }
    }

    /// How long to wait before the first check.
    pub fn before_first(&self, rng: &mut Rng) -> Duration {
        rng.duration_up_to(FIRST.min(self.faster()))
    }

    /// Takes a result. Returns the verdict where it has turned.
    ///
    /// What fails on our own side (no file descriptor left) is no result: do not record it.
    pub fn record(&mut self, passed: bool) -> Option<Verdict> {
        let in_a_row = match self.last {
            Some((last, count)) if last == passed => count.saturating_add(1),
            _ => 1,
        };
        self.last = Some((passed, in_a_row));
        let turned = match (self.verdict, passed) {
            (Verdict::Unknown, true) => Verdict::Healthy,
            (Verdict::Unknown, false) => Verdict::Unhealthy,
            (Verdict::Healthy, false) if in_a_row >= self.settings.fall => Verdict::Unhealthy,
            (Verdict::Unhealthy, true) if in_a_row >= self.settings.rise => Verdict::Healthy,
            _ => return None,
        };
        self.verdict = turned;
        Some(turned)
    }

    /// When the next check is due, after one that began and ended at these times.
    ///
    /// The interval counts from start to start, so that slow answers do not stretch it; a check that outlasts it is
    /// followed by the next at once.
    pub fn next(&mut self, began: Instant, ended: Instant, rng: &mut Rng) -> Instant {
        let wait = match self.is_settled() {
            true if !self.spread => {
                let least = self.faster();
                least + rng.duration_up_to(self.settings.interval.saturating_sub(least))
            }
            true => jittered(self.settings.interval, rng),
            false => jittered(self.faster(), rng),
        };
        self.spread |= self.verdict != Verdict::Unknown;
        (began + wait).max(ended)
    }

    /// What the results so far amount to.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Passes in a row up to now; 0 after a failure.
    pub fn passes(&self) -> u32 {
        self.in_a_row(true)
    }

    /// Failures in a row up to now; 0 after a pass.
    pub fn failures(&self) -> u32 {
        self.in_a_row(false)
    }

    fn in_a_row(&self, passed: bool) -> u32 {
        self.last.filter(|(last, _)| *last == passed).map_or(0, |(_, count)| count)
    }

    /// True where the last result agrees with the verdict. Nothing known is not settled.
    fn is_settled(&self) -> bool {
        match self.verdict {
            Verdict::Unknown => false,
            Verdict::Healthy => self.passes() > 0,
            Verdict::Unhealthy => self.failures() > 0,
        }
    }

    fn faster(&self) -> Duration {
        self.settings.interval / FASTER
    }
}

/// `wait`, at most [`JITTER`] longer or shorter.
fn jittered(wait: Duration, rng: &mut Rng) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * rng.fraction())
}

#[cfg(test)]
mod tests;
