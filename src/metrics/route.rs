//! What routes do to requests besides sending them on. A route has only the series of what it does.

use prometheus::{IntCounter, IntCounterVec};

use super::{Register, names};

/// Families that are labelled by listener and route.
#[derive(Debug, Clone)]
pub struct RouteFamilies {
    limited: IntCounterVec,
    overflowed: IntCounterVec,
    faults: IntCounterVec,
}

impl RouteFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["listener", "route"];
        Ok(Self {
            limited: register.counters(names::RATE_LIMITED, &labels)?,
            overflowed: register.counters(names::RATE_LIMIT_OVERFLOW, &labels)?,
            faults: register.counters(names::FAULTS, &["listener", "route", "kind"])?,
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
