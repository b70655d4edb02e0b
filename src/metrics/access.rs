//! Who was let in. A listener has only the series of what it asks for.

use prometheus::{IntCounter, IntCounterVec};

use super::{Register, names};

/// Families that are labelled by listener.
#[derive(Debug, Clone)]
pub struct AccessFamilies {
    denied: IntCounterVec,
}

impl AccessFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            denied: register.counters(names::AUTHORIZATION_DENIED, &["listener", "enforced"])?,
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
}

fn word(enforced: bool) -> &'static str {
    if enforced { "true" } else { "false" }
}
