//! Who was let in. A listener has only the series of what it asks for.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Register, names};

/// Families that are labelled by listener, and those of key sets.
#[derive(Debug, Clone)]
pub struct AccessFamilies {
    denied: IntCounterVec,
    verified: IntCounterVec,
    refused: IntCounterVec,
    keys: IntGaugeVec,
    key_errors: IntCounterVec,
}

impl AccessFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            denied: register.counters(names::AUTHORIZATION_DENIED, &["listener", "enforced"])?,
            verified: register.counters(names::JWT_VERIFIED, &["listener"])?,
            refused: register.counters(names::JWT_REFUSED, &["listener", "reason"])?,
            keys: register.gauges(names::JWKS_KEYS, &["jwks"])?,
            key_errors: register.counters(names::JWKS_ERRORS, &["jwks", "reason"])?,
        })
    }

    /// What a listener with rules denies, or would.
    pub fn denied(&self, listener: &str, enforced: bool) -> IntCounter {
        self.denied.with_label_values(&[listener, word(enforced)])
    }

    /// Drops the series of rules that are gone.
    pub fn forget_denied(&self, listener: &str, enforced: bool) {
        // A series that was never touched is not there: nothing to drop.
        let _absent = self.denied.remove_label_values(&[listener, word(enforced)]);
    }

    /// The handles of a listener that takes tokens; `reasons` in the order of their index.
    pub fn jwt(&self, listener: &str, reasons: &[&str]) -> JwtMetrics {
        JwtMetrics {
            verified: self.verified.with_label_values(&[listener]),
            refused: reasons
                .iter()
                .map(|reason| self.refused.with_label_values(&[listener, reason]))
                .collect(),
        }
    }

    /// Drops the series of a listener that takes no tokens any more.
    pub fn forget_jwt(&self, listener: &str, reasons: &[&str]) {
        let _absent = self.verified.remove_label_values(&[listener]);
        for reason in reasons {
            let _absent = self.refused.remove_label_values(&[listener, reason]);
        }
    }

    /// The handles of a set of keys; `reasons` in the order of their index.
    pub fn jwks(&self, jwks: &str, reasons: &[&str]) -> JwksMetrics {
        JwksMetrics {
            keys: self.keys.with_label_values(&[jwks]),
            errors: reasons
                .iter()
                .map(|reason| self.key_errors.with_label_values(&[jwks, reason]))
                .collect(),
        }
    }

    /// Drops the series of a set that nobody needs any more.
    pub fn forget_jwks(&self, jwks: &str, reasons: &[&str]) {
        let _absent = self.keys.remove_label_values(&[jwks]);
        for reason in reasons {
            let _absent = self.key_errors.remove_label_values(&[jwks, reason]);
        }
    }
}

fn word(enforced: bool) -> &'static str {
    if enforced { "true" } else { "false" }
}

/// The handles of a listener that takes tokens.
#[derive(Debug)]
pub struct JwtMetrics {
    /// Tokens that were right.
    pub verified: IntCounter,
    refused: Vec<IntCounter>,
}

impl JwtMetrics {
    /// Counts a request refused for the reason of this index.
    pub fn refuse(&self, reason: usize) {
        if let Some(counter) = self.refused.get(reason) {
            counter.inc();
        }
    }
}

/// The handles of a set of keys.
#[derive(Debug)]
pub struct JwksMetrics {
    /// Keys in force.
    pub keys: IntGauge,
    errors: Vec<IntCounter>,
}

impl JwksMetrics {
    /// Counts a try that failed for the reason of this index.
    pub fn fail(&self, reason: usize) {
        if let Some(counter) = self.errors.get(reason) {
            counter.inc();
        }
    }
}
