//! `breaker`, `adaptive` and `throttle` of an upstream.

use tokio::time::Instant;

use crate::config;
use crate::metrics::{GateFeatures, Metrics};
use crate::policy::breaker::{BreakerSettings, SlowCalls};
use crate::policy::gradient;
use crate::upstream::{Gate, GatePolicy, breaker_words, rejection_words};

/// The gate of a new upstream.
pub(super) fn gate(config: &config::Upstream, metrics: &Metrics, now: Instant) -> Gate {
    let policy = GatePolicy {
        breaker: config.breaker.map(|breaker| BreakerSettings {
            errors: breaker.errors.fraction(),
            slow: breaker
                .slow
                .map(|slow| SlowCalls { share: slow.share.fraction(), over: slow.over }),
            window: breaker.window,
            min_requests: u64::from(breaker.min_requests),
            open_for: breaker.open_for,
            probes: breaker.probes,
        }),
        adaptive: config.adaptive.is_some(),
        throttle: config.throttle.map(|throttle| throttle.k),
    };
    let words = (&breaker_words(), &rejection_words());
    let metrics = metrics.gate.gate(&config.name, features(config), words.0, words.1);
    Gate::new(&policy, metrics, now)
}

/// Requests at once that an upstream begins with.
pub(super) fn in_flight(config: &config::Upstream) -> Option<u32> {
    match config.adaptive {
        Some(config::Adaptive::Gradient) => Some(gradient::FIRST),
        None => config.limits.in_flight,
    }
}

/// What is on, for the series in the metrics.
pub(in crate::control) fn features(config: &config::Upstream) -> GateFeatures {
    GateFeatures {
        breaker: config.breaker.is_some(),
        adaptive: config.adaptive.is_some(),
        throttle: config.throttle.is_some(),
    }
}
