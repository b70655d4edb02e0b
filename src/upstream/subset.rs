//! The part of what discovery finds that an upstream uses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

use crate::base::endpoint::EndpointSpec;

/// Only endpoints with these labels, of all that discovery finds.
#[derive(Debug)]
pub struct Subset {
    labels: BTreeMap<String, String>,
    /// Endpoints that were left out last time.
    outside: AtomicUsize,
    gauge: IntGauge,
}

impl Subset {
    /// Nothing left out yet. `gauge` tells how many are.
    pub fn new(labels: BTreeMap<String, String>, gauge: IntGauge) -> Self {
        Self { labels, outside: AtomicUsize::new(0), gauge }
    }

    /// Those of `found` that have every label with its value. On the control thread.
    pub fn select(&self, found: &[EndpointSpec]) -> Vec<EndpointSpec> {
        let has_all = |spec: &&EndpointSpec| {
            self.labels.iter().all(|(label, value)| spec.labels.get(label) == Some(value))
        };
        let chosen: Vec<EndpointSpec> = found.iter().filter(has_all).cloned().collect();
        let outside = found.len() - chosen.len();
        self.outside.store(outside, Ordering::Relaxed);
        self.gauge.set(i64::try_from(outside).unwrap_or(i64::MAX));
        chosen
    }

    /// The labels that are asked for.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Endpoints that were found and have not these labels.
    pub fn outside(&self) -> usize {
        self.outside.load(Ordering::Relaxed)
    }

    /// `version=v2, stage=beta`
    pub(super) fn words(&self) -> String {
        let pair = |(label, value): (&String, &String)| format!("{label}={value}");
        self.labels.iter().map(pair).collect::<Vec<_>>().join(", ")
    }
}
