//! What an upstream's breaker, adaptive limit and throttle do, and what was refused without asking it.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Register, names};

/// Families that are labelled by upstream. But for rejections there are series only where the feature is on.
#[derive(Debug, Clone)]
pub struct GateFamilies {
    state: IntGaugeVec,
    transitions: IntCounterVec,
    rejected: IntCounterVec,
    limit: IntGaugeVec,
    probability: GaugeVec,
}

/// Which features an upstream has on.
#[derive(Debug, Clone, Copy, Default)]
pub struct GateFeatures {
    /// Circuit breaking by state.
    pub breaker: bool,
    /// Adaptive concurrency.
    pub adaptive: bool,
    /// Client-side throttling.
    pub throttle: bool,
}

impl GateFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            state: register.gauges(names::UPSTREAM_BREAKER_STATE, &["upstream", "state"])?,
            transitions: register
                .counters(names::UPSTREAM_BREAKER_TRANSITIONS, &["upstream", "state"])?,
            rejected: register.counters(names::UPSTREAM_REJECTED, &["upstream", "reason"])?,
            limit: register.gauges(names::UPSTREAM_CONCURRENCY_LIMIT, &["upstream"])?,
            probability: register.fractions(names::UPSTREAM_THROTTLE, &["upstream"])?,
        })
    }

    /// The handles of one upstream. `states` are the words of a breaker's states, `reasons` those of why it is not asked,
    /// each in the order of their index.
    pub fn gate(
        &self,
        upstream: &str,
        features: GateFeatures,
        states: &[&str],
        reasons: &[&str],
    ) -> GateMetrics {
        let words = || states.iter().filter(|_| features.breaker);
        let by_reason = |reason| self.rejected.with_label_values(&[upstream, reason]);
        GateMetrics {
            rejected: reasons.iter().map(|reason| by_reason(reason)).collect(),
            states: words().map(|w| self.state.with_label_values(&[upstream, w])).collect(),
            entered: words().map(|w| self.transitions.with_label_values(&[upstream, w])).collect(),
            limit: features.adaptive.then(|| self.limit.with_label_values(&[upstream])),
            probability: features.throttle.then(|| self.probability.with_label_values(&[upstream])),
        }
    }

    /// Drops the series of an upstream that is gone.
    pub fn forget(&self, upstream: &str, states: &[&str], reasons: &[&str]) {
        self.forget_unless(upstream, GateFeatures::default(), states);
        for reason in reasons {
            let _absent = self.rejected.remove_label_values(&[upstream, reason]);
        }
    }

    /// Drops the series of what a reload has turned off.
    pub fn forget_unless(&self, upstream: &str, features: GateFeatures, states: &[&str]) {
        for state in states.iter().filter(|_| !features.breaker) {
            let _absent = self.state.remove_label_values(&[upstream, state]);
            let _absent = self.transitions.remove_label_values(&[upstream, state]);
        }
        if !features.adaptive {
            let _absent = self.limit.remove_label_values(&[upstream]);
        }
        if !features.throttle {
            let _absent = self.probability.remove_label_values(&[upstream]);
        }
    }
}

/// The handles of one upstream; what is off has none.
#[derive(Debug)]
pub struct GateMetrics {
    rejected: Vec<IntCounter>,
    states: Vec<IntGauge>,
    entered: Vec<IntCounter>,
    limit: Option<IntGauge>,
    probability: Option<Gauge>,
}

impl GateMetrics {
    /// Shows the breaker's state, by its index.
    pub fn stands(&self, state: usize) {
        for (index, gauge) in self.states.iter().enumerate() {
            gauge.set(i64::from(index == state));
        }
    }

    /// Counts a change into a state, by its index.
    pub fn entered(&self, state: usize) {
        if let Some(counter) = self.entered.get(state) {
            counter.inc();
        }
    }

    /// Counts a request that is refused without asking, by the index of its reason.
    pub fn rejected(&self, reason: usize) {
        if let Some(counter) = self.rejected.get(reason) {
            counter.inc();
        }
    }

    /// Shows the adaptive limit.
    pub fn limit(&self, limit: u32) {
        if let Some(gauge) = &self.limit {
            gauge.set(i64::from(limit));
        }
    }

    /// Shows the share of requests that the throttle refuses.
    pub fn throttled(&self, probability: f64) {
        if let Some(gauge) = &self.probability {
            gauge.set(probability);
        }
    }
}
