//! What routes do to requests besides sending them on. A route has only the series of what it does.

use prometheus::{IntCounter, IntCounterVec};

use super::{Register, names};

/// Families that are labelled by listener and route.
#[derive(Debug, Clone)]
pub struct RouteFamilies {
    limited: IntCounterVec,
    overflowed: IntCounterVec,
}

impl RouteFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let labels = ["listener", "route"];
        Ok(Self {
            limited: register.counters(names::RATE_LIMITED, &labels)?,
            overflowed: register.counters(names::RATE_LIMIT_OVERFLOW, &labels)?,
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

    /// Drops the series of a route that has no rate limit any more.
    pub fn forget_rate_limit(&self, listener: &str, route: &str) {
        // A series that was never touched is not there: nothing to drop.
        let _absent = self.limited.remove_label_values(&[listener, route]);
        let _absent = self.overflowed.remove_label_values(&[listener, route]);
    }
}

/// The handles of a route's rate limit.
#[derive(Debug)]
pub struct RateLimitMetrics {
    /// Requests refused.
    pub limited: IntCounter,
    /// Requests whose key shared the common bucket.
    pub overflowed: IntCounter,
}
