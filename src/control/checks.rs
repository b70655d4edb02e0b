//! The health checks of an upstream: which of its endpoints are checked, and what becomes of the verdicts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::balance::endpoint::{Endpoint, Health};
use crate::balance::endpoint_set::EndpointSet;
use crate::health::{Check, Checks, Finding, Listener, Report, Watch};
use crate::metrics::HealthMetrics;
use crate::policy::health::Verdict;
use crate::upstream::Upstream;

/// The checks of one upstream's endpoints. Dropping it ends those that no other upstream wants.
#[derive(Debug)]
pub struct UpstreamHealth {
    checks: Rc<Checks>,
    check: Check,
    metrics: Rc<HealthMetrics>,
    /// By the endpoint's id.
    watches: RefCell<HashMap<u64, Watch>>,
}

impl UpstreamHealth {
    /// No endpoint is checked yet.
    pub(super) fn new(checks: &Rc<Checks>, check: Check, metrics: HealthMetrics) -> Self {
        Self {
            checks: Rc::clone(checks),
            check,
            metrics: Rc::new(metrics),
            watches: RefCell::default(),
        }
    }

    /// Checks the endpoints of `set` and no others. Before the set is published: a worker must not see an endpoint that
    /// looks as if it were not checked.
    pub(super) fn follow(&self, upstream: &Arc<Upstream>, set: &EndpointSet) {
        let mut before = self.watches.take();
        let watches = set.members().iter().map(|member| {
            let endpoint = &member.endpoint;
            let kept = before.remove(&endpoint.id);
            (endpoint.id, kept.unwrap_or_else(|| self.watch(upstream, endpoint)))
        });
        self.watches.replace(watches.collect());
    }

    fn watch(&self, upstream: &Arc<Upstream>, endpoint: &Arc<Endpoint>) -> Watch {
        let checked = (Arc::clone(upstream), Arc::clone(endpoint));
        let metrics = Rc::clone(&self.metrics);
        let listener: Rc<Listener> = Rc::new(move |finding, report, before| {
            metrics.check(finding.outcome);
            if report.verdict != before {
                let ((upstream, endpoint), now) = (&checked, Instant::now());
                endpoint.set_health(health(report.verdict), now);
                upstream.review(now);
                log(upstream, endpoint, finding, report, before);
            }
        });
        let watch = self.checks.watch(&endpoint.address, &self.check, listener);
        // Where another check has decided already, that stands until this one has.
        if watch.verdict() != Verdict::Unknown || endpoint.health() == Health::Unknown {
            endpoint.set_health(health(watch.verdict()), Instant::now());
        }
        watch
    }

    /// What is known of an endpoint, by its id; `None` where it is not checked.
    pub fn report(&self, endpoint: u64) -> Option<Report> {
        self.watches.borrow().get(&endpoint).map(Watch::report)
    }

    /// True while an endpoint of the set has no verdict yet.
    pub(super) fn is_undecided(&self) -> bool {
        let watches = self.watches.borrow();
        watches.values().any(|watch| watch.verdict() == Verdict::Unknown)
    }
}

fn health(verdict: Verdict) -> Health {
    match verdict {
        Verdict::Unknown => Health::Unproven,
        Verdict::Healthy => Health::Healthy,
        Verdict::Unhealthy => Health::Unhealthy,
    }
}

/// One line for each turn. A first verdict of healthy is what is expected of all.
fn log(
    upstream: &Upstream,
    endpoint: &Endpoint,
    finding: &Finding,
    report: &Report,
    before: Verdict,
) {
    let (upstream, endpoint, found) = (&*upstream.name, &endpoint.address, &*finding.text);
    match (before, report.verdict) {
        (Verdict::Unknown, Verdict::Healthy) => {
            tracing::debug!(upstream, %endpoint, found, "endpoint is healthy");
        }
        (_, Verdict::Unhealthy) => {
            let failures = report.failures;
            tracing::warn!(upstream, %endpoint, found, failures, "endpoint is unhealthy");
        }
        _ => {
            let passes = report.passes;
            tracing::info!(upstream, %endpoint, found, passes, "endpoint is healthy again");
        }
    }
}
