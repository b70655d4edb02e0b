//! What routes do to requests besides sending them on. A route has only the series of what it does.

use prometheus::{IntCounter, IntCounterVec};

use super::{Register, names};

/// Families that are labelled by listener and route.
#[derive(Debug, Clone)]
pub struct RouteFamilies {
    limited: IntCounterVec,
    overflowed: IntCounterVec,
    faults: IntCounterVec,
    mirrored: IntCounterVec,
    hedges: IntCounterVec,
}

impl RouteFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["listener", "route"];
        Ok(Self {
            limited: register.counters(names::RATE_LIMITED, &labels)?,
            overflowed: register.counters(names::RATE_LIMIT_OVERFLOW, &labels)?,
            faults: register.counters(names::FAULTS, &["listener", "route", "kind"])?,
            mirrored: register.counters(names::MIRRORED, &["listener", "route", "outcome"])?,
            hedges: register.counters(names::HEDGES, &["listener", "route", "outcome"])?,
        })
    }

    /// The handles of a route with a rate limit.
    pub fn rate_limit(&self, listener: &str, route: &str) -> RateLimitMetrics {
        let labels = [listener, route];
        RateLimitMetrics {
            limited: self.limited.with_label_values(&labels),
            overflowed: self.overflowed.with_label_values(&labels),
        }
    }

    /// The handles of a route that injects failures.
    pub fn faults(&self, listener: &str, route: &str) -> FaultMetrics {
        let of_kind = |kind| self.faults.with_label_values(&[listener, route, kind]);
        FaultMetrics { delays: of_kind("delay"), aborts: of_kind("abort") }
    }

    /// The handles of a route that has shadows.
    pub fn mirror(&self, listener: &str, route: &str) -> MirrorMetrics {
        let counter = |word| self.mirrored.with_label_values(&[listener, route, word]);
        MirrorMetrics(MirrorOutcome::ALL.map(|outcome| counter(outcome.word())))
    }

    /// The handles of a route that hedges.
    pub fn hedge(&self, listener: &str, route: &str) -> HedgeMetrics {
        let counter = |word| self.hedges.with_label_values(&[listener, route, word]);
        HedgeMetrics(HedgeOutcome::ALL.map(|outcome| counter(outcome.word())))
    }

    /// Drops the series of a route that does not hedge any more.
    pub fn forget_hedge(&self, listener: &str, route: &str) {
        for outcome in HedgeOutcome::ALL {
            let _absent = self.hedges.remove_label_values(&[listener, route, outcome.word()]);
        }
    }

    /// Drops the series of a route that has no shadows any more.
    pub fn forget_mirror(&self, listener: &str, route: &str) {
        for outcome in MirrorOutcome::ALL {
            let _absent = self.mirrored.remove_label_values(&[listener, route, outcome.word()]);
        }
    }

    /// Drops the series of a route that injects no failures any more.
    pub fn forget_faults(&self, listener: &str, route: &str) {
        for kind in ["delay", "abort"] {
            let _absent = self.faults.remove_label_values(&[listener, route, kind]);
        }
    }

    /// Drops the series of a route that has no rate limit any more.
    pub fn forget_rate_limit(&self, listener: &str, route: &str) {
        // A series that was never touched is not there: nothing to drop.
        let _absent = self.limited.remove_label_values(&[listener, route]);
        let _absent = self.overflowed.remove_label_values(&[listener, route]);
    }
}

/// The handles of a route's failures on purpose.
#[derive(Debug)]
pub struct FaultMetrics {
    /// Requests delayed.
    pub delays: IntCounter,
    /// Requests answered with an error.
    pub aborts: IntCounter,
}

/// The handles of a route's rate limit.
#[derive(Debug)]
pub struct RateLimitMetrics {
    /// Requests refused.
    pub limited: IntCounter,
    /// Requests whose key shared the common bucket.
    pub overflowed: IntCounter,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// The shadow answered, whatever it said.
    Answered,
    /// It could not be reached, or broke off.
    Failed,
    /// It took longer than a copy may.
    Timeout,
    /// It read the body too slowly, or the original broke off.
    Behind,
    /// It was not sent: too many were under way, or the shadow's limits were reached.
    TooMany,
}

impl MirrorOutcome {
    const ALL: [Self; 5] =
        [Self::Answered, Self::Failed, Self::Timeout, Self::Behind, Self::TooMany];

    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Behind => "behind",
            Self::TooMany => "too_many",
        }
    }
}

/// The handles of a route that has shadows.
#[derive(Debug)]
pub struct MirrorMetrics([IntCounter; MirrorOutcome::ALL.len()]);

impl MirrorMetrics {
    /// Counts a copy.
    pub fn mirrored(&self, outcome: MirrorOutcome) {
        self.0[outcome as usize].inc();
    }
}

/// What came of a second attempt, or why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeOutcome {
    /// It answered first.
    Won,
    /// The first attempt did.
    Lost,
    /// Neither of them well.
    Failed,
    /// The caller went away, or the process ended.
    Cancelled,
    /// Not made: the retry budget is spent.
    BudgetEmpty,
    /// Not made: the upstream has no other endpoint.
    NoOtherEndpoint,
    /// Not made: the upstream's limits are reached.
    LimitReached,
    /// Not made: the body has not come whole, or is larger than what is kept.
    BodyNotKept,
}

impl HedgeOutcome {
    const ALL: [Self; 8] = [
        Self::Won,
        Self::Lost,
        Self::Failed,
        Self::Cancelled,
        Self::BudgetEmpty,
        Self::NoOtherEndpoint,
        Self::LimitReached,
        Self::BodyNotKept,
    ];

    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::BudgetEmpty => "retry_budget_empty",
            Self::NoOtherEndpoint => "no_other_endpoint",
            Self::LimitReached => "limit_reached",
            Self::BodyNotKept => "body_not_kept",
        }
    }
}

/// The handles of a route that hedges.
#[derive(Debug)]
pub struct HedgeMetrics([IntCounter; HedgeOutcome::ALL.len()]);

impl HedgeMetrics {
    /// Counts a second attempt that is over, or that was not made.
    pub fn hedged(&self, outcome: HedgeOutcome) {
        self.0[outcome as usize].inc();
    }
}
