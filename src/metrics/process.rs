//! What the proxy does apart from requests: configuration, log, life cycle.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::{Register, names};

/// Handles that exist once.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    /// Number of the configuration in force.
    pub generation: IntGauge,
    /// Configurations that took force after the first.
    pub reloads: IntCounter,
    /// Configurations refused.
    pub reload_failures: IntCounter,
    /// 1 when the newest file read is in force.
    pub last_reload_ok: IntGauge,
    /// Access log lines lost.
    pub access_log_dropped: IntCounter,
    /// 1 while draining.
    pub draining: IntGauge,
    /// Worker threads.
    pub workers: IntGauge,
    /// Trailers that an HTTP/1 caller did not ask for (`TE: trailers`).
    pub trailers_dropped: IntCounter,
    /// Malformed timeout headers of callers, ignored.
    pub bad_deadlines_dropped: IntCounter,
}

impl ProcessMetrics {
    pub(super) fn register(
        register: &Register<'_>,
        dropped: &IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let build = register.gauges(names::BUILD_INFO, &["version", "commit"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("OUTRIGGER_COMMIT")]).set(1);
        Ok(Self {
            generation: register.gauge(names::CONFIG_GENERATION)?,
            reloads: register.counter(names::CONFIG_RELOADS)?,
            reload_failures: register.counter(names::CONFIG_RELOAD_FAILURES)?,
            last_reload_ok: register.gauge(names::CONFIG_LAST_RELOAD_OK)?,
            access_log_dropped: register.counter(names::ACCESS_LOG_DROPPED)?,
            draining: register.gauge(names::DRAINING)?,
            workers: register.gauge(names::WORKERS)?,
            trailers_dropped: dropped.with_label_values(&["trailers"]),
            bad_deadlines_dropped: dropped.with_label_values(&["malformed_timeout_header"]),
        })
    }
}
