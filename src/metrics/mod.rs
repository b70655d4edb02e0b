//! Prometheus metrics: families are registered once, handles are resolved when a configuration is compiled.
//!
//! The request path only touches handles: counters that are indexed by an enum or by the class of a status, never by a
//! string. The crate's own types stay inside this module as far as they can.

pub mod access;
pub mod balance;
pub mod downstream;
pub mod gate;
pub mod health;
pub mod names;
pub mod process;
pub mod route;
mod summary;
pub mod tls;
pub mod upstream;

use std::time::Duration;

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use access::{AccessFamilies, JwksMetrics, JwtMetrics};
pub use balance::{BalanceFamilies, ZoneMetrics};
pub use downstream::{DownstreamFamilies, ListenerMetrics, RouteMetrics};
pub use gate::{GateFamilies, GateFeatures, GateMetrics};
pub use health::{HealthFamilies, HealthMetrics, HealthOutcome};
pub use process::ProcessMetrics;
pub use route::{
    FaultMetrics, HedgeMetrics, HedgeOutcome, MirrorMetrics, MirrorOutcome, RateLimitMetrics,
    RouteFamilies,
};
pub use summary::Summary;
pub use tls::{CertificateMetrics, HandshakeFailure, Handshakes, TlsFamilies};
pub use upstream::{AttemptOutcome, RetryCause, UpstreamFamilies, UpstreamMetrics};

/// Every family of the process. Built once; families outlive configurations.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Listeners and routes.
    pub downstream: DownstreamFamilies,
    /// Who was let in.
    pub access: AccessFamilies,
    /// What routes do to requests.
    pub route: RouteFamilies,
    /// Upstreams and discovery.
    pub upstream: UpstreamFamilies,
    /// Zones and subsets.
    pub balance: BalanceFamilies,
    /// Breakers, adaptive limits, throttles.
    pub gate: GateFamilies,
    /// Active health checks.
    pub health: HealthFamilies,
    /// TLS.
    pub tls: TlsFamilies,
    /// The proxy itself.
    pub process: ProcessMetrics,
}

impl Metrics {
    /// Registers all families; `buckets` are the histograms' upper bounds, ascending.
    ///
    /// # Errors
    /// The registry's, for a name or bucket list that it refuses.
    pub fn new(buckets: &[Duration]) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let bounds: Vec<f64> = buckets.iter().map(Duration::as_secs_f64).collect();
        let register = Register { registry: &registry, bounds: &bounds };
        let dropped = register.counters(names::DROPPED, &["reason"])?;
        let metrics = Self {
            downstream: DownstreamFamilies::register(&register)?,
            access: AccessFamilies::register(&register)?,
            route: RouteFamilies::register(&register)?,
            upstream: UpstreamFamilies::register(&register, &dropped)?,
            balance: BalanceFamilies::register(&register)?,
            gate: GateFamilies::register(&register)?,
            process: ProcessMetrics::register(&register, &dropped)?,
            health: HealthFamilies::register(&register)?,
            tls: TlsFamilies::register(&register)?,
            registry: registry.clone(),
        };
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// All series in Prometheus' text format.
    ///
    /// # Errors
    /// The encoder's, for a family without series: none of ours.
    pub fn exposition(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A counter that is nowhere shown, for connections that carry no requests.
pub fn unseen() -> IntCounter {
    #[expect(clippy::expect_used, reason = "invariant: a constant name that is valid")]
    IntCounter::new("unseen", "Not registered.").expect("a valid name")
}

type Definition = (&'static str, &'static str);

/// Builds and registers one family at a time.
pub(crate) struct Register<'a> {
    registry: &'a Registry,
    bounds: &'a [f64],
}

impl Register<'_> {
    fn counter(&self, (name, help): Definition) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn gauge(&self, (name, help): Definition) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn counters(
        &self,
        (name, help): Definition,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauges(
        &self,
        (name, help): Definition,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Gauges of shares, `0.0..=1.0`.
    fn fractions(
        &self,
        (name, help): Definition,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histograms(
        &self,
        (name, help): Definition,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(self.bounds.to_vec());
        let family = HistogramVec::new(opts, labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

/// A gauge that counts a value while this lives.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Adds one until dropped.
    pub fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
