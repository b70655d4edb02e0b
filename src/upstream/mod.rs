//! An upstream at run time: what all workers share ([`Upstream`]) and what each worker has of its own
//! ([`LocalUpstream`]: connections, retry budget, waiting requests).

mod connection;
mod draining;
mod gate;
mod local;
mod originals;
mod outliers;
mod pool;
mod queue;
mod reuse;
mod slot;
mod subset;
mod tls;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::balance::endpoint_set::EndpointSet;
use crate::balance::outliers::Outliers;
use crate::balance::{Balancer, Counts};
use crate::base::error::{ProxyError, Reason};
use crate::metrics::{UpstreamMetrics, ZoneMetrics};
use crate::policy::breaker::Transition;
use crate::policy::limits::{LimitSettings, Limits, Resource};
use crate::policy::retry::{RetryDecision, SuppressedReason};
use crate::policy::retry_budget::RetryBudget;
use crate::policy::retry_floor::RetryFloor;

pub use connection::Connection;
use draining::Draining;
pub use gate::{BreakerView, Ended, Gate, GatePolicy, GateView, breaker_words, rejection_words};
pub use local::LocalUpstream;
pub use originals::Originals;
pub use pool::PoolPolicy;
pub use reuse::MayReuse;
pub use slot::Slot;
pub use subset::Subset;
pub use tls::UpstreamTls;
pub use worker::LocalUpstreams;

/// Connect timeout to a loopback or unix endpoint: the application beside us is there at once or not at all.
const CONNECT_LOCAL: Duration = Duration::from_millis(250);

/// Connect timeout to everything else: three times the longest round trip inside a region, with one lost SYN.
const CONNECT: Duration = Duration::from_secs(1);

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What the endpoints choose under TLS, else HTTP/1.1; HTTP/2 for gRPC.
    Auto,
}

/// What the retry budgets of the workers are made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetPolicy {
    /// Retries per request, `0.0..=1.0`.
    pub ratio: f64,
    /// Retries per second whatever the traffic, over all workers.
    pub floor_per_second: f64,
    /// Requests are counted over this window.
    pub window: Duration,
}

/// The plain values an upstream is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamPolicy {
    /// What is spoken.
    pub protocol: Protocol,
    /// `None`: 1 s, and 250 ms to an endpoint on this machine.
    pub connect_timeout: Option<Duration>,
    /// Connections kept for reuse.
    pub pool: PoolPolicy,
    /// How long a request waits for a place.
    pub queue: Duration,
    /// Caps retries.
    pub budget: BudgetPolicy,
}

/// An upstream as every worker sees it. Survives a reload that does not change it.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// How it is used.
    pub policy: UpstreamPolicy,
    /// Places for requests and connections, over all workers.
    pub limits: Arc<Limits>,
    /// Who is let in before a place is looked for.
    pub gate: Gate,
    /// How an endpoint is picked.
    pub balancer: Balancer,
    /// Handles resolved once.
    pub metrics: UpstreamMetrics,
    /// Retries that need no traffic, for all workers.
    floor: Arc<RetryFloor>,
    /// Uses of kept connections that the budgets must cover, see [`reuse`].
    at_risk: AtomicU32,
    /// Who is taken out of traffic for failures; `None`: nobody.
    pub outliers: Option<Outliers>,
    /// TLS; `None`: endpoints are spoken to in clear.
    pub tls: Option<UpstreamTls>,
    /// Which of the endpoints that are found are used; `None`: all.
    pub subset: Option<Subset>,
    /// Where attempts go, if zones matter.
    zones: Option<ZoneMetrics>,
    /// Its endpoints are where redirected connections were going; `None`: they are those of the set.
    pub originals: Option<Originals>,
    endpoints: ArcSwap<EndpointSet>,
    /// Endpoints that are in no set any more and still have requests.
    draining: Draining,
    /// Discovery has answered at least once.
    resolved: AtomicBool,
    /// No configuration in force names it any more.
    retired: AtomicBool,
}

impl Upstream {
    /// An upstream without endpoints; [`Upstream::publish`] gives it some.
    pub fn new(
        name: &str,
        policy: UpstreamPolicy,
        limits: LimitSettings,
        gate: Gate,
        balancer: Balancer,
        metrics: UpstreamMetrics,
        now: Instant,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            floor: Arc::new(RetryFloor::new(policy.budget.floor_per_second, now)),
            at_risk: AtomicU32::new(0),
            policy,
            limits: Limits::new(limits),
            gate,
            balancer,
            outliers: None,
            originals: None,
            tls: None,
            subset: None,
            zones: None,
            metrics,
            endpoints: ArcSwap::from_pointee(EndpointSet::default()),
            draining: Draining::default(),
            resolved: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// The same, with outlier detection.
    #[must_use]
    pub fn with_outliers(self, outliers: Option<Outliers>) -> Self {
        Self { outliers, ..self }
    }

    /// The same, spoken to under TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<UpstreamTls>) -> Self {
        Self { tls, ..self }
    }

    /// The same, with a part of the endpoints, and with its attempts counted by zone.
    #[must_use]
    pub fn with_parts(self, subset: Option<Subset>, zones: Option<ZoneMetrics>) -> Self {
        Self { subset, zones, ..self }
    }

    /// Counts where an attempt goes, if zones matter.
    pub fn count_zone(&self, endpoint: &Endpoint) {
        if let Some(zones) = &self.zones {
            zones.picked(endpoint.zone.as_deref() == self.balancer.zone());
        }
    }

    /// The same, going where redirected connections were going.
    #[must_use]
    pub fn with_originals(self, originals: Option<Originals>) -> Self {
        Self { originals, ..self }
    }

    /// Unique in the process, for the workers' maps.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The set that is picked from now.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// Replaces the set. Requests in flight finish where they are. Called by the control thread only.
    pub fn publish(&self, set: EndpointSet, now: Instant) {
        // Before it is picked from: a pick must not see a set that nothing was decided of.
        let set = self.balancer.prepare(set);
        self.balancer.review(&set, now);
        let before = self.endpoints.swap(Arc::new(set));
        self.draining.add(&before);
        self.review(now);
        self.resolved.store(true, Ordering::Release);
    }

    /// Takes ejections back that may not stay, counts how the endpoints stand, and publishes whether there is panic. After
    /// every change of an endpoint's health, and on the control tick. Called by the control thread only.
    pub fn review(&self, now: Instant) -> Counts {
        self.relieve(now);
        let counts = self.balancer.review(&self.endpoints.load(), now);
        self.metrics.standing.set(&[
            self.originals.as_ref().map_or(counts.ready, Originals::count),
            counts.unhealthy,
            counts.ejected,
            counts.slow_start,
            counts.unproven,
        ]);
        self.metrics.panic.set(i64::from(counts.panic));
        counts
    }

    /// Runs the rules of the gate. On the control tick; called by the control thread only.
    pub fn tick(&self, now: Instant) -> Option<Transition> {
        self.gate.tick(&self.limits, now)
    }

    /// What becomes of a retry that is wanted: an open breaker stops it, and so does an empty budget
    /// ([`RetryDecision::paid_from`]).
    pub fn pay(
        &self,
        decision: RetryDecision,
        budget: &mut RetryBudget,
        now: Instant,
    ) -> RetryDecision {
        if matches!(decision, RetryDecision::Stop(_)) {
            return decision;
        }
        if self.gate.is_refusing() {
            return RetryDecision::Stop(Some(SuppressedReason::BreakerOpen));
        }
        let hope = decision == RetryDecision::Resend
            && self.balancer.has_reachable(&self.endpoints(), now);
        decision.paid_from(budget, hope, now)
    }

    /// True once discovery has answered.
    pub fn is_resolved(&self) -> bool {
        self.resolved.load(Ordering::Acquire)
    }

    /// Lets the workers forget it once its last request has ended. Called when a reload has dropped it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        let set = self.endpoints.load();
        set.retire();
        self.draining.add(&set);
    }

    /// Endpoints that were removed and still have requests, which finish where they are.
    pub fn draining(&self) -> Vec<Arc<Endpoint>> {
        self.draining.endpoints()
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Why there is nothing to pick from.
    pub fn nothing_to_pick(&self) -> ProxyError {
        if !self.endpoints.load().is_empty() {
            let detail = format!("no endpoint of upstream {} is available", self.name);
            ProxyError::new(Reason::NoHealthyEndpoint, detail)
        } else if self.is_resolved() {
            let detail = match self.subset.as_ref().filter(|subset| subset.outside() > 0) {
                None => format!("upstream {} has no endpoint", self.name),
                Some(subset) => format!(
                    "none of the {} endpoints of upstream {} is in its subset ({})",
                    subset.outside(),
                    self.name,
                    subset.words()
                ),
            };
            ProxyError::new(Reason::NoUpstream, detail)
        } else {
            let detail = format!("the endpoints of upstream {} are not known yet", self.name);
            ProxyError::new(Reason::DnsFailed, detail)
        }
    }

    /// What is in use of each limit, and how much there may be (`None`: any number).
    pub fn usage(&self) -> [(&'static str, u32, Option<u32>); 3] {
        [
            ("connections", Resource::Connections),
            ("in_flight", Resource::InFlight),
            ("pending", Resource::Pending),
        ]
        .map(|(name, resource)| {
            (name, self.limits.current(resource), self.limits.maximum(resource))
        })
    }

    /// The retry budget of one worker: ratios add up, the floor is shared.
    pub fn budget_of_one(&self, now: Instant) -> RetryBudget {
        let (policy, floor) = (self.policy.budget, Arc::clone(&self.floor));
        RetryBudget::sharing(policy.ratio, floor, policy.window, now)
    }

    /// How long connecting to `endpoint` may take.
    pub fn connect_timeout(&self, endpoint: &Endpoint) -> Duration {
        let default = if endpoint.address.is_local() { CONNECT_LOCAL } else { CONNECT };
        self.policy.connect_timeout.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests;
