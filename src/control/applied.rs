//! What a reload has changed.

use crate::config::Config;

/// What a reload has changed, for the log and for whoever asked for it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The number now in force.
    pub generation: u64,
    /// Listeners that were bound.
    pub listeners_bound: Vec<String>,
    /// Listeners whose sockets were closed.
    pub listeners_closed: Vec<String>,
    /// Upstreams that are new or were changed.
    pub upstreams_changed: Vec<String>,
    /// Upstreams that are gone.
    pub upstreams_removed: Vec<String>,
    /// Keys whose change takes force only with a restart.
    pub needs_restart: Vec<&'static str>,
}

/// What a running process cannot change.
pub(super) fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let changed = [
        ("admin", before.admin != after.admin),
        ("runtime.workers", before.runtime.workers != after.runtime.workers),
        ("access_log.to", before.access_log.to != after.access_log.to),
        ("metrics.buckets", before.metrics != after.metrics),
        ("dns", before.dns != after.dns),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}
