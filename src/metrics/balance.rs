//! Where requests go, and what is left out: for upstreams that know zones or a subset.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Register, names};

/// The values of `zone`.
const ZONES: [&str; 2] = ["local", "other"];

/// Families that are labelled by upstream.
#[derive(Debug, Clone)]
pub struct BalanceFamilies {
    zones: IntCounterVec,
    outside: IntGaugeVec,
}

impl BalanceFamilies {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            zones: register.counters(names::UPSTREAM_ZONE_PICKS, &["upstream", "zone"])?,
            outside: register.gauges(names::UPSTREAM_OUTSIDE_SUBSET, &["upstream"])?,
        })
    }

    /// For an upstream that is aware of zones.
    pub fn zones(&self, upstream: &str) -> ZoneMetrics {
        let [local, other] = ZONES.map(|zone| self.zones.with_label_values(&[upstream, zone]));
        ZoneMetrics { local, other }
    }

    /// For an upstream with a subset.
    pub fn outside_subset(&self, upstream: &str) -> IntGauge {
        self.outside.with_label_values(&[upstream])
    }

    /// Drops the series of an upstream that is gone, or has nothing of it any more.
    pub fn forget_unless(&self, upstream: &str, zones: bool, subset: bool) {
        if !zones {
            for zone in ZONES {
                // A series that was never touched is not there: nothing to drop.
                let _absent = self.zones.remove_label_values(&[upstream, zone]);
            }
        }
        if !subset {
            let _absent = self.outside.remove_label_values(&[upstream]);
        }
    }
}

/// The handles of one upstream.
#[derive(Debug)]
pub struct ZoneMetrics {
    local: IntCounter,
    other: IntCounter,
}

impl ZoneMetrics {
    /// Counts an attempt that stays in our zone, or leaves it.
    pub fn picked(&self, local: bool) {
        if local { self.local.inc() } else { self.other.inc() }
    }
}
